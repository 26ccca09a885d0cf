"""What the loaders are timed against does what it is described to do."""

import random

import pytest

from benchmarks import public_loader
from benchmarks.loader import stall_share
from benchmarks.stall import over
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
    ("clip_s", "workers", "share"),
    [
        (0.025, (1, 3), 0.5),  # 8 labeled and 24 unlabeled clips in a step of 0.1 s
        (0.05, (4, 8), 1 / 3),  # the streams do not help one another: the slower one decides
        (0.01, (4, 12), 0.0),
    ],
)
def test_the_device_waits_for_what_the_loader_is_longer_than_the_step(clip_s, workers, share):
    assert stall_share(clip_s, workers) == pytest.approx(share)


def test_a_burst_of_waiting_counts_by_its_duration():
    steps = [{"seconds": 1.0, "clips_per_s": 32.0, "stall": 0.0}] * 3
    result = over([*steps, {"seconds": 5.0, "clips_per_s": 6.4, "stall": 0.8}])
    assert result == pytest.approx({"seconds": 2.0, "clips_per_s": 16.0, "stall": 0.5})
