"""The demo: its commands exist, finished steps are reused, and a small run ends in a whole page."""

import base64
import json
import re
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from qa_data.manifest import by_split, read_manifest
from qa_data.questions import Question, write_questions
from tests.script_process import call_script, script_module

demo = script_module("demo")
report = script_module("report")


def steps(settings) -> list:
    kinds = (demo.data_steps, demo.recognizer_steps, demo.mllm_steps)
    return [step for kind in kinds for step in kind(settings)]


def test_every_option_of_every_step_is_known_to_its_script(tmp_path):
    found = steps(demo.Demo(out=tmp_path))
    assert len({step.name for step in found}) == len(found) > 20
    helps: dict[tuple[str, ...], str] = {}
    for step in found:
        at = next(i for i, word in enumerate(step.command) if word.endswith(".py"))
        rest = step.command[at + 1 :]
        call = (Path(step.command[at]).name, *(rest[:1] if rest[0][0] != "-" else ()))
        if call not in helps:
            helps[call] = call_script(*call, "--help").stdout
        for option in (word for word in rest if word.startswith("--")):
            assert re.search(rf"{re.escape(option)}(?![\w.-])", helps[call]), (call, option)


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ("", ("runs/demo", 3000, 360, 24, 16, 4)),
        ("--quick", ("runs/demo-quick", 240, 60, 6, 3, 2)),
        ("--num-test 30 --quick --epochs 3 --out a", ("a", 240, 30, 3, 3, 2)),
        ("--quick --num-train 99 --mllm-epochs 5", ("runs/demo-quick", 99, 60, 6, 5, 2)),
    ],
)
def test_sizes_on_the_command_line_reach_the_steps(arguments, sizes):
    out, *counts, num_encoders = sizes
    made = {step.name: step.command for step in steps(demo.parse(arguments.split()))}
    gym, train, tune = made["gym"], made["train_sefar"], made["finetune_sefar"]
    given = [(gym, "--num-train"), (gym, "--num-test"), (train, "--epochs"), (tune, "--epochs")]
    assert [int(words[words.index(option) + 1]) for words, option in given] == counts
    assert f"{out}/gym" in gym
    assert sum(name.startswith("finetune_") for name in made) == num_encoders


def step_of(tmp_path: Path, name: str, code: str = "pass"):
    """A step that writes its name into a file and then runs a piece of code."""
    note = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})"
    return demo.Step(name=name, title=name, command=(sys.executable, "-c", f"{note}; {code}"))


def test_a_step_runs_again_only_when_it_or_an_earlier_one_changed(tmp_path, capsys):
    records, first, late = tmp_path / "steps", step_of(tmp_path, "a"), step_of(tmp_path, "b")
    assert demo.run(first, records, again=False) and demo.run(late, records, again=False)
    assert not demo.run(late, records, again=False)
    assert "reused" in capsys.readouterr().out
    assert demo.run(late, records, again=True)
    changed = step_of(tmp_path, "a", "1")
    assert demo.run(changed, records, again=False)  # the demo stops here and is started again
    assert not demo.run(changed, records, again=False)
    assert demo.run(late, records, again=False)
    assert (tmp_path / "ran").read_text() == "abbab"


def test_a_failing_step_stops_the_demo_and_is_not_taken_for_done(tmp_path):
    for _ in range(2):
        with pytest.raises(SystemExit, match="fall.*exit code 3"):
            demo.run(step_of(tmp_path, "fall", "raise SystemExit(3)"), tmp_path, again=False)


