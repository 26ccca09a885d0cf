"""The check of a manifest's videos decodes nothing twice and keeps faults and oddities apart."""

from dataclasses import replace

import pytest

from qa_data.manifest import Clip
from sefar_core.data import check_videos
from sefar_core.data.check_videos import Fault, Health, check_file, oddities_of
from sefar_core.data.video import VideoInfo
from tests.oracles import videos as oracle

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


def clip_of(name: str, **cells) -> Clip:
    return Clip(path=name, **{"id": name, "split": "unlabeled", **cells})


def healthy(name: str, **changes) -> Health:
    return Health(clip=clip_of(name), info=replace(INFO, **changes), faults=())


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
    spans += [(None, 0.9), (1.4, None)]
    clips = [clip_of("a.mp4", id=str(n), start_s=s, end_s=e) for n, (s, e) in enumerate(spans)]
    report = check_file(clips, lambda: None, video_root=tmp_path, quick=False)
    blamed = [number for number, health in enumerate(report) if health.faults]
    assert blamed == [3, 4, 8]
    assert report[3].faults[0].kind == "undecodable"
    assert "45 of 60 frames were read before that, at 1.500 s" in report[3].faults[0].words


@pytest.mark.parametrize(
    ("changes", "oddities"),
    [
        ({"fps": 17.0}, ("odd_rate",)),
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
