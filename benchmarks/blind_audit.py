"""How far questions of each Gym-QA rule can be answered blind, on FineGym's own lists.

    python -m benchmarks.blind_audit --finegym FOLDER --out tables.md

Every rule builds training questions of a 5 % draw and questions of the official validation list,
for each seed anew; the audit answers both. On the validation list its rules learn from the
training questions. On the training questions they learn from questions about as many other clips
of the training list, so that no question counts for itself. Prints the tables of docs/gym_qa.md:
percent of right answers, mean over the seeds and its standard error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from qa_data.attribute_questions import attribute_questions, pair_questions
from qa_data.attributes import read_question_tree
from qa_data.blind import Audit, audit
from qa_data.files import write_text
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import RULES, Common, build_questions
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass, read_categories
from sefar_core.data.splits import SplitConfig, draw_labeled
from sefar_core.run_dir import commit

RATE = 0.05  # labeled share of the training list, as in the public sets
VARIANTS = {"attributes": attribute_questions, "pairs": pair_questions}
"""Builders of questions beyond which move it is."""
KEPT = ("event_prior", "set_prior", "attribute")
"""Rules that leave clips out where they cannot be at chance; shown with them kept as well."""


@dataclass(frozen=True, kw_only=True)
class BlindAudit:
    """Which lists to audit."""

    finegym: Path
    """Folder of FineGym's lists."""
    benchmarks: tuple[int, ...] = (99, 288)
    """Benchmarks to audit: 99 for Gym99, 288 for Gym288."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Random seeds of the labeled draw and of the options."""
    out: Path | None = None
    """File for the tables, as Markdown."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """FineGym's lists of a benchmark."""

    classes: Mapping[int, ElementClass]
    codes: Mapping[int, str]
    """Answers to FineGym's tree of questions by class."""
    pool: Sequence[Clip]
    """Clips of the training list."""
    val: Sequence[Clip]


def read_lists(folder: Path, benchmark: int) -> Lists:
    """The lists of Gym99 or Gym288 (v1.1)."""
    classes = read_categories(folder / f"gym{benchmark}_categories.txt")
    tree = read_question_tree(folder / "finegym_glabel_to_Qtree.json")
    train = read_elements(folder / f"gym{benchmark}_train_element_v1.1.txt")
    val = read_elements(folder / f"gym{benchmark}_val_element.txt")
    return Lists(
        classes=classes,
        codes={label: tree[one.glabel].code for label, one in classes.items()},
        pool=to_clips(train, classes, split="labeled"),
        val=to_clips(val, classes, split="val"),
    )


def audit_val(lists: Lists, rule: str, seed: int, *, common: Common = "leave_out") -> Audit:
    """The validation list, answered by who knows the training questions."""
    train, _ = two_draws(lists.pool, seed)
    return _audit(lists, train, lists.val, rule=rule, seed=seed, common=common)


def audit_train(lists: Lists, rule: str, seed: int) -> Audit:
    """The training questions, answered by who knows those of as many other clips."""
    train, other = two_draws(lists.pool, seed)
    return _audit(lists, other, train, rule=rule, seed=seed, common="keep")


def audit_variant(lists: Lists, variant: str, seed: int) -> Audit:
    """Questions of a variant about the validation list, as in `audit_val`."""
    train, _ = two_draws(lists.pool, seed)
    learned = VARIANTS[variant](train, lists.classes, seed=seed).questions
    asked = VARIANTS[variant](lists.val, lists.classes, seed=seed)
    return audit(asked.questions, learned, lists.classes, bound=asked.bound, codes=lists.codes)


def two_draws(pool: Sequence[Clip], seed: int) -> tuple[list[Clip], list[Clip]]:
    """The labeled clips, and as many others."""
    size = round(RATE * len(pool))
    drawn = draw_labeled(pool, SplitConfig(rate=2 * RATE, draw="unstratified", seed=seed))
    return drawn[:size], drawn[size:]


def _audit(
    lists: Lists,
    learned: Sequence[Clip],
    asked: Sequence[Clip],
    *,
    rule: str,
    seed: int,
    common: Common,
) -> Audit:
    train = build_questions(learned, lists.classes, rule=rule, seed=seed, common="keep")
    built = build_questions(asked, lists.classes, rule=rule, seed=seed, common=common)
    return audit(
        built.questions, train.questions, lists.classes, bound=built.bound, codes=lists.codes
    )


