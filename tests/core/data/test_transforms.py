"""Placements are drawn right and applied to the right pixels."""

import math

import pytest
import torch
from torch.nn import functional as F

from sefar_core.data.transforms import (
    Augmentation,
    Pixels,
    Placement,
    crop,
    draw_placement,
    fixed_placements,
    normalize,
    normalized_crop,
    squares,
    to_network,
)
from sefar_core.mixing import one_each, one_for_all


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def telltale_frames(num_frames: int = 2, height: int = 12, width: int = 20) -> torch.Tensor:
    """Every (frame, row, column, color) has a value of its own, modulo 256."""
    count = num_frames * height * width * 3
    return (torch.arange(count) * 7 % 256).to(torch.uint8).reshape(num_frames, height, width, 3)


def bilinear(picture: list[list[float]], row: float, column: float) -> float:
    """The picture between its pixel centers, in plain floats; edges continue forever."""

    def at(r: int, c: int) -> float:
        r, c = min(max(r, 0), len(picture) - 1), min(max(c, 0), len(picture[0]) - 1)
        return picture[r][c]

    r, c = math.floor(row), math.floor(column)
    dr, dc = row - r, column - c
    above = at(r, c) * (1 - dc) + at(r, c + 1) * dc
    below = at(r + 1, c) * (1 - dc) + at(r + 1, c + 1) * dc
    return above * (1 - dr) + below * dr


@pytest.mark.parametrize("short_side", [8, 12, 15])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0.0, 0.0), (0.5, 0.5), (0.99, 0.3)])
def test_a_square_shows_the_scaled_pixels_of_its_place(short_side, flip, top, left):
    frames, side = telltale_frames(), 8
    got = crop(frames, Placement(short_side, top, left, flip), side)
    scale = short_side / 12
    height, width = round(12 * scale), round(20 * scale)
    first_row, first_column = int(top * (height - side + 1)), int(left * (width - side + 1))
    for color, frame, row, column in [(0, 0, 0, 0), (1, 1, 3, 5), (2, 0, 7, 7), (0, 1, 2, 6)]:
        picture = frames[frame, :, :, color].tolist()
        seen = side - 1 - column if flip else column
        y = (first_row + row + 0.5) * 12 / height - 0.5
        x = (first_column + seen + 0.5) * 20 / width - 0.5
        expected = bilinear(picture, max(y, 0), max(x, 0))
        assert got[color, frame, row, column].item() == pytest.approx(expected, abs=1e-3)


def test_an_unscaled_crop_is_a_slice_and_an_upright_picture_is_scaled_by_its_width():
    frames = telltale_frames()
    got = crop(frames, Placement(12, 0.0, 1.0, False), 10)
    assert torch.equal(got, frames[:, :10, 10:].permute(3, 0, 1, 2).float())
    upright = telltale_frames(height=20, width=12)
    assert crop(upright, Placement(6, 0.5, 0.5, False), 6).shape == (3, 2, 6, 6)


@pytest.mark.parametrize("cut_out", [crop, squares])
def test_a_square_larger_than_the_frames_is_refused(cut_out):
    with pytest.raises(ValueError, match="square of 10 px does not fit.*raise data.short_side"):
        cut_out(telltale_frames(), Placement(9, 0.0, 0.0, False), 10)


def test_draws_cover_their_ranges_evenly():
    draws = generator()
    placements = [draw_placement((20, 24), True, draws) for _ in range(2000)]
    for size in range(20, 25):
        assert 330 < sum(p.short_side == size for p in placements) < 470
    assert 930 < sum(p.flip for p in placements) < 1070
    assert not any(draw_placement((20, 24), False, draws).flip for _ in range(100))
    for axis in (1, 2):
        places = torch.tensor([p[axis] for p in placements])
        assert 0 <= places.min() < 0.01 < 0.99 < places.max() < 1
        assert places.mean().item() == pytest.approx(0.5, abs=0.03)
    top_and_left = torch.tensor([(p.top, p.left) for p in placements]).T
    assert torch.corrcoef(top_and_left)[0, 1].abs() < 0.1


