"""Each control is what its row says: what is learned, which tokens are shown, by which letters."""

from unittest.mock import Mock

import pytest
from transformers import PreTrainedTokenizerBase

from sefar_mllm.answer_text import OtherFormats
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison.experiment import Cell, run_cell
from sefar_mllm.comparison.rows import (
    FRAME_ORDER,
    LETTER_ROWS,
    SHOWINGS,
    TRAININGS,
    WRONG_VIDEOS,
    training,
)
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.prompt import LETTERS
from tests.oracles import toy_llm
from tests.oracles.toy_comparison import TEST, TRAIN, answer_of, question_set

MARKERS = {"letters_digits": "1234", "letters_drawn": "QXJM"}


@pytest.fixture
def questions(tmp_path):
    return question_set(tmp_path)


class Calls:
    """In place of training and scoring: what they were given."""

    def __init__(self, monkeypatch):
        self.learned, self.asked = [], {}
        model = Mock(spec=SefarVlmForConditionalGeneration)
        tokenizer = Mock(spec=PreTrainedTokenizerBase)
        monkeypatch.setattr(experiment, "finetune", lambda *given: self.learned.append(given))
        monkeypatch.setattr(experiment, "load_trained", lambda *_, **__: (model, tokenizer))
        monkeypatch.setattr(experiment, "predict_answers", self.predict)
        monkeypatch.setattr(experiment, "score_other_formats", self.otherwise)

    def predict(self, model, tokenizer, asked, cache, **how):
        self.asked[cache.folder.name, how["letters"], how["shown"] is None] = how["shown"]
        return [answer_of(question, 0) for question in asked]

    def otherwise(self, model, tokenizer, asked, cache, **how):
        self.asked["otherwise"] = cache.folder.name
        return OtherFormats(generated=[], texts={})


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(experiment, "write_answers", lambda *_: None)
    return Calls(monkeypatch)


def a_cell(tmp_path, questions, row, *, showings=(), seed=1, own_encoder=False):
    cell = Cell(
        out=tmp_path / "out",
        questions=questions,
        row=row,
        showings=showings,
        seed=seed,
        own_encoder=own_encoder,
        finetune=FinetuneConfig(language_model="llm"),
        language_model="hash",
        markers=MARKERS,
        batch_size=4,
    )
    for folder in {cell.tokens(), *(cell.tokens(one.shown) for one in showings)}:
        toy_llm.cache(folder, [*TRAIN, *TEST], key=toy_llm.KEY | {"digest": folder.name})
    return cell


@pytest.mark.parametrize("row", TRAININGS, ids=lambda row: row.name)
def test_each_row_learns_what_it_says(tmp_path, questions, calls, row):
    cell = a_cell(tmp_path, questions, row)
    run_cell(cell)
    ((_, learned, folder, out),) = calls.learned
    assert (folder.name, out) == (row.encoder, cell.folder)
    same_videos = [one.video == other.video for one, other in zip(TRAIN, learned, strict=True)]
    same_answers = [one.answer == other.answer for one, other in zip(TRAIN, learned, strict=True)]
    assert [one.options for one in learned] == [one.options for one in TRAIN]
    if row.lessons == "wrong_videos":
        of = {one.video: one for one in TRAIN}
        assert not any(same_videos) and all(same_answers)
        assert all(of[one.video].label != one.label for one in learned)
        assert all(of[one.video].source != one.source for one in learned)
    elif row.lessons == "wrong_answers":
        assert all(same_videos) and not all(same_answers)
        assert sorted(one.answer for one in learned) == sorted(one.answer for one in TRAIN)
    else:
        assert learned == TRAIN


def test_the_plan_has_one_row_of_each_wrong_lesson():
    lessons = [row.lessons for row in TRAININGS]
    assert (lessons.count("wrong_videos"), lessons.count("wrong_answers")) == (1, 1)


@pytest.mark.parametrize("showing", SHOWINGS, ids=lambda row: row.name)
def test_each_showing_shows_what_it_says(tmp_path, questions, calls, showing):
    row = training(showing.of)
    run_cell(a_cell(tmp_path, questions, row, showings=[showing]))
    assert calls.asked.pop("otherwise") == row.encoder
    assert calls.asked.pop((row.encoder, LETTERS, True)) is None  # the row's own test
    ((folder, letters, _), shown) = next(iter(calls.asked.items()))
    assert len(calls.asked) == 1
    changed = f"{row.encoder}-frames_{showing.shown}" if showing in FRAME_ORDER else row.encoder
    assert folder == changed
    assert letters == (MARKERS[showing.shown] if showing in LETTER_ROWS else LETTERS)
    assert (shown is not None) == (showing in WRONG_VIDEOS)
    if shown is not None:
        of = {one.video: one for one in TEST}
        assert sorted(shown) == sorted(shown.values()) == sorted(of)
        assert all(of[a].label != of[b].label for a, b in shown.items())
        assert all(of[a].source != of[b].source for a, b in shown.items())


def test_wrong_lessons_are_not_asked_in_other_ways(tmp_path, questions, calls):
    run_cell(a_cell(tmp_path, questions, training("sefar-trained_on_wrong_answers")))
    assert "otherwise" not in calls.asked


def test_an_encoder_of_its_own_has_tokens_of_its_own(tmp_path, questions):
    cell = a_cell(tmp_path, questions, training("random"), seed=3, own_encoder=True)
    assert cell.tokens().name == "random-seed-3"
    cell = a_cell(tmp_path, questions, training("sefar"), seed=3, own_encoder=True)
    assert cell.tokens("reversed").name == "sefar-seed-3-frames_reversed"
