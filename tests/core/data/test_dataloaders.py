"""Batches depend on the seed and the position in the stream, on nothing else."""

from functools import partial
from itertools import islice

import pytest
import torch
from torch import Tensor

from qa_data.manifest import Clip
from sefar_core.data.dataloaders import (
    WHOLE,
    ClipStream,
    EvalClips,
    LoaderConfig,
    Shard,
    evaluation_batches,
    fixed_views,
    training_stream,
)
from sefar_core.data.dataset import (
    LabeledClips,
    TwoViews,
    UnlabeledClips,
    independent_moments,
    view_moments,
)
from sefar_core.data.transforms import Augmentation, Pixels, fixed_placements
from sefar_core.data.video import VideoReadError
from sefar_core.mixing import one_for_all
from sefar_core.sampling import SAMPLINGS, sample_fractions

SIZES = (1, 2)
SAMPLE = partial(sample_fractions, SIZES)
AUGMENT = Augmentation((8, 10), True, one_for_all)
RAW = Pixels(8, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
CLIPS = [Clip(id=f"clip{k}", path=f"{k}.mp4", label=k, split="labeled") for k in range(7)]


def read(clip: Clip, fractions: list[float]) -> Tensor:
    frames = torch.zeros(len(fractions), 8, 9, 3, dtype=torch.uint8)
    frames[..., 0] = int(clip.id[4:]) * 10
    frames[..., 1] = (torch.tensor(fractions) * 256).int().view(-1, 1, 1)
    return frames


def read_nothing(clip: Clip, fractions: list[float]) -> Tensor:
    raise VideoReadError(f"{clip.path} is empty")


def labeled(seed: int = 0, reader=read) -> LabeledClips:
    return LabeledClips(CLIPS, reader, sample=SAMPLE, augment=AUGMENT, crop_size=8, seed=seed)


def unlabeled() -> UnlabeledClips:
    views = TwoViews(SAMPLE, independent_moments, AUGMENT, AUGMENT)
    return UnlabeledClips(CLIPS, read, views=views, crop_size=8, seed=0)


def evaluated() -> EvalClips:
    return EvalClips(
        CLIPS,
        read,
        views=partial(
            fixed_views,
            moments=view_moments(SAMPLINGS["interleaved"], SIZES, 2),
            placements=fixed_placements(8, 3),
        ),
        pixels=RAW,
    )


def keys(count: int, *, seed=0, name="x", start=0, shard=WHOLE) -> list[tuple[int, int]]:
    stream = ClipStream(7, seed=seed, name=name, start=start, shard=shard)
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
    orders = {tuple(position for _, position in taken) for taken in passes}
    assert len(orders) == 3


def test_seed_and_name_shuffle_otherwise():
    assert len({tuple(keys(7)), tuple(keys(7, seed=1)), tuple(keys(7, name="y"))}) == 3


@pytest.mark.parametrize("start", [1, 6, 7, 8, 30])
def test_a_stream_begun_later_goes_on_as_if_it_had_run(start):
    assert keys(10, start=start) == keys(start + 10)[start:]


def test_ranks_share_the_stream_between_them():
    whole = keys(24, start=5)
    first = keys(12, start=5, shard=Shard(0, 2))
    second = keys(12, start=5, shard=Shard(1, 2))
    assert [key for both in zip(first, second, strict=True) for key in both] == whole


def test_a_batch_has_one_row_a_clip():
    batch = next(training_stream(labeled(), batch_size=3))
    assert [tuple(element.shape) for element in batch.elements] == [(3, n, 8, 8, 3) for n in SIZES]
    assert (batch.elements[0][:, 0, 0, 0, 0] / 10).round().int().tolist() == batch.label.tolist()


def test_batches_do_not_depend_on_the_number_of_workers():
    for clips in (labeled(), unlabeled()):
        alone = list(islice(training_stream(clips, batch_size=3), 5))
        stream = training_stream(clips, batch_size=3, loader=LoaderConfig(workers=2))
        assert_same(alone, list(islice(stream, 5)))
        stream.close()
    assert_same(
        list(evaluation_batches(evaluated(), batch_size=3)),
        list(evaluation_batches(evaluated(), batch_size=3, loader=LoaderConfig(workers=2))),
    )


def test_a_resumed_stream_gives_the_batches_that_were_left():
    whole = list(islice(training_stream(labeled(), batch_size=3), 6))
    resumed = training_stream(labeled(), batch_size=3, start=4 * 3)
    assert_same(whole[4:], list(islice(resumed, 2)))


def test_two_ranks_see_together_what_one_sees_alone():
    alone = list(islice(training_stream(labeled(), batch_size=4), 3))
    ranks = [training_stream(labeled(), batch_size=2, shard=Shard(rank, 2)) for rank in (0, 1)]
    for batch in alone:
        parts = [next(rank) for rank in ranks]
        for position in range(2):
            joined = torch.stack([part.elements[position] for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, batch.elements[position])


def test_evaluation_shows_each_clip_once_with_all_its_views():
    batches = list(evaluation_batches(evaluated(), batch_size=3))
    assert [len(batch.labels) for batch in batches] == [18, 18, 6]
    clips = torch.cat([batch.clips for batch in batches])
    assert clips.tolist() == [k for k in range(7) for _ in range(6)]
    for batch in batches:
        red = batch.elements[1][:, 0].amax(dim=(1, 2, 3))
        assert (red / 10).round().int().tolist() == batch.labels.tolist()


def test_evaluation_is_shared_by_ranks_without_repeats():
    parts = [
        torch.cat([b.clips for b in evaluation_batches(evaluated(), batch_size=2, shard=shard)])
        for shard in (Shard(0, 2), Shard(1, 2))
    ]
    assert sorted(set(torch.cat(parts).tolist())) == list(range(7))
    assert not set(parts[0].tolist()) & set(parts[1].tolist())


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    list(islice(training_stream(labeled(), batch_size=3), 2))
    list(evaluation_batches(evaluated(), batch_size=3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_video_stops_training_with_its_name(workers):
    stream = training_stream(
        labeled(reader=read_nothing), batch_size=2, loader=LoaderConfig(workers=workers)
    )
    with pytest.raises(VideoReadError, match=r"\d.mp4 is empty"):
        next(stream)


def test_the_rest_of_a_pass_is_left_out_where_leftovers_are_dropped():
    stream = ClipStream(7, seed=0, name="x", start=0, shard=Shard(), per_pass=4)
    keys = list(islice(stream, 12))
    assert [epoch for epoch, _ in keys] == [0] * 4 + [1] * 4 + [2] * 4
    whole = list(islice(ClipStream(7, seed=0, name="x", start=0, shard=Shard()), 21))
    for epoch in range(3):
        of_pass = [position for e, position in whole if e == epoch]
        assert [position for e, position in keys if e == epoch] == of_pass[:4]
    again = list(islice(ClipStream(7, seed=0, name="x", start=6, shard=Shard(), per_pass=4), 6))
    assert again == keys[6:]
