"""From predictions to numbers, to the decision rule, to the page."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sefar_mllm.answer_text import GeneratedAnswer, OtherFormats, TextScore
from sefar_mllm.comparison.report import comparison_page
from sefar_mllm.comparison.rows import BLIND, QuestionFolder
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
from tests.oracles.toy_comparison import prediction

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
AUDIT = {
    "chance": {"micro": 0.25, "micro_se": 0.0, "macro": 0.25, "macro_se": 0.0},
    "rarest answer": {"micro": 0.4, "micro_se": 0.01, "macro": 0.45, "macro_se": 0.02},
}


def runs_of(name: str) -> list[list[Prediction]]:
    """Two models that are right with the probability of their row."""
    runs = []
    for seed in (0, 1):
        rng = random.Random(f"{name}/{seed}")
        right = [rng.random() < SKILL[name] for _ in ASKED]
        choices = [(one.answer + (not known)) % 4 for one, known in zip(ASKED, right, strict=True)]
        runs.append([prediction(*each) for each in zip(ASKED, choices, strict=True)])
    return runs


def formats(generated: int | None, likeliest: int) -> OtherFormats:
    """A model that always generates one option, or none, and prefers one option's text."""
    sums = tuple(-1.0 if place == likeliest else -2.0 for place in range(4))
    ids = [one.question_id for one in ASKED]
    return OtherFormats(
        generated=[GeneratedAnswer(question_id=name, text="", choice=generated) for name in ids],
        texts={name: TextScore(sums, (1, 2, 3, 4)) for name in ids},
    )


ANSWERS = {
    "sefar": [formats(None, 2), formats(1, 2)],
    BLIND: [formats(0, 2), formats(0, 3)],
}


@pytest.fixture(scope="module")
def folders():
    first = frozenset(one.question_id for one in ASKED[:10])
    subsets = {"unseen_sources": first, "prior_adversarial": frozenset()}
    return [
        QuestionFolder(f"qa-{rule}", rule, Path(), ASKED, ASKED, AUDIT, subsets)
        for rule in ("public", "hard")
    ]


@pytest.fixture(scope="module")
def numbers(folders):
    runs = {name: runs_of(name) for name in SKILL}
    diagnostics = compute_diagnostics(ASKED, ANSWERS, resamples=200)
    return {one.name: compute_numbers(one, runs, diagnostics, resamples=200) for one in folders}


def resampled(estimate, *runs):
    return estimate(*runs, resamples=200, rng=np.random.default_rng(0))


def decide_all(found):
    return decisions(found, num_seeds=2, recognizers=BUDGET["recognizers"])


def test_a_row_is_the_mean_of_its_seeds(numbers):
    row = numbers["qa-hard"].rows["supervised"]
    right = np.array([[one.choice == one.answer for one in run] for run in runs_of("supervised")])
    first, second = right.mean(axis=1)
    assert row.micro.mean.value == pytest.approx((first + second) / 2)
    assert row.micro.spread == pytest.approx(abs(first - second) / 2**0.5)
    assert row.strict == pytest.approx((first + second) / 2)
    assert row.subsets["prior_adversarial"] is None
    assert row.subsets["unseen_sources"].mean.value == pytest.approx(right[:, :10].mean())
    labels = np.array([one.label for one in ASKED])
    events = np.array([one.event for one in ASKED])
    for label, share in row.per_class.items():
        assert share == pytest.approx(right[:, labels == label].mean())
    for event, share in row.per_event.items():
        assert share.mean.value == pytest.approx(right[:, events == event].mean())
    assert (sorted(row.per_class), sorted(row.per_event)) == ([0, 1, 2], ["FX", "UB"])
    assert numbers["qa-hard"].rows["clip"] is None


def test_differences_drops_and_extra_drops_are_paired_and_the_rule_uses_their_class_means(numbers):
    one, gaps = numbers["qa-hard"], collect_gaps(numbers)
    assert set(one.mcnemar_p) == set(one.differences) == {"supervised", BLIND}
    found = gaps["hard", "sefar", "supervised"]
    for kind in ("macro", "micro"):
        first, second = (
            getattr(one.rows[name], kind).mean.value for name in ("sefar", "supervised")
        )
        assert getattr(found, kind).value == pytest.approx(first - second) and first > second
    for name in ("sefar", "supervised"):
        for shown in ("wrong_videos", "reversed"):
            expected = resampled(ablation_drop, runs_of(name), runs_of(f"{name}-{shown}"))
            assert one.drops[f"{name}-{shown}"] == expected
    lost = gaps["hard", "sefar", "sefar-wrong_videos"].macro
    assert lost == one.drops["sefar-wrong_videos"].macro and lost.value > 0.5
    assert gaps["public", "supervised-wrong_videos", BLIND].macro.low < 0.1
    assert set(one.extra_drops) == {"supervised-wrong_videos", "supervised-reversed"}
    pairs = [(runs_of(name), runs_of(f"{name}-reversed")) for name in ("sefar", "supervised")]
    extra = resampled(compare_drops, *pairs)
    assert one.extra_drops["supervised-reversed"] == extra and extra.micro.value > 0.2
    renamed = {"q": replace(one, rule="event_prior")}
    assert ("hard", "sefar", "supervised") in collect_gaps(renamed)


