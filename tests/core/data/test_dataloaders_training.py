"""From a list of clips to batches on a device: readers, caches and views by their names."""

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

from qa_data.manifest import Clip
from sefar_core.data.dataloaders import (
    BatchSchedule,
    LoaderConfig,
    Shard,
    TrainClips,
    ViewConfig,
    choose_reader,
    evaluation_views,
    released_views,
    split_workers,
    to_device,
    training_batches,
)
from sefar_core.data.dataset import MOMENTS, TwoViews
from sefar_core.data.frame_cache import CacheConfig
from sefar_core.data.transforms import Augmentation, Pixels
from sefar_core.data.video import read_fractions
from sefar_core.data.video_backends import READERS
from sefar_core.evaluate import predict
from sefar_core.mixing import ELEMENT_DRAWS
from sefar_core.model import SefarModel
from sefar_core.sampling import sample_fractions
from sefar_core.timesformer import TimeSformer
from tests.oracles import videos as oracle
from tests.script_process import LIMIT_S

SIZES = (2, 2, 4)
PIXELS = Pixels(32, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for k in range(4):
        frames = oracle.numbered_frames(12 + k)
        frames[..., 1] = np.linspace(0, 200, 64)  # green rises to the right
        oracle.write_video(root / f"{k}.mp4", frames)
    return root


LABELED = [Clip(id=f"l{k}", path=f"{k}.mp4", label=k, split="labeled") for k in range(2)]
UNLABELED = [Clip(id=f"u{k}", path=f"{k}.mp4", split="unlabeled") for k in (2, 3)]
CLIPS = TrainClips(LABELED, UNLABELED, (None, None))


def view_config(
    *, weak_flip: bool = True, share: str = "one_for_all", moments: str = "shared"
) -> ViewConfig:
    augment = partial(Augmentation, (32, 40), share=ELEMENT_DRAWS[share])
    sample = partial(sample_fractions, SIZES)
    views = TwoViews(sample, MOMENTS[moments], augment(flip=weak_flip), augment(flip=True))
    return ViewConfig(views=views, crop_size=32, seed=0)


def batches(root: Path, seen: ViewConfig, store: CacheConfig | None = None) -> list:
    read = choose_reader(CLIPS, root, store, workers=0)
    return list(islice(training_batches(CLIPS, read, seen, schedule(), LoaderConfig()), 8))


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


def assert_same(first: list, second: list) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.labels, other.labels) and one.clip_ids == other.clip_ids
        assert len(one.weak) == len(other.weak) and len(one.strong) == len(other.strong)
        elements = [*one.labeled, *one.weak, *one.strong]
        others = [*other.labeled, *other.weak, *other.strong]
        assert all(torch.equal(a, b) for a, b in zip(elements, others, strict=True))


def test_the_unlabeled_part_begins_after_the_warm_up(root):
    found = batches(root, view_config())
    assert [len(batch.weak) for batch in found] == [0, 0] + [3] * 6
    unlabeled = {float(clip.float().mean()) for clip in found[2].strong[2]}
    assert len(unlabeled) == 2  # both clips in the first pass
    assert [sorted(batch.clip_ids[1:]) for batch in found] == [[]] * 2 + [["u2", "u3"]] * 6
    labels = torch.cat([batch.labels for batch in found]).tolist()
    assert [f"l{label}" for label in labels] == [batch.clip_ids[0] for batch in found]
    assert [sorted(labels[k : k + 2]) for k in (0, 2, 4, 6)] == [[0, 1]] * 4


@pytest.mark.parametrize("first_step", [1, 2])
def test_a_run_begun_later_gives_the_batches_that_were_left(root, first_step):
    read = choose_reader(CLIPS, root, None, workers=0)
    rest = training_batches(CLIPS, read, view_config(), schedule(first_step), LoaderConfig())
    whole = batches(root, view_config())[2 * first_step :]
    assert_same(whole, list(islice(rest, len(whole))))


