"""FineGym's files as its users have them, of invented clips, and the arithmetic behind their names.

Written from the format's description, by hand: nothing here reads with the code under test.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Routine:
    """A routine in a source video; sub-actions are (stages, label), stages count from `start_s`."""

    source: str
    event: int
    start_s: float
    end_s: float
    actions: Sequence[tuple[Sequence[tuple[float, float]], int]]

    @property
    def key(self) -> str:
        return f"E_{math.floor(self.start_s):06d}_{math.floor(self.end_s):06d}"


def action_key(stages: Sequence[tuple[float, float]]) -> str:
    return f"A_{math.floor(stages[0][0]):04d}_{math.floor(stages[-1][1]):04d}"


def clips(routines: Iterable[Routine]) -> list[tuple[str, int, float, float]]:
    """(id, label, start, end in the source video) of every sub-action."""
    return [
        (
            f"{one.source}_{one.key}_{action_key(stages)}",
            label,
            round(one.start_s + stages[0][0], 3),
            round(one.start_s + stages[-1][1], 3),
        )
        for one in routines
        for stages, label in one.actions
    ]


def annotation_json(routines: Iterable[Routine]) -> str:
    """The annotation file; a routine without sub-actions has `"segments": null`."""
    videos: dict = {}
    for one in routines:
        segments = {
            action_key(stages): {
                "stages": len(stages),
                "timestamps": [list(stage) for stage in stages],
            }
            for stages, _ in one.actions
        }
        videos.setdefault(one.source, {})[one.key] = {
            "event": one.event,
            "segments": segments or None,
            "timestamps": [[one.start_s, one.end_s]],
        }
    return json.dumps(videos)


def timestamp_csv(routines: Sequence[Routine]) -> str:
    """The table of times, with the columns of the public one."""
    rows = ["full_id,class,event,Event_start_time,Event_end_time,Subaction_start,Subaction_end"]
    of_id = {
        f"{one.source}_{one.key}_{action_key(stages)}": one
        for one in routines
        for stages, _ in one.actions
    }
    for clip_id, label, start, end in clips(routines):
        one = of_id[clip_id]
        rows.append(f"{clip_id},{label},{one.event},{one.start_s},{one.end_s},{start!r},{end!r}")
    return "\r\n".join(rows) + "\r\n"


def element_list(routines: Iterable[Routine], end: str = "\n") -> str:
    return "".join(f"{clip_id} {label}{end}" for clip_id, label, _, _ in clips(routines))


def category_list(rows: Iterable[tuple[int, int, str, str]]) -> str:
    """Lines of (label, set, apparatus, text); `Glabel` is three times the label."""
    return "".join(
        f"Clabel: {label:3d}; set: {set_id:2d}; Glabel: {3 * label:3d}; ({event}) {text}\n"
        for label, set_id, event, text in rows
    )


def write_files(
    folder: Path, rows: Iterable, train: Sequence[Routine], test: Sequence[Routine]
) -> dict[str, Path]:
    """The files of a small benchmark: categories, train and test list, annotation JSON and CSVs."""
    texts = {
        "gym_categories.txt": category_list(rows),
        "gym_train_element_v1.1.txt": element_list(train, "\r\n").rstrip(),
        "gym_val_element.txt": element_list(test),
        "finegym_annotation_info_v1.1.json": annotation_json([*train, *test]),
        "train.csv": timestamp_csv(train),
        "val.csv": timestamp_csv(test),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    return {name: folder / name for name in texts}
