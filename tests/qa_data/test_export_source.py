"""What is exported, and under which names its videos stand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qa_data.export.writers import read_source, video_files
from qa_data.manifest import Clip
from qa_data.questions import Question, QuestionError, write_public_json, write_questions

QUESTION = Question(
    question_id="0000000", video="clip", stem="Which?", options=("one", "two"), answer=1
)
CLIP = Clip(id="clip", path="FX/film.mkv", split="test")


def test_a_folder_is_read_from_the_files_that_know_most(tmp_path):
    write_public_json([QUESTION], tmp_path / "train.json")
    write_public_json([QUESTION], tmp_path / "val.json")
    write_questions([replace(QUESTION, event="BB")], tmp_path / "val.jsonl")
    source = read_source(tmp_path)
    assert {name: members[0].event for name, members in source.sets.items()} == {
        "train": None,
        "val": "BB",
    }
    assert source.report is None
    assert len(source.questions) == 2


def test_of_a_build_only_the_sets_that_its_report_names_are_read(tmp_path):
    for name in ("val", "test", "unlabel"):
        write_questions([QUESTION], tmp_path / f"{name}.jsonl")
    report = {"settings": {}, "audits": {}, "pools": {"val": [], "test": []}}
    (tmp_path / "audit.json").write_text(json.dumps(report), encoding="utf-8")
    assert list(read_source(tmp_path).sets) == ["val", "test"]
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(QuestionError, match="holds no test.jsonl, which its audit.json lists"):
        read_source(tmp_path)


def test_one_file_is_a_set_of_its_name(tmp_path):
    write_questions([QUESTION], tmp_path / "mine.jsonl")
    assert read_source(tmp_path / "mine.jsonl").sets == {"mine": [QUESTION]}


def test_a_folder_without_questions_or_with_a_foreign_report_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(QuestionError, match="holds no train, val or test.jsonl; give a folder"):
            read_source(folder)
    write_questions([QUESTION], tmp_path / "val.jsonl")
    for report in ("[]", '{"settings": {}, "audits": {}, "pools": "val"}'):
        (tmp_path / "audit.json").write_text(report, encoding="utf-8")
        with pytest.raises(QuestionError, match="audit.json is not a report of a build"):
            read_source(tmp_path)


def test_videos_are_called_by_their_clip_or_as_the_manifest_says():
    root = Path("videos")
    assert video_files([QUESTION], root) == {"clip": "videos/clip.mp4"}
    assert video_files([QUESTION], root, [CLIP]) == {"clip": "videos/FX/film.mkv"}


def test_unknown_videos_and_stretches_of_longer_ones_are_refused():
    with pytest.raises(QuestionError, match="video clip is not in the manifest"):
        video_files([QUESTION], Path("."), [replace(CLIP, id="other")])
    with pytest.raises(QuestionError, match="clip clip is a stretch of FX/film.mkv, .*trim_fine"):
        video_files([QUESTION], Path("."), [replace(CLIP, start_s=1.0, end_s=2.0)])
