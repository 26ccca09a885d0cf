"""The check of a manifest's videos decodes nothing twice and keeps faults and oddities apart."""

from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from qa_data.manifest import Clip, write_manifest
from sefar_core.data import check_videos
from sefar_core.data.check_videos import Fault, Health, check_file, oddities_of
from sefar_core.data.video import VideoInfo, probe
from tests.oracles import videos as oracle
from tests.script_process import call_script

INFO = VideoInfo(
    num_frames=50,
    times_s=(0.0,),
    duration_s=2.0,
    fps=25.0,
    width=320,
    height=240,
    rotation=0,
    codec="h264",
    container="mov,mp4",
    flags=(),
)


PAIR = (("x", "labeled"), ("y", "test"))


def clip_of(name: str, **cells) -> Clip:
    return Clip(path=name, **{"id": name, "split": "unlabeled", **cells})


def healthy(name: str, **changes) -> Health:
    return Health(clip=clip_of(name), info=replace(INFO, **changes), faults=())


def test_a_file_is_opened_and_decoded_once_however_many_clips_are_in_it(tmp_path, monkeypatch):
    opened: list[int] = []

    def counting(path, *rest, **options):
        opened.append(1)
        return real(path, *rest, **options)

    real = av.open
    path = oracle.write_referring_clip(tmp_path / "a.mp4")
    clips = [clip_of("a.mp4", id=str(n)) for n in range(3)]
    clips.append(clip_of("a.mp4", id="part", start_s=0.2, end_s=0.5))
    expected, heartbeats = probe(path), []
    monkeypatch.setattr(av, "open", counting)
    report = check_file(clips, lambda: heartbeats.append(1), video_root=tmp_path, quick=False)
    assert [h.faults for h in report] == [(), (), (), ()]
    assert (len(opened), len(heartbeats)) == (1, 30)
    assert report[0].info == expected


def test_every_picture_of_a_folder_gives_a_beat(tmp_path):
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    (tmp_path / "dive").mkdir()
    for number in range(1, 31):
        cv2.imwrite(str(tmp_path / "dive" / f"{number:05d}.jpg"), picture)
    whole = [clip_of("dive"), clip_of("dive", id="step", start_s=0.2, end_s=0.6)]
    heartbeats: list[int] = []
    for clips, expected in ((whole, 30), (whole[1:], 10)):
        heartbeats.clear()
        report = check_file(clips, lambda: heartbeats.append(1), video_root=tmp_path, quick=False)
        assert {found.faults for found in report} == {()}
        assert len(heartbeats) == expected
    (tmp_path / "dive" / "00012.jpg").write_bytes(b"\xff\xd8")
    report = check_file(whole, lambda: None, video_root=tmp_path, quick=False)
    assert all("00012.jpg" in found.faults[0].words for found in report)


def test_overlapping_clips_share_one_pass_and_distant_ones_decode_no_more_than_theirs(tmp_path):
    frames = oracle.numbered_frames(120)
    oracle.write_video(tmp_path / "a.mp4", frames, options={"g": "10", "bf": "0"})
    spans = [(0.5, 1.0), (0.8, 1.2), (0.5, 1.0), (3.0, 3.3)]
    clips = [clip_of("a.mp4", id=str(n), start_s=s, end_s=e) for n, (s, e) in enumerate(spans)]
    heartbeats: list[int] = []
    report = check_file(clips, lambda: heartbeats.append(1), video_root=tmp_path, quick=False)
    assert [h.faults for h in report] == [()] * 4
    # 0.5 to 1.2 s are frames 15 to 35 from the keyframe 10 on, 3.0 to 3.3 s are frames 90 to 98.
    assert 26 + 9 <= len(heartbeats) <= 28 + 10


