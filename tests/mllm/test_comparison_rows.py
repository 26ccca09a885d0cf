"""The rows, their questions and encoders, and the answers of rows without fine-tuning."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from qa_data.files import SefarError
from qa_data.questions import QuestionError
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison.baselines import predict_from_probs, predict_text_only
from sefar_mllm.comparison.config import WEIGHTS, encoder_sources, refuse_uneven_recognizers
from sefar_mllm.comparison.rows import (
    CONDITION_ROWS,
    ROWS,
    TRAINED_ROWS,
    comparable_symbols,
    option_symbols,
    permute_answers,
    read_question_folders,
    row_encoder,
    train_questions,
    trained_row,
)
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.linear_probe import fit_classifier
from sefar_mllm.prompt import marker_ids
from tests.oracles import toy_llm
from tests.oracles.toy_comparison import CLIPS, TRAIN, comparison, question_folder


def test_every_control_has_its_rows_and_every_row_an_encoder():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row_encoder(row) for row in ROWS} - {None} == set(WEIGHTS) == set(ENCODERS)
    assert all(trained_row(row.base).name == row.base for row in CONDITION_ROWS)
    controls = {row.control for row in ROWS}
    assert controls == {"", "C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C10", "C11"}
    variants = [row.train_variant for row in TRAINED_ROWS]
    assert (variants.count("wrong_videos"), variants.count("wrong_answers")) == (1, 1)


def test_wrong_answers_are_a_permutation_among_questions_with_as_many_options():
    pairs = [
        replace(one, question_id=f"two{i}", options=one.options[:2], answer=i % 2)
        for i, one in enumerate(toy_llm.questions(6))
    ]
    asked = toy_llm.questions(40) + pairs
    wrong = permute_answers(asked, random.Random(0))
    for count in (2, 4):
        before = [one.answer for one in asked if len(one.options) == count]
        after = [one.answer for one in wrong if len(one.options) == count]
        assert sorted(before) == sorted(after)
    changed = sum(one.answer != other.answer for one, other in zip(asked, wrong, strict=True))
    assert changed > 20  # three quarters of 40 and half of 6 are expected
    assert [one.video for one in wrong] == [one.video for one in asked]
    assert wrong != permute_answers(asked, random.Random(1))
    shown = [train_questions(asked[:9], "wrong_videos", seed) for seed in (0, 1)]
    assert shown[0] != shown[1]


def test_one_encoder_serves_all_seeds_or_each_has_its_own(tmp_path):
    def weights(sefar):
        config = comparison(tmp_path, tmp_path, sefar=sefar, clip=tmp_path / "clip")
        return {name: one.weights for name, one in encoder_sources(config).items()}

    one, two, clip = tmp_path / "one", tmp_path / "two", tmp_path / "clip"
    shared, own = weights((one,)), weights((one, two))
    assert set(shared) == set(own) == set(WEIGHTS) - {"eva", "eva_probe"}
    assert shared["sefar"] == shared["constant"] == own["constant"] == {0: one}
    assert shared["random"] == {0: one, 3: one}  # drawn anew for each seed
    assert own["sefar"] == own["sefar_fused"] == own["random"] == {0: one, 3: two}
    assert own["clip"] == own["clip_probe"] == {0: clip}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sefar": "abc"}, "--sefar names 3 run folders for 2 seeds; give one for"),
        ({"sefar": ""}, "--sefar names 0 run folders"),
        ({"supervised": "abc"}, "--supervised names 3 run folders for 2 seeds"),
        ({"sefar": ("a", "b/../a")}, "--sefar names a run folder twice"),
        ({"sefar": ("run/student", "run/teacher")}, "--sefar names a run folder twice"),
        ({"questions": ()}, "questions is empty"),
        ({"seeds": (2, 2)}, "seeds must be different numbers"),
        ({"lr_grid": (1.0, 0.0)}, "lr_grid must be one or more factors above 0"),
        ({"dev_rate": 1.0}, r"dev_rate must be in \(0, 1\), got 1"),
        ({"grid": 0}, "grid must be at least 1, got 0"),
        (
            {"finetune": FinetuneConfig(seed=4)},
            "finetune.seed is 4, but the seeds of a comparison come",
        ),
    ],
)
def test_settings_that_no_comparison_can_have_are_refused(tmp_path, changed, message):
    for name in ("sefar", "supervised"):
        if name in changed:
            changed = changed | {name: tuple(tmp_path / folder for folder in changed[name])}
    with pytest.raises(ValueError, match=message):
        refuse_uneven_recognizers(comparison(tmp_path, tmp_path, **changed))
    refuse_uneven_recognizers(comparison(tmp_path, tmp_path, supervised=()))


@pytest.mark.parametrize("text", [None, "", '{"settings": ', "[1]", '{"settings": {}}'])
def test_a_question_folder_without_its_audit_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "audit.json").write_text(text)
    words = "has no audit" if text is None else rf"{tmp_path}/audit\.json .*build_gym_qa"
    with pytest.raises(QuestionError, match=words):
        read_question_folders([tmp_path], [])


def test_question_folders_that_no_comparison_can_use_are_refused(tmp_path):
    one = question_folder(tmp_path / "a/qa", "hard")
    (found,) = read_question_folders([one], CLIPS)
    assert (found.name, found.rule, found.train) == ("qa", "hard", TRAIN)
    with pytest.raises(QuestionError, match="share one name"):
        read_question_folders([one, question_folder(tmp_path / "b/qa", "public")], CLIPS)
    with pytest.raises(QuestionError, match="share one rule"):
        read_question_folders([one, question_folder(tmp_path / "b/other", "hard")], CLIPS)
    with pytest.raises(QuestionError, match="12 clips that are not labeled in the manifest"):
        read_question_folders([one], CLIPS[12:])
    alike = question_folder(tmp_path / "c", "hard", train=TRAIN[:1])
    with pytest.raises(QuestionError, match=r"train\.jsonl: .*needs this control \(C3\)"):
        read_question_folders([alike], CLIPS)


@pytest.mark.parametrize(
    ("options", "labels", "probs", "expected", "strict"),
    [
        ("abc", (5, 0, 3), [0.1, 0.5, 0.05, 0.2, 0.05, 0.1], [0.25, 0.25, 0.5], False),
        ("aba", (0, 1, 2), [0.1, 0.2, 0.7], [0.1, 0.2, 0.7], True),  # the right text
        ("aba", (0, 1, 2), [0.1, 0.7, 0.2], [0.1, 0.7, 0.2], False),
    ],
)
def test_class_probabilities_are_restricted_to_the_options(
    options, labels, probs, expected, strict
):
    question = replace(TRAIN[0], options=tuple(options), option_labels=labels, answer=0)
    (one,) = predict_from_probs({question.video: torch.tensor(probs)}, [question])
    np.testing.assert_allclose(one.probs, expected, atol=1e-7)
    best = int(np.argmax(expected))
    assert (one.choice, one.first_letter, one.strict) == (best, best, strict)
    with pytest.raises(SefarError, match="does not have the classes of its options"):
        predict_from_probs({question.video: torch.ones(9)}, [replace(question, option_labels=None)])


def test_the_classifier_finds_the_optimum_of_its_loss():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 4, generator=generator) + labels[:, None] * torch.tensor(
        [1, 0, 2, 0]
    )
    head = fit_classifier(features, labels, 4)
    again = fit_classifier(features, labels, 4)
    assert torch.equal(head.weight, again.weight)
    # The gradient by hand: X' (P - Y) / n + decay W is zero at the optimum.
    probs = head(features).softmax(dim=-1)
    gap = probs - torch.eye(4)[labels]
    slope = gap.T @ features / len(labels) + 1e-3 * head.weight
    assert slope.abs().max() < 1e-4
    assert (probs.argmax(dim=-1) == labels).float().mean() > 0.8


def test_symbols_of_a_control_can_be_scored_by_one_token_each(world):
    tokenizer = load_tokenizer(world.language_model)
    for condition, symbols in option_symbols(tokenizer, 4, seed=0).items():
        assert len(set(symbols)) == 4 and not set(symbols) & set("ABCD")
        assert condition == ("letters_digits" if symbols.isdigit() else "letters_drawn")
        marker_ids(tokenizer, symbols)  # refuses what is not comparable
    assert set(comparable_symbols(tokenizer, "ABCD")) <= set("ABCD")


def test_the_text_only_row_reads_no_clip_and_refuses_prompts_longer_than_the_context(world):
    model, asked = str(world.language_model), toy_llm.questions(6)
    found = predict_text_only(model, asked, batch_size=4, device="cpu")
    assert [one.question_id for one in found] == [one.question_id for one in asked]
    assert {one.shown for one in found} == {""}
    alike = [one.probs for one in found if one.answer == found[0].answer]
    for other in alike:  # the same text, whichever the clip
        np.testing.assert_allclose(other, alike[0], atol=1e-5)
    asked[2] = replace(asked[2], stem="why " * 400)
    with pytest.raises(ValueError, match="question 0000002: without video .* reads 512; shorten"):
        predict_text_only(model, asked, batch_size=4, device="cpu")