def test_the_three_numbers_come_from_the_files_with_interval_and_chance(tmp_path):
    row = {"num_clips": 60, "top1": 0.512, "top1_interval": [0.4, 0.6], "majority": 0.15}
    row |= {"direction": 0.73, "direction_interval": None}
    sets = {"qa-public/test": {"value": 0.9}, "qa-hard/test": {"value": 0.4}}
    sets = {name: {"micro": one | {"low": 0.25, "high": 0.55}} for name, one in sets.items()}
    for path, content in (
        ("sefar/evaluation/test/scores.json", {"rows": {"student": row}}),
        ("mllm/sefar/test/metrics.json", {"sets": sets}),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(json.dumps(content))
    shared = {"video": "v", "stem": "s", "answer": 0}
    questions = [
        Question(question_id=str(count), options=tuple("abcd"[:count]), **shared)
        for count in (2, 4)
    ]
    write_questions(questions, tmp_path / "qa-hard/test.jsonl")
    found = [(one.title, one.score, one.chance) for one in report.headlines(tmp_path)]
    assert found == [
        ("Recognition, top-1", "51.2 [40.0, 60.0]", "15.0"),
        ("Direction", "73.0 (no interval)", "50.0"),
        ("Question accuracy", "40.0 [25.0, 55.0]", "37.5"),
    ]
    assert "too small for conclusions (60 test clips)" in report.size_note(tmp_path)


def check_form(text: str) -> None:
    """Every tag is closed but those without an end, and nothing is loaded from elsewhere."""
    opened, closed = (Counter(re.findall(rf"<{slash}(\w+)", text)) for slash in ("", "/"))
    assert opened - Counter(img=opened["img"], br=opened["br"], meta=opened["meta"]) == closed
    assert not {"script", "link", "iframe"} & opened.keys() and " href=" not in text


def pictures(text: str) -> dict[str, np.ndarray]:
    """The decoded pictures of a page by their names."""
    found = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]*)" alt="([^"]*)">', text)
    assert len(found) == text.count("<img")
    pixels = {name: np.frombuffer(base64.b64decode(data), np.uint8) for data, name in found}
    return {name: cv2.imdecode(data, cv2.IMREAD_COLOR) for name, data in pixels.items()}


def tables(text: str) -> list[list[list[str]]]:
    """Cells of rows of a page's tables, without code, which may break anywhere."""
    bare = re.sub(r"<code>.*?</code>|<br>", "", text, flags=re.DOTALL)
    return [
        [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
        for table in re.findall(r"<table>(.*?)</table>", bare, flags=re.DOTALL)
    ]


def run_in_this_process(step) -> int:
    """What the demo does in a process of its own, which takes seconds to import torch."""
    at = next(i for i, word in enumerate(step.command) if word.endswith(".py"))
    done = call_script(Path(step.command[at]).name, *step.command[at + 1 :])
    print(done.stdout, done.stderr)
    if step.transcript is not None:
        step.transcript.write_text(done.stdout)
    return done.returncode


@pytest.mark.slow
def test_a_small_run_ends_in_a_page_with_every_number_and_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "execute", run_in_this_process)
    sizes = "--quick --num-train 120 --num-test 24 --epochs 2 --mllm-epochs 1"
    demo.main(demo.parse([*sizes.split(), "--out", str(tmp_path)]))
    check_page(tmp_path, capsys.readouterr().out)


def check_page(out: Path, printed: str) -> None:
    """The page of a demo run and what its last step printed."""
    clips = by_split(read_manifest(out / "splits/manifest.csv"), "test")
    assert f"quick: sizes too small for conclusions ({len(clips)} test clips)" in printed
    text = (out / "report.html").read_text(encoding="utf-8")
    check_form(text)
    first_screen, shown = text.partition("Recognizing actions")[0], pictures(text)
    for one in report.headlines(out):
        assert f"{one.title}: {one.score} %, chance {one.chance} %" in printed
        number, _, interval = one.score.partition(" ")
        assert f"<b>{number} %</b> {interval}<br>chance level {one.chance} %" in first_screen
    probs = np.load(out / "sefar/evaluation/test/student_probs.npy")
    assert f"{100 * np.sort(probs[0])[-2]:.1f} %" in first_screen
    plots = {"student confusion", "trust", "curves", "the classes"}
    assert shown.keys() > plots | {clip.text for clip in clips}
    assert all(picture is not None for picture in shown.values())
    assert shown[clips[0].text].shape == (72, 4 * 72, 3)
    assert text.count("<img") == len(re.findall("<figcaption>.", text))
    for table in tables(text):  # 900 pixels take about 100 letters and the room between columns
        columns = zip(*table, strict=True)
        assert sum(max(map(len, column)) for column in columns) <= 100, table[0]
    assert len(tables(text)) >= 10 and "light dark" in text
