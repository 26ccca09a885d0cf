"""A Gym-QA folder: question files for the splits of a manifest, with their blind audit.

Unlabeled clips of a manifest have no questions: their answers would be labels. Clips of FineGym's
own lists, which know their classes, get unlabel.json, as in the public sets.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from qa_data.attribute_questions import attribute_questions, pair_questions
from qa_data.attributes import TreePath
from qa_data.blind import Audit, audit
from qa_data.distractors import OTHER_NAMES
from qa_data.files import write_text
from qa_data.generate import Common, QuestionSet, build_questions, paraphrase
from qa_data.manifest import Clip, by_split
from qa_data.questions import (
    LETTERS,
    STEM,
    QuestionError,
    parse,
    read_question_text,
    write_public_json,
    write_questions,
)
from qa_data.taxonomy import ElementClass

QuestionKind = Literal["which", "attributes", "pairs"]
SPLIT_OF_FILE = {"train": "labeled", "unlabel": "unlabeled", "val": "val", "test": "test"}
NOT_MEASURED = ("train", "unlabel")
QUESTION_FILES = [f"{name}{end}" for name in SPLIT_OF_FILE for end in (".json", ".jsonl")]
REPORT = "audit.json"


@dataclass(frozen=True, kw_only=True)
class QuestionPlan:
    """Which questions to build."""

    kind: QuestionKind = "which"
    """Which move it is (which); attributes of it; or it against its mirror image (pairs)."""
    rule: str = "hard"
    """Rule of the wrong options: one of generate.RULES, or of OTHER_NAMES."""
    seed: int = 0
    """Random seed of all draws."""
    num_options: int = 4
    common: Common = "leave_out"
    """What becomes of validation and test clips that the rule cannot bring to chance."""
    wordings: int = 1
    """Number of stems that ask which move it is; 1 is the public stem alone."""
    stem: str = STEM
    """The first of these stems."""
    dataset: str = "finegym"
    """Name of the data set in every question."""

    def __post_init__(self) -> None:
        if not 2 <= self.num_options <= len(LETTERS):
            raise QuestionError(f"got {self.num_options} options; take 2 to {len(LETTERS)}")
        if self.stem != STEM and (self.wordings != 1 or self.kind != "which"):
            raise QuestionError(
                f"a stem of your own, {self.stem!r:.60}, asks which move it is, in one wording; "
                f"got questions about {self.kind} and {self.wordings} wordings"
            )
        if not self.stem.endswith("?"):
            raise QuestionError(f"the stem {self.stem!r:.60} must end in a question mark")
        if self.kind != "which" and (self.wordings != 1 or self.common != "leave_out"):
            raise QuestionError(
                f"questions about {self.kind} have one wording, and leave out clips that cannot be "
                f"at chance; got {self.wordings} wordings and common {self.common}"
            )


def classes_of(clips: Sequence[Clip]) -> dict[int, ElementClass]:
    """The classes that the clips of a manifest name, for data sets without a class list.

    Raises:
        QuestionError: a clip with a class does not say what the class is called, or two clips of
            one class call it differently.
    """
    first: dict[int, Clip] = {}
    for clip in clips:
        if clip.label is None:
            continue
        if clip.text is None:
            raise QuestionError(
                f"clip {clip.id} of class {clip.label} has no text, which would be its right "
                f"option; write it into the manifest, or give --categories"
            )
        known = first.setdefault(clip.label, clip)
        if clip.text != known.text:
            raise QuestionError(
                f"class {clip.label} is {known.text!r} for clip {known.id} and {clip.text!r} for "
                f"clip {clip.id}; call it by one name"
            )
    return {
        label: ElementClass(label, 0, label, clip.event or "", clip.text or "")
        for label, clip in sorted(first.items())
    }


def build_sets(
    clips: Sequence[Clip], classes: Mapping[int, ElementClass], plan: QuestionPlan
) -> dict[str, QuestionSet]:
    """Question sets by file name, for the splits that the clips have.

    Training keeps questions of clips that cannot be at chance: nothing is measured on them.
    Unlabeled clips get questions if they have a class.

    Raises:
        QuestionError: no labeled clips, or neither validation nor test clips; or a set cannot be
            built.
    """
    members = {
        name: [one for one in by_split(clips, split) if one.label is not None or name != "unlabel"]
        for name, split in SPLIT_OF_FILE.items()
    }
    if not members["train"] or not (members["val"] or members["test"]):
        raise QuestionError(
            f"there are {len(members['train'])} labeled, {len(members['val'])} validation and "
            f"{len(members['test'])} test clips; questions need labeled clips and one of the "
            f"others: make the manifest anew with scripts/make_splits.py"
        )
    return {
        name: _build(chosen, classes, plan, keep=name in NOT_MEASURED)
        for name, chosen in members.items()
        if chosen
    }


def _build(
    clips: Sequence[Clip], classes: Mapping[int, ElementClass], plan: QuestionPlan, *, keep: bool
) -> QuestionSet:
    if plan.kind == "attributes":
        built = attribute_questions(clips, classes, seed=plan.seed, num_options=plan.num_options)
    elif plan.kind == "pairs":
        built = pair_questions(clips, classes, seed=plan.seed)
    else:
        built = build_questions(
            clips,
            classes,
            rule=OTHER_NAMES.get(plan.rule, plan.rule),
            seed=plan.seed,
            num_options=plan.num_options,
            common="keep" if keep else plan.common,
        )
        built = replace(built, questions=paraphrase(built.questions, plan.wordings, plan.seed))
    questions = [
        replace(one, stem=plan.stem if one.stem == STEM else one.stem, dataset=plan.dataset)
        for one in built.questions
    ]
    return replace(built, questions=questions)


def audit_sets(
    sets: Mapping[str, QuestionSet],
    classes: Mapping[int, ElementClass],
    tree: Mapping[int, TreePath] | None = None,
) -> dict[str, Audit]:
    """Blind audit of every evaluation set; its rules learn from the training questions.

    FineGym's attribute tree, by Glabel, gives the rows by likeness of code.
    """
    codes = None
    if tree is not None:
        codes = {one.label: tree[one.glabel].code for one in classes.values() if one.glabel in tree}
    train = sets["train"].questions
    return {
        name: audit(one.questions, train, classes, bound=one.bound, codes=codes)
        for name, one in sets.items()
        if name not in NOT_MEASURED
    }


def check_out(out: Path) -> None:
    """Raise QuestionError if `out` cannot be a folder, or holds question files not built here."""
    place = next(one for one in (out, *out.parents) if one.exists())
    if not place.is_dir():
        raise QuestionError(f"{place} is a file; give a folder for the questions")
    files = [name for name in (*QUESTION_FILES, REPORT) if (out / name).exists()]
    if files and not _is_report(out / REPORT):
        raise QuestionError(
            f"{out} holds {', '.join(files)} and no {REPORT} of an earlier build, so these files "
            f"are not replaced; move them, or give another folder"
        )


def write_sets(
    sets: Mapping[str, QuestionSet],
    audits: Mapping[str, Audit],
    out: Path,
    *,
    settings: Mapping[str, object],
) -> None:
    """Write each set in the public format and with classes (.jsonl), and audit.json.

    Nothing is written before everything is built. Then question files that only an earlier build
    has are removed. Sets and audits are by file name without suffix; `settings`, what the sets were
    built with, are recorded in audit.json.

    Raises:
        QuestionError: a question cannot be written, or see `check_out`.
    """
    check_out(out)
    report = {
        "settings": dict(settings),
        "pools": {name: [asdict(pool) for pool in one.pools] for name, one in sets.items()},
        "audits": {name: asdict(found) for name, found in audits.items()},
    }
    texts = _texts(sets, out) | {REPORT: json.dumps(report, indent=2) + "\n"}
    for name in set(QUESTION_FILES) - set(texts):
        (out / name).unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)


def _texts(sets: Mapping[str, QuestionSet], out: Path) -> dict[str, str]:
    """The contents of the sets' files by name, as written to `out`."""
    with TemporaryDirectory() as name:
        draft = Path(name)
        try:
            for stem, one in sets.items():
                write_public_json(one.questions, draft / f"{stem}.json")
                write_questions(one.questions, draft / f"{stem}.jsonl")
        except QuestionError as error:
            raise QuestionError(str(error).replace(name, str(out))) from error
        return {file.name: file.read_bytes().decode() for file in sorted(draft.iterdir())}


def _is_report(path: Path) -> bool:
    try:
        found = parse(path, read_question_text(path))
    except QuestionError:
        return False
    return isinstance(found, dict) and {"settings", "audits"} <= set(found)
