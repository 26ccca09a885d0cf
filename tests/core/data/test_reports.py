"""Videos of public reports that a reader once got wrong: read as a bare loop of PyAV reads them."""

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from qa_data.manifest import Clip
from sefar_core.data.check_videos import Health, check_clips
from sefar_core.data.video import VideoReadError, probe, read_clip, read_fractions
from tests.reports import reports_folder

pytestmark = pytest.mark.reports
FPS = 25


class Report(NamedTuple):
    """A file of the reports' folder, and what is right about it.

    Attributes:
        stream: which of its video streams is the film.
        mirrored: its columns are stored in reverse.
    """

    file: str
    num_frames: int
    oddities: str
    stream: int = 0
    mirrored: bool = False


SOUND = [
    Report("01/vp8_2pass.webm", 100, "hidden_frames"),
    Report("02/hevc_radl.mp4", 100, "open_gop"),
    Report("03/intra_refresh.mp4", 100, "false_keyframes"),
    Report("04/h264_b.avi", 100, "no_display_times"),
    Report("05/mpeg2_open.mpg", 100, "open_gop false_keyframes"),
    Report("06/raw_h264.mp4", 100, "no_display_times"),
    Report("07/h264.mpg", 100, "no_display_times"),
    Report("08/mirror_h.mp4", 60, "mirrored", mirrored=True),
    Report("09/cover_first.mkv", 60, "many_streams", stream=1),
    Report("10/concat_cat.ts", 80, "times_jump_back"),
    Report("13/trim_tail.mp4", 50, "edit_list"),
    Report("33/sar.mp4", 60, "pixels_not_square"),
]


def decoded(path: Path, report: Report) -> np.ndarray:
    """Every picture in order, by a bare loop."""
    with av.open(str(path)) as container:
        film = container.streams.video[report.stream]
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(film)])
    return frames[:, :, ::-1] if report.mirrored else frames


def health_of(path: Path) -> Health:
    clip = Clip(id="clip", path=path.name, split="unlabeled")
    ((health,),) = check_clips([clip], path.parent, quick=False, workers=0)
    return health


@pytest.mark.parametrize("report", SOUND, ids=lambda report: report.file)
def test_a_reported_file_is_read_as_a_bare_loop_reads_it(report):
    path = reports_folder() / report.file
    expected = decoded(path, report)
    assert len(expected) == report.num_frames == probe(path).num_frames
    np.testing.assert_array_equal(read_clip(path).frames.numpy(), expected)
    rng = np.random.default_rng(0)
    for _ in range(10):
        start_s = rng.uniform(0, report.num_frames / FPS - 0.5)
        end_s = rng.uniform(start_s + 0.3, report.num_frames / FPS)
        fractions = rng.random(4)
        shown = ((start_s + fractions * (end_s - start_s)) * FPS + 1e-6).astype(int)
        got = read_fractions(path, fractions.tolist(), start_s=start_s, end_s=end_s)
        np.testing.assert_array_equal(got.numpy(), expected[shown])


@pytest.mark.parametrize("report", SOUND, ids=lambda report: report.file)
def test_the_check_calls_a_reported_file_sound_and_names_what_is_odd(report):
    health = health_of(reports_folder() / report.file)
    assert not health.faults and health.oddities == tuple(report.oddities.split())


@pytest.mark.parametrize(
    ("file", "fault"), [("14/resize.mkv", "changing size"), ("24/wide.avi", "too elongated")]
)
def test_a_reported_file_that_no_network_can_take_is_a_fault(file, fault):
    assert [found.kind for found in health_of(reports_folder() / file).faults] == [fault]


def test_pictures_of_several_sizes_are_refused():
    with pytest.raises(VideoReadError, match=r"resize\.mkv changes its picture size"):
        read_clip(reports_folder() / "14/resize.mkv")
