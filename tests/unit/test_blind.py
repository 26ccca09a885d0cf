"""Answering without looking."""

import pytest

from qa_data.annotations import read_elements, to_clips
from qa_data.blind import Accuracy, audit, audit_table, score
from qa_data.generate import build_questions
from qa_data.manifest import Clip
from qa_data.question import Question, QuestionError
from qa_data.taxonomy import ElementClass, read_categories
from sefar_core.data.splits import SplitConfig, draw_labeled
from tests.finegym import finegym_folder

CLASSES = {
    0: ElementClass(0, 21, 0, "FX", "leap"),
    1: ElementClass(1, 21, 1, "FX", "split jump"),
    2: ElementClass(2, 22, 2, "FX", "turn"),
    3: ElementClass(3, 41, 3, "UB", "giant circle"),
    4: ElementClass(4, 44, 4, "UB", "leap"),
}


def make_question(number, options, answer, label, source="s"):
    return Question(
        question_id=f"{number:07d}",
        video=f"clip{number}",
        stem="Which?",
        options=options,
        answer=answer,
        label=label,
        source=source,
    )


TRAIN = [
    make_question(0, ("leap", "turn", "giant circle"), 0, 0),
    make_question(1, ("leap", "turn", "split jump"), 0, 0),
    make_question(2, ("leap", "turn", "giant circle"), 1, 2),
    make_question(3, ("split jump", "turn", "giant circle"), 2, 3, source="t"),
]
# Commonest answers of TRAIN: leap 2, turn 1, giant circle 1, split jump 0.
QUESTIONS = [
    make_question(0, ("turn", "leap", "split jump"), 1, 0, source="t"),
    make_question(1, ("turn", "giant circle", "split jump"), 0, 2, source="u"),
    make_question(2, ("giant circle", "leap", "split jump"), 2, 1, source="u"),
    make_question(3, ("giant circle", "leap", "turn"), 1, 4, source="v"),
]
# By hand: what each rule earns on each of QUESTIONS.
EARNED = {
    "chance": [1 / 3, 1 / 3, 1 / 3, 1 / 3],
    "first letter": [0, 1, 0, 0],
    "longest option": [0, 0, 0, 0],
    "shortest option": [1 / 2, 1, 0, 1 / 2],
    "commonest answer": [1, 1 / 2, 0, 1],
    "rarest answer": [0, 0, 1, 0],
    # right + 1 over wrong + 1: leap 3/2, turn 2/4, giant circle 2/3, split jump 1/3
    "naive Bayes": [1, 0, 0, 1],
    "naive Bayes inverted": [0, 0, 1, 0],
    # giant circle is on the bars alone, leap on both, the others on the floor
    "apparatus known": [1 / 3, 1 / 2, 1 / 2, 1 / 2],
    "apparatus known, commonest answer": [1, 1, 0, 1],
    "set known": [1 / 2, 1, 1 / 2, 1],
    "set known, commonest answer": [1, 1, 0, 1],
}


def test_every_rule_earns_what_it_earns_by_hand():
    rows = audit(QUESTIONS, TRAIN, CLASSES).rows
    assert {name: row.micro for name, row in rows.items()} == pytest.approx(
        {name: sum(earned) / 4 for name, earned in EARNED.items()}
    )


