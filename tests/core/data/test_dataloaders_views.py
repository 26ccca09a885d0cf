"""Evaluation shows every clip under the same views, or under one random one."""

from functools import partial

import torch

from sefar_core.data.dataloaders import EvalClips, fixed_views, released_view
from sefar_core.data.dataset import view_moments
from sefar_core.data.transforms import Augmentation, fixed_placements
from sefar_core.mixing import one_each
from sefar_core.sampling import SAMPLINGS, center_windows
from tests.core.data.test_dataset import CLIPS, RAW, SAMPLE, SIZES, CountingReader, moments_of, same


def test_evaluation_sees_every_moment_under_every_crop_in_one_pass():
    reader = CountingReader()
    clips = EvalClips(
        CLIPS,
        reader,
        views=partial(
            fixed_views,
            moments=view_moments(SAMPLINGS["interleaved"], SIZES, 5),
            placements=fixed_placements(8, 3),
        ),
        pixels=RAW,
    )
    elements, labels, positions = clips[4]
    assert reader.passes == 1
    assert [tuple(element.shape) for element in elements] == [(15, 3, n, 8, 8) for n in SIZES]
    assert labels.tolist() == [1] * 15 and positions.tolist() == [4] * 15
    for view in range(15):
        got = moments_of([element[view] for element in elements])
        offset = (view // 3 + 0.5) / 5
        expected = [[int((k + offset) * 32) for k in e] for e in ([3, 7], [1, 5], [0, 2, 4, 6])]
        assert got == expected
    assert not torch.equal(elements[0][0], elements[0][1])
    assert same(clips[4].elements, elements)


def released(seed: int = 0) -> EvalClips:
    augment = Augmentation((8, 8), True, one_each)
    view = partial(released_view, sample=SAMPLE, augment=augment, seed=seed)
    return EvalClips(CLIPS, CountingReader(), views=view, pixels=RAW)


def test_the_released_view_is_one_random_look_and_the_same_every_time():
    elements, labels, positions = released()[4]
    assert [tuple(element.shape) for element in elements] == [(1, 3, n, 8, 8) for n in SIZES]
    assert labels.tolist() == [1] and positions.tolist() == [4]
    segments = [[m // 32 for m in e] for e in moments_of([element[0] for element in elements])]
    assert segments == [[3, 7], [1, 5], [0, 2, 4, 6]]
    assert same(released()[4].elements, elements)
    assert not same(released(seed=1)[4].elements, elements)


def test_in_the_released_view_each_element_has_a_place_and_a_flip_of_its_own():
    columns = [
        tuple(element[0, 2, 0, 0].int().tolist())
        for seed in range(20)
        for element in [*released(seed)[0].elements]
    ]
    assert len(set(columns)) > 5
    mirrored = sum(row[0] > row[-1] for row in columns)
    assert 15 < mirrored < 45
    per_clip = [{columns[3 * clip + element] for element in range(3)} for clip in range(20)]
    assert any(len(views) > 1 for views in per_clip)


def test_other_ways_of_sampling_have_moments_of_evaluation_of_their_own():
    moments = view_moments(SAMPLINGS["local_window"], SIZES, 2)
    for view, offset in zip(moments, (0.25, 0.75), strict=True):
        assert same(view, center_windows(SIZES, offset))
    assert not same(moments[0], view_moments(SAMPLINGS["interleaved"], SIZES, 2)[0])
