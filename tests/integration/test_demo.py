"""The demo's steps: their commands exist, and finished steps are reused."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo"]


def steps(demo, out: Path) -> list:
    settings = demo.Demo(out=out)
    return [
        *demo.data_steps(settings),
        *demo.recognizer_steps(settings),
        *demo.mllm_steps(settings),
    ]


def test_every_option_of_every_step_is_known_to_its_script(demo, tmp_path):
    help_texts: dict[tuple[str, str], str] = {}
    for step in steps(demo, tmp_path):
        at = next(i for i, word in enumerate(step.command) if word.endswith(".py"))
        script, rest = step.command[at], step.command[at + 1 :]
        subcommand = "" if rest[0].startswith("--") else rest[0]
        if (script, subcommand) not in help_texts:
            command = [sys.executable, script, *filter(None, [subcommand]), "--help"]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            help_texts[script, subcommand] = ran.stdout
        for option in (word for word in rest if word.startswith("--")):
            assert re.search(rf"{re.escape(option)}(?![\w.-])", help_texts[script, subcommand]), (
                script,
                option,
            )


def test_steps_have_names_of_their_own(demo, tmp_path):
    names = [step.name for step in steps(demo, tmp_path)]
    assert len(names) == len(set(names)) > 20


def counting_step(demo, file: Path, word: str = "x"):
    code = f"open({str(file)!r}, 'a').write({word!r})"
    return demo.Step(name="count", title="count", command=(sys.executable, "-c", code))


def test_a_step_is_run_once_and_then_used_again(demo, tmp_path, capsys):
    step, file = counting_step(demo, tmp_path / "count"), tmp_path / "count"
    assert demo.run(step, tmp_path / "steps", again=False)
    assert not demo.run(step, tmp_path / "steps", again=False)
    assert file.read_text() == "x"
    assert "reused" in capsys.readouterr().out


def test_a_step_is_run_again_after_one_before_it_or_with_another_command(demo, tmp_path):
    file = tmp_path / "count"
    assert demo.run(counting_step(demo, file), tmp_path / "steps", again=False)
    assert demo.run(counting_step(demo, file), tmp_path / "steps", again=True)
    assert demo.run(counting_step(demo, file, "y"), tmp_path / "steps", again=False)
    assert file.read_text() == "xxy"


def test_a_failing_step_stops_the_demo_and_is_not_taken_for_done(demo, tmp_path):
    step = demo.Step(
        name="fail", title="fall", command=(sys.executable, "-c", "raise SystemExit(3)")
    )
    for _ in range(2):
        with pytest.raises(SystemExit, match="fall.*exit code 3"):
            demo.run(step, tmp_path / "steps", again=False)


def test_what_ran_after_a_changed_step_is_done_again_even_after_an_interruption(demo, tmp_path):
    records = tmp_path / "steps"
    first, late = (
        demo.Step(name=name, title=name, command=(sys.executable, "-c", "pass"))
        for name in ("first", "late")
    )
    assert demo.run(first, records, again=False) and demo.run(late, records, again=False)
    changed = demo.Step(name="first", title="first", command=(sys.executable, "-c", "1"))
    assert demo.run(changed, records, again=False)  # the demo stops here and is started again
    assert not demo.run(changed, records, again=False)
    assert demo.run(late, records, again=False)