def table(columns: Mapping[str, Sequence[Audit]], figure: str) -> list[str]:
    """A table in Markdown: rows of the audit by rules, means of all seeds, micro or macro."""
    names = list(dict.fromkeys(name for found in columns.values() for name in found[0].rows))
    rows = {name: [_cell(found, name, figure) for found in columns.values()] for name in names}
    if figure == "micro":
        rows = facts(columns) | rows
    lines = [f"| answers by | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


def facts(columns: Mapping[str, Sequence[Audit]]) -> dict[str, list[str]]:
    """Questions, repeats and bound of each rule, means over the seeds."""
    kinds = {"an option twice": "some_option_twice", "the right option twice": "right_option_twice"}
    rows = {"questions": [_mean([o.num_questions for o in found]) for found in columns.values()]}
    for name, kind in kinds.items():
        rows[name] = [_mean([one.repeats[kind] for one in found]) for found in columns.values()]
    rows["**bound**"] = [_bound(found) for found in columns.values()]
    return rows


def furthest(columns: Mapping[str, Sequence[Audit]]) -> str:
    """Which blind rule is furthest from the bound of its set, in standard errors of the mean."""
    off = {}
    for rule, found in columns.items():
        for name in found[0].rows:
            if found[0].bound is not None and name != "chance" and "known" not in name:
                error = np.mean([one.rows[name].micro_se for one in found]) / len(found) ** 0.5
                value = np.mean([one.rows[name].micro - (one.bound or 0) for one in found])
                off[f"{name} on {rule}"] = value / error if error else 0.0
    worst = max(off, key=lambda name: abs(off[name]))
    beyond = sum(abs(one) > 2 for one in off.values())
    return (
        f"More than 2 standard errors of the mean off their bound: {beyond} of {len(off)} "
        f"comparisons; the furthest is {worst}, {off[worst]:+.1f}."
    )


def _cell(found: Sequence[Audit], name: str, figure: str) -> str:
    """Mean in percent and its standard error: over the seeds, or the only set's own."""
    if name not in found[0].rows:
        return ""
    values = [getattr(one.rows[name], figure) for one in found]
    error = getattr(found[0].rows[name], f"{figure}_se")
    if len(values) > 1:
        error = np.std(values, ddof=1) / len(values) ** 0.5
    return f"{100 * np.mean(values):.1f} ± {100 * error:.1f}"


def _mean(values: Sequence[int]) -> str:
    return f"{np.mean(values):,.0f}"


def _bound(found: Sequence[Audit]) -> str:
    bounds = [one.bound for one in found if one.bound is not None]
    return f"**{100 * np.mean(bounds):.2f}**" if len(bounds) == len(found) else "none"


def tables(lists: Lists, benchmark: int, seeds: Sequence[int]) -> list[str]:
    """Validation, validation with all clips kept, and training."""
    val = {rule: [audit_val(lists, rule, seed) for seed in seeds] for rule in RULES}
    kept = {rule: [audit_val(lists, rule, s, common="keep") for s in seeds] for rule in KEPT}
    train = {rule: [audit_train(lists, rule, seed) for seed in seeds] for rule in RULES}
    variants = {name: [audit_variant(lists, name, seed) for seed in seeds] for name in VARIANTS}
    some, percent = val["public"][0], "percent of the questions"

    def section(title: str, columns: Mapping[str, Sequence[Audit]], figure: str) -> list[str]:
        return [f"### Gym{benchmark}, {title}", "", *table(columns, figure), ""]

    return [
        *section(f"validation, {percent}", val, "micro"),
        f"Of the {some.num_questions:,} public questions {some.questions_of_shared_sources:,} are "
        f"about clips of the {some.shared_sources} source videos that the training questions of "
        f"seed {seeds[0]} know too.",
        *("", furthest(val), ""),
        *section("validation, mean of the classes in percent", val, "macro"),
        *section(f"validation, all clips kept, {percent}", kept, "micro"),
        *section(f"validation, questions beyond which move, {percent}", variants, "micro"),
        *(furthest(variants), ""),
        *section(f"training questions of a 5 % draw, {percent}", train, "micro"),
    ]


def main(settings: BlindAudit) -> None:
    """Audit every rule on every benchmark and print the tables."""
    lines = [f"Commit {commit()}, seeds {' '.join(map(str, settings.seeds))}.", ""]
    lines += [
        line
        for benchmark in settings.benchmarks
        for line in tables(read_lists(settings.finegym, benchmark), benchmark, settings.seeds)
    ]
    print("\n".join(lines))
    if settings.out is not None:
        write_text(settings.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(BlindAudit, description=__doc__))