def test_pairs_have_mcnemar_p_values_seed_by_seed(numbers):
    first, second = runs_of("sefar"), runs_of("supervised")
    expected = tuple(mcnemar_of(*pair) for pair in zip(first, second, strict=True))
    assert numbers["qa-hard"].mcnemar_p["supervised"] == expected
    alone = mcnemar_per_seed(first, second[:1])
    assert len(alone) == 2 and alone[0] == expected[0] != alone[1]


def test_rows_are_scored_in_other_formats_and_blind_scores_of_the_same_seed_subtracted(numbers):
    found = numbers["qa-hard"].diagnostics
    row = found["sefar"]
    assert row.unreadable == 0.5
    # None, and always option 1.
    assert row.generated.mean.value == pytest.approx(0.125)
    assert row.text_sum.mean.value == pytest.approx(0.25)
    # By tokens, option 3 of four tokens wins in every text: -2 / 4 against -1 / 3.
    assert row.text_mean.mean.value == pytest.approx(0.25)
    assert found[BLIND].text_information is None
    asked = [one for one in ASKED if one.answer == 2]
    row = compute_diagnostics(asked, ANSWERS, resamples=100)["sefar"]
    assert row.text_sum.mean.value == 1
    assert row.text_information.mean.value == 0.5  # right with seed 1, whose blind run has 3


def test_a_clear_difference_is_claimed_on_two_rules_and_undecided_on_one(numbers):
    decided = {one.second: one for one in decide_all(numbers)}
    assert decided["supervised"].claimed is True
    assert decided["clip"].claimed is None
    alone = {one.second: one for one in decide_all({"q": numbers["qa-hard"]})}
    assert alone["supervised"].claimed is None
    assert "public" in alone["supervised"].words


def test_one_source_video_has_no_interval_to_claim_from(numbers, folders):
    def cut(gaps):
        none = {"low": None, "high": None}
        return {name: replace(gap, macro=replace(gap.macro, **none)) for name, gap in gaps.items()}

    kinds = ("differences", "above_blind", "drops")
    lone = {
        name: replace(one, **{kind: cut(getattr(one, kind)) for kind in kinds})
        for name, one in numbers.items()
    }
    assert set(collect_gaps(lone).values()) == {None}
    assert {one.claimed for one in decide_all(lone)} == {None}
    assert "(no interval)" in comparison_page(lone, decide_all(lone), folders, BUDGET)


def test_the_page_reports_what_was_measured_and_what_was_not(numbers, folders):
    def page(budget):
        return comparison_page(numbers, decide_all(numbers), folders, budget)

    text, one = page(BUDGET), numbers["qa-hard"]
    assert "| clip | - | CLIP ViT-L/14 | not measured |" in text
    assert "clip-wrong_videos" not in text.split("## Decision rule")[0]
    assert "sefar is better than supervised: every condition" in text
    assert "| chance | C0 | 25.0 ± 0.0 | 25.0 ± 0.0 |" in text
    assert "| rarest answer | C0 | 40.0 ± 1.0 | 45.0 ± 2.0 |" in text
    assert "| longest option | C0 | not measured | - |" in text
    assert "| CLIP ViT-L | 37.3 | 41.0 | published, Table 5 |" in text
    assert "- tokens: 32" in text
    lost, more = one.drops["supervised-reversed"], one.extra_drops["supervised-reversed"]
    assert (
        f"| supervised | frames in reversed order | {signed(lost.macro)} | {signed(lost.micro)} | "
        f"{signed(more.macro)} | {signed(more.micro)} |"
    ) in text
    gap, p = one.differences["supervised"], one.mcnemar_p["supervised"]
    tested = f"{signed(gap.macro)} | {signed(gap.micro)} | {p[0]:.2g}, {p[1]:.2g} |"
    assert f"| supervised | {tested}" in text
    assert "| sefar | 50.0 | 12.5 [" in text
    assert "Trained with 2 seeds, recognizer and fine-tuning." in text
    assert "clip: weights not verified." in text.split("## qa-public")[0]
    assert "(C8). Learning rates: those of the settings times 1; no row was tuned." in text
    tuned = page(BUDGET | {"lr_grid": [0.5, 1.0]})
    assert "each row has its best factor of 0.5, 1, chosen with the first seed on 20 %" in tuned
