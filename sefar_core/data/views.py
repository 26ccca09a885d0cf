"""How a clip is shown for evaluation: the same views every time, or a random one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from qa_data.manifest import Clip
from sefar_core.data.dataset import Moments, Reader, Sampler, frames_of, known_labels, looks_at
from sefar_core.data.draws import seeded
from sefar_core.data.transforms import Augmentation, Pixels, Placement


class EvalItem(NamedTuple):
    """All views of one clip as a network takes them, (view, channel, frame, height, width) for each
    element; labels and clips have one number a view."""

    elements: list[Tensor]
    labels: Tensor
    clips: Tensor


class View(NamedTuple):
    """A temporal view and its crops, each with one placement for every element."""

    moments: Moments
    crops: Sequence[Sequence[Placement]]


Views = Callable[[Clip], list[View]]


def fixed_views(
    clip: Clip, *, moments: Sequence[Moments], placements: Sequence[Placement]
) -> list[View]:
    """Every temporal view under every crop, the same for each clip."""
    return [View(view, [[place] * len(view) for place in placements]) for view in moments]


def released_view(clip: Clip, *, sample: Sampler, augment: Augmentation, seed: int) -> list[View]:
    """One random look, as the public code tests (docs/paper_map.md, row 8); a function of the clip
    and the seed alone.
    """
    generator = seeded(seed, clip.id, "released view")
    moments = sample(generator)
    return [View(moments, [augment.draw(len(moments), generator)])]


class EvalClips(Dataset[EvalItem]):
    """Clips with a label, under every one of their views; one pass over the file for all.

    Args:
        clips: each with a label.
        read: where frames come from.
        views: how a clip is shown; as many views for one clip as for another.
        pixels: what the network takes.

    Raises:
        ValueError: no clip, or one without a label.
    """

    def __init__(self, clips: Sequence[Clip], read: Reader, *, views: Views, pixels: Pixels):
        self.clips = list(clips)
        self.labels = known_labels(self.clips)
        self.read, self.views, self.pixels = read, views, pixels

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> EvalItem:
        clip = self.clips[position]
        views = self.views(clip)
        frames = iter(frames_of(self.read, clip, [m for view in views for m in view.moments]))
        seen = [
            looks_at(elements, crop, self.pixels)
            for view in views
            for elements in [[next(frames) for _ in view.moments]]
            for crop in view.crops
        ]
        return EvalItem(
            [torch.stack(element) for element in zip(*seen, strict=True)],
            self.labels[position].expand(len(seen)),
            torch.full((len(seen),), position),
        )
