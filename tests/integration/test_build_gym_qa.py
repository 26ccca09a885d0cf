"""Lists and video files in, manifest and question folders out, through the command line."""

import csv
import json

import pytest

from qa_data.manifest import by_split, read_manifest
from qa_data.questions import attach_classes, read_any, read_questions
from tests.script_process import run_script


@pytest.fixture(scope="module")
def gym(tmp_path_factory):
    """A set of ten classes in FineGym's formats, with empty files for videos."""
    root = tmp_path_factory.mktemp("gym")
    groups = [("FX", 21)] * 5 + [("UB", 41)] * 5
    lines = [
        f"Clabel: {label}; set: {set_id}; Glabel: {label}; ({event}) move {label}"
        for label, (event, set_id) in enumerate(groups)
    ]
    (root / "categories.txt").write_text("\n".join(lines), encoding="utf-8")
    (root / "videos").mkdir()
    for name, sources in {"train": range(12), "val": range(12, 16)}.items():
        lines = [
            f"source{source:05d}_E_000001_000090_A_{label:04d}_{label + 1:04d} {label}"
            for source in sources
            for label in range(10)
        ]
        (root / f"{name}_element.txt").write_text("\n".join(lines), encoding="utf-8")
        for line in lines:
            (root / "videos" / f"{line.split()[0]}.mp4").touch()
    return root


def split_arguments(gym, out):
    return [
        "finegym", "--categories", gym / "categories.txt",
        "--train-list", gym / "train_element.txt", "--test-list", gym / "val_element.txt",
        "--video-root", gym / "videos",
        "--rate", "0.5", "--val-rate", "0.2", "--out", out,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def manifest(gym):
    done = run_script("make_splits.py", *split_arguments(gym, gym / "splits"))
    assert done.returncode == 0, done.stderr
    assert "labeled-test" in done.stdout
    return gym / "splits" / "manifest.csv"


def test_splits_are_written_without_the_labels_of_unlabeled_clips(manifest):
    clips = read_manifest(manifest)
    report = json.loads((manifest.parent / "splits.json").read_text(encoding="utf-8"))
    for split, count in report["clips"].items():
        assert len(by_split(clips, split)) == count > 0
    rows = csv.DictReader(manifest.read_text(encoding="utf-8").splitlines())
    assert {row["label"] for row in rows if row["split"] == "unlabeled"} == {""}
    assert report["leaks"]["val-test"]["sources"] == report["leaks"]["labeled-val"]["sources"] == 0


@pytest.mark.parametrize("rule", ["public", "hard"])
def test_questions_are_built_audited_and_the_same_again(gym, manifest, rule):
    folders = [gym / f"{rule}-{run_number}" for run_number in (1, 2)]
    for out in folders:
        done = run_script(
            "build_gym_qa.py", "--manifest", manifest, "--categories", gym / "categories.txt",
            "--distractors", rule, "--common", "widen", "--out", out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "naive Bayes inverted" in done.stdout
    first, second = ({file.name: file.read_bytes() for file in out.iterdir()} for out in folders)
    assert first == second
    stems = ("train", "val", "test")
    assert set(first) == {f"{s}.json{x}" for s in stems for x in ("", "l")} | {"audit.json"}
    questions = read_questions(folders[0] / "test.jsonl")
    assert len(questions) == 40
    public = attach_classes(read_any(folders[0] / "test.json"), read_manifest(manifest))
    assert [one.label for one in public] == [one.label for one in questions]
    assert [one.options for one in public] == [one.options for one in questions]
    report = json.loads(first["audit.json"])
    assert report["settings"]["distractors"] == rule
    assert report["audits"]["test"]["rows"]["chance"]["micro"] == pytest.approx(0.25)


def test_broken_input_is_named_and_nothing_is_written(gym, manifest, tmp_path):
    bad = tmp_path / "categories.txt"
    bad.write_text("Clabel: 0; set: 1; Glabel: 0; (FX)\n", encoding="utf-8")
    out = tmp_path / "out"
    done = run_script("build_gym_qa.py", "--manifest", manifest, "--categories", bad, "--out", out)
    assert done.returncode == 1
    assert "line 1: the class has no text" in done.stderr
    done = run_script(
        "build_gym_qa.py", "--manifest", manifest, "--categories", gym / "categories.txt",
        "--options", "11", "--out", out,
    )  # fmt: skip
    assert done.returncode == 1
    assert "rule event_prior with 11 options leaves none" in done.stderr
    assert not out.exists()


def test_missing_videos_are_all_named_at_once_and_nothing_is_written(gym, tmp_path):
    arguments = split_arguments(gym, tmp_path / "out")
    arguments[arguments.index("--video-root") + 1] = tmp_path
    done = run_script("make_splits.py", *arguments)
    assert done.returncode == 1
    assert "160 of 160 listed clips are not beneath the video root" in done.stderr
    assert done.stderr.count(".mp4") >= 10
    assert not (tmp_path / "out").exists()


def test_a_clip_in_both_lists_is_refused(gym, tmp_path):
    arguments = split_arguments(gym, tmp_path / "out")
    arguments[arguments.index("--test-list") + 1] = gym / "train_element.txt"
    done = run_script("make_splits.py", *arguments)
    assert done.returncode == 1
    assert "120 clips are in the training list and in another list" in done.stderr
