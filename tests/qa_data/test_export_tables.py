"""VLMEvalKit's table and the Parquet file, read back by other readers."""

import ast
import io
from dataclasses import asdict, replace

import pandas
import pyarrow.parquet
import pytest

from qa_data.export.writers import parquet_bytes, split_name, vlmevalkit_tsv
from qa_data.questions import Question, QuestionError

QUESTION = Question(
    question_id="0000003",
    video="clip-1",
    stem='Which\t"turn"?',
    options=("half", "it's full\nor not", "Grätsche"),
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


def read_by_pandas(questions):
    """The table as VLMEvalKit reads it."""
    return pandas.read_csv(io.StringIO(vlmevalkit_tsv(questions, FILES)), sep="\t")


def test_vlmevalkit_gets_an_option_a_column_and_all_as_a_list():
    table = read_by_pandas([QUESTION, BARE])
    first, second = table.to_dict("records")
    assert list(first)[:5] == ["index", "video", "video_path", "question", "A"]
    assert [first[letter] for letter in "ABC"] == list(QUESTION.options)
    assert [second[letter] for letter in "AB"] == ["yes", "no"] and pandas.isna(second["C"])
    assert ast.literal_eval(first["candidates"]) == [
        "A. half",
        "B. it's full\nor not",
        "C. Grätsche",
    ]
    assert (first["answer"], first["category"], first["index"]) == ("C", "BB", 0)
    assert (second["answer"], second["category"], second["index"]) == ("A", "what", 1)
    assert (first["question"], first["video_path"]) == ('Which\t"turn"?', "videos/one.mp4")


@pytest.mark.parametrize("options", [("2", "2.5"), ("None", "one"), ("NA", "EU"), ("true", "x")])
def test_options_that_pandas_reads_otherwise_stand_in_the_list_alone(options):
    table = read_by_pandas([QUESTION, replace(BARE, options=options)])
    assert not {"A", "B", "C"} & set(table.columns)
    found = ast.literal_eval(table["candidates"][1])
    assert found == [f"A. {options[0]}", f"B. {options[1]}"]


def test_clip_ids_that_pandas_reads_as_numbers_are_given_as_file_names():
    question = replace(BARE, video="0001")
    (row,) = pandas.read_csv(
        io.StringIO(vlmevalkit_tsv([question], {"0001": "videos/0001.mp4"})), sep="\t"
    ).to_dict("records")
    assert (row["video"], row["video_path"]) == ("0001.mp4", "videos/0001.mp4")


@pytest.mark.parametrize(
    ("change", "files", "found"),
    [
        ({"video": "0001"}, {"0001": "0001"}, "'0001' would be read"),
        ({"stem": "None"}, FILES, "'None' would be read"),
        ({"answer_type": "true"}, FILES, "'true' would be read"),
    ],
)
def test_what_the_table_cannot_hold_as_text_is_refused(change, files, found):
    with pytest.raises(QuestionError, match=f"question 0000004: {found} .*write it otherwise"):
        vlmevalkit_tsv([replace(BARE, **change)], files)


def test_parquet_keeps_every_field_and_adds_the_letter():
    table = pyarrow.parquet.read_table(io.BytesIO(parquet_bytes([QUESTION, BARE])))
    rows = table.to_pylist()
    for row, question in zip(rows, [QUESTION, BARE], strict=True):
        assert row.pop("letter") == "ABC"[question.answer]
        labels = row["option_labels"]
        row |= {"options": tuple(row["options"]), "option_labels": labels and tuple(labels)}
        assert row == asdict(question)
    assert b'"options": {"feature": {"dtype": "string"' in table.schema.metadata[b"huggingface"]


def test_equal_questions_give_equal_parquet():
    assert parquet_bytes([QUESTION]) == parquet_bytes([replace(QUESTION)])


def test_splits_are_called_as_datasets_calls_them():
    assert [split_name(name) for name in ("train", "val", "my-own 1")] == [
        "train",
        "validation",
        "my_own_1",
    ]


def test_a_set_that_datasets_takes_for_all_sets_is_refused():
    with pytest.raises(QuestionError, match="called all cannot be loaded: .* rename the question"):
        split_name("all")
