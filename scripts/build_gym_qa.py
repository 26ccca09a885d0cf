"""Build Gym-QA from a manifest: one multiple-choice question for each clip with a class.

    scripts/build_gym_qa.py --manifest data/gym99-5/manifest.csv \\
        --categories data/gym99_categories.txt --distractors hard --out data/gym99-5/qa-hard

Writes train.json (labeled clips), val.json and test.json in the public format, the same with
classes as .jsonl, and audit.json: how far each set can be answered without looking. Nothing is
written before every question and the audit are made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from qa_data.blind import audit_table
from qa_data.distractors import TooFewOptions
from qa_data.generate import Common, PoolReport
from qa_data.gym_qa import audit_sets, build_sets, write_sets
from qa_data.manifest import ManifestError, read_manifest
from qa_data.question import QuestionError
from qa_data.taxonomy import TaxonomyError, read_categories


@dataclass(frozen=True, kw_only=True)
class BuildGymQa:
    """What is asked, and where the questions go."""

    manifest: Path
    """Table of clips, from scripts/make_splits.py."""
    categories: Path
    """Class list that the manifest's labels count in."""
    out: Path
    """Folder for the question files and audit.json."""
    distractors: Literal["public", "distinct", "prior", "event_prior", "hard", "set_prior"] = "hard"
    """Rule of the wrong options (see qa_data/distractors.py); hard is event_prior."""
    options: int = 4
    """Options of a question, the right one among them."""
    seed: int = 0
    common: Common = "leave_out"
    """Validation and test clips of pools that no rule can bring to chance: leave them out, keep
    them at a blind bound above chance, or widen such pools until they are at chance."""


def main(settings: BuildGymQa) -> None:
    """Read manifest and classes, build, audit, write, and print the audit."""
    classes = read_categories(settings.categories)
    sets = build_sets(
        read_manifest(settings.manifest),
        classes,
        rule=settings.distractors,
        seed=settings.seed,
        num_options=settings.options,
        common=settings.common,
    )
    audits = audit_sets(sets, classes)
    chosen = ("distractors", "options", "seed", "common")
    record = {name: getattr(settings, name) for name in chosen}
    write_sets(sets, audits, settings.out, settings=record)
    console = Console()
    for name, found in audits.items():
        console.print(audit_table(found, f"{name}, {settings.distractors}"))
    for name, one in sets.items():
        for pool in one.pools:
            if not pool.asked:
                console.print(f"{name}: {pool.clips} clips of {pool.pool} left out, {why(pool)}")
    counts = ", ".join(f"{len(one.questions)} in {name}.json" for name, one in sets.items())
    console.print(f"wrote questions to {settings.out}: {counts}")


def why(pool: PoolReport) -> str:
    """Why the clips of a pool are left out."""
    if pool.bound is None:
        return "which show too few different texts"
    return f"where a blind guess is right in {pool.bound:.1%}"


if __name__ == "__main__":
    try:
        main(tyro.cli(BuildGymQa, description=__doc__))
    except (ManifestError, TaxonomyError, QuestionError, TooFewOptions) as error:
        raise SystemExit(f"build_gym_qa: {error}") from error
