from dataclasses import replace

import pytest

from qa_data.manifest import Clip
from sefar_mllm.evaluation.metrics import (
    known_subsets,
    prior_adversarial,
    right_text_twice,
    unseen_sources,
)
from tests.oracles import toy_llm

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


def test_a_twin_of_the_right_text_is_not_adversarial():
    (one,) = toy_llm.questions(1)
    train = [replace(one, answer=1)]
    asked = replace(one, options=(SECOND, SECOND, FIRST), answer=0)
    assert prior_adversarial([asked], train) == set()
    assert right_text_twice([asked, replace(one, question_id="x")]) == {asked.question_id}


def test_a_twin_among_the_wrong_options_is_not_counted():
    (one,) = toy_llm.questions(1)
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


def test_no_training_questions_are_refused():
    with pytest.raises(ValueError, match="no training questions"):
        prior_adversarial(toy_llm.questions(2), [])
