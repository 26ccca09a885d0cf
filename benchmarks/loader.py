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
STEP_S = 0.1
"""Duration of a training step that the loader must keep up with, on one device."""
LABELED, RATIO = 8, 3
"""Labeled clips of that step, and unlabeled ones for each of them."""


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark:
    turns: int = 9
    """Turns of each way."""
    clips: int = 12
    """Clips that a turn goes through."""
    out: Path | None = None
    """Folder for a dated result."""


def stall_share(clip_s: float, workers: tuple[int, int]) -> float:
    """Part of the time in which the device waits for its loader.

    Args:
        clip_s: what one worker needs for an unlabeled clip. A labeled one, which has one view in
            place of two, is taken to cost as much, so the share is an upper bound.
        workers: loader processes of the labeled and of the unlabeled clips, each with a core of its
            own.
    """
    load_s = clip_s * max(LABELED / workers[0], LABELED * RATIO / workers[1])
    return max(0.0, 1 - STEP_S / load_s)


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
    lines, figures = heading(), {}
    for gop in GOPS:
        with tempfile.TemporaryDirectory() as folder:
            timings = timed(Path(folder), gop, settings)
        lines += rows(gop, timings, settings.clips)
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


def heading() -> list[str]:
    return [
        f"| GOP | way | CPU ms a sample | wall ms | times cheaper than public | clips/s a worker | "
        f"stall % at most of a {STEP_S:g} s step of {LABELED * (1 + RATIO)} clips "
        f"with {', '.join(map(str, WORKERS))} workers |",
        "|---|---|---|---|---|---|---|",
    ]


def rows(gop: int, timings: dict[str, Timing], num_clips: int) -> list[str]:
    """One line a way, with what it would make a training step wait."""
    lines = []
    for name, timing in timings.items():
        cpu, wall = timing.cpu / num_clips, timing.wall / num_clips
        stalls = ", ".join(
            f"{100 * stall_share(cpu, split_workers(number, RATIO)):.0f}" for number in WORKERS
        )
        lines.append(
            f"| {gop} | {name} | {1000 * cpu:.2f} | {1000 * wall:.2f} | "
            f"{timings['public'].cpu / timing.cpu:.1f} | {1 / cpu:.0f} | {stalls} |"
        )
    return lines


if __name__ == "__main__":
    main(tyro.cli(LoaderBenchmark, description=__doc__))
