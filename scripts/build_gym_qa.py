"""Build Gym-QA: multiple-choice questions about clips, with an audit of blind answers.

    scripts/build_gym_qa.py --categories gym99_categories.txt \\
        --train-list gym99_train_element_v1.1.txt --test-list gym99_val_element.txt --rate 0.05 \\
        --distractors public --out data/qa99-public             # FineGym's lists, nothing else
    scripts/build_gym_qa.py --categories gym99_categories.txt \\
        --manifest data/gym99-5/manifest.csv --distractors hard --out data/gym99-5/qa-hard
    scripts/build_gym_qa.py --manifest data/ucf101/manifest.csv --distractors prior \\
        --stem "What is going on in this clip?" --dataset ucf101 --out data/ucf101/qa

Writes train.json (labeled clips), val.json and test.json in the public format, the same with
classes as .jsonl, and audit.json: what every blind rule gets right, and what became of the clips
of each pool. From FineGym's lists, which know all classes, the other training clips go to
unlabel.json, and the test list to val.json, as in the public sets. Nothing is written before
every question and the audit are made. In the folder of an earlier build all its question files are
replaced; question files of other origin are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.attributes import read_question_tree
from qa_data.blind import audit_table
from qa_data.build import (
    QuestionKind,
    QuestionPlan,
    audit_sets,
    build_sets,
    check_out,
    classes_of,
    write_sets,
)
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import Common, PoolReport
from qa_data.manifest import Clip, read_manifest
from qa_data.questions import STEM, QuestionError
from qa_data.taxonomy import ElementClass, read_categories
from qa_data.terminal import console
from sefar_core.data.splits import SplitConfig, draw_labeled

POOLS_SHOWN = 8
WITHOUT_LIST = ("public", "distinct", "prior")  # rules that read neither apparatus nor sets
DEFAULTS: dict[str, Any] = {"rate": 0.05, "draw": "stratified", "distractors": "hard", "options": 4}


@dataclass(frozen=True, kw_only=True)
class BuildGymQa:
    """Which clips, which questions, and where to write them."""

    out: Path
    """Folder for the question files and audit.json."""
    manifest: Path | None = None
    """Manifest of scripts/make_splits.py; or give the two lists instead."""
    categories: Path | None = None
    """FineGym's class list, which the labels refer to. A manifest of another data set needs none
    under the rules public, distinct and prior."""
    train_list: Path | None = None
    """FineGym's element list of training clips."""
    test_list: Path | None = None
    """FineGym's element list of validation clips."""
    rate: float | None = None
    """Share of the training list that train.json has questions on, in (0, 1]; by default 0.05."""
    draw: Literal["stratified", "unstratified"] | None = None
    """How that share is drawn: spread over the classes by their sizes (the default), or plainly."""
    attributes: Path | None = None
    """FineGym's attribute tree (finegym_glabel_to_Qtree.json): adds rows to the audit that choose
    by the similarity of codes. The questions do not need it."""
    questions: QuestionKind = "which"
    """What to ask: which move it is (which); one attribute of it, such as direction or number
    of turns (attributes); or the move against its mirror image (pairs)."""
    distractors: (
        Literal["public", "distinct", "prior", "event_prior", "hard", "set_prior", "attribute"]
        | None
    ) = None
    """Rule of the wrong options for "which" (see qa_data/distractors.py), by default hard, which
    is event_prior."""
    options: int | None = None
    """Number of options of a question, the right one included; by default 4, fewer where an
    attribute has fewer values. Not allowed for pairs, which have two."""
    common: Common = "leave_out"
    """Validation and test clips that the rule cannot bring to chance: leave them out (leave_out),
    keep them at a blind bound above chance (keep), or widen their pools until they are at chance
    (widen). Under attribute, clips that are in no grid are left out, or get event_prior's options,
    kept or widened."""
    wordings: int = 1
    """Number of wordings of "which", drawn by clip: 1 is the public one alone, 7 are all."""
    stem: str = STEM
    """Your own wording in place of the public one."""
    dataset: str = "finegym"
    """Name of the data set, written into every question."""
    seed: int = 0
    """Random seed of all draws."""


def main(settings: BuildGymQa) -> None:
    """Read clips and classes, build, audit, write, and print the audit."""
    settings = settled(settings)
    plan = QuestionPlan(
        kind=settings.questions,
        rule=settings.distractors or DEFAULTS["distractors"],
        seed=settings.seed,
        num_options=DEFAULTS["options"] if settings.options is None else settings.options,
        common=settings.common,
        wordings=settings.wordings,
        stem=settings.stem,
        dataset=settings.dataset,
    )
    refuse_unwritable(folders=[settings.out])
    check_out(settings.out)
    tree = None if settings.attributes is None else read_question_tree(settings.attributes)
    clips, classes = read_clips(settings)
    sets = build_sets(clips, classes, plan)
    audits = audit_sets(sets, classes, tree)
    write_sets(sets, audits, settings.out, settings=record(settings))
    terminal = console()
    built = ", ".join(filter(None, (settings.questions, settings.distractors)))
    for name, found in audits.items():
        terminal.print(audit_table(found, f"{name}, {built}"))
    for name, one in sets.items():
        for line in left_out(one.pools):
            terminal.print(f"{name}: {line}")
    counts = ", ".join(f"{len(one.questions)} in {name}.json" for name, one in sets.items())
    terminal.print(f"wrote questions to {settings.out}: {counts}")


