from dataclasses import replace

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_core.intervals import mean, resample_sources
from sefar_mllm.evaluation.metrics import compute_metrics
from tests.oracles.toy_answers import made


def metrics(predictions, **settings):
    return compute_metrics(predictions, resamples=400, rng=np.random.default_rng(0), **settings)


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
    got = metrics(predictions)
    assert got.micro.value == pytest.approx(18 / 20)
    assert got.macro.value == pytest.approx(np.mean(list(per_class.values())))
    assert {k: one.micro.value for k, one in got.per_class.items()} == pytest.approx(per_class)
    assert got.strict == pytest.approx(np.mean([p.strict for p in predictions]))
    assert got.chance == 0.25


def test_intervals_resample_sources_not_questions():
    # All of a source are right or wrong together: the spread is that of 5 things, not of 200.
    together = metrics(made(200, lambda i, label: i % 5 < 2))
    alone = metrics(
        [replace(p, source=str(i)) for i, p in enumerate(made(200, lambda i, label: i % 5 < 2))]
    )
    assert (together.num_sources, alone.num_sources) == (5, 200)
    wide = together.micro.high - together.micro.low
    narrow = alone.micro.high - alone.micro.low
    assert wide == pytest.approx(4 * 0.49 / 5**0.5, rel=0.25)
    assert narrow == pytest.approx(4 * 0.49 / 200**0.5, rel=0.25)


def test_every_apparatus_and_subset_has_its_numbers_and_its_interval():
    predictions = made(60, lambda i, label: (i + label) % 3 == 0, sources=7)
    chosen = {p.question_id for p in predictions[::4]}
    got = metrics(predictions, subsets={"some": chosen, "empty": set()})
    draws = resample_sources(
        [p.source for p in predictions], resamples=400, rng=np.random.default_rng(0)
    )
    for subset, kept in (
        (got.subsets["some"], [p.question_id in chosen for p in predictions]),
        (got.per_event["FX"], [p.event == "FX" for p in predictions]),
        (got.per_event["UB"], [p.event == "UB" for p in predictions]),
    ):
        right = np.array([float(p.choice == p.answer) for p in predictions])
        kept = np.array(kept)
        assert subset.num_questions == kept.sum()
        assert subset.micro == mean(right[kept], draws.among(kept)).interval
        assert subset.micro.low < subset.micro.value < subset.micro.high
    assert got.per_event["FX"].num_sources == 7
    empty = got.subsets["empty"]
    assert (empty.num_questions, empty.micro, empty.macro) == (0, None, None)


def test_letters_in_the_order_of_the_file_are_scored_apart():
    predictions = made(80, lambda i, label: True)
    first = [replace(p, first_letter=0) for p in predictions]
    got = metrics(first)
    answers = [p.answer for p in predictions]
    assert got.micro.value == 1
    assert got.file_order.value == pytest.approx(answers.count(0) / 80)
    assert got.letters == {"A": 80}
    assert got.answer_letters == {letter: answers.count(k) for k, letter in enumerate("ABCD")}


def test_a_model_that_always_picks_one_letter_has_the_widest_spread_of_recall():
    # Recall 1 on A and 0 on B, C, D: mean 1/4, variance (9/16 + 3/16) / 4.
    predictions = [replace(p, first_letter=0) for p in made(80, lambda i, label: True)]
    got = metrics(predictions)
    assert got.letter_recall == {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}
    assert got.letter_spread == pytest.approx((3 / 16) ** 0.5)
    assert metrics(made(80, lambda i, label: True)).letter_spread == 0


def test_confidence_is_the_probability_of_the_choice():
    got = metrics(made(200, lambda i, label: i % 10 < 6))
    assert got.calibration.confidence == pytest.approx(0.7)
    assert got.calibration.error == pytest.approx(0.1)


def test_the_order_of_the_questions_changes_nothing():
    predictions = made(60, lambda i, label: (i + label) % 3 == 0, sources=7)
    one, other = metrics(predictions), metrics(predictions[::-1])
    assert (one.micro, one.letters) == (other.micro, other.letters)
    assert one.macro.low == pytest.approx(other.macro.low)


def test_questions_without_classes_have_no_macro():
    got = metrics([replace(p, label=None) for p in made(8, lambda i, label: True)])
    assert got.macro is None
    assert got.per_class == {}
    assert got.per_event["FX"].macro is None


def test_no_predictions_are_refused():
    with pytest.raises(SefarError, match="no predictions to score"):
        metrics([])
