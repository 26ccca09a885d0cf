"""What is left out of decoding changes no frame, and is left out where it can be."""

from pathlib import Path

import numpy as np
import pytest

from sefar_core.data import frame_index
from sefar_core.data.decode import opened, runs
from sefar_core.data.video import read_fractions
from tests.oracles import videos as oracle


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("gop", ["open", "closed"])
@pytest.mark.parametrize("pyramid", ["none", "strict", "normal"])
def test_shortcuts_give_the_frames_of_a_full_decode(tmp_path, suffix, gop, pyramid):
    flags = {"g": "12", "bf": "3", "sc_threshold": "0", "b_strategy": "0"}
    flags["x264-params"] = f"open-gop={gop == 'open':d}:b-pyramid={pyramid}"
    path = tmp_path / f"clip.{suffix}"
    oracle.write_video(path, oracle.numbered_frames(60), options=flags)
    whole = oracle.decode_in_order(path)
    for numbers in [[0], [59], [1, 2, 3], [13, 58], [11, 12, 13, 35, 36, 37], [5, 6, 29, 30, 31]]:
        got = read_fractions(path, [(number + 0.5) / 60 for number in numbers])
        np.testing.assert_array_equal(got.numpy(), whole[numbers])


def decoded_packets(path: Path, number: int) -> int:
    """How many packets the frame with this number takes, by the plan of the shortcut."""
    with opened(path) as (container, stream):
        shown = frame_index.whole(container, stream)
        assert shown.stamps is not None
        plan = runs(shown.packets, [int(shown.stamps[number])])
    return sum(stop - start for start, stop in plan)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_late_frame_of_a_long_file_takes_only_its_own_group_of_pictures(tmp_path, suffix):
    options = {"g": "10", "bf": "2", "sc_threshold": "0"}
    path = oracle.write_video(
        tmp_path / f"long.{suffix}", oracle.numbered_frames(100), options=options
    )
    assert decoded_packets(path, 95) <= 10
    options["x264-params"] = "open-gop=1"
    path = oracle.write_video(
        tmp_path / f"open.{suffix}", oracle.numbered_frames(100), options=options
    )
    # Keyframes that later pictures reach across are not trusted.
    assert decoded_packets(path, 95) > 90
