"""Cut a data set into labeled, unlabeled, validation and test clips.

    scripts/make_splits.py finegym --categories gym99_categories.txt \\
        --train-list gym99_train_element_v1.1.txt --test-list gym99_val_element.txt \\
        --video-root data/videos --rate 0.05 --test-cut official --out data/gym99-5
    scripts/make_splits.py folders --root my/videos --video-root my/videos --out data/mine
    scripts/make_splits.py ucf101 --help            # arguments of a data set

The data set's own training list is the pool that labels are drawn from; its test list is the test
split, as listed (--test-cut official) or cut anew where the two share source videos. All clips
are looked up first; missing ones are counted and named at once. Writes manifest.csv, which the
other scripts read, and splits.json: settings, counts for each split and class, and what the splits
share.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from sefar_core.cli import refuse_unwritable, start

import tyro
from rich.table import Table
from tyro.conf import subcommand

from qa_data.files import write_text
from qa_data.manifest import Clip, by_split, write_manifest
from qa_data.terminal import console
from sefar_core.data.class_names import conflict_lines
from sefar_core.data.datasets.diving48 import read_diving48
from sefar_core.data.datasets.find_files import find_clips, read_folders, resolve_paths
from sefar_core.data.datasets.finediving import read_finediving, read_finediving_json
from sefar_core.data.datasets.finegym import read_finegym
from sefar_core.data.datasets.hmdb51 import read_hmdb51
from sefar_core.data.datasets.kinetics import read_kinetics
from sefar_core.data.datasets.records import ListError, Listing, with_sources
from sefar_core.data.datasets.sefar_lists import read_sefar_lists
from sefar_core.data.datasets.ssv2 import read_ssv2
from sefar_core.data.datasets.ucf101 import read_ucf101
from sefar_core.data.group_split import refuse_shared
from sefar_core.data.leaks import leak_tables
from sefar_core.data.splits import SplitConfig, split_dataset, split_report

DataSet: TypeAlias = (
    Annotated[Listing, subcommand("finegym", constructor=read_finegym)]
    | Annotated[Listing, subcommand("public", constructor=read_sefar_lists)]
    | Annotated[Listing, subcommand("finediving", constructor=read_finediving)]
    | Annotated[Listing, subcommand("finediving-json", constructor=read_finediving_json)]
    | Annotated[Listing, subcommand("diving48", constructor=read_diving48)]
    | Annotated[Listing, subcommand("ucf101", constructor=read_ucf101)]
    | Annotated[Listing, subcommand("hmdb51", constructor=read_hmdb51)]
    | Annotated[Listing, subcommand("ssv2", constructor=read_ssv2)]
    | Annotated[Listing, subcommand("kinetics", constructor=read_kinetics)]
    | Annotated[Listing, subcommand("folders", constructor=read_folders)]
)


@dataclass(frozen=True, kw_only=True)
class MakeSplits:
    """Which data set, where its videos are, and how to cut it."""

    listing: Annotated[DataSet, tyro.conf.arg(name="")]
    video_root: Path
    """Folder of the videos. Folders that a list names may be missing beneath it."""
    out: Path
    """Folder for manifest.csv and splits.json."""
    source_pattern: str | None = None
    """Regular expression with one group: the source (person or video) in the name of each clip's
    file, such as '_s([0-9]+)_' for a1_s3_t2.avi, for data sets without known sources."""
    missing: Literal["refuse", "leave_out"] = "refuse"
    """Listed clips without a file: end with an error that names them (refuse), or leave them out
    and record it (leave_out)."""
    split: Annotated[SplitConfig, tyro.conf.arg(name="")] = SplitConfig()


def main(settings: MakeSplits) -> None:
    """Find the videos, cut, write, and print the result."""
    refuse_unwritable(folders=[settings.out])
    listing, config = settings.listing, settings.split
    if settings.source_pattern is not None:
        listing = with_sources(listing, settings.source_pattern)
    refuse_shared(listing.pool, listing.settled)
    clips, missing = present(listing, settings.video_root, settings.missing)
    in_pool = {clip.id for clip in listing.pool}
    clips, left_out = split_dataset(
        [clip for clip in clips if clip.id in in_pool],
        [clip for clip in clips if clip.id not in in_pool],
        config,
    )
    report = split_report(
        clips,
        config,
        classes=listing.classes,
        times=listing.times,
        video_root=settings.video_root,
    )
    report |= {"left_out": left_out, "missing": missing, "other_files": dict(listing.other_files)}
    report["source_pattern"] = settings.source_pattern
    if not listing.pool:
        report["settings"] = None
    write_manifest(clips, settings.out / "manifest.csv")
    write_text(settings.out / "splits.json", json.dumps(report, indent=2) + "\n")
    show(report, num_classes=len(listing.classes))
    print(f"wrote {settings.out / 'manifest.csv'} and splits.json beside it")


def present(
    listing: Listing, video_root: Path, missing: Literal["refuse", "leave_out"]
) -> tuple[list[Clip], list[str]]:
    """The clips that have a file, with its path, and the ids of the others.

    Raises:
        ListError: clips are missing and not to be left out, or no training or test clip is left.
    """
    clips = [*listing.pool, *listing.settled]
    if missing == "refuse":
        return resolve_paths(clips, video_root), []
    found, gone = find_clips(clips, video_root)
    training = listing.pool or by_split(listing.settled, "labeled")
    for name, part in (("training", training), ("test", by_split(listing.settled, "test"))):
        if part and {clip.id for clip in part} <= {clip.id for clip in gone}:
            raise ListError(
                f"none of the {len(part)} {name} clips has a file beneath {video_root}: is it the "
                f"right --video-root? The first is {part[0].path}"
            )
    return found, [clip.id for clip in gone]


def show(report: dict, *, num_classes: int) -> None:
    """Print clips, sources and classes of each split, and what two splits share."""
    table = Table("split", "clips", "source videos", "classes")
    for split, count in report["clips"].items():
        seen = len(report["clips_per_class"].get(split, {}))
        classes = "not known" if split == "unlabeled" else f"{seen} of {num_classes}"
        sources = str(report["sources"][split])
        if unknown := report["without_source"].get(split):
            known = f"{sources}, and " if report["sources"][split] else ""
            sources = f"{known}{unknown:,} clips of unknown source"
        table.add_row(split, str(count), sources, classes)
    terminal = console()
    terminal.print(table, *leak_tables(report))
    for why, count in report["left_out"].items():
        terminal.print(f"{count:,} clips are in no split: {why}")
    for line in conflict_lines(report):
        terminal.print(line)
    if others := report["other_files"]:
        endings = ", ".join(f"{number:,} {ending}" for ending, number in others.items())
        terminal.print(f"{sum(others.values()):,} files of other endings are not clips: {endings}")
    if report["missing"]:
        terminal.print(f"{len(report['missing']):,} listed clips have no file: see splits.json")


def parse() -> MakeSplits:
    """The command line: a data set, then where its videos are and how it is cut."""
    return tyro.cli(
        MakeSplits,
        description=__doc__,
        config=(
            tyro.conf.CascadeSubcommandArgs,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.OmitArgPrefixes,
        ),
    )


if __name__ == "__main__":
    start(lambda parse: main(parse()), lambda: parse)  # parsing reads the lists: that is work
