"""From predictions to numbers, to the decision rule, to the page."""

import random
from dataclasses import replace

import numpy as np
import pytest

from qa_data.questions import QuestionError
from sefar_mllm.answer_text import GeneratedAnswer, OtherFormats, TextScore
from sefar_mllm.comparison.experiment import run_parallel
from sefar_mllm.comparison.report import comparison_page
from sefar_mllm.comparison.rows import BLIND, QuestionFolder, read_question_folder
from sefar_mllm.comparison.statistics import (
    collect_gaps,
    compute_diagnostics,
    compute_numbers,
    decisions,
    mcnemar_per_seed,
    signed,
)
from sefar_mllm.evaluation.significance import ablation_drop, compare_drops, mcnemar_of
from sefar_mllm.scoring import Prediction
from tests.oracles import toy_llm

ASKED = [
    replace(one, source=f"source{number % 12}", label=number % 3)
    for number, one in enumerate(toy_llm.questions(96))
]
SKILL = {
    "sefar": 0.9,
    "sefar-wrong_videos": 0.25,
    "sefar-reversed": 0.5,
    "supervised": 0.6,
    "supervised-wrong_videos": 0.25,
    "supervised-reversed": 0.55,
    BLIND: 0.25,
}
BUDGET = {
    "tokens": 32,
    "seeds": [0, 1],
    "recognizers": {"sefar": 2, "supervised": 2},
    "lr_grid": [1.0],
    "dev_rate": 0.2,
    "weights": {"clip": "weights not verified"},
}
RECOGNIZERS = BUDGET["recognizers"]


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


def otherwise(generated: int | None, likeliest: int) -> OtherFormats:
    """A model that always generates one option, or none, and prefers one option's text."""
    sums = tuple(-1.0 if place == likeliest else -2.0 for place in range(4))
    return OtherFormats(
        generated=[
            GeneratedAnswer(question_id=one.question_id, text="", choice=generated) for one in ASKED
        ],
        texts={one.question_id: TextScore(sums, (1, 2, 3, 4)) for one in ASKED},
    )


