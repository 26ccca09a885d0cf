"""What the loaders are timed against does what it is described to do."""

import random

import pytest

from benchmarks import public_loader
from benchmarks.loader import stall_share
from tests.oracles import videos as oracle


def test_the_public_way_sees_one_frame_of_each_eighth_in_two_decodings(tmp_path, monkeypatch):
    path = oracle.write_video(tmp_path / "clip.mp4", oracle.numbered_frames(48, width=240))
    elements = public_loader.decoded(path, random.Random(0))
    assert [element.shape for element in elements] == [(n, 480, 2400, 3) for n in (2, 2, 4)]
    columns = [[oracle.column_of(frame) for frame in element] for element in elements]
    assert [[int(8 * place) for place in element] for element in columns] == public_loader.SEGMENTS

    opened = []
    decode = public_loader.decoded
    monkeypatch.setattr(public_loader, "decoded", lambda *a: opened.append(a) or decode(*a))
    weak, strong = public_loader.both_views(path, random.Random(0))
    assert len(opened) == 2
    assert [tuple(e.shape) for e in weak + strong] == [(3, n, 224, 224) for n in (2, 2, 4) * 2]
    # Black and white after (color / 255 - 0.45) / 0.225.
    assert weak[2].min() >= -2.01 and weak[2].max() <= 2.45


@pytest.mark.parametrize(
    ("clip_s", "workers", "share"), [(0.01, 1, 0.0), (0.02, 1, 0.5), (0.04, 2, 0.5), (0.04, 4, 0.0)]
)
def test_the_device_waits_for_what_the_loader_is_longer_than_the_step(clip_s, workers, share):
    waits = stall_share(clip_s, clips_per_step=10, workers=workers, step_s=0.1)
    assert waits == pytest.approx(share)