def settled(given: BuildGymQa) -> BuildGymQa:
    """The settings with defaults for what was not given, and none for what has no effect.

    Raises:
        QuestionError: something is given that has no effect.
    """
    idle = {}
    if given.manifest is not None:
        idle |= dict.fromkeys(("rate", "draw"), "--manifest, which says which clips are labeled")
    if given.questions != "which":
        idle["distractors"] = f"--questions {given.questions}, whose options the answers give"
    if given.questions == "pairs":
        idle["options"] = "--questions pairs, which have two"
    for name, where in idle.items():
        if (value := getattr(given, name)) is not None:
            raise QuestionError(f"--{name} {value} has no effect with {where}; leave it out")
    missing = [name for name in DEFAULTS.keys() - idle.keys() if getattr(given, name) is None]
    return replace(given, **{name: DEFAULTS[name] for name in missing})


def read_clips(settings: BuildGymQa) -> tuple[list[Clip], dict[int, ElementClass]]:
    """The clips of the manifest or the lists, and their classes."""
    lists = (settings.train_list, settings.test_list)
    if (settings.manifest is None) == (lists == (None, None)) or (
        settings.manifest is None and (None in lists or settings.categories is None)
    ):
        raise QuestionError(
            "give --manifest, or FineGym's lists: --categories, --train-list and --test-list"
        )
    if settings.manifest is None:
        return read_lists(settings)
    clips = read_manifest(settings.manifest)
    if settings.categories is not None:
        return clips, read_categories(settings.categories)
    if settings.questions != "which" or settings.distractors not in WITHOUT_LIST:
        rule = "" if settings.distractors is None else f" with --distractors {settings.distractors}"
        raise QuestionError(
            f"--questions {settings.questions}{rule} reads apparatus and sets of FineGym's class "
            f"list; give it by --categories, or ask which, with {', '.join(WITHOUT_LIST)}"
        )
    return clips, classes_of(clips)


def read_lists(settings: BuildGymQa) -> tuple[list[Clip], dict[int, ElementClass]]:
    """Labeled, other training and validation clips of FineGym's lists, in their order."""
    assert settings.categories and settings.train_list and settings.test_list  # read_clips
    assert settings.rate is not None and settings.draw is not None  # settled
    classes = read_categories(settings.categories)
    pool = to_clips(read_elements(settings.train_list), classes, split="unlabeled")
    val = to_clips(read_elements(settings.test_list), classes, split="val")
    try:
        config = SplitConfig(rate=settings.rate, draw=settings.draw, seed=settings.seed)
    except ValueError as cause:
        raise QuestionError(str(cause)) from cause
    labeled = {clip.id for clip in draw_labeled(pool, config)}
    if both := labeled & {clip.id for clip in val}:
        raise QuestionError(
            f"{len(both)} clips of the training draw are in the test list too, first "
            f"{min(both)}; take both lists of one benchmark"
        )
    pool = [replace(clip, split="labeled") if clip.id in labeled else clip for clip in pool]
    return [*pool, *val], classes


def record(settings: BuildGymQa) -> dict[str, object]:
    """The settings for audit.json: files by name, since folders differ elsewhere."""
    kept = {name: value for name, value in vars(settings).items() if name != "out"}
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in kept.items()
        if value is not None
    }


def left_out(pools: Sequence[PoolReport]) -> list[str]:
    """A line for each pool of clips without questions, the largest first."""
    gone = sorted((pool for pool in pools if not pool.asked), key=lambda pool: -pool.clips)
    lines = [f"{pool.clips} clips left out: {pool.pool}, {blind(pool)}" for pool in gone]
    if len(gone) > POOLS_SHOWN:
        clips = sum(pool.clips for pool in gone[POOLS_SHOWN:])
        return [*lines[:POOLS_SHOWN], f"{clips} clips left out in other pools: see audit.json"]
    return lines


def blind(pool: PoolReport) -> str:
    """What a blind guess would earn on the clips of a pool."""
    if pool.bound is None:
        return "which show too few different texts"
    return f"where the best blind guess would be right in {pool.bound:.1%}"


if __name__ == "__main__":
    start(main, partial(tyro.cli, BuildGymQa, description=__doc__))