ANSWERS = {
    "sefar": [otherwise(None, 2), otherwise(1, 2)],
    BLIND: [otherwise(0, 2), otherwise(0, 3)],
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    runs = {name: [answered(name, seed) for seed in (0, 1)] for name in SKILL}
    subsets = {"unseen_sources": frozenset(one.question_id for one in ASKED[:10])}
    made = {
        rule: QuestionFolder(
            name=f"qa-{rule}",
            rule=rule,
            folder=folder,
            train=ASKED,
            test=ASKED,
            blind={
                "chance": {"micro": 0.25, "micro_se": 0.0, "macro": 0.25, "macro_se": 0.0},
                "rarest answer": {"micro": 0.4, "micro_se": 0.01, "macro": 0.45, "macro_se": 0.02},
            },
            subsets=subsets | {"prior_adversarial": frozenset()},
        )
        for rule in ("public", "hard")
    }
    return {one.name: one for one in made.values()}, {
        one.name: compute_numbers(
            one, runs, compute_diagnostics(ASKED, ANSWERS, resamples=200), resamples=200
        )
        for one in made.values()
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
    assert row.subsets["prior_adversarial"] is None
    first = [
        one.choice == one.answer for seed in (0, 1) for one in answered("supervised", seed)[:10]
    ]
    assert row.subsets["unseen_sources"].mean.value == pytest.approx(sum(first) / 20)


def test_rows_without_predictions_are_not_measured(sets):
    assert sets[1]["qa-hard"].rows["clip"] is None


def test_the_rule_uses_class_means_with_the_sign_of_the_first_row(sets):
    gaps = collect_gaps(sets[1])
    assert gaps["hard", "sefar", "supervised"].macro.value > 0.1
    assert gaps["public", "supervised-wrong_videos", BLIND].macro.low < 0.1
    rows = sets[1]["qa-hard"].rows
    for kind in ("macro", "micro"):
        expected = (
            getattr(rows["sefar"], kind).mean.value - getattr(rows["supervised"], kind).mean.value
        )
        found = getattr(gaps["hard", "sefar", "supervised"], kind)
        assert found.value == pytest.approx(expected)


def both(name):
    return [answered(name, seed) for seed in (0, 1)]


def test_drops_are_own_minus_control_run_by_run_and_the_rule_uses_them(sets):
    one = sets[1]["qa-hard"]
    for name in ("sefar", "supervised"):
        for shown in ("wrong_videos", "reversed"):
            expected = ablation_drop(
                both(name), both(f"{name}-{shown}"), resamples=200, rng=np.random.default_rng(0)
            )
            assert one.drops[f"{name}-{shown}"] == expected
    lost = collect_gaps(sets[1])["hard", "sefar", "sefar-wrong_videos"]
    assert lost.macro == one.drops["sefar-wrong_videos"].macro
    assert lost.macro.value > 0.5


def test_the_extra_drop_of_sefar_is_a_difference_of_drops(sets):
    one = sets[1]["qa-hard"]
    assert set(one.extra_drops) == {"supervised-wrong_videos", "supervised-reversed"}
    expected = compare_drops(
        (both("sefar"), both("sefar-reversed")),
        (both("supervised"), both("supervised-reversed")),
        resamples=200,
        rng=np.random.default_rng(0),
    )
    assert one.extra_drops["supervised-reversed"] == expected
    assert expected.micro.value > 0.2


def test_pairs_have_mcnemar_p_values_seed_by_seed(sets):
    one = sets[1]["qa-hard"]
    assert set(one.mcnemar_p) == set(one.differences) == {"supervised", BLIND}
    expected = [mcnemar_of(answered("sefar", s), answered("supervised", s)) for s in (0, 1)]
    assert one.mcnemar_p["supervised"] == tuple(expected)
    alone = mcnemar_per_seed(both("sefar"), [answered("supervised", 0)])
    assert len(alone) == 2 and alone[0] == expected[0] != alone[1]


def test_rows_are_scored_in_other_formats_and_blind_scores_are_subtracted(sets):
    diagnostics = sets[1]["qa-hard"].diagnostics
    assert diagnostics["sefar"].unreadable == 0.5
    assert diagnostics["sefar"].generated.mean.value == pytest.approx(
        0.125
    )  # none, and always option 1
    assert diagnostics["sefar"].text_sum.mean.value == pytest.approx(0.25)
    # By tokens, option 3 of four tokens wins in every text: -2 / 4 against -1 / 3.
    assert diagnostics["sefar"].text_mean.mean.value == pytest.approx(0.25)
    # Seed 0 finds what the blind run of seed 0 finds: the first of equals. Seed 1: option 2.
    per_seed = diagnostics["sefar"].text_information
    assert per_seed.mean.value == pytest.approx(0.25)
    assert diagnostics[BLIND].text_information is None


def test_text_information_is_against_the_blind_run_of_the_same_seed():
    asked = [one for one in ASKED if one.answer == 2]
    diagnostics = compute_diagnostics(asked, ANSWERS, resamples=100)["sefar"]
    assert diagnostics.text_sum.mean.value == 1
    assert (
        diagnostics.text_information.mean.value == 0.5
    )  # right with seed 1, whose blind run has 3


def decide_all(found):
    return decisions(found, num_seeds=2, recognizers=RECOGNIZERS)


def test_a_clear_difference_is_claimed_on_two_rules_and_undecided_on_one(sets):
    decided = {one.second: one for one in decide_all(sets[1])}
    assert decided["supervised"].claimed is True
    assert decided["clip"].claimed is None
    alone = {one.second: one for one in decide_all({"q": sets[1]["qa-hard"]})}
    assert alone["supervised"].claimed is None
    assert "public" in alone["supervised"].words


def test_one_source_video_has_no_interval_to_claim_from(sets):
    def cut(gaps):
        none = {"low": None, "high": None}
        return {name: replace(gap, macro=replace(gap.macro, **none)) for name, gap in gaps.items()}

    kinds = ("differences", "above_blind", "drops")
    lone = {
        name: replace(one, **{kind: cut(getattr(one, kind)) for kind in kinds})
        for name, one in sets[1].items()
    }
    assert set(collect_gaps(lone).values()) == {None}
    assert {one.claimed for one in decide_all(lone)} == {None}
    assert "(no interval)" in comparison_page(
        lone, decide_all(lone), list(sets[0].values()), BUDGET
    )


def test_the_rule_behind_the_name_hard_is_hard(sets):
    renamed = {"q": replace(sets[1]["qa-hard"], rule="event_prior")}
    assert ("hard", "sefar", "supervised") in collect_gaps(renamed)


@pytest.fixture(scope="module")
def text(sets):
    return comparison_page(sets[1], decide_all(sets[1]), list(sets[0].values()), BUDGET)


def test_the_page_reports_what_was_measured_and_what_was_not(text):
    assert "| clip | - | CLIP ViT-L/14 | not measured |" in text
    assert "clip-wrong_videos" not in text.split("## Decision rule")[0]
    assert "sefar is better than supervised: every condition" in text
    assert "| chance | C0 | 25.0 ± 0.0 | 25.0 ± 0.0 |" in text
    assert "| rarest answer | C0 | 40.0 ± 1.0 | 45.0 ± 2.0 |" in text
    assert "- tokens: 32" in text


def test_the_page_has_drops_pairs_and_diagnostics(sets, text):
    one = sets[1]["qa-hard"]
    lost, more = one.drops["supervised-reversed"], one.extra_drops["supervised-reversed"]
    assert (
        f"| supervised | frames in reversed order | {signed(lost.macro)} | {signed(lost.micro)} | "
        f"{signed(more.macro)} | {signed(more.micro)} |"
    ) in text
    gap, p = one.differences["supervised"], one.mcnemar_p["supervised"]
    diagnostics = f"{signed(gap.macro)} | {signed(gap.micro)} | {p[0]:.2g}, {p[1]:.2g} |"
    assert f"| supervised | {diagnostics}" in text
    assert "| sefar | 50.0 | 12.5 [" in text
    assert "over all questions (micro)" in text


def test_the_page_reports_trainings_and_learning_rates(sets, text):
    assert "Trained with 2 seeds, recognizer and fine-tuning." in text
    assert "clip: weights not verified." in text.split("## qa-public")[0]
    assert "(C8). Learning rates: those of the settings times 1; no row was tuned." in text
    tuned = comparison_page(
        sets[1], decide_all(sets[1]), list(sets[0].values()), BUDGET | {"lr_grid": [0.5, 1.0]}
    )
    assert "each row has its best factor of 0.5, 1, chosen with the first seed on 20 %" in tuned


def test_a_folder_without_its_audit_is_refused(tmp_path):
    with pytest.raises(QuestionError, match=r"has no audit\.json; give a folder that"):
        read_question_folder(tmp_path, [])


def test_results_are_in_the_order_of_the_items(capsys):
    assert run_parallel(abs, [-3, 2, -1], jobs=1, label=str) == [3, 2, 1]
    assert "[3/3] -1" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_give_the_results_of_one():
    assert run_parallel(abs, [-3, 2, -1], jobs=2, label=str) == [3, 2, 1]
    with pytest.raises(TypeError):
        run_parallel(abs, [-3, "two"], jobs=2, label=str)
