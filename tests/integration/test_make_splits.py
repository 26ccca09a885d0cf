"""The commands of docs/datasets.md, run as they are on data sets laid out small."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.oracles.data_sets import BY_COMMAND, Laid
from tests.script_process import ROOT, call_script

SCRIPT = "make_splits.py"


def page_commands() -> dict[str, list[str]]:
    """The arguments of the page's commands that cut a data set, by data set and part."""
    text = (ROOT / "docs/datasets.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(rf"^python scripts/{re.escape(SCRIPT)} (.*)$", text, flags=re.MULTILINE)
    commands = {}
    for words in map(str.split, found):
        part = [option(words, "--part")] if "--part" in words else []
        commands[" ".join([words[0], *part])] = words
    return commands


def option(words: list[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


COMMANDS = page_commands()


def made(words: list[str], home: Path) -> tuple[list[dict], dict]:
    """The rows of the manifest and the report beside it."""
    done = call_script(SCRIPT, *words, cwd=home)
    assert done.returncode == 0, done.stderr
    out = home / option(words, "--out")
    with open(out / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((out / "splits.json").read_text())


def span_of(row: dict) -> tuple[float, float] | None:
    return (float(row["start_s"]), float(row["end_s"])) if row["start_s"] else None


def pairs(rows: list[dict], laid: list[Laid]) -> list[tuple[dict, Laid]]:
    """Each row with the clip that it is, no two rows with the same one."""
    by_place = {(clip.path, clip.span): clip for clip in laid}
    assert len(by_place) == len(laid)
    places = [(row["path"], span_of(row)) for row in rows]
    assert set(places) <= by_place.keys()
    assert len(set(places)) == len(places)
    return [(row, by_place[place]) for row, place in zip(rows, places, strict=True)]


def check_classes(rows: list[tuple[dict, Laid]]) -> None:
    for row, clip in rows:
        if row["split"] == "unlabeled":
            assert row["label"] == row["text"] == row["event"] == ""
        else:
            assert (row["label"], row["text"]) == (str(clip.label), clip.text)
            assert row["event"] == clip.event
        assert row["source"] == clip.source


def check_counts(rows: list[tuple[dict, Laid]], report: dict, laid: list[Laid]) -> None:
    counts = Counter(row["split"] for row, _ in rows)
    assert report["clips"] == {
        split: counts[split] for split in ("labeled", "unlabeled", "val", "test")
    }
    gone = [clip for clip in laid if not clip.there]
    assert len(report["missing"]) == len(set(report["missing"])) == len(gone)
    assert {Path(name).name for name in report["missing"]} == {Path(c.path).stem for c in gone}
    assert len(rows) + len(gone) + sum(report["left_out"].values()) == len(laid)
    for split in ("labeled", "val", "test"):
        told = Counter(row["label"] for row, _ in rows if row["split"] == split)
        assert report["clips_per_class"].get(split, {}) == told


def check_lists(rows: list[tuple[dict, Laid]], words: list[str], laid: list[Laid]) -> None:
    """Which list a clip may come from, by its split; and how many labels the rate buys."""
    present = Counter(clip.listed for clip in laid if clip.there)
    settled = words[0] == "public"
    official = option(words, "--test-cut") == "official"
    for row, clip in rows:
        if settled or clip.listed == "unlabeled":
            assert row["split"] == clip.listed
        elif official:
            assert (row["split"] == "test") == (clip.listed == "test")
    counts = Counter(row["split"] for row, _ in rows)
    if official:
        assert counts["test"] == present["test"]
    elif not settled:
        everything = present["pool"] + present["test"]
        wanted = present["test"] or 0.2 * everything
        assert abs(counts["test"] - wanted) <= 0.05 * everything
    if not settled:
        pool = present["pool"] + present["test"] - counts["test"]
        classes = len({row["label"] for row, _ in rows if row["split"] == "labeled"})
        wanted = max(round(float(option(words, "--rate", "0.1")) * pool), classes)
        assert counts["labeled"] + counts["val"] == wanted
        assert classes == len({clip.label for clip in laid} - {None})


def check_sources(rows: list[tuple[dict, Laid]], words: list[str]) -> None:
    sources = {
        split: {clip.source or clip.path for row, clip in rows if row["split"] == split}
        for split in ("labeled", "unlabeled", "val", "test")
    }
    if words[0] == "public":
        return
    training = sources["labeled"] | sources["unlabeled"]
    assert not training & sources["val"]
    if option(words, "--test-cut") != "official":
        assert not (training | sources["val"]) & sources["test"]


def test_the_page_has_a_command_for_every_data_set():
    assert COMMANDS.keys() == BY_COMMAND.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_page_cuts_the_data_set_as_it_lies(name, tmp_path):
    words, laid = COMMANDS[name], BY_COMMAND[name](tmp_path)
    rows, report = made(words, tmp_path)
    root = tmp_path / option(words, "--video-root")
    assert all((root / row["path"]).exists() for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    paired = pairs(rows, laid)
    check_classes(paired)
    check_counts(paired, report, laid)
    check_lists(paired, words, laid)
    check_sources(paired, words)


def refused(words: list[str], home: Path, *told: str) -> None:
    """The command ends with one line that tells all this, and writes no manifest."""
    done = call_script(SCRIPT, *words, cwd=home)
    assert done.returncode != 0
    for part in told:
        assert part in done.stderr
    assert done.stderr.count("error: ") == 1
    assert not (home / option(words, "--out") / "manifest.csv").exists()


def test_a_missing_video_is_named_and_a_file_in_the_folders_place_is_kept(tmp_path):
    gone = BY_COMMAND["ucf101"](tmp_path)[5]
    (tmp_path / "UCF-101" / gone.path).unlink()
    refused(COMMANDS["ucf101"], tmp_path, "1 of ", Path(gone.path).name, "UCF-101")
    out = tmp_path / option(COMMANDS["ucf101"], "--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("notes")
    refused(COMMANDS["ucf101"], tmp_path, out.name)
    assert out.read_text() == "notes"


def test_a_root_without_any_of_the_videos_is_refused_though_missing_ones_are_left_out(tmp_path):
    BY_COMMAND["kinetics"](tmp_path)
    (tmp_path / "empty").mkdir()
    words = ["empty" if word == "k400" else word for word in COMMANDS["kinetics"]]
    refused(words, tmp_path, "none of the 60 training clips", "--video-root")
