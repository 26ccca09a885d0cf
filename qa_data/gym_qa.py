"""A Gym-QA folder: train.json, val.json and test.json from the splits of a manifest, audited.

Unlabeled clips have no questions: their answers would be labels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from qa_data.atomic import write_text
from qa_data.blind import Audit, audit
from qa_data.distractors import OTHER_NAMES
from qa_data.generate import Common, QuestionSet, build_questions
from qa_data.manifest import Clip, by_split
from qa_data.question import QuestionError
from qa_data.schema import write_public_json, write_questions
from qa_data.taxonomy import ElementClass

SPLIT_OF_FILE = {"train": "labeled", "val": "val", "test": "test"}


def build_sets(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    *,
    rule: str,
    seed: int,
    num_options: int = 4,
    common: Common = "leave_out",
) -> dict[str, QuestionSet]:
    """Question sets by file name, for the splits that the clips have.

    Training questions of pools that cannot be at chance are kept: nothing is measured on them.

    Args:
        clips: of all splits.
        classes: the class list that their labels count in.
        rule: a key of DISTRACTORS or of OTHER_NAMES.
        seed: of all draws.
        num_options: options of a question.
        common: what becomes of such pools in validation and test (see `build_questions`).

    Raises:
        QuestionError: no labeled clips, or neither validation nor test clips; or a set cannot be
            built.
    """
    members = {name: by_split(clips, split) for name, split in SPLIT_OF_FILE.items()}
    if not members["train"] or not (members["val"] or members["test"]):
        raise QuestionError(
            f"there are {len(members['train'])} labeled, {len(members['val'])} validation and "
            f"{len(members['test'])} test clips; questions need labeled clips and one of the "
            f"others: make the manifest anew with scripts/make_splits.py"
        )
    return {
        name: build_questions(
            chosen,
            classes,
            rule=OTHER_NAMES.get(rule, rule),
            seed=seed,
            num_options=num_options,
            common="keep" if name == "train" else common,
        )
        for name, chosen in members.items()
        if chosen
    }


def audit_sets(
    sets: Mapping[str, QuestionSet], classes: Mapping[int, ElementClass]
) -> dict[str, Audit]:
    """Blind audit of every set that is measured on; its rules learn from the training questions."""
    train = sets["train"].questions
    return {
        name: audit(one.questions, train, classes, bound=one.bound)
        for name, one in sets.items()
        if name != "train"
    }


def write_sets(
    sets: Mapping[str, QuestionSet],
    audits: Mapping[str, Audit],
    out: Path,
    *,
    settings: Mapping[str, object],
) -> None:
    """Write each set in the public format and with classes (.jsonl), and audit.json.

    Args:
        sets: by file name without suffix.
        audits: of some of them.
        out: folder, made if it is missing.
        settings: what the sets were built with, for the record.
    """
    for name, one in sets.items():
        write_public_json(one.questions, out / f"{name}.json")
        write_questions(one.questions, out / f"{name}.jsonl")
    report = {
        "settings": dict(settings),
        "pools": {name: [asdict(pool) for pool in one.pools] for name, one in sets.items()},
        "audits": {name: asdict(found) for name, found in audits.items()},
    }
    write_text(out / "audit.json", json.dumps(report, indent=2) + "\n")
