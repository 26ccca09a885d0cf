"""Each row trains on the questions, tokens and letters that its description names."""

from unittest.mock import Mock

import pytest
from transformers import PreTrainedTokenizerBase

from qa_data.questions import LETTERS
from sefar_mllm.answer_text import OtherFormats
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison.experiment import Run, complete_run
from sefar_mllm.comparison.rows import (
    CONDITION_ROWS,
    FRAME_ORDER_ROWS,
    LETTER_ROWS,
    TRAINED_ROWS,
    WRONG_VIDEO_ROWS,
    trained_row,
)
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.model import SefarVlmForConditionalGeneration
from tests.oracles import toy_llm
from tests.oracles.toy_comparison import TEST, TRAIN, answer_of, question_set

SYMBOLS = {"letters_digits": "1234", "letters_drawn": "QXJM"}


@pytest.fixture
def questions(tmp_path):
    return question_set(tmp_path)


class Calls:
    """Replaces training and scoring, and records their arguments."""

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
    monkeypatch.setattr(experiment, "write_other_formats", lambda *_: None)
    return Calls(monkeypatch)


def a_run(tmp_path, questions, row, *, conditions=(), seed=1, own_encoder=False):
    run = Run(
        out=tmp_path / "out",
        questions=questions,
        row=row,
        conditions=conditions,
        seed=seed,
        own_encoder=own_encoder,
        finetune=FinetuneConfig(language_model="llm"),
        language_model="hash",
        option_symbols=SYMBOLS,
        batch_size=4,
    )
    for folder in {run.tokens(), *(run.tokens(one.condition) for one in conditions)}:
        toy_llm.cache(folder, [*TRAIN, *TEST], key=toy_llm.KEY | {"digest": folder.name})
    return run


@pytest.mark.parametrize("row", TRAINED_ROWS, ids=lambda row: row.name)
def test_each_row_is_trained_on_what_its_variant_says(tmp_path, questions, calls, row):
    run = a_run(tmp_path, questions, row)
    complete_run(run)
    ((_, learned, folder, out),) = calls.learned
    assert (folder.name, out) == (row.encoder, run.folder)
    same_videos = [one.video == other.video for one, other in zip(TRAIN, learned, strict=True)]
    same_answers = [one.answer == other.answer for one, other in zip(TRAIN, learned, strict=True)]
    assert [one.options for one in learned] == [one.options for one in TRAIN]
    if row.train_variant == "wrong_videos":
        of = {one.video: one for one in TRAIN}
        assert not any(same_videos) and all(same_answers)
        assert all(of[one.video].label != one.label for one in learned)
        assert all(of[one.video].source != one.source for one in learned)
    elif row.train_variant == "wrong_answers":
        assert all(same_videos) and not all(same_answers)
        assert sorted(one.answer for one in learned) == sorted(one.answer for one in TRAIN)
    else:
        assert learned == TRAIN


def test_the_plan_has_one_row_of_each_corrupted_training():
    variants = [row.train_variant for row in TRAINED_ROWS]
    assert (variants.count("wrong_videos"), variants.count("wrong_answers")) == (1, 1)


@pytest.mark.parametrize("changed", CONDITION_ROWS, ids=lambda row: row.name)
def test_each_condition_changes_what_its_name_says(tmp_path, questions, calls, changed):
    row = trained_row(changed.base)
    complete_run(a_run(tmp_path, questions, row, conditions=[changed]))
    assert calls.asked.pop("otherwise") == row.encoder
    assert calls.asked.pop((row.encoder, LETTERS, True)) is None  # the row's own test
    ((folder, letters, _), shown) = next(iter(calls.asked.items()))
    assert len(calls.asked) == 1
    order = f"-frames_{changed.condition}" if changed in FRAME_ORDER_ROWS else ""
    assert folder == row.encoder + order
    assert letters == (SYMBOLS[changed.condition] if changed in LETTER_ROWS else LETTERS)
    assert (shown is not None) == (changed in WRONG_VIDEO_ROWS)
    if shown is not None:
        of = {one.video: one for one in TEST}
        assert sorted(shown) == sorted(shown.values()) == sorted(of)
        assert all(of[a].label != of[b].label for a, b in shown.items())
        assert all(of[a].source != of[b].source for a, b in shown.items())


def test_corrupted_trainings_are_not_scored_in_other_formats(tmp_path, questions, calls):
    complete_run(a_run(tmp_path, questions, trained_row("sefar-trained_on_wrong_answers")))
    assert "otherwise" not in calls.asked


def test_each_encoder_has_its_own_tokens(tmp_path, questions):
    run = a_run(tmp_path, questions, trained_row("random"), seed=3, own_encoder=True)
    assert run.tokens().name == "random-seed-3"
    run = a_run(tmp_path, questions, trained_row("sefar"), seed=3, own_encoder=True)
    assert run.tokens("reversed").name == "sefar-seed-3-frames_reversed"