def test_a_clip_has_one_placement_and_the_public_code_one_per_element():
    together = Augmentation((20, 40), True, one_for_all).draw(3, generator())
    each = Augmentation((20, 40), True, one_each)
    apart = each.draw(3, generator())
    assert together[0] == together[1] == together[2] == apart[0]
    assert len(set(apart)) == 3
    assert each.draw(3, generator()) == apart != each.draw(3, generator(6))


def test_three_crops_lie_at_both_ends_and_in_the_middle():
    frames = telltale_frames()
    scaled = frames.permute(3, 0, 1, 2).float()
    crops = [crop(frames, place, 12) for place in fixed_placements(12, 3)]
    for found, first in zip(crops, (0, 4, 8), strict=True):
        assert torch.equal(found, scaled[..., first : first + 12])
    (center,) = fixed_placements(12, 1)
    assert torch.equal(crop(frames, center, 12), crops[1])
    with pytest.raises(ValueError, match="1 or 3 crops, got 2"):
        fixed_placements(12, 2)


def test_colors_are_normalized_each_by_its_own_mean_and_deviation():
    clip = torch.tensor([0.0, 127.5, 255.0]).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    got = normalize(clip, (0.1, 0.2, 0.3), (0.5, 0.25, 0.1))
    for color, expected in enumerate([-0.2, 1.2, 7.0]):
        assert got[color].unique().item() == pytest.approx(expected, abs=1e-5)
    frames, place = telltale_frames(), Placement(14, 0.3, 0.7, True)
    view = normalized_crop(frames, place, Pixels(10, (0.45, 0.4, 0.5), (0.2, 0.3, 0.1)))
    expected = normalize(crop(frames, place, 10), (0.45, 0.4, 0.5), (0.2, 0.3, 0.1))
    assert torch.equal(view, expected)
    assert view.shape == (3, 2, 10, 10) and view.dtype == torch.float32


def grainy_frames(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width, 3), generator=generator(3)).to(torch.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (160, 90), (51, 51)])
@pytest.mark.parametrize("short_side", [32, 45, 48, 60])
def test_traveling_squares_are_the_exact_ones_in_whole_colors(height, width, short_side, flip):
    frames, place = grainy_frames(height, width), Placement(short_side, 0.3, 0.8, flip)
    exact = crop(frames, place, 32).permute(1, 2, 3, 0)
    got = squares(frames, place, 32)
    assert got.shape == (3, 32, 32, 3) and got.dtype == torch.uint8
    error = (got.float() - exact).abs()
    assert error.max() <= (0.8 if short_side != min(height, width) else 0)
    assert error.mean() < 0.3


def test_squares_become_what_a_network_takes_each_in_its_place():
    pixels = Pixels(12, (0.1, 0.2, 0.3), (0.5, 0.25, 0.1))
    batch = torch.stack([telltale_frames(4, 12, 12), grainy_frames(12, 12)[[0, 1, 2, 0]]])
    got = to_network(batch, pixels)
    assert got.shape == (2, 3, 4, 12, 12)
    for clip, color, frame, row, column in [(0, 0, 0, 0, 0), (1, 2, 3, 5, 7), (0, 1, 2, 11, 3)]:
        value = batch[clip, frame, row, column, color].item() / 255
        expected = (value - pixels.mean[color]) / pixels.std[color]
        assert got[clip, color, frame, row, column].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num_frames", [1, 8])
@pytest.mark.parametrize("short_side", [9, 24, 40])
def test_scaling_color_by_color_gives_the_bits_of_scaling_the_whole_clip(
    short_side, num_frames, monkeypatch
):
    """Of the largest frames that a chat takes, all colors as floats are 400 MB."""
    sizes = []

    def noted(clip, **settings):
        sizes.append(clip.numel())
        return interpolate(clip, **settings)

    shape = (num_frames, 24, 37, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator())
    size = (short_side, round(37 * short_side / 24))
    interpolate = F.interpolate
    whole = frames.permute(3, 0, 1, 2).float()
    expected = interpolate(whole, size=size, mode="bilinear", align_corners=False)
    monkeypatch.setattr(F, "interpolate", noted)
    got = crop(frames, Placement(short_side, 0.0, 1.0, True), 8)
    assert got.equal(expected[..., :8, -8:].flip(-1))
    assert set(sizes) <= {num_frames * 24 * 37}
