"""Items are a function of (seed, epoch, clip, view), and show the frames that were drawn."""

from functools import partial

import pytest
import torch
from torch import Tensor

from qa_data.manifest import Clip
from sefar_core.data.dataloaders import EvalClips, fixed_views, released_view
from sefar_core.data.dataset import (
    LabeledClips,
    TwoViews,
    UnlabeledClips,
    independent_moments,
    read_from_folder,
    seeded,
    shared_moments,
    view_moments,
)
from sefar_core.data.transforms import Augmentation, Pixels, fixed_placements, to_network
from sefar_core.mixing import one_each, one_for_all
from sefar_core.sampling import SAMPLINGS, center_windows, sample_fractions
from tests.oracles import videos as oracle

SIZES = (2, 2, 4)
SEGMENTS = [[3, 7], [1, 5], [0, 2, 4, 6]]
"""Eighths of the clip that each element shows."""
CLIPS = [Clip(id=f"clip{k}", path=f"{k}.mp4", label=k % 3, split="labeled") for k in range(5)]
RAW = Pixels(8, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
SAMPLE = partial(sample_fractions, SIZES)
MOVING = Augmentation((8, 12), True, one_for_all)


class CountingReader:
    """Frames whose color shows clip (red), moment (green) and column (blue); counts the passes."""

    def __init__(self):
        self.passes = 0

    def __call__(self, clip: Clip, fractions: list[float]) -> Tensor:
        self.passes += 1
        frames = torch.zeros(len(fractions), 12, 16, 3, dtype=torch.uint8)
        frames[..., 0] = int(clip.id[-1])
        frames[..., 2] = torch.arange(16)
        for number, fraction in enumerate(fractions):
            frames[number, ..., 1] = int(fraction * 256)
        return frames


def labeled(clips=CLIPS, *, seed=0) -> LabeledClips:
    return LabeledClips(
        clips, CountingReader(), sample=SAMPLE, augment=MOVING, crop_size=8, seed=seed
    )


def unlabeled(reader=None, *, clips=CLIPS, moments=independent_moments, weak=MOVING):
    views = TwoViews(SAMPLE, moments, weak, MOVING)
    return UnlabeledClips(clips, reader or CountingReader(), views=views, crop_size=8, seed=0)


def seen(elements: list[Tensor]) -> list[Tensor]:
    """Elements as a network takes them, here with colors as they are."""
    return [to_network(element, RAW) for element in elements]


def moments_of(elements: list[Tensor]) -> list[list[int]]:
    """Moments in 256ths of the clip, read off the pictures."""
    return [element[1].amax(dim=(1, 2)).round().int().tolist() for element in elements]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second))


