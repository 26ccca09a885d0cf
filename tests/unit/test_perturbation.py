import pytest
import torch
from torch import nn

from sefar_core.perturbation import PERTURBATIONS, draw_mix_plan, reverse_time, tube_mix
from tests.oracles import method as oracle


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


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_keeps_clips_channels_and_frames_together(name):
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


def test_mixing_follows_the_mask_patch_by_patch():
    own, partner = torch.rand(1, 1, 2, 4, 6), torch.rand(1, 1, 2, 4, 6)
    keep = torch.tensor([[True, False, False], [False, True, False]])
    got = tube_mix(own, partner, keep, patch=2)
    expected = oracle.tube_mix(own[0, 0].tolist(), partner[0, 0].tolist(), keep.tolist(), 2)
    assert got[0, 0].tolist() == expected


def test_mixing_pixels_is_mixing_tokens():
    torch.manual_seed(0)
    embed = nn.Conv3d(3, 8, kernel_size=(1, 16, 16), stride=(1, 16, 16))
    clip, partner = torch.randn(2, 2, 3, 4, 64, 64)
    keep = torch.rand(4, 4) < 0.5
    by_pixels = embed(tube_mix(clip, partner, keep, patch=16))
    by_tokens = torch.where(keep, embed(clip), embed(partner))
    torch.testing.assert_close(by_pixels, by_tokens)


def test_a_mask_that_does_not_tile_the_frame_is_refused():
    clip = torch.zeros(1, 3, 2, 64, 64)
    with pytest.raises(ValueError, match="covers"):
        tube_mix(clip, clip, torch.ones(3, 3, dtype=torch.bool), patch=16)


def test_a_mix_plan_permutes_the_batch_and_keeps_the_share():
    plan = draw_mix_plan(10, 14, 3, 0.53, torch.Generator().manual_seed(0))
    assert sorted(plan.partner.tolist()) == list(range(10))
    assert [int(mask.sum()) for mask in plan.keep] == [int(0.53 * 196)] * 3
    assert not torch.equal(plan.keep[0], plan.keep[1])
    assert plan.share == 0.53


def test_a_share_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match="share"):
        draw_mix_plan(4, 4, 3, 1.2, torch.Generator())