def test_no_more_loader_processes_run_than_are_asked_for_and_none_is_idle(root):
    def loaders() -> set:
        return set(multiprocessing.active_children()) - before

    before = set(multiprocessing.active_children())  # of other tests in this process
    read = choose_reader(CLIPS, root, None, workers=0)
    with closing(
        training_batches(CLIPS, read, view_config(), schedule(), LoaderConfig(workers=2))
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
    assert_same(found, batches(root, view_config())[:4])


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


@pytest.mark.parametrize("store", [None, "raw"])
def test_a_reader_travels_to_another_process(root, tmp_path, store):
    storage = None if store is None else CacheConfig(tmp_path / "frames", store)
    read = choose_reader(CLIPS, root, storage, workers=0)
    again = pickle.loads(pickle.dumps(read))
    assert torch.equal(again(UNLABELED[0], [0.1, 0.7]), read(UNLABELED[0], [0.1, 0.7]))


def test_batches_travel_as_whole_colors_and_become_normalized_clips(root):
    elements, _, weak, strong, _ = batches(root, view_config())[3]
    assert [tuple(e.shape) for e in elements] == [(1, n, 32, 32, 3) for n in SIZES]
    assert [tuple(e.shape) for e in weak + strong] == [(2, n, 32, 32, 3) for n in SIZES + SIZES]
    for traveled, clip in zip(elements, to_device(elements, CPU, PIXELS), strict=True):
        assert traveled.dtype == torch.uint8 and clip.dtype == torch.float32
        for color in range(3):
            expected = traveled[..., color].double() / 255 - PIXELS.mean[color]
            got = clip[:, color].double() * PIXELS.std[color]
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_the_teacher_s_view_can_be_left_unmirrored(root):
    def mirrored(elements) -> list[bool]:
        return [bool((e[..., 0, 1] > e[..., -1, 1]).all()) for e in elements[2]]

    plain, flipped = batches(root, view_config(weak_flip=False)), batches(root, view_config())
    assert not any(any(mirrored(batch.weak)) for batch in plain[2:])
    assert any(any(mirrored(batch.weak)) for batch in flipped[2:])
    assert any(any(mirrored(batch.strong)) for batch in plain[2:])
    assert any(any(mirrored(batch.labeled)) for batch in plain)


def test_elements_share_their_place_or_have_one_each(root):
    def pictures_agree(batch) -> bool:
        # The red band above and the rise of green do not move in all frames.
        return torch.allclose(
            batch[0][0][:, 0, 0, :, 0].float(), batch[0][2][:, 0, 0, :, 0].float(), atol=12
        ) and torch.allclose(
            batch[0][0][:, 0, :, 0, 1].float(), batch[0][2][:, 0, :, 0, 1].float(), atol=12
        )

    assert all(map(pictures_agree, batches(root, view_config())))
    assert not all(map(pictures_agree, batches(root, view_config(share="one_each"))))


@pytest.mark.parametrize("store", [None, "raw", "jpeg"])
def test_a_store_changes_the_speed_and_hardly_a_pixel(root, tmp_path, store):
    plain = batches(root, view_config())
    storage = None if store is None else CacheConfig(tmp_path / "frames", store, 256)
    for batch, other in zip(plain, batches(root, view_config(), storage), strict=True):
        assert torch.equal(batch.labels, other.labels)
        for element, stored in zip(
            batch.labeled + batch.strong, other.labeled + other.strong, strict=True
        ):
            error = (element.int() - stored.int()).abs().float().mean()
            assert error < 6 if store == "jpeg" else error == 0


def test_the_reader_is_chosen_by_name(root):
    assert choose_reader(CLIPS, root, None, workers=0).keywords["read"] is read_fractions  # type: ignore[attr-defined]
    pytest.importorskip("decord")
    read = choose_reader(CLIPS, root, None, workers=0, reader="decord")
    assert read.keywords["read"] is READERS["decord"]  # type: ignore[attr-defined]
    patient = partial(READERS["decord"], timeout_s=LIMIT_S)
    got = read(LABELED[0], [0.1, 0.9], read=patient)
    expected = read_fractions(root / "0.mp4", [0.1, 0.9])
    assert (got.int() - expected.int()).abs().float().mean() < 3


@pytest.fixture(scope="module")
def model() -> SefarModel:
    torch.manual_seed(0)
    backbone = TimeSformer(SIZES, image_size=32, patch_size=16, dim=16, depth=1, num_heads=2)
    return SefarModel(backbone, SIZES, dim=16, num_classes=2, fusion_dim=8)


def test_both_protocols_give_every_clip_its_probabilities(root, model):
    read = choose_reader(CLIPS, root, None, workers=0)
    moments = [list(sample_fractions(SIZES, torch.Generator().manual_seed(0)))] * 2
    fixed = evaluation_views(
        model, LABELED, read, moments=moments, num_crops=3, loader=LoaderConfig()
    )
    probs, labels = predict(model, fixed, CPU)
    assert probs.shape == (2, 2) and labels.tolist() == [0, 1]
    released = partial(released_views, model, LABELED, read, loader=LoaderConfig())
    first, labels = predict(model, released(seed=0), CPU)
    assert first.shape == (2, 2) and labels.tolist() == [0, 1]
    assert torch.equal(predict(model, released(seed=0), CPU)[0], first)
    assert not torch.equal(predict(model, released(seed=1), CPU)[0], first)