def test_a_labeled_item_has_one_frame_in_each_eighth_of_its_clip():
    whole_colors, label, clip_id = labeled()[0, 4]
    assert all(element.dtype == torch.uint8 for element in whole_colors)
    elements = seen(whole_colors)
    assert [tuple(element.shape) for element in elements] == [(3, n, 8, 8) for n in SIZES]
    assert (label.item(), clip_id) == (1, CLIPS[4].id)
    assert all(element[0].round().unique().item() == 4 for element in elements)
    segments = [[moment // 32 for moment in element] for element in moments_of(elements)]
    assert segments == SEGMENTS


def test_an_item_is_a_function_of_seed_epoch_and_clip_alone():
    before = torch.get_rng_state()
    clips = labeled()
    items = {(e, p): clips[e, p] for e in range(2) for p in range(5)}
    assert same(labeled()[1, 3].elements, items[1, 3].elements)
    assert same(labeled(CLIPS[::-1])[0, 0].elements, items[0, 4].elements)
    base = moments_of(seen(items[0, 0].elements))
    for other in (labeled(seed=1)[0, 0], items[1, 0], items[0, 1]):
        assert moments_of(seen(other.elements)) != base
    assert torch.equal(torch.get_rng_state(), before)


def test_teacher_and_student_look_at_moments_of_their_own_in_one_pass_or_share_them():
    reader = CountingReader()
    item = unlabeled(reader)[0, 2]
    assert item._fields == ("weak", "strong", "clip_id")  # and no label
    assert reader.passes == 1
    assert moments_of(seen(item.weak)) != moments_of(seen(item.strong))
    assert [len(element) for element in item.strong] == list(SIZES)
    shared = [unlabeled(moments=shared_moments)[epoch, 2] for epoch in range(8)]
    assert all(moments_of(seen(one.weak)) == moments_of(seen(one.strong)) for one in shared)
    assert not all(same(one.weak, one.strong) for one in shared)  # the place is not shared


def is_mirrored(elements: list[Tensor]) -> bool:
    columns = seen(elements)[0][2, 0, 0]
    return bool(columns[0] > columns[-1])


@pytest.mark.parametrize("flip", [False, True])
def test_the_weak_view_is_mirrored_half_of_the_time_or_never(flip):
    clips = unlabeled(weak=Augmentation((8, 12), flip, one_for_all))
    items = [clips[epoch, position] for epoch in range(20) for position in range(5)]
    assert 35 < sum(is_mirrored(item.strong) for item in items) < 65
    weak = sum(is_mirrored(item.weak) for item in items)
    assert 35 < weak < 65 if flip else weak == 0


def test_lists_without_a_clip_or_without_a_label_are_refused():
    clips = [*CLIPS, Clip(id="secret", path="x.mp4", split="unlabeled")]
    with pytest.raises(ValueError, match="clip secret of split unlabeled has no label"):
        labeled(clips)
    with pytest.raises(ValueError, match="list of clips is empty"):
        unlabeled(clips=[])


def test_generators_differ_by_every_part_of_their_seed():
    parts = [(0, 1, "a", "weak"), (0, 1, "a", "strong"), (0, 11, "a", "weak"), (0, 1, "1a", "weak")]
    first = {torch.rand(1, generator=seeded(*part)).item() for part in parts}
    assert len(first) == 4
    # Golden, printed by this very call: a run begun on another machine resumes with these draws.
    assert torch.rand(1, generator=seeded(0, 1, "a", "weak")).item() == pytest.approx(0.0237705708)


def test_frames_come_from_the_folder_or_from_a_stretch_of_a_longer_file(tmp_path):
    oracle.write_video(tmp_path / "0.mp4", oracle.numbered_frames(20), fps=10)
    whole = oracle.decode_in_order(tmp_path / "0.mp4")
    part = Clip(id="part", path="0.mp4", start_s=0.5, end_s=1.5, split="unlabeled")
    for clip, fractions, numbers in ((part, [0.0, 0.55], [5, 10]), (CLIPS[0], [0.99], [19])):
        got = read_from_folder(clip, fractions, root=tmp_path)
        assert got.numpy().tolist() == whole[numbers].tolist()
    assert read_from_folder(part, [0.0], root=tmp_path, short_side=24).shape == (1, 24, 32, 3)


def test_evaluation_sees_every_moment_under_every_crop_in_one_pass():
    reader = CountingReader()
    moments = view_moments(SAMPLINGS["interleaved"], SIZES, 5)
    views = partial(fixed_views, moments=moments, placements=fixed_placements(8, 3))
    clips = EvalClips(CLIPS, reader, views=views, pixels=RAW)
    elements, labels, positions = clips[4]
    assert reader.passes == 1
    assert [tuple(element.shape) for element in elements] == [(15, 3, n, 8, 8) for n in SIZES]
    assert labels.tolist() == [1] * 15 and positions.tolist() == [4] * 15
    for view in range(15):
        got = moments_of([element[view] for element in elements])
        offset = (view // 3 + 0.5) / 5
        assert got == [[int((k + offset) * 32) for k in element] for element in SEGMENTS]
    assert not torch.equal(elements[0][0], elements[0][1])
    assert same(clips[4].elements, elements)
    # Other ways of sampling have moments of their own.
    windows = view_moments(SAMPLINGS["local_window"], SIZES, 2)
    assert all(same(windows[k], center_windows(SIZES, (0.25, 0.75)[k])) for k in range(2))
    assert not same(windows[0], view_moments(SAMPLINGS["interleaved"], SIZES, 2)[0])


def released(seed: int = 0) -> EvalClips:
    augment = Augmentation((8, 8), True, one_each)
    view = partial(released_view, sample=SAMPLE, augment=augment, seed=seed)
    return EvalClips(CLIPS, CountingReader(), views=view, pixels=RAW)


def test_the_released_view_is_one_random_look_and_the_same_every_time():
    elements, labels, positions = released()[4]
    assert [tuple(element.shape) for element in elements] == [(1, 3, n, 8, 8) for n in SIZES]
    assert labels.tolist() == [1] and positions.tolist() == [4]
    segments = [[m // 32 for m in e] for e in moments_of([element[0] for element in elements])]
    assert segments == SEGMENTS
    assert same(released()[4].elements, elements)
    assert not same(released(seed=1)[4].elements, elements)
    # Each element has a place and a flip of its own.
    columns = [
        [tuple(element[0, 2, 0, 0].int().tolist()) for element in released(seed)[0].elements]
        for seed in range(20)
    ]
    rows = sum(columns, [])
    assert len(set(rows)) > 5
    assert 15 < sum(row[0] > row[-1] for row in rows) < 45
    assert any(len(set(of_one)) > 1 for of_one in columns)