def test_the_mean_of_classes_weighs_each_class_alike():
    questions = [make_question(i, ("a", "b"), 0 if i < 3 else 1, i // 3) for i in range(4)]
    found = score(questions, lambda question: [1, 0])
    assert (found.micro, found.macro) == (3 / 4, 1 / 2)
    variance = 3 / 4 * 1 / 4
    assert found.micro_se == pytest.approx((variance / 4) ** 0.5)
    assert found.macro_se == pytest.approx((variance * (3 / 36 + 1 / 4)) ** 0.5)


def test_letters_repeats_and_shared_sources_are_counted():
    doubled = make_question(4, ("leap", "leap", "turn"), 0, 0, source="s")
    found = audit([*QUESTIONS, doubled], TRAIN, CLASSES, bound=0.5)
    assert found.letters == {"A": 2, "B": 2, "C": 1}
    assert found.repeats == {"some_option_twice": 1, "right_option_twice": 1}
    assert (found.shared_sources, found.num_questions, found.bound) == (2, 5, 0.5)


def test_questions_without_class_are_audited_without_oracles():
    bare = [make_question(0, ("turn", "leap"), 1, None)]
    found = audit(bare, TRAIN, CLASSES)
    assert "commonest answer" in found.rows
    assert not [name for name in found.rows if "known" in name]


def test_no_questions_are_refused():
    with pytest.raises(QuestionError, match="got 0 and 4; is a split empty"):
        audit([], TRAIN, CLASSES)
    with pytest.raises(QuestionError, match="got 4 and 0"):
        audit(QUESTIONS, [], CLASSES)


def test_the_table_has_a_row_for_every_rule():
    found = audit(QUESTIONS, TRAIN, CLASSES)
    table = audit_table(found, "test")
    assert table.row_count == len(found.rows) == len(EARNED)


def test_exchangeable_sets_are_at_chance_for_every_blind_rule_and_public_ones_are_not():
    classes = {
        label: ElementClass(label, 21, label, "FX", "x" * (label + 1)) for label in range(12)
    }
    clips = [
        Clip(id=f"{label} {i}", path="x", label=label, split="test")
        for label in range(12)
        for i in range(10 + 25 * label)  # the commoner, the longer, as little as text may hide
    ]
    questions = build_questions(clips, classes, rule="event_prior", seed=0).questions
    rows = audit(questions, questions, classes).rows
    for name, row in rows.items():
        assert abs(row.micro - 0.25) <= 2 * row.micro_se + 1e-12, name
    public = build_questions(clips, classes, rule="public", seed=0).questions
    assert audit(public, public, classes).rows["commonest answer"].micro > 0.4


def lists_of(benchmark):
    folder = finegym_folder()
    classes = read_categories(folder / f"gym{benchmark}_categories.txt")
    train = read_elements(folder / f"gym{benchmark}_train_element_v1.1.txt")
    test = read_elements(folder / f"gym{benchmark}_val_element.txt")
    pool = to_clips(train, classes, split="labeled")
    return classes, pool, to_clips(test, classes, split="test")


def mean_rows(benchmark, rule, num_seeds):
    """Rows of the audit at a 5 % draw, averaged over seeds."""
    classes, pool, test = lists_of(benchmark)
    audits = []
    for seed in range(num_seeds):
        labeled = draw_labeled(pool, SplitConfig(rate=0.05, draw="unstratified", seed=seed))
        train = build_questions(labeled, classes, rule=rule, seed=seed, common="keep")
        built = build_questions(test, classes, rule=rule, seed=seed)
        audits.append(audit(built.questions, train.questions, classes, bound=built.bound))
    return {
        name: Accuracy(
            micro=sum(one.rows[name].micro for one in audits) / num_seeds,
            micro_se=row.micro_se,
            macro=sum(one.rows[name].macro for one in audits) / num_seeds,
            macro_se=row.macro_se,
        )
        for name, row in audits[0].rows.items()
    }


@pytest.mark.lists
@pytest.mark.parametrize(("benchmark", "published"), [(99, 0.474), (288, 0.645)])
def test_the_public_rule_gives_the_real_answers_away(benchmark, published):
    rows = mean_rows(benchmark, "public", num_seeds=5)
    assert rows["commonest answer"].micro == pytest.approx(published, abs=0.015)
    assert rows["commonest answer"].macro == pytest.approx(0.25, abs=0.02)


@pytest.mark.lists
@pytest.mark.parametrize("benchmark", [99, 288])
@pytest.mark.parametrize("rule", ["prior", "event_prior", "set_prior"])
def test_the_exchangeable_rules_are_at_chance_on_the_real_lists(benchmark, rule):
    rows = mean_rows(benchmark, rule, num_seeds=2)
    for name, row in rows.items():
        if "known" not in name:
            assert abs(row.micro - 0.25) <= 2 * row.micro_se + 1e-12, name
