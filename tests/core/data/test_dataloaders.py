"""Batches depend on the seed and the position in the stream, on nothing else."""

import multiprocessing
import pickle
import time
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qa_data.manifest import Clip
from sefar_core.data.dataloaders import (
    WHOLE,
    BatchSchedule,
    ClipStream,
    EvalClips,
    LoaderConfig,
    Shard,
    TrainClips,
    ViewConfig,
    choose_reader,
    evaluation_batches,
    evaluation_views,
    fixed_views,
    released_views,
    split_workers,
    to_device,
    training_batches,
    training_stream,
)
from sefar_core.data.dataset import (
    MOMENTS,
    LabeledClips,
    TwoViews,
    UnlabeledClips,
    independent_moments,
    view_moments,
)
from sefar_core.data.frame_cache import CacheConfig
from sefar_core.data.transforms import Augmentation, Pixels, fixed_placements
from sefar_core.data.video import VideoReadError
from sefar_core.data.video_backends import READERS
from sefar_core.evaluate import predict
from sefar_core.mixing import ELEMENT_DRAWS, one_for_all
from sefar_core.model import SefarModel
from sefar_core.sampling import SAMPLINGS, sample_fractions
from sefar_core.timesformer import TimeSformer
from tests.oracles import videos as oracle

SIZES = (1, 2)
SAMPLE = partial(sample_fractions, SIZES)
AUGMENT = Augmentation((8, 10), True, one_for_all)
RAW = Pixels(8, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
SEVEN = [Clip(id=f"clip{k}", path=f"{k}.mp4", label=k, split="labeled") for k in range(7)]
CPU = torch.device("cpu")


def read(clip: Clip, fractions: list[float]) -> Tensor:
    frames = torch.zeros(len(fractions), 8, 9, 3, dtype=torch.uint8)
    frames[..., 0] = int(clip.id[4:]) * 10
    frames[..., 1] = (torch.tensor(fractions) * 256).int().view(-1, 1, 1)
    return frames


def read_nothing(clip: Clip, fractions: list[float]) -> Tensor:
    raise VideoReadError(f"{clip.path} is empty")


def labeled(reader=read) -> LabeledClips:
    return LabeledClips(SEVEN, reader, sample=SAMPLE, augment=AUGMENT, crop_size=8, seed=0)


def unlabeled() -> UnlabeledClips:
    views = TwoViews(SAMPLE, independent_moments, AUGMENT, AUGMENT)
    return UnlabeledClips(SEVEN, read, views=views, crop_size=8, seed=0)


def evaluated() -> EvalClips:
    moments = view_moments(SAMPLINGS["interleaved"], SIZES, 2)
    views = partial(fixed_views, moments=moments, placements=fixed_placements(8, 3))
    return EvalClips(SEVEN, read, views=views, pixels=RAW)


def keys(count: int, *, seed=0, name="x", start=0, shard=WHOLE, per_pass=None) -> list:
    stream = ClipStream(7, seed=seed, name=name, start=start, shard=shard, per_pass=per_pass)
    return list(islice(stream, count))


def flat(batches: list) -> list[Tensor | str]:
    return [
        tensor
        for batch in batches
        for field in batch
        for tensor in (field if isinstance(field, list) else [field])
    ]


def assert_same(first: list, second: list) -> None:
    for one, other in zip(flat(first), flat(second), strict=True):
        assert one == other if isinstance(one, str) else torch.equal(one, other)


def test_every_pass_takes_every_clip_once_in_an_order_of_its_own():
    stream = keys(21)
    passes = [stream[start : start + 7] for start in (0, 7, 14)]
    for epoch, taken in enumerate(passes):
        assert [number for number, _ in taken] == [epoch] * 7
        assert sorted(position for _, position in taken) == list(range(7))
    assert len({tuple(position for _, position in taken) for taken in passes}) == 3
    assert len({tuple(keys(7)), tuple(keys(7, seed=1)), tuple(keys(7, name="y"))}) == 3


@pytest.mark.parametrize("start", [1, 6, 7, 8, 30])
def test_a_stream_begun_later_resumes_and_ranks_share_it(start):
    whole = keys(24, start=start)
    assert whole == keys(start + 24)[start:]
    ranks = [keys(12, start=start, shard=Shard(rank, 2)) for rank in (0, 1)]
    assert [key for both in zip(*ranks, strict=True) for key in both] == whole


def test_the_rest_of_a_pass_is_left_out_where_leftovers_are_dropped():
    short = keys(12, per_pass=4)
    assert [epoch for epoch, _ in short] == [0] * 4 + [1] * 4 + [2] * 4
    whole = keys(21)
    assert short == [*whole[:4], *whole[7:11], *whole[14:18]]
    assert keys(6, start=6, per_pass=4) == short[6:]


def test_batches_do_not_depend_on_workers_start_or_ranks():
    before = torch.get_rng_state()
    for clips in (labeled(), unlabeled()):
        alone = list(islice(training_stream(clips, batch_size=3), 6))
        stream = training_stream(clips, batch_size=3, loader=LoaderConfig(workers=2))
        assert_same(alone, list(islice(stream, 6)))
        stream.close()
        assert_same(alone[4:], list(islice(training_stream(clips, batch_size=3, start=12), 2)))
    batch = next(training_stream(labeled(), batch_size=3))
    assert [tuple(element.shape) for element in batch.elements] == [(3, n, 8, 8, 3) for n in SIZES]
    assert (batch.elements[0][:, 0, 0, 0, 0] / 10).round().int().tolist() == batch.label.tolist()
    alone = list(islice(training_stream(labeled(), batch_size=4), 3))
    ranks = [training_stream(labeled(), batch_size=2, shard=Shard(rank, 2)) for rank in (0, 1)]
    for batch in alone:
        parts = [next(rank) for rank in ranks]
        for position in range(2):
            joined = torch.stack([part.elements[position] for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, batch.elements[position])
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_shows_each_clip_once_with_all_its_views():
    batches = list(evaluation_batches(evaluated(), batch_size=3))
    assert [len(batch.labels) for batch in batches] == [18, 18, 6]
    clips = torch.cat([batch.clips for batch in batches])
    assert clips.tolist() == [k for k in range(7) for _ in range(6)]
    for batch in batches:
        red = batch.elements[1][:, 0].amax(dim=(1, 2, 3))
        assert (red / 10).round().int().tolist() == batch.labels.tolist()
    workers = LoaderConfig(workers=2)
    assert_same(batches, list(evaluation_batches(evaluated(), batch_size=3, loader=workers)))
    shares = []
    for shard in (Shard(0, 2), Shard(1, 2)):
        shown = evaluation_batches(evaluated(), batch_size=2, shard=shard)
        shares.append({clip for batch in shown for clip in batch.clips.tolist()})
    assert shares[0] | shares[1] == set(range(7)) and not shares[0] & shares[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_video_stops_training_with_its_name(workers):
    loader = LoaderConfig(workers=workers)
    stream = training_stream(labeled(read_nothing), batch_size=2, loader=loader)
    with pytest.raises(VideoReadError, match=r"\d.mp4 is empty"):
        next(stream)


# From files on: readers, caches and views by their names.
THREE = (2, 2, 4)
PIXELS = Pixels(32, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
LABELED = [Clip(id=f"l{k}", path=f"{k}.mp4", label=k, split="labeled") for k in range(2)]
UNLABELED = [Clip(id=f"u{k}", path=f"{k}.mp4", split="unlabeled") for k in (2, 3)]
CLIPS = TrainClips(LABELED, UNLABELED, (None, None))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for k in range(4):
        frames = oracle.numbered_frames(12 + k)
        frames[..., 1] = np.linspace(0, 200, 64)  # green rises to the right
        oracle.write_video(root / f"{k}.mp4", frames)
    return root


def view_config(*, weak_flip: bool = True, share: str = "one_for_all") -> ViewConfig:
    augment = partial(Augmentation, (32, 40), share=ELEMENT_DRAWS[share])
    sample = partial(sample_fractions, THREE)
    views = TwoViews(sample, MOMENTS["shared"], augment(flip=weak_flip), augment(flip=True))
    return ViewConfig(views=views, crop_size=32, seed=0)


def schedule(first_step: int = 0) -> BatchSchedule:
    """Two micro-batches a step, two of them of warm-up."""
    return BatchSchedule(
        batch_size=2,
        micro_batch_size=1,
        unlabeled_per_labeled=2,
        first_step=first_step,
        warmup_steps=1,
        shard=Shard(),
        labeled_per_pass=len(LABELED),
    )


def batches(root: Path, view: ViewConfig | None = None, cache: CacheConfig | None = None) -> list:
    reader = choose_reader(CLIPS, root, cache, workers=0)
    view = view or view_config()
    return list(islice(training_batches(CLIPS, reader, view, schedule(), LoaderConfig()), 8))


@pytest.fixture(scope="module")
def plain(root) -> list:
    return batches(root)


def test_the_unlabeled_part_begins_after_the_warm_up(root, plain):
    assert [len(batch.weak) for batch in plain] == [0, 0] + [3] * 6
    shown = {float(clip.float().mean()) for clip in plain[2].strong[2]}
    assert len(shown) == 2  # both clips in the first pass
    assert [sorted(batch.clip_ids[1:]) for batch in plain] == [[]] * 2 + [["u2", "u3"]] * 6
    labels = torch.cat([batch.labels for batch in plain]).tolist()
    assert [f"l{label}" for label in labels] == [batch.clip_ids[0] for batch in plain]
    assert [sorted(labels[k : k + 2]) for k in (0, 2, 4, 6)] == [[0, 1]] * 4
    reader = choose_reader(CLIPS, root, None, workers=0)
    for first in (1, 2):  # a run begun later gives the batches that were left
        rest = training_batches(CLIPS, reader, view_config(), schedule(first), LoaderConfig())
        assert_same(plain[2 * first :], list(islice(rest, 8 - 2 * first)))


def test_no_more_loader_processes_run_than_are_asked_for_and_none_is_idle(root, plain):
    def loaders() -> set:
        return set(multiprocessing.active_children()) - before

    before = set(multiprocessing.active_children())  # of other tests in this process
    reader = choose_reader(CLIPS, root, None, workers=0)
    with closing(
        training_batches(CLIPS, reader, view_config(), schedule(), LoaderConfig(workers=2))
    ) as stream:
        found, running = [], []
        for batch in islice(stream, 4):
            found.append(batch)
            running.append(len(loaders()))
    assert running == [2, 2, 2, 2]
    until = time.monotonic() + 60  # those that do not end by themselves are ended after 5 s
    while loaders():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert_same(found, plain[:4])


@pytest.mark.parametrize("ratio", [1, 3, 7])
def test_loader_processes_are_split_so_that_the_slower_stream_is_as_fast_as_can_be(ratio):
    def slower(labeled: int, unlabeled: int) -> float:
        return max(1 / labeled, 2 * ratio / unlabeled)

    for workers in range(2, 40):
        labeled, unlabeled = split_workers(workers, ratio)
        assert labeled + unlabeled == workers and min(labeled, unlabeled) >= 1
        best = min(slower(part, workers - part) for part in range(1, workers))
        assert slower(labeled, unlabeled) <= 1.35 * best
    assert split_workers(1, ratio) == (1, 1) and split_workers(0, ratio) == (0, 0)


def test_batches_travel_as_whole_colors_and_become_normalized_clips(plain):
    elements, _, weak, strong, _ = plain[3]
    assert [tuple(e.shape) for e in elements] == [(1, n, 32, 32, 3) for n in THREE]
    assert [tuple(e.shape) for e in weak + strong] == [(2, n, 32, 32, 3) for n in THREE + THREE]
    for traveled, clip in zip(elements, to_device(elements, CPU, PIXELS), strict=True):
        assert traveled.dtype == torch.uint8 and clip.dtype == torch.float32
        for color in range(3):
            expected = traveled[..., color].double() / 255 - PIXELS.mean[color]
            got = clip[:, color].double() * PIXELS.std[color]
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_views_are_mirrored_and_placed_as_they_are_set(root, plain):
    def mirrored(elements) -> bool:
        return any(bool((e[..., 0, 1] > e[..., -1, 1]).all()) for e in elements[2])

    def agree(batch) -> bool:
        # The red band above and the rise of green do not move in all frames.
        one, other = batch.labeled[0][0, 0].float(), batch.labeled[2][0, 0].float()
        close = partial(torch.allclose, atol=12)
        return close(one[0, :, 0], other[0, :, 0]) and close(one[:, 0, 1], other[:, 0, 1])

    upright = batches(root, view_config(weak_flip=False))
    assert not any(mirrored(batch.weak) for batch in upright[2:])
    assert any(mirrored(batch.weak) for batch in plain[2:])
    assert any(mirrored(batch.strong) for batch in upright[2:])
    assert any(mirrored(batch.labeled) for batch in upright)
    assert all(map(agree, plain))
    assert not all(map(agree, batches(root, view_config(share="one_each"))))


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_cache_changes_the_speed_and_hardly_a_pixel(root, plain, tmp_path, kind):
    cache = CacheConfig(tmp_path / "frames", kind, 256)
    for batch, other in zip(plain, batches(root, None, cache), strict=True):
        assert torch.equal(batch.labels, other.labels)
        pairs = zip(batch.labeled + batch.strong, other.labeled + other.strong, strict=True)
        for element, stored in pairs:
            error = (element.int() - stored.int()).abs().float().mean()
            assert error < 6 if kind == "jpeg" else error == 0


def test_the_reader_is_chosen_by_name_and_travels_to_another_process(root):
    for name in READERS:
        reader = choose_reader(CLIPS, root, None, workers=0, reader=name)
        assert pickle.loads(pickle.dumps(reader)).keywords["read"] is READERS[name]  # type: ignore[attr-defined]


def test_both_protocols_give_every_clip_its_probabilities(root):
    torch.manual_seed(0)
    backbone = TimeSformer(THREE, image_size=32, patch_size=16, dim=16, depth=1, num_heads=2)
    model = SefarModel(backbone, THREE, dim=16, num_classes=2, fusion_dim=8)
    reader = choose_reader(CLIPS, root, None, workers=0)
    moments = [list(sample_fractions(THREE, torch.Generator().manual_seed(0)))] * 2
    fixed = evaluation_views(
        model, LABELED, reader, moments=moments, num_crops=3, loader=LoaderConfig()
    )
    released = partial(released_views, model, LABELED, reader, loader=LoaderConfig())
    views = [fixed, released(seed=0), released(seed=0), released(seed=1)]
    found = [predict(model, shown, CPU) for shown in views]
    for probs, labels in found:
        assert probs.shape == (2, 2) and labels.tolist() == [0, 1]
    assert torch.equal(found[1][0], found[2][0])
    assert not torch.equal(found[1][0], found[3][0])
