import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from sefar_mllm import predict as predicting
from sefar_mllm.adapters import add_adapters
from sefar_mllm.checkpoint import assemble, load_tokenizer
from sefar_mllm.evaluate import compare, summarize, table
from sefar_mllm.predict import (
    Prediction,
    PredictionError,
    derange,
    letter_logits,
    predict,
    read_predictions,
    write_predictions,
)
from sefar_mllm.prompt import Turn, encode_conversation, letter_ids, question_text
from sefar_mllm.scoring import rotate
from tests.oracles import toy_llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    whole = assemble(folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    return add_adapters(whole, rank=2, alpha=4.0, dropout=0.0).eval()


def made(count, right, *, classes=4, sources=5, seed=0):
    """Predictions of which `right` says which are right; class and source taken in turns."""
    rng = random.Random(seed)
    predictions = []
    for i in range(count):
        answer, label = rng.randrange(4), i % classes
        chosen = answer if right(i, label) else (answer + 1) % 4
        probs = tuple(0.7 if place == chosen else 0.1 for place in range(4))
        predictions.append(
            Prediction(
                question_id=str(i), video=f"clip{i}", shown=f"clip{i}", source=f"s{i % sources}",
                event="FX" if label < 2 else "UB", label=label, answer=answer, probs=probs,
                first_letter=chosen, strict=right(i, label) and i % 2 == 0,
            )
        )  # fmt: skip
    return predictions


def summary(predictions):
    return summarize(predictions, resamples=400, rng=np.random.default_rng(0))


def test_letter_logits_are_those_of_each_prompt_alone(model, tokenizer, tmp_path):
    asked = [
        replace(q, options=(*q.options[:3], "stalder backward to handstand with 1 turn"))
        if i == 1
        else q
        for i, q in enumerate(toy_llm.questions(3))
    ]
    cache = toy_llm.cache(tmp_path, asked)
    got = letter_logits(model, tokenizer, asked, [cache[q.video] for q in asked])
    vlm = model.get_base_model()
    for row, question in enumerate(asked):
        for rotation in range(4):
            text = question_text(question.stem, rotate(question.options, rotation))
            ids = encode_conversation(
                tokenizer, [Turn(text)], num_video_tokens=32, video_id=vlm.config.video_token_id
            ).ids
            alone = vlm(
                input_ids=torch.tensor([ids]), video_tokens=cache[question.video][None].float()
            ).logits[0, -1, letter_ids(tokenizer, 4)]
            torch.testing.assert_close(got[row, rotation], alone, atol=1e-4, rtol=1e-3)


def test_batches_change_nothing_and_predictions_keep_the_order(model, tokenizer, tmp_path):
    asked = [*toy_llm.questions(5), replace(toy_llm.questions(6, num_options=2)[5], answer=1)]
    cache = toy_llm.cache(tmp_path, toy_llm.questions(6))
    whole = predict(model, tokenizer, asked, cache, batch_size=8)
    single = predict(model, tokenizer, asked, cache, batch_size=1)
    assert [p.question_id for p in whole] == [q.question_id for q in asked]
    assert [len(p.probs) for p in whole] == [4, 4, 4, 4, 4, 2]
    for one, other in zip(whole, single, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-5)


def test_shuffled_videos_show_another_clip(model, tokenizer, tmp_path):
    asked = toy_llm.questions(5)
    cache = toy_llm.cache(tmp_path, asked)
    shown = derange([q.video for q in asked], random.Random(0))
    shuffled = predict(model, tokenizer, asked, cache, shown=shown)
    swapped = predict(model, tokenizer, [replace(q, video=shown[q.video]) for q in asked], cache)
    assert all(p.shown != p.video for p in shuffled)
    for one, other in zip(shuffled, swapped, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 17])
def test_a_derangement_gives_every_clip_once_and_never_itself(count):
    clips = [f"clip{i}" for i in range(count)]
    for seed in range(20):
        shown = derange(clips * 2, random.Random(seed))
        assert sorted(shown) == sorted(shown.values()) == sorted(clips)
        assert all(a != b for a, b in shown.items())


