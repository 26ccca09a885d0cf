"""Question sets in the formats of other tools, read back by other readers; folder and card."""

import ast
import importlib.util
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pandas
import pyarrow.parquet
import pytest
import yaml

from qa_data.build import QuestionKind
from qa_data.export.card import FIELD_TEXTS, KIND_TEXTS, RULE_TEXTS, card
from qa_data.export.export import export, write_folder
from qa_data.export.lmms_eval_functions import read_letter
from qa_data.export.writers import (
    QuestionSource,
    llava_json,
    lmms_eval_files,
    messages_jsonl,
    parquet_bytes,
    read_source,
    split_name,
    video_files,
    vlmevalkit_tsv,
)
from qa_data.generate import RULES
from qa_data.manifest import Clip
from qa_data.questions import Question, QuestionError, write_public_json, write_questions

QUESTION = Question(
    question_id="0000003",
    video="clip-1",
    stem="Which turn?",
    options=("half", 'it\'s "full"\u2028\nor not', "Grätsche"),
    answer=2,
    label=7,
    option_labels=(3, 9, 7),
    event="BB",
    source="film",
    frame_length=31,
)
BARE = Question(
    question_id="0000004", video="clip-2", stem="Is it?", options=("yes", "no"), answer=0
)
FILES = {"clip-1": "videos/one.mp4", "clip-2": "videos/two.mkv"}
REQUEST = "Answer with the option's letter from the given choices directly."