def test_damage_between_clips_of_one_file_is_blamed_on_those_that_need_it(tmp_path):
    options = {"g": "10", "sc_threshold": "0"}
    path = oracle.write_noise(tmp_path / "a.mp4", 60, options=options)
    oracle.overwrite_packet(path, 45)
    spans = [(0.0, 0.3), (0.2, 0.6), (0.5, 1.0), (0.9, 1.55), (1.4, 1.6), (0.9, 1.3), (1.7, 1.9)]
    clips = [clip_of("a.mp4", id=str(n), start_s=s, end_s=e) for n, (s, e) in enumerate(spans)]
    report = check_file(clips, lambda: None, video_root=tmp_path, quick=False)
    assert [bool(h.faults) for h in report] == [False, False, False, True, True, False, False]
    assert report[3].faults[0].kind == "undecodable"
    assert "45 of 60 frames were read before that, at 1.500 s" in report[3].faults[0].words


@pytest.mark.parametrize(
    ("changes", "oddities"),
    [
        ({"fps": 17.0}, ("odd_rate",)),
        ({"width": 321}, ("odd_side",)),
        ({"height": 48}, ("small",)),
        ({"num_frames": 1}, ("one_frame",)),
        *(({"fps": fps}, ()) for fps in (24000 / 1001, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0)),
    ],
)
def test_what_is_uncommon_has_a_name(changes, oddities):
    assert oddities_of(healthy("a", **changes).info) == oddities


def test_a_few_clips_of_another_size_are_told_and_a_mixed_set_is_not():
    alike = [healthy(f"{n}.mp4") for n in range(19)]
    lost = Health(clip=clip_of("gone.mp4"), info=None, faults=(Fault("missing", "gone"),))
    report = check_videos.with_odd_sizes([*alike, healthy("b.mp4", width=640), lost])
    assert [h.clip.id for h in report if "other_size" in h.oddities] == ["b.mp4"]
    mixed = [healthy(f"{n}.mp4", width=300 + 2 * n) for n in range(19)]
    assert all(h.oddities == () for h in check_videos.with_odd_sizes(mixed))
    assert check_videos.with_odd_sizes([lost]) == [lost]


def test_the_summary_counts_faults_and_oddities_apart():
    broken = Health(clip=clip_of("b"), info=None, faults=(Fault("missing", "b is missing"),))
    odd = Health(clip=clip_of("c"), info=INFO, faults=(), oddities=("rotated",))
    assert check_videos.summary([healthy("a"), broken, odd]).splitlines() == [
        "broken:",
        "        1  missing",
        "odd, but read right:",
        "        1  rotated",
        "3 clips in 3 files: 2 sound, 1 broken",
    ]


def test_clips_with_one_fault_share_a_line():
    fault = Fault("empty", "a.mp4 is empty")
    report = [Health(clip=clip_of("a.mp4", id=n), info=None, faults=(fault,)) for n in "xy"]
    assert check_videos.fault_lines(report) == ["x, y: a.mp4 is empty"]


def test_fault_kinds_do_not_come_from_the_file_name(tmp_path):
    path = tmp_path / "this is empty and does not exist.mp4"
    path.write_text("no video")
    (found,) = check_file([clip_of(path.name)], lambda: None, video_root=tmp_path, quick=True)
    assert [fault.kind for fault in found.faults] == ["unreadable"]


def test_the_script_names_one_file_in_two_splits(tmp_path):
    oracle.write_video(tmp_path / "1.mp4", oracle.numbered_frames(2))
    clips = [clip_of("1.mp4", id=n, label=k, split=split) for k, (n, split) in enumerate(PAIR)]
    clips[1] = replace(clips[1], path="./1.mp4")
    write_manifest(clips, tmp_path / "m.csv")
    paths = ("--manifest", tmp_path / "m.csv", "--video-root", tmp_path)
    done = call_script("check_videos.py", *paths, "--workers", 0, "--quick")
    assert done.returncode == 0
    assert "the same file: ./1.mp4, 1.mp4 (clip x, labeled" in done.stdout
