"""Cut a data set into labeled, unlabeled, validation and test clips.

    scripts/make_splits.py --categories data/gym99_categories.txt \
        --train-list data/gym99_train_element_v1.1.txt --test-list data/gym99_val_element.txt \
        --video-root data/videos --rate 0.05 --out data/gym99-5

The official validation list is the test split. Every video is looked for first; all that are
missing are named at once. Writes manifest.csv, which the other scripts read, and splits.json:
settings, counts for each split and class, and what the splits share.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from qa_data.annotations import AnnotationError, read_elements, read_times, to_clips
from qa_data.atomic import write_text
from qa_data.manifest import Clip, write_manifest
from qa_data.taxonomy import TaxonomyError, read_categories
from sefar_core.data.splits import SplitConfig, SplitError, split_pool, summary


@dataclass(frozen=True, kw_only=True)
class MakeSplits:
    """Where the lists and the videos are, and how the training list is cut."""

    categories: Path
    """Class list, such as gym99_categories.txt."""
    train_list: Path
    """Element list of the training pool."""
    test_list: Path
    """Element list of the test split, such as gym99_val_element.txt."""
    video_root: Path
    """Folder of the video files."""
    out: Path
    """Folder for manifest.csv and splits.json."""
    annotations: Path | None = None
    """Annotation JSON or CSV of times; needed for full videos."""
    videos: Literal["trimmed", "full"] = "trimmed"
    """Files are clips (<clip id>.mp4), or whole source videos (<source>.mp4)."""
    drop_test_sources: bool = False
    """Leave training clips out whose source video has test clips (official lists share many)."""
    split: Annotated[SplitConfig, tyro.conf.arg(name="")] = SplitConfig()


def main(settings: MakeSplits) -> None:
    """Read the lists, look for the videos, cut, write, and print what came out."""
    classes = read_categories(settings.categories)
    times = None
    if settings.videos == "full":
        if settings.annotations is None:
            raise SplitError("--videos full needs --annotations: they say where clips begin")
        times = read_times(settings.annotations)
    pool = to_clips(read_elements(settings.train_list), classes, split="labeled", times=times)
    test = to_clips(read_elements(settings.test_list), classes, split="test", times=times)
    if settings.drop_test_sources:
        test_sources = {clip.source for clip in test}
        pool = [clip for clip in pool if clip.source not in test_sources]
    refuse_shared_clips(pool, test)
    refuse_missing_videos([*pool, *test], settings.video_root)
    clips = [*split_pool(pool, settings.split), *test]
    report = summary(clips, settings.split)
    write_manifest(clips, settings.out / "manifest.csv")
    write_text(settings.out / "splits.json", json.dumps(report, indent=2) + "\n")
    show(report, num_classes=len(classes))
    print(f"wrote {settings.out / 'manifest.csv'} and splits.json beside it")


def refuse_shared_clips(pool: Sequence[Clip], test: Sequence[Clip]) -> None:
    """Raise SplitError if a test clip stands in the training list too."""
    if shared := sorted({clip.id for clip in pool} & {clip.id for clip in test}):
        raise SplitError(
            f"{len(shared)} clips stand in the training list and in the test list, first "
            f"{shared[0]}; take both lists of one benchmark, or delete them from one"
        )


def refuse_missing_videos(clips: Sequence[Clip], video_root: Path) -> None:
    """Raise SplitError that counts the video files that are not there and names the first ten."""
    paths = sorted({clip.path for clip in clips})
    if missing := [path for path in paths if not (video_root / path).is_file()]:
        raise SplitError(
            f"{len(missing)} of {len(paths)} video files are not in {video_root}: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}. Fetch them, take "
            f"their lines out of the lists, or say --videos trimmed|full as the files are."
        )


def show(report: dict, *, num_classes: int) -> None:
    """Print clips, sources and classes of each split, and what two splits share."""
    table = Table("split", "clips", "source videos", "classes")
    for split, count in report["clips"].items():
        seen = len(report["clips_per_class"].get(split, {}))
        told = "not told" if split == "unlabeled" else f"{seen} of {num_classes}"
        table.add_row(split, str(count), str(report["sources"][split]), told)
    shared = Table("splits", "shared clips", "shared sources", "shared routines", "clips of these")
    for pair, counts in report["leaks"].items():
        shared.add_row(pair, *map(str, counts.values()))
    console = Console()
    console.print(table, shared)


if __name__ == "__main__":
    try:
        main(tyro.cli(MakeSplits, description=__doc__))
    except (TaxonomyError, AnnotationError, SplitError) as error:
        raise SystemExit(f"make_splits: {error}") from error
