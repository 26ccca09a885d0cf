import pytest
import torch

from sefar_core.perturbation import PERTURBATIONS, drop_color_planes, warped_order

REPEATING = {"slow", "repeat_half", "warp"}


def telltale_clip(frames: int) -> torch.Tensor:
    """Every (clip, channel, frame) has a value of its own: clip * 1000 + channel * 100 + frame."""
    clip = torch.arange(2.0).view(2, 1, 1, 1, 1) * 1000
    channel = torch.arange(3.0).view(1, 3, 1, 1, 1) * 100
    frame = torch.arange(float(frames)).view(1, 1, frames, 1, 1)
    return (clip + channel + frame).expand(2, 3, frames, 4, 4)


def elements() -> list[torch.Tensor]:
    return [telltale_clip(2) + 10, telltale_clip(2) + 20, telltale_clip(4) + 30]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("reverse_fine", (2, 2, ())),
        ("reverse_all", (2, 2, 2)),
        ("swap_red_blue", (1, 1, ())),  # the flaw of the released code
        ("unchanged", ((), (), ())),
    ],
)
def test_elements_are_reversed_along_one_axis_and_no_other(name, axes):
    after = PERTURBATIONS[name](elements(), generator())
    for old, new, axis in zip(elements(), after, axes, strict=True):
        assert torch.equal(new, old.flip(axis))


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_frames_are_whole_frames_of_the_same_clip_and_element(name):
    """Each of them once, unless the perturbation repeats some."""
    before, draws = elements(), generator(1)
    for _ in range(20):
        for old, new in zip(before, PERTURBATIONS[name](before, draws), strict=True):
            assert new.shape == old.shape
            for row in range(2):
                stored = sorted(map(sorted, old[row, :, :, 0, 0].T.tolist()))
                shown = sorted(map(sorted, new[row, :, :, 0, 0].T.tolist()))
                assert all(frame in stored for frame in shown)
                assert shown == stored or name in REPEATING


def test_shuffles_differ_between_the_clips_of_a_batch():
    clip = telltale_clip(2)[:1].expand(64, -1, -1, -1, -1)
    (shuffled,) = PERTURBATIONS["shuffle_all"]([clip], generator())
    swapped = (shuffled[:, 0, 0, 0, 0] == clip[0, 0, 1, 0, 0]).float().mean()
    assert 0.3 < swapped < 0.7
    fine, context = PERTURBATIONS["shuffle_fine"]([clip, clip], generator())
    assert torch.equal(context, clip) and not torch.equal(fine, clip)


def orders(name: str, frames: int, batch: int = 4000) -> list[tuple[int, ...]]:
    """The orders in which a perturbation shows the frames of many clips."""
    numbered = torch.arange(float(frames)).view(1, 1, frames, 1, 1).expand(batch, 1, frames, 1, 1)
    (clip,) = PERTURBATIONS[name]([numbered], generator())
    return [tuple(int(value) for value in row) for row in clip[:, 0, :, 0, 0].tolist()]


def test_slow_repeats_each_later_frame_half_of_the_time():
    seen = orders("slow", 4)
    # Each of frames 1 to 3 is its own or what is shown before it: eight orders, equally likely.
    expected = {
        (0, 1, 2, 3), (0, 0, 2, 3), (0, 1, 1, 3), (0, 1, 2, 2),
        (0, 0, 0, 3), (0, 0, 2, 2), (0, 1, 1, 1), (0, 0, 0, 0),
    }  # fmt: skip
    assert set(seen) == expected
    assert all(seen.count(order) / len(seen) == pytest.approx(1 / 8, abs=0.03) for order in seen)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (4, {(0, 1, 0, 1), (2, 3, 2, 3)}),
        (2, {(0, 0), (1, 1)}),
        (5, {(0, 1, 2, 0, 1), (3, 4, 2, 3, 4)}),
        (1, {(0,)}),
    ],
)
def test_one_half_is_shown_twice(frames, expected):
    seen = orders("repeat_half", frames)
    assert set(seen) == expected
    assert seen.count(min(expected)) / len(seen) > 0.4


def test_warping_shows_anchors_next_to_each_place_the_same_in_a_batch():
    draws, kinds = generator(), set()
    for _ in range(500):
        order = warped_order(8, draws).tolist()
        assert order == sorted(order)
        anchors = sorted(set(order))
        kinds.add(len(anchors))
        assert all(order[anchor] == anchor for anchor in anchors)
        for place, shown in enumerate(order):
            before = max((a for a in anchors if a <= place), default=anchors[0])
            after = min((a for a in anchors if a >= place), default=anchors[-1])
            assert shown in (before, after)
    assert kinds == {2, 4, 8}
    assert len(set(orders("warp", 8))) == 1


def test_color_planes_are_dropped_whole_and_the_others_grow():
    clip = telltale_clip(4)[:1].expand(3000, -1, -1, -1, -1) + 1
    (got,) = drop_color_planes([clip], generator(), drop=0.2)
    planes = (got / clip).flatten(2)
    assert (planes == planes[..., :1]).all()
    first = planes[..., 0]
    assert set(first.unique().tolist()) == {0.0, 1.25}
    assert (first == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert drop_color_planes([clip], generator(), drop=0.0)[0] is clip