def held(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def test_a_folder_is_written_whole_and_replaced_by_the_next_export(tmp_path):
    out = tmp_path / "deep" / "out"
    write_folder(out, {"a.txt": "é\n", "b.bin": b"\x00\xff"})
    assert held(out) == {"a.txt": "é\n".encode(), "b.bin": b"\x00\xff"}
    write_folder(out, {"c.txt": "other"})
    assert held(out) == {"c.txt": b"other"}
    assert out.stat().st_mode & 0o055 == 0o055
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", {"a.txt": "a"})
    assert held(tmp_path / "empty") == {"a.txt": b"a"}


@pytest.mark.parametrize("name", ["mine.txt", ".hidden", "folder", "README.md"])
def test_what_was_not_exported_is_not_replaced(tmp_path, name):
    out = tmp_path / "out"
    write_folder(out, {"README.md": "card"})
    (out / name).mkdir() if name == "folder" else (out / name).write_text("mine")
    state = "was changed since it was exported" if name == "README.md" else "was not exported here"
    with pytest.raises(QuestionError, match=f"{name} {state}, and would be lost"):
        write_folder(out, {"README.md": "other"})
    assert (out / "README.md").exists() and (out / name).exists()
    with pytest.raises(QuestionError, match="README.md is a file; give a folder"):
        write_folder(out / "README.md", {"a": "b"})
    with pytest.raises(QuestionError, match="README.md is a file, and .*deep/er cannot be in it"):
        write_folder(out / "README.md" / "deep" / "er", {"a": "b"})


def test_conversations_show_the_video_first_and_answer_with_the_letter():
    prompt = f'Which turn?\nA. half\nB. it\'s "full"\u2028\nor not\nC. Grätsche\n{REQUEST}'
    first, second = json.loads(llava_json([QUESTION, BARE], FILES))
    assert first == {
        "id": "0000003",
        "video": "videos/one.mp4",
        "conversations": [
            {"from": "human", "value": f"<video>\n{prompt}"},
            {"from": "gpt", "value": "C"},
        ],
    }
    assert (second["video"], second["conversations"][1]["value"]) == ("videos/two.mkv", "A")
    text = messages_jsonl([QUESTION, BARE], FILES)
    first, second = map(json.loads, text.removesuffix("\n").split("\n"))
    shown = [{"type": "video", "video": "videos/one.mp4"}, {"type": "text", "text": prompt}]
    assert first["id"] == "0000003"
    assert first["messages"] == [
        {"role": "user", "content": shown},
        {"role": "assistant", "content": [{"type": "text", "text": "C"}]},
    ]
    assert second["messages"][1]["content"][0]["text"] == "A"
    for write in (llava_json, messages_jsonl):
        for change in ({"stem": "<video>?"}, {"options": ("a", "<image>", "b")}):
            with pytest.raises(QuestionError, match="question 0000003: <(video|image)> is in its"):
                write([replace(QUESTION, **change)], FILES)


def read_by_pandas(questions, files=FILES):
    """The table as VLMEvalKit reads it."""
    return pandas.read_csv(io.StringIO(vlmevalkit_tsv(questions, files)), sep="\t")


def test_vlmevalkit_gets_an_option_a_column_and_all_as_a_list():
    quoted = replace(QUESTION, stem='Which\t"turn"?')
    first, second = read_by_pandas([quoted, BARE]).to_dict("records")
    assert list(first)[:5] == ["index", "video", "video_path", "question", "A"]
    assert [first[letter] for letter in "ABC"] == list(QUESTION.options)
    assert [second[letter] for letter in "AB"] == ["yes", "no"] and pandas.isna(second["C"])
    assert ast.literal_eval(first["candidates"]) == [
        f"{letter}. {text}" for letter, text in zip("ABC", QUESTION.options, strict=True)
    ]
    assert (first["answer"], first["category"], first["index"]) == ("C", "BB", 0)
    assert (second["answer"], second["category"], second["index"]) == ("A", "what", 1)
    assert (first["question"], first["video_path"]) == ('Which\t"turn"?', "videos/one.mp4")


def test_what_pandas_reads_otherwise_stands_where_it_is_read_rightly_or_is_refused():
    for options in (("2", "2.5"), ("None", "one"), ("NA", "EU"), ("true", "x")):
        table = read_by_pandas([QUESTION, replace(BARE, options=options)])
        assert not {"A", "B", "C"} & set(table.columns)
        found = ast.literal_eval(table["candidates"][1])
        assert found == [f"A. {options[0]}", f"B. {options[1]}"]
    table = read_by_pandas([replace(BARE, video="0001")], {"0001": "videos/0001.mp4"})
    assert (table["video"][0], table["video_path"][0]) == ("0001.mp4", "videos/0001.mp4")
    for change, files, found in (
        ({"video": "0001"}, {"0001": "0001"}, "'0001' would be read"),
        ({"stem": "None"}, FILES, "'None' would be read"),
        ({"answer_type": "true"}, FILES, "'true' would be read"),
    ):
        with pytest.raises(QuestionError, match=f"question 0000004: {found} .*write it otherwise"):
            vlmevalkit_tsv([replace(BARE, **change)], files)


def test_parquet_keeps_every_field_and_adds_the_letter():
    raw = parquet_bytes([QUESTION, BARE])
    assert raw == parquet_bytes([replace(QUESTION), BARE])
    table = pyarrow.parquet.read_table(io.BytesIO(raw))
    for row, question in zip(table.to_pylist(), [QUESTION, BARE], strict=True):
        assert row.pop("letter") == "ABC"[question.answer]
        labels = row["option_labels"]
        row |= {"options": tuple(row["options"]), "option_labels": labels and tuple(labels)}
        assert row == asdict(question)
    assert b'"options": {"feature": {"dtype": "string"' in table.schema.metadata[b"huggingface"]
    names = [split_name(name) for name in ("train", "val", "my-own 1")]
    assert names == ["train", "validation", "my_own_1"]
    with pytest.raises(QuestionError, match="called all cannot be loaded: .* rename the question"):
        split_name("all")


class FunctionLoader(yaml.SafeLoader):
    """Reads `!function file.name` as lmms-eval does: from the file beside the YAML."""


TURN = replace(QUESTION, options=("half", "full", "A double salto"), answer=1, option_labels=None)
UNLABELED = replace(TURN, question_id="0000001", video="clip-2", answer=2, label=None)


@pytest.fixture
def task(tmp_path):
    """Configuration with its functions, and documents."""
    out = tmp_path / "gym hard"
    out.mkdir()
    sets = {"train": [TURN], "val": [TURN, UNLABELED]}
    for name, text in lmms_eval_files(sets, FILES, out).items():
        (out / name).write_text(text, encoding="utf-8")
    # Training questions are no task.
    assert {file.name for file in out.iterdir()} == {"utils.py", "val.jsonl", "gym_hard_val.yaml"}
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
    return config, [json.loads(line) for line in lines]


def test_a_document_of_lmms_eval_becomes_video_prompt_and_target(task):
    config, docs = task
    assert config["task"] == "gym_hard_val"
    assert config["doc_to_visual"](docs[0]) == ["videos/one.mp4"]
    prompt = config["doc_to_text"](docs[0])
    assert prompt.startswith("Which turn?\nA. half\nB. full\nC. A double salto\nAnswer with")
    words = {"pre_prompt": "Look. ", "post_prompt": "Letter:"}
    assert config["doc_to_text"](docs[0], words).startswith("Look. Which turn?")
    assert config["doc_to_text"](docs[0], words).endswith("\nLetter:")
    assert docs[0][config["doc_to_target"]] == "B"


def test_answers_are_scored_over_questions_and_over_classes(task):
    config, docs = task
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


def test_the_task_can_be_run_from_anywhere_but_not_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = QuestionSource(sets={"val": [TURN]}, report=None)
    contents = export(source, "lmms_eval", Path("out"), video_root=Path("."))
    assert json.loads(contents["val.jsonl"])["video_path"] == str(tmp_path / "clip-1.mp4")
    assert str(tmp_path / "out/val.jsonl") in contents["out_val.yaml"]
    assert "absolute: if either is moved, export again" in contents["out_val.yaml"]
    for names in (["train"], ["train", "unlabel"]):
        found = f"{' and '.join(names)} would be left out, .* give a folder with val or test"
        with pytest.raises(QuestionError, match=found):
            lmms_eval_files({name: [TURN] for name in names}, FILES, tmp_path / "g")


OPTIONS = ["salto forward", "full", "A double salto", "giant circle of type B"]
# What both readers of letters, ours and the one that goes out with a task, make of an answer.
READ = {
    **dict.fromkeys(["A: B", "A. B", "A) B)", "(A) (B)", "A.B.C.D", "A. B. C. D.", "A\nB"]),
    **dict.fromkeys(["A. and B.", "A: B or C", "A: A, B", "A, B", "A or B", "AB", "A salto", ""]),
    "A. salto forward B. full C. A double salto": None,
    "A. salto forward\nB. full": None,
    "A. salto forward (B) full": None,
    **dict.fromkeys(["B", "(B)", "B.", "B. full", "B. full, since A is wrong", "B. E"], "B"),
    **dict.fromkeys(["C. A double salto", "C: A double salto", " (C) "], "C"),
    **dict.fromkeys(["D. giant circle of type B", "D) giant circle of type B."], "D"),
    **dict.fromkeys(["A: A", "A. (A)", "A. I think"], "A"),
    "B. full\nA triple would be higher": "B",
}
# What the task's reader takes from a sentence, of which ours takes nothing.
IN_A_SENTENCE = {
    **dict.fromkeys(["Answer: A, B", "Answer: A; C.", "Answer: A. B. C.", "The answer is A: B"]),
    **dict.fromkeys(["Answer: A, or B", "A triple salto, I think", "The answer is A triple salto"]),
    **dict.fromkeys(["Based on the video", "option A or option B", "E", "b"]),
    **dict.fromkeys(["The answer is A, not B", "Answer: (A)."], "A"),
    "The answer is B. A double salto has more turns": "B",
    **dict.fromkeys(["Answer: B, A double salto is not seen", "The answer is B", "full"], "B"),
}


def test_two_readers_of_letters_agree_on_what_begins_with_an_option():
    from sefar_mllm.scoring import parse_letter  # loads torch, which nothing else here needs

    for said, letter in READ.items():
        assert read_letter(said, OPTIONS) == letter, said
        place = None if letter is None else "ABCD".index(letter)
        assert parse_letter(said, len(OPTIONS)) == place, said
    for said, letter in IN_A_SENTENCE.items():
        assert read_letter(said, OPTIONS) == letter, said
        assert parse_letter(said, len(OPTIONS)) is None, said
    for said, letter in {"**B**": "B", "a double salto": "C", "A double salto": "C"}.items():
        assert read_letter(said, OPTIONS) == letter, said


def test_a_folder_is_read_from_the_files_that_know_most(tmp_path):
    write_public_json([BARE], tmp_path / "train.json")
    write_public_json([BARE], tmp_path / "val.json")
    write_questions([replace(BARE, event="BB")], tmp_path / "val.jsonl")
    source = read_source(tmp_path)
    events = {name: members[0].event for name, members in source.sets.items()}
    assert events == {"train": None, "val": "BB"}
    assert source.report is None
    assert len(source.questions) == 2
    # One file is a set of its name.
    write_questions([BARE], tmp_path / "mine.jsonl")
    assert read_source(tmp_path / "mine.jsonl").sets == {"mine": [BARE]}


def test_of_a_build_only_the_sets_that_its_report_names_are_read(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(QuestionError, match="holds no train, val or test.jsonl; give a folder"):
            read_source(folder)
    for name in ("val", "test", "unlabel"):
        write_questions([BARE], tmp_path / f"{name}.jsonl")
    report = {"settings": {}, "audits": {}, "pools": {"val": [], "test": []}}
    (tmp_path / "audit.json").write_text(json.dumps(report), encoding="utf-8")
    assert list(read_source(tmp_path).sets) == ["val", "test"]
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(QuestionError, match="holds no test.jsonl, which its audit.json lists"):
        read_source(tmp_path)
    for foreign in ("[]", '{"settings": {}, "audits": {}, "pools": "val"}'):
        (tmp_path / "audit.json").write_text(foreign, encoding="utf-8")
        with pytest.raises(QuestionError, match="audit.json is not a report of a build"):
            read_source(tmp_path)


def test_videos_are_called_by_their_clip_or_as_the_manifest_says():
    root = Path("videos")
    clip = Clip(id="clip-2", path="FX/film.mkv", split="test")
    assert video_files([BARE], root) == {"clip-2": "videos/clip-2.mp4"}
    assert video_files([BARE], root, [clip]) == {"clip-2": "videos/FX/film.mkv"}
    with pytest.raises(QuestionError, match="video clip-2 is not in the manifest"):
        video_files([BARE], root, [replace(clip, id="other")])
    with pytest.raises(QuestionError, match="clip-2 is a stretch of FX/film.mkv, .*trim_fine"):
        video_files([BARE], root, [replace(clip, start_s=1.0, end_s=2.0)])


REPORT = {
    "settings": {"questions": "which", "distractors": "hard", "seed": 17},
    "pools": {
        "val": [
            {"pool": "VT", "clips": 31, "asked": False, "bound": 0.36},
            {"pool": "UB", "clips": 7, "asked": True, "bound": 0.25},
        ]
    },
    "audits": {
        "val": {
            "rows": {
                "chance": {"micro": 0.25, "micro_se": 0.0, "macro": 0.25, "macro_se": 0.0},
                "naive | Bayes": {"micro": 0.312, "micro_se": 0.0047, "macro": 1, "macro_se": 0},
            },
            "bound": 0.2513,
            "shared_sources": 3,
            "questions_of_shared_sources": 19,
        }
    },
}
TWICE = replace(BARE, options=("one", "two", "two"), answer=1)
SOURCE = QuestionSource(sets={"train": [BARE], "val": [TWICE, BARE]}, report=REPORT)


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_tells_source_license_rule_seed_counts_and_audit():
    text = card(SOURCE)
    assert metadata(text)["license"] == "cc-by-nc-4.0"
    for words in (
        *("annotations of [FineGym]", "CC BY-NC 4.0", "- seed: `17`", "- distractors: `hard`"),
        *("moves on one apparatus", "| val | 2 | 2 or 3 | 1 | A 1 B 1 | 1 | 1 |"),
        *("| chance | 25.0% ± 0.0 | 25.0% ± 0.0 |", "| naive \\| Bayes | 31.2% ± 0.5 | 100.0% ±"),
        "Best possible blind rule: 25.13%",
        "training questions too: 3, with 19 questions. Clips left out: 31.",
    ):
        assert words in text
    assert "configs" not in metadata(text) and "semi-supervised" not in text
    warned = card(replace(SOURCE, sets={**SOURCE.sets, "unlabel": [BARE]}))
    assert "semi-supervised" in warned
    text = card(SOURCE, parquet=True)
    (config,) = metadata(text)["configs"]
    assert config["data_files"] == [
        {"split": "train", "path": "train.parquet"},
        {"split": "validation", "path": "validation.parquet"},
    ]
    assert "load_dataset(" in text


def test_the_settings_that_a_build_wrote_are_told_and_no_others():
    for settings, told in (
        ({"questions": "attributes"}, "one attribute of the move"),
        ({"questions": "which", "distractors": "attribute"}, "a grid of two attributes of the"),
    ):
        text = card(replace(SOURCE, report={**REPORT, "settings": settings | {"seed": 1}}))
        assert told in text and "- seed: `1`" in text
        assert ("distractors" in text) == ("distractors" in settings) and "None" not in text
    assert set(RULE_TEXTS) == set(RULES)
    assert set(KIND_TEXTS) == set(get_args(QuestionKind))
    assert set(FIELD_TEXTS) == {*vars(QUESTION), "letter"}


def test_what_is_not_known_is_said():
    own = replace(BARE, dataset="own")
    text = card(QuestionSource(sets={"mine": [own]}, report=None))
    assert metadata(text)["license"] == "unknown"
    assert "clips of `own`. Their license is not known" in text
    assert "Not recorded" in text and "Not measured." in text
    mixed = QuestionSource(sets={"a": [BARE], "b": [own]}, report=None)
    assert metadata(card(mixed))["license"] == "unknown"


def test_a_report_of_another_form_is_refused():
    bad = REPORT["audits"]["val"] | {"bound": "x"}
    rows = {"rows": {"chance": {"micro": "a"}}}
    for audits in ([], {"val": {}}, {"val": rows}, {"val": bad}):
        broken = replace(SOURCE, report={**REPORT, "audits": audits})
        with pytest.raises(QuestionError, match="audit.json: .* build the questions again"):
            card(broken)
