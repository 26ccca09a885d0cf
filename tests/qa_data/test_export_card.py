"""The dataset card: metadata that the hub reads, and figures that agree with the questions."""

from dataclasses import replace
from typing import get_args

import pytest
import yaml

from qa_data.build import QuestionKind
from qa_data.export.card import FIELD_TEXTS, KIND_TEXTS, RULE_TEXTS, card
from qa_data.export.writers import QuestionSource
from qa_data.generate import RULES
from qa_data.questions import Question, QuestionError

QUESTION = Question(
    question_id="0000000", video="clip", stem="Which?", options=("one", "two", "two"), answer=1
)
OTHER = replace(QUESTION, question_id="0000001", options=("one", "two"), answer=0)
REPORT = {
    "settings": {"questions": "which", "distractors": "hard", "seed": 17},
    "pools": {
        "val": [
            {"pool": "VT", "clips": 31, "asked": False, "bound": 0.36},
            {"pool": "UB", "clips": 7, "asked": True, "bound": 0.25},
        ]
    },
    "audits": {
        "val": {
            "rows": {
                "chance": {"micro": 0.25, "micro_se": 0.0, "macro": 0.25, "macro_se": 0.0},
                "naive | Bayes": {"micro": 0.312, "micro_se": 0.0047, "macro": 1, "macro_se": 0},
            },
            "bound": 0.2513,
            "shared_sources": 3,
            "questions_of_shared_sources": 19,
        }
    },
}
SOURCE = QuestionSource(sets={"train": [OTHER], "val": [QUESTION, OTHER]}, report=REPORT)


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_tells_source_license_rule_seed_counts_and_audit():
    text = card(SOURCE)
    assert metadata(text)["license"] == "cc-by-nc-4.0"
    assert "annotations of [FineGym]" in text and "CC BY-NC 4.0" in text
    assert "- seed: `17`" in text and "- distractors: `hard`" in text
    assert "moves on one apparatus" in text
    assert "| val | 2 | 2 or 3 | 1 | A 1 B 1 | 1 | 1 |" in text
    assert "| chance | 25.0% ± 0.0 | 25.0% ± 0.0 |" in text
    assert "| naive \\| Bayes | 31.2% ± 0.5 | 100.0% ± 0.0 |" in text
    assert "Best possible blind rule: 25.13%" in text
    assert "training questions too: 3, with 19 questions. Clips left out: 31." in text
    assert "configs" not in metadata(text)


def test_a_set_of_unlabeled_clips_comes_with_a_warning():
    assert "semi-supervised" not in card(SOURCE)
    assert "semi-supervised" in card(replace(SOURCE, sets={**SOURCE.sets, "unlabel": [OTHER]}))


def test_every_rule_and_every_kind_of_question_is_explained():
    assert set(RULE_TEXTS) == set(RULES)
    assert set(KIND_TEXTS) == set(get_args(QuestionKind))
    about_pairs = {**REPORT, "settings": {"questions": "pairs", "distractors": "hard"}}
    text = card(replace(SOURCE, report=about_pairs))
    assert "its mirror image" in text and "moves on one apparatus" not in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"questions": "attributes", "seed": 1}, ["one attribute of the move"]),
        ({"questions": "pairs", "seed": 1}, ["its mirror image"]),
        (
            {"questions": "which", "distractors": "attribute", "seed": 1},
            ["a grid of two attributes of the move", "- distractors: `attribute`"],
        ),
    ],
)
def test_the_settings_that_a_build_wrote_are_told_and_no_others(settings, told):
    text = card(replace(SOURCE, report={**REPORT, "settings": settings}))
    assert all(words in text for words in [*told, "- seed: `1`"])
    assert ("distractors" in text) == ("distractors" in settings) and "None" not in text


def test_every_field_of_a_question_is_explained():
    assert set(FIELD_TEXTS) == {*vars(QUESTION), "letter"}


def test_beside_parquet_the_card_names_the_files():
    text = card(SOURCE, parquet=True)
    (config,) = metadata(text)["configs"]
    assert config["data_files"] == [
        {"split": "train", "path": "train.parquet"},
        {"split": "validation", "path": "validation.parquet"},
    ]
    assert "load_dataset(" in text


def test_what_is_not_known_is_said():
    own = QuestionSource(sets={"mine": [replace(QUESTION, dataset="own")]}, report=None)
    text = card(own)
    assert metadata(text)["license"] == "unknown"
    assert "clips of `own`. Their license is not known" in text
    assert "Not recorded" in text and "Not measured." in text
    mixed = QuestionSource(
        sets={"a": [QUESTION], "b": [replace(QUESTION, dataset="own")]}, report=None
    )
    assert metadata(card(mixed))["license"] == "unknown"


@pytest.mark.parametrize(
    "audits",
    [
        [],
        {"val": 3},
        {"val": {}},
        {"val": {"rows": {"chance": {"micro": "a"}}}},
        {"val": {**REPORT["audits"]["val"], "bound": "x"}},
    ],
)
def test_a_report_of_another_form_is_refused(audits):
    broken = replace(SOURCE, report={**REPORT, "audits": audits})
    with pytest.raises(QuestionError, match="audit.json: .* build the questions again"):
        card(broken)
