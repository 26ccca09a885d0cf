"""The task folder of lmms-eval: its YAML, and its functions run as lmms-eval runs them."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from qa_data.export.export import export
from qa_data.export.writers import QuestionSource, lmms_eval_files
from qa_data.questions import Question, QuestionError

QUESTION = Question(
    question_id="0000000",
    video="clip-1",
    stem="Which turn?",
    options=("half", "full", "A double salto"),
    answer=1,
    label=7,
)
BARE = replace(QUESTION, question_id="0000001", video="clip-2", answer=2, label=None)
FILES = {"clip-1": "videos/one.mp4", "clip-2": "videos/two.mp4"}


class FunctionLoader(yaml.SafeLoader):
    """Reads `!function file.name` as lmms-eval does: from the file beside the YAML."""


@pytest.fixture
def task(tmp_path):
    """Configuration with its functions, documents, and the functions' module."""
    out = tmp_path / "gym hard"
    out.mkdir()
    sets = {"train": [QUESTION], "val": [QUESTION, BARE]}
    for name, text in lmms_eval_files(sets, FILES, out).items():
        (out / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("task_functions", out / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    FunctionLoader.add_constructor(
        "!function", lambda _, node: getattr(module, node.value.removeprefix("utils."))
    )
    text = (out / "gym_hard_val.yaml").read_text(encoding="utf-8")
    config = yaml.load(text, Loader=FunctionLoader)
    data = config["dataset_kwargs"]["data_files"][config["test_split"]]
    assert data == str(out / "val.jsonl")
    lines = (out / "val.jsonl").read_text(encoding="utf-8").splitlines()
    return config, [json.loads(line) for line in lines], module


def test_training_questions_are_no_task(tmp_path):
    names = set(lmms_eval_files({"train": [QUESTION], "test": [QUESTION]}, FILES, tmp_path / "g"))
    assert names == {"utils.py", "test.jsonl", "g_test.yaml"}


@pytest.mark.parametrize("names", [["train"], ["train", "unlabel"]])
def test_training_questions_alone_are_refused(tmp_path, names):
    found = f"{' and '.join(names)} would be left out, .* give a folder with val or test"
    with pytest.raises(QuestionError, match=found):
        lmms_eval_files({name: [QUESTION] for name in names}, FILES, tmp_path / "g")


def test_the_task_can_be_run_from_anywhere_but_not_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = QuestionSource(sets={"val": [QUESTION]}, report=None)
    contents = export(source, "lmms_eval", Path("out"), video_root=Path("."))
    assert json.loads(contents["val.jsonl"])["video_path"] == str(tmp_path / "clip-1.mp4")
    assert str(tmp_path / "out/val.jsonl") in contents["out_val.yaml"]
    assert "absolute: if either is moved, export again" in contents["out_val.yaml"]


def test_a_document_becomes_video_prompt_and_target(task):
    config, docs, _ = task
    assert config["task"] == "gym_hard_val"
    assert config["doc_to_visual"](docs[0]) == ["videos/one.mp4"]
    prompt = config["doc_to_text"](docs[0])
    assert prompt.startswith("Which turn?\nA. half\nB. full\nC. A double salto\nAnswer with")
    words = {"pre_prompt": "Look. ", "post_prompt": "Letter:"}
    assert config["doc_to_text"](docs[0], words).startswith("Look. Which turn?")
    assert config["doc_to_text"](docs[0], words).endswith("\nLetter:")
    assert docs[0][config["doc_to_target"]] == "B"


def test_answers_are_scored_over_questions_and_over_classes(task):
    config, docs, _ = task
    results = [
        config["process_results"](doc, [said])
        for doc, said in [(docs[0], "B"), (docs[0], "(A)"), (docs[1], "C."), (docs[1], "A dog")]
    ]
    assert [result["accuracy"] for result in results] == [1, 0, 1, 0]
    assert [result["unreadable"] for result in results] == [0, 0, 0, 1]
    metrics = {metric["metric"]: metric["aggregation"] for metric in config["metric_list"]}
    assert set(metrics) == set(results[0])
    items = [result["mean_class_accuracy"] for result in results[:3]]
    assert metrics["mean_class_accuracy"](items) == (0.5 + 1) / 2


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        (" (C) ", "C"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B. full", "B"),
        ("The answer is B", "B"),
        ("Answer: (A).", "A"),
        ("full", "B"),
        ("a double salto", "C"),
        ("A double salto", "C"),
        ("A triple salto, I think", None),
        ("The answer is A triple salto", None),
        ("Based on the video", None),
        ("option A or option B", None),
        ("D", None),
        ("", None),
        ("b", None),
    ],
)
def test_only_what_names_one_letter_is_read(task, said, letter):
    _, docs, module = task
    assert module.read_letter(said, docs[0]["options"]) == letter
