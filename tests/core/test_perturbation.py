import pytest
import torch

from sefar_core.perturbation import PERTURBATIONS, drop_color_planes, reverse_time, warped_order

REPEATING = {"slow", "repeat_half", "warp"}


def telltale_clip(frames: int) -> torch.Tensor:
    """Every (clip, channel, frame) has a value of its own: clip * 1000 + channel * 100 + frame."""
    clip = torch.arange(2.0).view(2, 1, 1, 1, 1) * 1000
    channel = torch.arange(3.0).view(1, 3, 1, 1, 1) * 100
    frame = torch.arange(float(frames)).view(1, 1, frames, 1, 1)
    return (clip + channel + frame).expand(2, 3, frames, 4, 4)


def elements() -> list[torch.Tensor]:
    return [telltale_clip(2) + 10, telltale_clip(2) + 20, telltale_clip(4) + 30]


def frames_of(clip: torch.Tensor, row: int = 0, channel: int = 0) -> list[float]:
    return clip[row, channel, :, 0, 0].tolist()


def test_reverse_time_turns_frames_and_nothing_else():
    clip = telltale_clip(frames=4)
    got = reverse_time(clip)
    for row in range(2):
        for channel in range(3):
            assert frames_of(got, row, channel) == list(reversed(frames_of(clip, row, channel)))


def test_reverse_fine_reverses_the_fine_and_keeps_the_context():
    before = elements()
    after = PERTURBATIONS["reverse_fine"](before, torch.Generator())
    assert torch.equal(after[0], before[0].flip(2))
    assert torch.equal(after[1], before[1].flip(2))
    assert torch.equal(after[2], before[2])


def test_swap_red_blue_is_the_released_flaw_and_leaves_time():
    before = elements()
    after = PERTURBATIONS["swap_red_blue"](before, torch.Generator())
    assert frames_of(after[0], channel=0) == frames_of(before[0], channel=2)
    assert frames_of(after[0], channel=1) == frames_of(before[0], channel=1)
    assert torch.equal(after[2], before[2])


@pytest.mark.parametrize("name", sorted(PERTURBATIONS.keys() - REPEATING))
def test_a_perturbation_that_repeats_nothing_keeps_every_frame_of_its_clip(name):
    before = elements()
    after = PERTURBATIONS[name](before, torch.Generator().manual_seed(1))
    assert [clip.shape for clip in after] == [clip.shape for clip in before]
    for old, new in zip(before, after, strict=True):
        for row in range(2):
            values = sorted(new[row, :, :, 0, 0].flatten().tolist())
            assert values == sorted(old[row, :, :, 0, 0].flatten().tolist())


def test_shuffles_differ_between_the_clips_of_a_batch():
    clip = telltale_clip(2)[:1].expand(64, -1, -1, -1, -1)
    (shuffled,) = PERTURBATIONS["shuffle_all"]([clip], torch.Generator().manual_seed(0))
    swapped = (shuffled[:, 0, 0, 0, 0] == clip[0, 0, 1, 0, 0]).float().mean()
    assert 0.3 < swapped < 0.7
    _, context = PERTURBATIONS["shuffle_fine"]([clip, clip], torch.Generator().manual_seed(0))
    assert torch.equal(context, clip)


@pytest.mark.parametrize("name", sorted(REPEATING))
def test_repeated_frames_are_whole_frames_of_the_same_clip_and_element(name):
    before = elements()
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        for old, new in zip(before, PERTURBATIONS[name](before, generator), strict=True):
            assert new.shape == old.shape
            for row in range(2):
                stored = {tuple(frame) for frame in old[row, :, :, 0, 0].T.tolist()}
                assert {tuple(frame) for frame in new[row, :, :, 0, 0].T.tolist()} <= stored


def numbered(batch: int, frames: int) -> torch.Tensor:
    """Clips whose frame t has the value t."""
    frame = torch.arange(float(frames)).view(1, 1, frames, 1, 1)
    return frame.expand(batch, 1, frames, 1, 1)


def orders(name: str, frames: int, batch: int = 4000) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    (clip,) = PERTURBATIONS[name]([numbered(batch, frames)], generator)
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


def test_warping_is_alike_for_the_clips_of_a_batch_and_never_turns_back():
    generator = torch.Generator().manual_seed(0)
    kinds = set()
    for _ in range(500):
        order = warped_order(8, generator).tolist()
        assert order == sorted(order)
        kinds.add(len(set(order)))
    assert kinds == {2, 4, 8}
    assert len(set(orders("warp", 8))) == 1


def test_a_warped_place_shows_an_anchor_next_to_it():
    generator = torch.Generator().manual_seed(3)
    for _ in range(500):
        order = warped_order(8, generator).tolist()
        anchors = sorted(set(order))
        assert all(order[anchor] == anchor for anchor in anchors)
        for place, shown in enumerate(order):
            before = max((a for a in anchors if a <= place), default=anchors[0])
            after = min((a for a in anchors if a >= place), default=anchors[-1])
            assert shown in (before, after)


def test_color_planes_are_dropped_whole_and_the_others_grow():
    clip = telltale_clip(4)[:1].expand(3000, -1, -1, -1, -1) + 1
    (got,) = drop_color_planes([clip], torch.Generator().manual_seed(0), drop=0.2)
    planes = (got / clip).flatten(2)
    assert (planes == planes[..., :1]).all()
    first = planes[..., 0]
    assert set(first.unique().tolist()) == {0.0, 1.25}
    assert (first == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_no_color_dropout_leaves_the_clips_as_they_are():
    before = elements()
    after = drop_color_planes(before, torch.Generator(), drop=0.0)
    assert all(old is new for old, new in zip(before, after, strict=True))
