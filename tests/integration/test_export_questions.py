"""A built question folder and a user's own file, exported through the command line."""

import json

import datasets
import pytest

from qa_data.manifest import Clip, write_manifest
from qa_data.questions import read_questions
from tests.script_process import ROOT, call_script


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder of scripts/build_gym_qa.py over six invented classes, with the manifest beside."""
    root = tmp_path_factory.mktemp("built")
    lines = [
        f"Clabel: {label}; set: 1; Glabel: {label}; (FX) move {label}, jeté" for label in range(6)
    ]
    (root / "categories.txt").write_text("\n".join(lines), encoding="utf-8")
    clips = [
        Clip(id=f"{split}-{number}", path=f"{split}/{number}.mkv", label=number % 6, event="FX",
             text=f"move {number % 6}, jeté", source=f"{split}{number % 4}", split=split)
        for split in ("labeled", "val", "test")
        for number in range(18)
    ]  # fmt: skip
    write_manifest(clips, root / "manifest.csv")
    done = call_script(
        "build_gym_qa.py", "--manifest", root / "manifest.csv", "--categories",
        root / "categories.txt", "--distractors", "public", "--out", root / "qa",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


def exported(built, form, out, *more):
    arguments = ["--questions", built / "qa", "--format", form, "--out", out, *more]
    done = call_script("export_questions.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "18 of train, 18 of val, 18 of test" in done.stdout
    assert ("left out, since nothing is measured on it: train" in done.stdout) == (
        form == "lmms_eval"
    )
    return {file.name for file in out.iterdir()} - {".export.json"}


def test_datasets_opens_the_parquet_folder_offline(built, tmp_path):
    out = tmp_path / "parquet"
    names = exported(built, "parquet", out)
    assert names == {"train.parquet", "validation.parquet", "test.parquet", "README.md"}
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train", "validation", "test"]
    assert loaded["test"].features["options"] == datasets.List(datasets.Value("string"))
    assert loaded["test"].features["frame_length"] == datasets.Value("int32")
    for row, question in zip(
        loaded["validation"], read_questions(built / "qa/val.jsonl"), strict=True
    ):
        assert row["options"][row["answer"]] == question.options[question.answer]
        assert (row["letter"], row["label"]) == (question.letter, question.label)
        assert row["frame_length"] is None
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "### val" in card and "| chance | 25.0%" in card and "- distractors: `public`" in card


def test_other_tools_get_their_form_with_the_files_of_the_manifest(built, tmp_path):
    more = ("--video-root", "videos", "--manifest", built / "manifest.csv")
    questions = read_questions(built / "qa/val.jsonl")
    assert exported(built, "llava", tmp_path / "l", *more) == {
        "train.json",
        "val.json",
        "test.json",
    }
    entry = json.loads((tmp_path / "l/val.json").read_text(encoding="utf-8"))[1]
    assert (entry["video"], entry["conversations"][1]["value"]) == (
        "videos/val/1.mkv", questions[1].letter,
    )  # fmt: skip
    exported(built, "messages", tmp_path / "m", *more)
    line = (tmp_path / "m/val.jsonl").read_text(encoding="utf-8").splitlines()[1]
    user, assistant = json.loads(line)["messages"]
    assert (user["content"][0]["video"], assistant["content"][0]["text"]) == (
        "videos/val/1.mkv", questions[1].letter,
    )  # fmt: skip
    assert exported(built, "vlmevalkit", tmp_path / "t") == {"train.tsv", "val.tsv", "test.tsv"}
    names = exported(built, "lmms_eval", tmp_path / "gym_qa")
    assert names == {"utils.py", "val.jsonl", "test.jsonl", "gym_qa_val.yaml", "gym_qa_test.yaml"}
    first = json.loads((tmp_path / "gym_qa/val.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert first["video_path"] == str(ROOT / f"{questions[0].video}.mp4")


def test_a_user_s_own_file_is_exported_and_a_bad_line_is_named(tmp_path):
    good = {"video": "a", "question": "Which?", "options": ["x", "y"], "answer": "y"}
    own = tmp_path / "mine.jsonl"
    own.write_text(json.dumps(good) + "\r\n", encoding="utf-8")
    arguments = ("--questions", own, "--format", "llava", "--out", tmp_path / "out")
    done = call_script("export_questions.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "out/mine.json").read_text(encoding="utf-8"))
    assert (entry["video"], entry["conversations"][1]["value"]) == ("a.mp4", "B")
    own.write_text(json.dumps({**good, "answer": "z"}) + "\n", encoding="utf-8")
    done = call_script("export_questions.py", *arguments)
    assert done.returncode == 1
    assert "line 1: answer 'z' is outside the options" in done.stderr


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("mine", {"frame_length": 10**11}, "frame_length is 100000000000"),
        ("all", {}, "a set called all cannot be loaded"),
    ],
)
def test_what_parquet_cannot_hold_is_said_in_a_line(tmp_path, name, change, found):
    own = tmp_path / f"{name}.jsonl"
    line = {"video": "a", "question": "Which?", "options": ["x", "y"], "answer": "y", **change}
    own.write_text(json.dumps(line), encoding="utf-8")
    arguments = ("--questions", own, "--format", "parquet", "--out", tmp_path / "out")
    done = call_script("export_questions.py", *arguments)
    assert done.returncode == 1 and found in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_same_export_is_the_same_bytes_and_replaces_itself_only(built, tmp_path):
    out = tmp_path / "card"
    assert exported(built, "card", out) == {"README.md"}
    before = (out / "README.md").read_bytes()
    exported(built, "card", out)
    assert (out / "README.md").read_bytes() == before
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    done = call_script(
        "export_questions.py", "--questions", built / "qa", "--format", "llava", "--out", out
    )
    assert done.returncode == 1
    assert "notes.txt was not exported here, and would be lost" in done.stderr
    assert {file.name for file in out.iterdir()} == {"README.md", "notes.txt", ".export.json"}
