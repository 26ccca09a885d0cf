import pytest
import torch

from sefar_core.sampling import (
    SAMPLINGS,
    center_fractions,
    element_segments,
    places_in_time,
    sample_fractions,
    time_order,
)

# Read off the public code by running it (shared facts of the method, long clips).
PUBLIC_SEGMENTS = {
    (2, 2, 4): [[3, 7], [1, 5], [0, 2, 4, 6]],
    (2, 2, 2, 2): [[3, 7], [2, 6], [1, 5], [0, 4]],
    (4, 4): [[1, 3, 5, 7], [0, 2, 4, 6]],
    (2, 6): [[1, 5], [0, 2, 3, 4, 6, 7]],
    (2, 2, 2, 4): [[4, 9], [2, 7], [1, 6], [0, 3, 5, 8]],
    (2, 2, 2, 2, 4): [[5, 11], [4, 10], [2, 8], [1, 7], [0, 3, 6, 9]],
    (2, 4): [[1, 4], [0, 2, 3, 5]],
    (8,): [[0, 1, 2, 3, 4, 5, 6, 7]],
}


@pytest.mark.parametrize("sizes", PUBLIC_SEGMENTS)
def test_segments_are_those_of_the_public_code(sizes):
    assert element_segments(sizes) == PUBLIC_SEGMENTS[sizes]
    assert places_in_time(center_fractions(sizes)) == PUBLIC_SEGMENTS[sizes]


@pytest.mark.parametrize("sizes", [(2, 2, 4), (1,), (3, 5), (1, 1, 1), (6, 2), (7, 1, 3)])
def test_elements_share_out_every_segment_once(sizes):
    segments = element_segments(sizes)
    assert [len(part) for part in segments] == list(sizes)
    assert sorted(sum(segments, [])) == list(range(sum(sizes)))
    assert all(part == sorted(part) for part in segments)


def test_every_random_moment_is_in_its_segment():
    generator = torch.Generator().manual_seed(0)
    seen = torch.stack([torch.cat(sample_fractions((2, 2, 4), generator)) for _ in range(200)])
    segments = torch.tensor([3, 7, 1, 5, 0, 2, 4, 6])
    inside = seen * 8 - segments
    assert (inside >= 0).all() and (inside < 1).all()
    assert inside.min() < 0.05 and inside.max() > 0.95
    assert seen.unique().numel() > 1500


def test_the_same_generator_gives_the_same_moments():
    first, again, other = (
        sample_fractions((2, 2, 4), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_centre_moments_stand_in_the_middle_of_each_segment():
    moments = [element.tolist() for element in center_fractions((2, 2, 4))]
    assert [[8 * moment for moment in element] for element in moments] == [
        [3.5, 7.5], [1.5, 5.5], [0.5, 2.5, 4.5, 6.5]
    ]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("sizes", PUBLIC_SEGMENTS)
def test_time_order_sorts_the_moments(name, sizes):
    moments = SAMPLINGS[name].center(sizes)
    laid_out = torch.cat(list(moments))
    in_time = laid_out[time_order(moments)]
    assert torch.equal(in_time, laid_out.sort().values)
    assert laid_out.unique().numel() == sum(sizes)
    for element, places in zip(moments, places_in_time(moments), strict=True):
        assert torch.equal(in_time[places], element)


@pytest.mark.parametrize("sizes", [(2, 2, 4), (2, 6), (8,), (4, 4), (10, 1, 1, 1)])
def test_local_windows_are_short_dense_and_spread_over_the_clip(sizes):
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        *fine, context = SAMPLINGS["local_window"].draw(sizes, generator)
        assert (torch.cat([*fine, context]) >= 0).all() and (torch.cat([*fine, context]) < 1).all()
        assert (context * sizes[-1]).long().tolist() == list(range(sizes[-1]))
        for part, window in enumerate(fine):
            steps = window.diff() * 2 * sum(sizes)
            assert (steps > 0).all() and (steps < 1 + 1e-4).all()
            assert (window * len(fine)).long().unique().tolist() == [part]


def test_windows_reach_both_ends_of_their_part():
    generator = torch.Generator().manual_seed(0)
    drawn = [SAMPLINGS["local_window"].draw((2, 2, 4), generator)[1] for _ in range(500)]
    # Half a step (1/32) before the first frame and after the last belong to the window.
    assert min(window[0] for window in drawn) < 0.5 + 1 / 32 + 0.01
    assert max(window[1] for window in drawn) > 1 - 1 / 32 - 0.01


def test_an_element_without_frames_and_an_offset_outside_the_segment_are_refused():
    for sizes in ((2, 0, 4), ()):
        with pytest.raises(ValueError, match="at least one frame"):
            element_segments(sizes)
    for sampling in SAMPLINGS.values():
        with pytest.raises(ValueError, match="place inside a segment"):
            sampling.center((2, 2, 4), offset=1.0)
