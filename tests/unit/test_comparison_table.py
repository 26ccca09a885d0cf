"""From predictions to the numbers of the table, to what the decision rule reads, to the page."""

import random
from dataclasses import replace

import pytest

from sefar_mllm.comparison.page import page
from sefar_mllm.comparison.plan import BLIND
from sefar_mllm.comparison.question_sets import QuestionSet, read_set
from sefar_mllm.comparison.side_by_side import run_all
from sefar_mllm.comparison.table import gaps_of, numbers, verdicts
from sefar_mllm.scoring.predict import Prediction
from tests.oracles import toy_llm

ASKED = [
    replace(one, source=f"source{number % 12}", label=number % 3)
    for number, one in enumerate(toy_llm.questions(96))
]
SKILL = {
    "sefar": 0.9,
    "sefar-wrong_videos": 0.25,
    "supervised": 0.6,
    "supervised-wrong_videos": 0.25,
    BLIND: 0.25,
}


def answered(name: str, seed: int) -> list[Prediction]:
    """A model that is right with the probability of its row."""
    rng = random.Random(f"{name}/{seed}")
    found = []
    for one in ASKED:
        right = rng.random() < SKILL[name]
        choice = one.answer if right else (one.answer + 1) % 4
        found.append(
            Prediction(
                question_id=one.question_id,
                video=one.video,
                shown=one.video,
                source=one.source,
                event=one.event,
                label=one.label,
                answer=one.answer,
                probs=tuple(0.7 if place == choice else 0.1 for place in range(4)),
                first_letter=choice,
                strict=right,
            )
        )
    return found


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    runs = {name: [answered(name, seed) for seed in (0, 1)] for name in SKILL}
    parts = {"unseen_sources": frozenset(one.question_id for one in ASKED[:10])}
    made = {
        rule: QuestionSet(
            name=f"qa-{rule}",
            rule=rule,
            folder=folder,
            train=ASKED,
            test=ASKED,
            blind={"chance": {"micro": 0.25, "micro_se": 0.0, "macro": 0.25, "macro_se": 0.0}},
            parts=parts | {"prior_adversarial": frozenset()},
        )
        for rule in ("public", "hard")
    }
    return {one.name: one for one in made.values()}, {
        one.name: numbers(one, runs, resamples=200) for one in made.values()
    }


def test_a_row_is_the_mean_of_its_seeds(sets):
    row = sets[1]["qa-hard"].rows["supervised"]
    right = [
        sum(one.choice == one.answer for one in answered("supervised", seed)) / len(ASKED)
        for seed in (0, 1)
    ]
    assert row.micro.mean.value == pytest.approx(sum(right) / 2)
    assert row.micro.spread == pytest.approx(abs(right[0] - right[1]) / 2**0.5)
    assert row.strict == pytest.approx(sum(right) / 2)
    assert row.parts["prior_adversarial"] is None
    first = [
        one.choice == one.answer for seed in (0, 1) for one in answered("supervised", seed)[:10]
    ]
    assert row.parts["unseen_sources"].mean.value == pytest.approx(sum(first) / 20)


def test_rows_without_predictions_are_not_measured(sets):
    assert sets[1]["qa-hard"].rows["clip"] is None


def test_the_rule_reads_class_means_with_the_sign_of_the_first_row(sets):
    gaps = gaps_of(sets[1])
    assert gaps["hard", "sefar", "supervised"].value > 0.1
    assert gaps["public", "supervised-wrong_videos", BLIND].low < 0.1
    rows = sets[1]["qa-hard"].rows
    expected = rows["sefar"].macro.mean.value - rows["supervised"].macro.mean.value
    assert gaps["hard", "sefar", "supervised"].value == pytest.approx(expected)


def test_a_clear_winner_is_claimed_on_both_sets_and_on_one_it_is_not_decided(sets):
    judged = {one.second: one for one in verdicts(sets[1], num_seeds=2)}
    assert judged["supervised"].claimed is True
    assert judged["clip"].claimed is None
    alone = {one.second: one for one in verdicts({"q": sets[1]["qa-hard"]}, num_seeds=2)}
    assert alone["supervised"].claimed is None
    assert "public" in alone["supervised"].words


def test_one_source_video_has_no_interval_to_claim_from(sets):
    lone = {name: replace(one, num_sources=1) for name, one in sets[1].items()}
    assert set(gaps_of(lone).values()) == {None}


def test_the_rule_behind_the_name_hard_is_hard(sets):
    renamed = {"q": replace(sets[1]["qa-hard"], rule="event_prior")}
    assert ("hard", "sefar", "supervised") in gaps_of(renamed)


def test_the_page_says_what_was_measured_and_what_was_not(sets):
    text = page(sets[1], verdicts(sets[1], num_seeds=2), list(sets[0].values()), {"tokens": 32})
    assert "| clip | - | CLIP ViT-L/14 | not measured |" in text
    assert "clip-wrong_videos" not in text.split("## The rule")[0]
    assert "sefar beats supervised: every condition" in text
    assert "| chance | C0 | 25.0 ± 0.0 | 25.0 ± 0.0 |" in text
    assert "- tokens: 32" in text


def test_a_folder_without_its_audit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no audit\.json; give a folder that"):
        read_set(tmp_path, [])


def test_the_work_of_all_items_comes_back_in_their_order(capsys):
    assert run_all(abs, [-3, 2, -1], jobs=1, label=str) == [3, 2, 1]
    assert "[3/3] -1" in capsys.readouterr().out


@pytest.mark.slow
def test_processes_give_what_one_process_gives():
    assert run_all(abs, [-3, 2, -1], jobs=2, label=str) == [3, 2, 1]
    with pytest.raises(TypeError):
        run_all(abs, [-3, "two"], jobs=2, label=str)
