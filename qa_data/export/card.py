"""The dataset card: where a question set comes from, how it was made, what it gives away.

Source of the form: Hugging Face, dataset cards (YAML between dashes, then Markdown). The texts of
the card (terms, rules, fields) come first, then `card`, which puts them together.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from qa_data.blind import shared_words
from qa_data.distractors import OTHER_NAMES
from qa_data.export.writers import QuestionSource, split_name
from qa_data.questions import Question, QuestionError, count_repeats

LICENSES = {"finegym": "cc-by-nc-4.0"}
TERMS = {
    "finegym": (
        "The classes, their names and the clips' times are annotations of "
        "[FineGym](https://sdolivia.github.io/FineGym/) (arXiv:2004.06704), which are licensed "
        "under CC BY-NC 4.0; these questions are derived from them and carry the same license. "
        "The videos are not part of this set and belong to their owners."
    )
}
UNKNOWN_TERMS = (
    "The questions are about clips of `{dataset}`. Their license is not known here: it is "
    "whatever the terms of the clips, of the labels and of the texts allow."
)
UNLABELED = (
    "The answers of `unlabel` are the labels that semi-supervised training does without: a model "
    "that was trained on them is not comparable with one that was not."
)
KIND_TEXTS = {
    "which": "Each question asks which move the clip shows.",
    "attributes": "Each question asks for one attribute of the move, such as its direction.",
    "pairs": "Each question asks whether the clip shows a move or its mirror image.",
}
TOGETHER = (
    "drawn together, by how often their classes are asked about, so that each of them is equally "
    "likely to be the answer."
)
RULE_TEXTS = {
    "public": (
        "The wrong options are other classes, all equally likely. Answers are not: the commonest "
        "option is right far more often than chance. Some questions print a text twice."
    ),
    "distinct": (
        "The wrong options are other classes, all equally likely, whose texts differ. Answers are "
        "not equally likely: the commonest option is right far more often than chance."
    ),
    "prior": f"The options of a question are {TOGETHER}",
    "event_prior": f"The options of a question are moves on one apparatus, {TOGETHER}",
    "set_prior": f"The options of a question are moves of one element set, {TOGETHER}",
    "attribute": (
        "The options of a question are a grid of two attributes of the move, so that each of them "
        "could be the answer."
    ),
}
USE = """\
```python
from datasets import load_dataset

sets = load_dataset("path/of/this/folder")
```"""
FIELD_TEXTS = {
    "question_id": "number of the question in its set",
    "video": "clip id: the name of the video file without folder and suffix",
    "stem": "the question",
    "options": "texts to choose from",
    "answer": "position of the right option, from 0",
    "letter": "its letter",
    "label": "class of the clip",
    "option_labels": "class of each option",
    "event": "apparatus: VT, FX, BB or UB",
    "source": "video that the clip was cut from",
    "frame_length": "frames in the clip",
    "answer_type": "kind of question",
    "dataset": "where the clips come from",
}


SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def card(source: QuestionSource, *, parquet: bool = False) -> str:
    """README.md of a question set, with `parquet` beside Parquet files for `load_dataset`.

    Raises:
        QuestionError: the report is not one that scripts/build_gym_qa.py writes.
    """
    datasets = sorted({question.dataset for question in source.questions})
    parts = [
        f"---\n{yaml.safe_dump(_metadata(source, datasets, parquet), sort_keys=False)}---",
        "# Multiple-choice questions about video clips",
        "Each question shows a clip and asks to choose among options; one is right.",
        "## Source and license",
        *(TERMS.get(name, UNKNOWN_TERMS.format(dataset=name)) for name in datasets),
        "## How it was made",
        _making(source.report),
        "## Counts",
        _table(COUNT_COLUMNS, [_counts(*item) for item in source.sets.items()]),
        *([UNLABELED] if "unlabel" in source.sets else []),
        "## Answered without looking",
        *_audits(source.report),
        "## Fields",
        _table(("field", "meaning"), [(f"`{k}`", text) for k, text in FIELD_TEXTS.items()]),
    ]
    if parquet:
        parts += ["## Use", USE]
    return "\n\n".join(parts) + "\n"


def _metadata(source: QuestionSource, datasets: Sequence[str], parquet: bool) -> dict[str, Any]:
    licenses = {LICENSES.get(name, "unknown") for name in datasets}
    count = len(source.questions)
    size = next((text for most, text in SIZES.items() if count < most), "n>1M")
    metadata: dict[str, Any] = {
        "pretty_name": "Multiple-choice questions about video clips",
        "license": licenses.pop() if len(licenses) == 1 else "unknown",
        "language": ["en"],
        "task_categories": ["video-text-to-text", "multiple-choice"],
        "size_categories": [size],
    }
    if parquet:
        names = [split_name(name) for name in source.sets]
        files = [{"split": name, "path": f"{name}.parquet"} for name in names]
        metadata["configs"] = [{"config_name": "default", "data_files": files}]
    return metadata


def _making(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return "Not recorded: there was no audit.json beside the questions."
    settings = _mapping(report, "settings")
    kind, rule = (str(settings.get(name)) for name in ("questions", "distractors"))
    lines = [KIND_TEXTS.get(kind, "")]
    if kind == "which":
        lines.append(RULE_TEXTS.get(OTHER_NAMES.get(rule, rule), ""))
    lines.append("Built by `scripts/build_gym_qa.py` with")
    lines.append("\n".join(f"- {name}: `{value}`" for name, value in settings.items()))
    return "\n\n".join(line for line in lines if line)


COUNT_COLUMNS = (
    "set",
    "questions",
    "options",
    "clips",
    "right letters",
    "an option twice",
    "the right one twice",
)


def _counts(name: str, questions: Sequence[Question]) -> tuple[object, ...]:
    letters = Counter(question.letter for question in questions)
    repeats = count_repeats(questions)
    sizes = sorted({len(question.options) for question in questions})
    return (
        name,
        len(questions),
        " or ".join(map(str, sizes)),
        len({question.video for question in questions}),
        " ".join(f"{letter} {count}" for letter, count in sorted(letters.items())),
        repeats["some_option_twice"],
        repeats["right_option_twice"],
    )


def _audits(report: Mapping[str, Any] | None) -> list[str]:
    audits = {} if report is None else _mapping(report, "audits")
    if not audits:
        return ["Not measured."]
    parts = [
        "What rules get right that never see a video, in percent with one standard error. A "
        "result on this set means something only beside them."
    ]
    for name in audits:
        audit, pools = _mapping(audits, name), _mapping(report or {}, "pools").get(name, [])
        try:
            parts += [f"### {name}", *_audit(audit, pools)]
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            raise _bad_report(f"{cause!r:.120} in the audit of {name}") from cause
    return parts


def _audit(audit: Mapping[str, Any], pools: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = ("micro", "macro")
    rows = [
        (rule, *(f"{row[one]:.1%} ± {100 * row[f'{one}_se']:.1f}" for one in columns))
        for rule, row in audit["rows"].items()
    ]
    best = "not known" if audit["bound"] is None else f"{audit['bound']:.2%}"
    left_out = sum(pool["clips"] for pool in pools if not pool["asked"])
    return [
        _table(("answers by", "all questions", "mean of classes"), rows),
        f"Best possible blind rule: {best}. Source videos that have training questions too: "
        f"{shared_words(audit)}. Clips left out: {left_out}.",
    ]


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    if not isinstance(found, Mapping):
        raise _bad_report(f"{key} is {found!r:.60}")
    return found


def _bad_report(found: str) -> QuestionError:
    return QuestionError(f"audit.json: {found}; build the questions again with build_gym_qa.py")


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
