"""Time one unlabeled training sample with both of its views: our ways and the public one.

    python -m benchmarks.loader --out benchmarks/results

Clips of 1 to 3 s, 320x256 pixels, are written first, with a keyframe every 12 and every 250
frames. Ours is timed from the videos, from a cache of raw frames and from a cache of JPEGs, down to
the float tensors that a network takes, although in training the last step, the normalization, is
done on the device. The public way (public_loader.py) decodes twice, seeks every frame and augments
each element in float. The ways take turns; figures are medians over turns, of one sample.
"""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

from benchmarks.moving_clips import write_clip
from benchmarks.public_loader import both_views
from benchmarks.timing import Timing, alternate, report
from qa_data.manifest import Clip
from sefar_core.data.dataloaders import split_workers
from sefar_core.data.dataset import TwoViews, UnlabeledClips, independent_moments, read_from_folder
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.transforms import Augmentation, Pixels, to_network
from sefar_core.mixing import one_for_all
from sefar_core.sampling import sample_fractions

GOPS = (12, 250)
"""Frames from one keyframe to the next, at most."""
WORKERS = (2, 4, 8, 16)
"""Loader processes that a stall is reported for."""


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark:
    turns: int = 9
    """Turns of each way."""
    clips: int = 12
    """Clips that a turn goes through."""
    step_s: float = 0.1
    """Duration of a training step that the loader must keep up with."""
    labeled_per_step: int = 8
    """Labeled clips that a step of one device takes."""
    unlabeled_per_labeled: int = 3
    """Unlabeled clips that it takes for each of them."""
    out: Path | None = None
    """Folder for a dated result."""


def stall_share(
    clip_s: float, *, labeled: int, unlabeled: int, workers: tuple[int, int], step_s: float
) -> float:
    """Part of the time in which the device waits for its loader.

    Args:
        clip_s: what one worker needs for an unlabeled clip. A labeled one, which has one view in
            place of two, is taken to cost as much, so the share is an upper bound.
        labeled: clips that a step takes.
        unlabeled: clips that a step takes.
        workers: loader processes of the labeled and of the unlabeled clips, each with a core of its
            own.
        step_s: duration of a step that does not wait.
    """
    load_s = clip_s * max(labeled / workers[0], unlabeled / workers[1])
    return max(0.0, 1 - step_s / load_s)


def our_ways(clips: list, root: Path) -> dict[str, Callable[[int], object]]:
    """From a position in the list to both views as a network takes them."""
    pixels = Pixels(224, (0.45,) * 3, (0.225,) * 3)
    augment = Augmentation((256, 320), True, one_for_all)
    views = TwoViews(partial(sample_fractions, (2, 2, 4)), independent_moments, augment, augment)
    readers = {
        "videos": partial(read_from_folder, root=root),
        "raw store": open_frame_cache(clips, root, CacheConfig(root / "stored", "raw", 256)).read,
        "JPEG store": open_frame_cache(clips, root, CacheConfig(root / "stored", "jpeg", 256)).read,
    }
    sets = {
        name: UnlabeledClips(clips, read, views=views, crop_size=224, seed=0)
        for name, read in readers.items()
    }

    def as_it_travels(name: str, position: int) -> object:
        return sets[name][0, position]

    def normalized(name: str, position: int) -> object:
        item = sets[name][0, position]
        return [to_network(element, pixels) for element in item.weak + item.strong]

    return {f"ours, {name}": partial(normalized, name) for name in sets} | {
        f"ours, {name}, before normalization": partial(as_it_travels, name) for name in sets
    }


def main(settings: LoaderBenchmark) -> None:
    torch.set_num_threads(1)
    lines, figures = heading(settings), {}
    for gop in GOPS:
        with tempfile.TemporaryDirectory() as folder:
            timings = timed(Path(folder), gop, settings)
        lines += rows(gop, timings, settings)
        figures[f"GOP {gop}"] = {name: timing._asdict() for name, timing in timings.items()}
    report("loader", lines, figures, settings.out)


def timed(root: Path, gop: int, settings: LoaderBenchmark) -> dict[str, Timing]:
    """Each way on clips with a keyframe every `gop` frames."""
    clips = [Clip(id=f"{k}", path=f"{k}.mp4", split="unlabeled") for k in range(settings.clips)]
    for k, clip in enumerate(clips):
        num_frames = 25 + 50 * k // max(1, settings.clips - 1)
        write_clip(root / clip.path, num_frames=num_frames, gop=gop, seed=k)
    rng = random.Random(0)
    ways: dict[str, Callable[[int], object]] = {
        "public": lambda k: both_views(root / clips[k].path, rng),
        **our_ways(clips, root),
    }

    def through(way: Callable[[int], object]) -> None:
        for position in range(settings.clips):
            way(position)

    whole = {name: partial(through, way) for name, way in ways.items()}
    return alternate(whole, turns=settings.turns)


def heading(settings: LoaderBenchmark) -> list[str]:
    counts = ", ".join(str(number) for number in WORKERS)
    clips = settings.labeled_per_step * (1 + settings.unlabeled_per_labeled)
    return [
        f"| GOP | way | CPU ms a sample | wall ms | times cheaper than public | clips/s a worker | "
        f"stall % at most of a {settings.step_s:g} s step of {clips} clips "
        f"with {counts} workers |",
        "|---|---|---|---|---|---|---|",
    ]


def rows(gop: int, timings: dict[str, Timing], settings: LoaderBenchmark) -> list[str]:
    """One line a way, with what it would make a training step wait."""
    ratio = settings.unlabeled_per_labeled
    lines = []
    for name, timing in timings.items():
        cpu, wall = timing.cpu / settings.clips, timing.wall / settings.clips
        stall = partial(
            stall_share,
            cpu,
            labeled=settings.labeled_per_step,
            unlabeled=settings.labeled_per_step * ratio,
            step_s=settings.step_s,
        )
        stalls = ", ".join(
            f"{100 * stall(workers=split_workers(number, ratio)):.0f}" for number in WORKERS
        )
        lines.append(
            f"| {gop} | {name} | {1000 * cpu:.2f} | {1000 * wall:.2f} | "
            f"{timings['public'].cpu / timing.cpu:.1f} | {1 / cpu:.0f} | {stalls} |"
        )
    return lines


if __name__ == "__main__":
    main(tyro.cli(LoaderBenchmark, description=__doc__))
