"""Clips that choose between the networks of one run: never those that it is reported on."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import DataLoader

from qa_data.manifest import Clip, by_split, read_manifest
from sefar_core.data.dataset import Reader, read_from_folder, view_moments
from sefar_core.data.feeds import evaluation_views
from sefar_core.data.loader import Feed
from sefar_core.data.readers import choose_file_reader
from sefar_core.model import SefarModel


class HeldOut(NamedTuple):
    """The clips of split val, and where their frames come from."""

    clips: list[Clip]
    read: Reader


def read_held_out(manifest: Path, video_root: Path, *, reader: str) -> HeldOut | None:
    """The validation clips of a manifest, or none if it has none, as is the default."""
    clips = by_split(read_manifest(manifest), "val")
    read = partial(read_from_folder, root=video_root, read=choose_file_reader(reader))
    return HeldOut(clips, read) if clips else None


def validation_views(model: SefarModel, held_out: HeldOut, *, workers: int) -> DataLoader:
    """One view of every clip: the middle of each segment of time, the middle of the picture."""
    return evaluation_views(
        model,
        held_out.clips,
        held_out.read,
        moments=view_moments(model.sampling, model.sizes, 1),
        num_crops=1,
        feed=Feed(workers=workers),
    )
