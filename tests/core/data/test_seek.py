"""Where a jump into a file shows other pictures than a decode from the beginning, none is made."""

from pathlib import Path

import av
import numpy as np
import pytest

from sefar_core.data import frame_index
from sefar_core.data.decode import opened, runs
from sefar_core.data.seek import jump, leads_right
from sefar_core.data.video import clip_length, read_clip, read_fractions, record_of
from tests.frames_at import frames_at
from tests.oracles import numbered_videos as numbered
from tests.oracles import videos as oracle
from tests.oracles.numbered_table import BY_NAME

FPS = 25


def encoded(path: Path, first: int, *, chroma: int, group: int) -> Path:
    """24 numbered pictures, a keyframe every `group`; how finely colors are stored is in the
    picture parameter set alone.
    """
    pictures = np.stack([numbered.numbered(number) for number in range(first, first + 24)])
    settings = {"g": str(group), "bf": "0", "sc_threshold": "0"}
    settings["x264-params"] = f"qp=26:chroma-qp-offset={chroma}"
    return oracle.write_video(path, pictures, fps=FPS, options=settings)


def picture_parameters(path: Path) -> bytes:
    """The picture parameter set of an MP4, with its length in four bytes (ISO 14496-15)."""
    with av.open(str(path)) as container:
        extra = container.streams.video[0].codec_context.extradata
    at = 6
    at += 2 + int.from_bytes(extra[at : at + 2], "big") + 1
    size = int.from_bytes(extra[at : at + 2], "big")
    return size.to_bytes(4, "big") + extra[at + 2 : at + 2 + size]


def joined(folder: Path, *, settings_early: bool) -> Path:
    """Two pieces in one file; how the second stores colors is in the last packet of the
    first, which a jump passes over, or (as sound files do) in its own first packet too.
    """
    one = encoded(folder / "one.mp4", 0, chroma=0, group=24)
    two = encoded(folder / "two.mp4", 24, chroma=-12, group=12)
    path, change = folder / f"early_{settings_early}.mkv", picture_parameters(two)
    with av.open(str(path), "w") as output, av.open(str(one)) as first, av.open(str(two)) as second:
        copy = output.add_stream_from_template(first.streams.video[0])
        packets = [p for file in (first, second) for p in file.demux(video=0) if p.size]
        for number, packet in enumerate(packets):
            data = bytes(packet)
            if number == 23:
                data += change
            if number in (24, 36) and not settings_early:
                data = change + data
            new = av.Packet(data)
            new.pts = new.dts = number
            new.time_base, new.stream = 1 / copy.codec_context.rate, copy
            new.is_keyframe = packet.is_keyframe
            output.mux(new)
    return path


@pytest.fixture
def misleading(tmp_path) -> Path:
    return joined(tmp_path, settings_early=True)


def test_the_fault_is_real_a_jump_by_itself_shows_other_pictures(misleading):
    whole = oracle.decode_in_order(misleading)
    with av.open(str(misleading)) as container:
        stream = container.streams.video[0]
        container.seek(round(40 / FPS / stream.time_base), stream=stream)
        frame = next(f for f in container.decode(stream) if f.time >= 40 / FPS - 1e-3)
    after_jump = frame.to_ndarray(format="rgb24").astype(int)
    assert abs(after_jump - whole[40]).mean() > 1


def test_a_group_that_differs_after_a_jump_sends_the_reader_to_the_beginning(misleading, tmp_path):
    whole = oracle.decode_in_order(misleading)
    assert numbered.read_numbers(whole) == list(range(48))
    assert not leads_right(misleading)
    for start, end in [(30, 40), (40, 47), (2, 9), (20, 45)]:
        fractions = np.random.default_rng(start).random(6).tolist()
        got = read_fractions(misleading, fractions, start_s=start / FPS, end_s=end / FPS)
        expected = [start + int(f * (end - start)) for f in fractions]
        np.testing.assert_array_equal(got.numpy(), whole[expected])
    # Once the file has changed it is tested again.
    sound = joined(tmp_path, settings_early=False)
    misleading.write_bytes(sound.read_bytes())
    got = read_fractions(misleading, [0.5], start_s=40 / FPS, end_s=44 / FPS)
    np.testing.assert_array_equal(got[0].numpy(), oracle.decode_in_order(sound)[42])


def test_a_group_that_is_the_same_both_ways_is_jumped_to(tmp_path):
    path = joined(tmp_path, settings_early=False)
    assert leads_right(path)
    with opened(path) as file:
        shown = jump(path, file, 40 / FPS, 45 / FPS)
    assert shown is not None and shown.jumped and len(shown.packets) < 20
    whole = oracle.decode_in_order(path)
    np.testing.assert_array_equal(frames_at(path, [40 / FPS])[0].numpy(), whole[40])


def test_a_format_whose_times_need_the_whole_file_is_tried_once(tmp_path):
    BY_NAME["h264-b.nut"].make(path := tmp_path / "clip.nut")
    got = read_fractions(path, [0.0, 0.9], start_s=2 / FPS, end_s=8 / FPS)
    assert numbered.read_numbers(got) == [2, 7]
    assert record_of(path).jumps_lead_right is False
    assert clip_length(path, start_s=2 / FPS) == pytest.approx(46 / FPS)


def test_packets_of_a_file_that_was_decoded_in_full_are_not_listed_again(tmp_path, monkeypatch):
    case = BY_NAME["mpeg4-b-from-inside.mkv"]
    case.make(path := tmp_path / case.name)
    whole = read_clip(path).frames
    assert record_of(path).settled is not None
    monkeypatch.setattr(frame_index, "whole", None)
    got = read_clip(path, start_s=0.0, end_s=case.times_s[3])
    np.testing.assert_array_equal(got.frames.numpy(), whole.numpy()[: len(got.frames)])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_little_more_is_decoded_than_is_wanted(made, suffix):
    for name, most in ((f"h264-b.{suffix}", 12), (f"h264-open.{suffix}", 48)):
        with opened(made(name)) as (container, stream):
            shown = frame_index.whole(container, stream)
            plan = runs(shown.packets, [int(shown.stamps[45])])
        packets = sum(stop - start for start, stop in plan)
        # Keyframes that later pictures reach across are not trusted.
        assert most - 12 < packets <= most
    with opened(made(f"h264-b.{suffix}")) as (container, stream):
        shown = frame_index.stretch(container, stream, 30 / FPS, 33 / FPS)
        decoded = sum(1 for _ in frame_index.decoded(shown.packets, stream))
        assert decoded == len(shown.times_s) <= 24
