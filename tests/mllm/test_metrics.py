import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.manifest import Clip
from sefar_core.intervals import mean, resample_sources
from sefar_mllm.evaluation.metrics import (
    NUM_BINS,
    calibration,
    compute_metrics,
    known_subsets,
    prior_adversarial,
    right_text_twice,
    unseen_sources,
)
from tests.oracles import statistics, toy_llm
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
    nameless = metrics([replace(p, label=None) for p in predictions])
    assert (nameless.macro, nameless.per_class) == (None, {})
    assert nameless.per_event["FX"].macro is None
    with pytest.raises(SefarError, match="no predictions to score"):
        metrics([])


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
    got = metrics([replace(p, first_letter=0) for p in predictions])
    answers = [p.answer for p in predictions]
    assert got.micro.value == 1
    assert got.file_order.value == pytest.approx(answers.count(0) / 80)
    assert got.letters == {"A": 80}
    assert got.answer_letters == {letter: answers.count(k) for k, letter in enumerate("ABCD")}
    # Recall 1 on A and 0 on B, C, D: mean 1/4, variance (9/16 + 3/16) / 4.
    assert got.letter_recall == {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}
    assert got.letter_spread == pytest.approx((3 / 16) ** 0.5)
    assert metrics(predictions).letter_spread == 0


def test_confidence_is_the_probability_of_the_choice():
    got = metrics(made(200, lambda i, label: i % 10 < 6))
    assert got.calibration.confidence == pytest.approx(0.7)
    assert got.calibration.error == pytest.approx(0.1)


def test_the_order_of_the_questions_changes_nothing():
    predictions = made(60, lambda i, label: (i + label) % 3 == 0, sources=7)
    one, other = metrics(predictions), metrics(predictions[::-1])
    assert (one.micro, one.letters) == (other.micro, other.letters)
    assert one.macro.low == pytest.approx(other.macro.low)


CONFIDENCE = st.floats(min_value=0.0, max_value=1.0, exclude_min=True)


@given(st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=40))
def test_the_error_is_that_of_plain_loops(rows):
    confidence, right = map(list, zip(*rows, strict=True))
    found = calibration(np.array(confidence), np.array(right))
    assert found.error == pytest.approx(
        statistics.calibration_error(confidence, right, NUM_BINS), abs=1e-12
    )
    assert sum(one.num_questions for one in found.bins) == len(rows)
    assert found.confidence == pytest.approx(math.fsum(confidence) / len(rows))


def test_the_calibration_error_of_known_cases():
    found = calibration(np.array([1 / 15, 2 / 15, 1.0]), np.array([True, False, True]))
    assert [i for i, one in enumerate(found.bins) if one.num_questions] == [0, 1, 14]
    confidence = np.repeat([0.25, 0.5, 0.8], [4, 4, 5])
    right = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0], dtype=bool)
    assert calibration(confidence, right).error == pytest.approx(0)
    overconfident = np.linspace(0.95, 1.0, 200)
    found = calibration(overconfident, np.arange(200) % 4 == 0)
    assert found.error == pytest.approx(found.confidence - 0.25)
    assert found.bins[3].accuracy is None
    with pytest.raises(ValueError, match="were log-probabilities passed"):
        calibration(np.array([-0.3, 0.2]), np.array([True, False]))


FIRST, SECOND, THIRD, FOURTH = toy_llm.TEXTS


def test_a_question_is_adversarial_if_a_distractor_was_answered_more_often():
    base = toy_llm.questions(4)
    # Answered in training: the fourth text three times, the second twice, the first once.
    train = [replace(base[0], answer=place) for place in (3, 3, 3, 1, 1, 0)]
    asked = [
        replace(base[0], answer=3),  # the commonest itself
        replace(base[1], answer=1),  # the fourth is commoner
        replace(base[2], options=(FIRST, SECOND), answer=1),  # nothing is commoner
        replace(base[3], options=(THIRD, "never", "nor this"), answer=1),  # all alike
    ]
    assert prior_adversarial(asked, train) == {asked[1].question_id}
    with pytest.raises(ValueError, match="no training questions"):
        prior_adversarial(asked, [])


def test_a_right_text_at_two_letters_is_counted_and_not_adversarial():
    (one,) = toy_llm.questions(1)
    twice = replace(one, options=(SECOND, SECOND, FIRST), answer=0)
    assert prior_adversarial([twice], [replace(one, answer=1)]) == set()
    assert right_text_twice([twice, replace(one, question_id="x")]) == {twice.question_id}
    assert right_text_twice([replace(one, options=(FIRST, SECOND, SECOND), answer=0)]) == set()


def test_sources_are_seen_in_labeled_and_unlabeled_clips_alone():
    asked = toy_llm.questions(12)  # three of each source
    clips = [
        Clip(id=f"c{i}", path="v.mp4", split=split, source=f"source{i}")
        for i, split in enumerate(("labeled", "unlabeled", "val", "test"))
    ]
    found = unseen_sources(asked, clips)
    assert found == {q.question_id for q in asked if q.source in ("source2", "source3")}
    assert unseen_sources([replace(asked[0], source="")], clips) == set()
    unknown = [*clips, replace(clips[0], id="more", source="", split="labeled")]
    assert unseen_sources(asked, unknown) == set()  # it may be any of them


def test_subsets_are_named_where_they_can_be_determined():
    asked = toy_llm.questions(3)
    clips = [Clip(id="c", path="v.mp4", split="labeled", source="source0")]
    assert set(known_subsets(asked)) == {"right_text_twice"}
    assert set(known_subsets(asked, train=asked, clips=clips)) == {
        "right_text_twice", "prior_adversarial", "unseen_sources"
    }  # fmt: skip
