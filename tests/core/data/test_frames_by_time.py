"""Sources of 25, 30, 50 and 60 frames a second are sampled at the same moments of the motion."""

from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_data.manifest import Clip
from sefar_core.data.dataset import (
    LabeledClips,
    Reader,
    TwoViews,
    UnlabeledClips,
    independent_moments,
    read_from_folder,
)
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.transforms import Augmentation
from sefar_core.data.video import read_fractions
from sefar_core.mixing import one_for_all
from sefar_core.sampling import SAMPLINGS
from tests.frames_at import frames_at
from tests.oracles import videos as oracle

RATES = (25, 30, 50, 60)
LENGTH_S = 2.4
SIDE = 120
SIZES = (2, 2, 4)
FRAME_S = 1 / min(RATES)
"""How long the slowest source shows a frame."""
SPEED = 1 / LENGTH_S
"""Of the mark: it crosses the picture once, whatever the rate."""
BLUR = 1.5 / SIDE
"""Whole pixels and lossy coding move the mark a little."""
SPANS = {"whole file": (None, None), "stretch": (0.4, 1.6)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rates")
    for fps in RATES:
        frames = oracle.numbered_frames(round(LENGTH_S * fps), height=SIDE, width=SIDE)
        oracle.write_video(folder / f"{fps}.mp4", frames, fps=fps, options={"g": "12", "bf": "2"})
    return folder


def clip_of(fps: int, span: str) -> Clip:
    """The same clip, and so the same draws, at each rate."""
    start_s, end_s = SPANS[span]
    path = f"{fps}.mp4"
    return Clip(id="clip", path=path, start_s=start_s, end_s=end_s, label=0, split="labeled")


def moments_seen(frames) -> np.ndarray:
    """Seconds at which the mark, 4 pixels wide, is where it is seen."""
    rows = np.asarray(frames)[:, 3 * SIDE // 4, :, 2].astype(float)
    bright = rows > rows.max(axis=1, keepdims=True) / 2
    left = (bright * np.arange(SIDE)).sum(axis=1) / bright.sum(axis=1) - 1.5
    return left / SIDE / SPEED


def readers(folder: Path, kept: Path, span: str, way: str) -> dict[int, Reader]:
    """For each rate, what reads the clip: from its file, or from a store of it."""
    if way == "file":
        return {fps: partial(read_from_folder, root=folder) for fps in RATES}
    stores = {}
    for fps in RATES:
        storage = CacheConfig(kept / str(fps), kind=way)
        stores[fps] = open_frame_cache([clip_of(fps, span)], folder, storage).read
    return stores


def assert_alike(by_rate: dict[int, np.ndarray]) -> None:
    """No two sources differ by more than the slowest one shows a frame."""
    for one, other in combinations(RATES, 2):
        apart = abs(by_rate[one] - by_rate[other]).max()
        assert apart <= FRAME_S + BLUR / SPEED, (one, other, apart)


def test_frames_at_a_moment_show_that_moment(folder):
    moments = np.sort(np.random.default_rng(0).random(12)) * LENGTH_S
    for fps in RATES:
        seen = moments_seen(frames_at(folder / f"{fps}.mp4", moments.tolist()))
        late = moments - seen
        assert -BLUR / SPEED <= late.min() and late.max() <= 1 / fps + BLUR / SPEED


@pytest.mark.parametrize("span", SPANS)
def test_fractions_show_the_same_moments_at_any_rate(folder, span):
    start_s, end_s = SPANS[span]
    fractions = np.random.default_rng(1).random(16)
    first_s, length_s = start_s or 0.0, (end_s or LENGTH_S) - (start_s or 0.0)
    by_rate = {}
    for fps in RATES:
        path = folder / f"{fps}.mp4"
        got = read_fractions(path, fractions.tolist(), start_s=start_s, end_s=end_s)
        by_rate[fps] = moments_seen(got)
        late = first_s + fractions * length_s - by_rate[fps]
        assert -BLUR / SPEED <= late.min() and late.max() <= 1 / fps + BLUR / SPEED
    assert_alike(by_rate)


@pytest.mark.parametrize("way", ["file", "raw", "jpeg"])
@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_training_sees_the_same_moments_at_any_rate(folder, tmp_path, sampling, span, way):
    sample = partial(SAMPLINGS[sampling].draw, SIZES)
    still = Augmentation((SIDE, SIDE), False, one_for_all)
    views = TwoViews(sample, independent_moments, still, still)
    labeled: dict[int, np.ndarray] = {}
    unlabeled: dict[int, np.ndarray] = {}
    for fps, read in readers(folder, tmp_path, span, way).items():
        clips = [clip_of(fps, span)]
        one = LabeledClips(clips, read, sample=sample, augment=still, crop_size=SIDE, seed=3)
        two = UnlabeledClips(clips, read, views=views, crop_size=SIDE, seed=3)
        labeled[fps] = moments_seen(torch.cat(one[2, 0].elements))
        weak, strong, _ = two[2, 0]
        unlabeled[fps] = moments_seen(torch.cat(weak + strong))
    assert labeled[25].shape == (8,) and unlabeled[25].shape == (16,)
    assert np.ptp(labeled[25]) > 0.3
    assert_alike(labeled)
    assert_alike(unlabeled)
