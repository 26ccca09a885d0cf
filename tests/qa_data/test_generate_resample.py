"""Other wrong options in every epoch, at chance in each."""

from collections import Counter
from dataclasses import replace

import pytest

from qa_data.generate import build_questions, resample_distractors
from qa_data.manifest import Clip
from qa_data.questions import QuestionError
from qa_data.taxonomy import ElementClass

# A long tail on two apparatuses: class -> clips. No text is commoner than a quarter of its pool's.
COUNTS = {0: 24, 1: 22, 2: 20, 3: 14, 4: 10, 5: 6, 10: 25, 11: 25, 12: 25, 13: 12, 14: 9, 15: 4}
CLASSES = {
    label: ElementClass(label, 0, label, "FX" if label < 10 else "UB", f"move {label}")
    for label in COUNTS
}


def clips():
    return [
        Clip(
            id=f"clip{label}-{i}", path=f"{label}-{i}.mp4", label=label, text=f"move {label}",
            event=CLASSES[label].event, source=f"s{i}", split="labeled",
        )
        for label, count in COUNTS.items()
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture
def asked():
    found = build_questions(clips(), CLASSES, rule="public", seed=4).questions
    return [replace(question, stem="Which one is it?") for question in found][::-1]


def commonest_answer_is_right(questions, times):
    """Share of questions whose option most often right elsewhere is the right one."""
    right = 0.0
    for question in questions:
        most = max(times[text] for text in question.options)
        best = [text for text in question.options if times[text] == most]
        right += (question.options[question.answer] in best) / len(best)
    return right / len(questions)


@pytest.mark.parametrize("rule", ["public", "hard"])
def test_an_epoch_keeps_all_but_the_wrong_options(asked, rule):
    draw = resample_distractors(asked, clips(), CLASSES, rule=rule, seed=0)
    for epoch in range(3):
        for before, after in zip(asked, draw(epoch), strict=True):
            assert before.options[before.answer] == after.options[after.answer]
            names = ("question_id", "video", "stem", "label", "source", "event", "dataset")
            assert all(getattr(before, name) == getattr(after, name) for name in names)
            assert after.option_labels[after.answer] == after.label
            assert len(after.options) == 4


def test_epochs_differ_and_an_epoch_follows_from_seed_and_its_number(asked):
    draw = resample_distractors(asked, clips(), CLASSES, rule="hard", seed=0)
    epochs = {epoch: draw(epoch) for epoch in (2, 0, 1)}
    assert resample_distractors(asked, clips()[::-1], CLASSES, rule="hard", seed=0)(2) == epochs[2]
    assert resample_distractors(asked, clips(), CLASSES, rule="hard", seed=1)(2) != epochs[2]
    sets = [[frozenset(question.options) for question in epochs[epoch]] for epoch in (0, 1, 2)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        moved = sum(a != b for a, b in zip(sets[first], sets[second], strict=True))
        assert moved > len(asked) / 2


def test_hard_stays_at_chance_in_every_epoch_and_public_does_not(asked):
    times = Counter(question.options[question.answer] for question in asked)
    hard = resample_distractors(asked, clips(), CLASSES, rule="hard", seed=0)
    public = resample_distractors(asked, clips(), CLASSES, rule="public", seed=0)
    found = [commonest_answer_is_right(hard(epoch), times) for epoch in range(12)]
    assert max(found) < 0.38  # 25 % and three standard errors of 196 questions
    assert sum(found) / 12 == pytest.approx(0.25, abs=0.035)
    easy = [commonest_answer_is_right(public(epoch), times) for epoch in range(4)]
    assert sum(easy) / 4 > 0.33


def test_all_wrong_options_of_hard_are_of_the_apparatus(asked):
    for question in resample_distractors(asked, clips(), CLASSES, rule="hard", seed=0)(5):
        assert {CLASSES[label].event for label in question.option_labels} == {question.event}


def test_what_cannot_be_redrawn_is_refused(asked):
    with pytest.raises(QuestionError, match="2 questions are about clip15-3"):
        resample_distractors([*asked, asked[0]], clips(), CLASSES, rule="hard", seed=0)
    two = [replace(asked[0], options=("a", "b"), answer=0, option_labels=None), *asked[1:]]
    with pytest.raises(QuestionError, match="the questions have 2, 4 options"):
        resample_distractors(two, clips(), CLASSES, rule="hard", seed=0)
    with pytest.raises(QuestionError, match="24 of 196 clips are not in the manifest"):
        resample_distractors(asked, clips()[24:], CLASSES, rule="hard", seed=0)
    yes = replace(asked[0], options=("yes", "no", "a", "b"), answer=0, option_labels=None)
    with pytest.raises(QuestionError, match="right option is 'yes', but the clip's class is"):
        resample_distractors([yes, *asked[1:]], clips(), CLASSES, rule="hard", seed=0)(0)
    few = [question for question in asked if question.label in (0, 1, 10, 11, 12, 13)]
    with pytest.raises(QuestionError, match="shows too few different texts on its apparatus"):
        resample_distractors(few, clips(), CLASSES, rule="hard", seed=0)(0)