def test_one_clip_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least two clips"):
        derange(["clip"], random.Random(0))


def test_micro_counts_questions_and_macro_counts_classes():
    # Class 0 is common and right, the others are rare and wrong but for class 1.
    predictions = [
        replace(p, label=0 if i < 17 else 1 + i % 3)
        for i, p in enumerate(made(20, lambda i, label: i < 18))
    ]
    labels = [p.label for p in predictions]
    right = [p.choice == p.answer for p in predictions]
    per_class = {
        k: np.mean([r for r, label in zip(right, labels, strict=True) if label == k])
        for k in set(labels)
    }
    got = summary(predictions)
    assert got.micro.value == pytest.approx(18 / 20)
    assert got.macro.value == pytest.approx(np.mean(list(per_class.values())))
    assert got.strict == pytest.approx(np.mean([p.strict for p in predictions]))
    assert got.chance == 0.25


def test_events_and_letters_are_counted():
    got = summary(made(40, lambda i, label: label == 3))
    assert got.per_event == {"FX": 0.0, "UB": 0.5}
    assert sum(got.letters.values()) == sum(got.answer_letters.values()) == 40


def test_intervals_resample_sources_not_questions():
    # All of a source are right or wrong together: the spread is that of 5 things, not of 200.
    together = summary(made(200, lambda i, label: i % 5 < 2))
    alone = summarize(
        [replace(p, source=str(i)) for i, p in enumerate(made(200, lambda i, label: i % 5 < 2))],
        resamples=400,
        rng=np.random.default_rng(0),
    )
    wide = together.micro.high - together.micro.low
    narrow = alone.micro.high - alone.micro.low
    assert wide == pytest.approx(4 * 0.49 / 5**0.5, rel=0.25)
    assert narrow == pytest.approx(4 * 0.49 / 200**0.5, rel=0.25)


def test_paired_intervals_see_through_shared_difficulty():
    # Sources differ much, the two models little: only the paired difference is clear.
    first = made(200, lambda i, label: i % 5 < 2 or i % 4 == 0)
    second = made(200, lambda i, label: i % 5 < 2)
    both = compare(first, second, resamples=400, rng=np.random.default_rng(0))
    assert both.micro.value == pytest.approx(summary(first).micro.value - 0.4)
    assert both.micro.low > 0
    assert summary(first).micro.low < summary(second).micro.high
    assert (both.only_first_right, both.only_second_right) == (30, 0)


def test_different_questions_are_not_compared():
    with pytest.raises(PredictionError, match="differ in their questions"):
        compare(
            made(5, lambda i, label: True),
            made(6, lambda i, label: True),
            resamples=100,
            rng=np.random.default_rng(0),
        )


def test_questions_without_classes_have_no_macro():
    assert summary([replace(p, label=None) for p in made(8, lambda i, label: True)]).macro is None


def test_the_table_prints_every_set():
    one = summary(made(40, lambda i, label: label == 3))
    shown = table({"public": one, "hard": one}, shuffled=True)
    assert shown.row_count == 2
    assert "control" in shown.title


def test_predictions_come_back_from_their_file(tmp_path):
    predictions = made(6, lambda i, label: i % 2 == 0)
    write_predictions(predictions, tmp_path / "p.jsonl")
    assert read_predictions(tmp_path / "p.jsonl") == predictions


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_lines_that_are_no_predictions_are_named(tmp_path, text):
    (tmp_path / "p.jsonl").write_text(text + "\n")
    with pytest.raises(PredictionError, match="line 1"):
        read_predictions(tmp_path / "p.jsonl")


def test_no_predictions_are_refused(tmp_path):
    with pytest.raises(PredictionError, match="no predictions to sum up"):
        summary([])
    with pytest.raises(PredictionError, match="no predictions at"):
        predicting.read_predictions(tmp_path / "none.jsonl")
