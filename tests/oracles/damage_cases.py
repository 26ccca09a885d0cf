"""What is to come of each kind of video file and damage: the expectation behind docs/damage.md.

The tests hold reader and check to it; `python -m tests.damage_table` prints what it really is.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.oracles import damage

Writer = Callable[[Path], Path]


class Case(NamedTuple):
    """A file and what is to come of it.

    Attributes:
        write: makes it in a folder.
        refused: words of the error by which reading refuses it; None if it is read right.
        full: kinds of faults that check_videos names.
        quick: those that it names with --quick.
        oddities: what it reports besides.
        stream: which of its video streams is the film.
        mirrored: its columns are stored in reverse.
    """

    write: Writer
    refused: str | None = None
    full: str = ""
    quick: str = ""
    oddities: str = "small"
    stream: int = 0
    mirrored: bool = False


def held(name: str, content: bytes | None, refused: str, fault: str) -> Case:
    """A file of these bytes, or none, that is no video."""
    return Case(partial(damage.holding, name=name, content=content), refused, fault, fault)


NO_VIDEO = ("no video stream",) * 3
X265 = {"x265-params": "log-level=none"}
OPEN_GOP = {"bf": "3", "x264-params": "open-gop=1"}
MADE = {
    "H.264 in MP4": Case(partial(damage.encoded, bf="3")),
    "H.264 in Matroska": Case(partial(damage.encoded, suffix="mkv", bf="3")),
    "H.264 in a transport stream": Case(partial(damage.encoded, suffix="ts", bf="3")),
    "open GOP": Case(partial(damage.encoded, **OPEN_GOP), oddities="open_gop small"),
    "cut without encoding": Case(damage.cut_copy, oddities="edit_list small"),
    "HEVC": Case(partial(damage.encoded, codec="libx265", **X265), oddities="open_gop small"),
    "AV1": Case(partial(damage.encoded, suffix="mkv", codec="libsvtav1")),
    "MPEG-4 in AVI": Case(partial(damage.encoded, suffix="avi", codec="mpeg4")),
    "GIF": Case(damage.gif, oddities="odd_rate small"),
    "title not in UTF-8": Case(damage.latin_title),
    "uneven times": Case(damage.uneven, oddities="variable_rate small"),
    "one frame": Case(damage.one_frame, oddities="small one_frame"),
    "odd sides": Case(damage.odd_size, oddities="undecided_order odd_side"),
    "rotated 0": Case(partial(damage.rotated, angle=0)),
    "rotated 90": Case(partial(damage.rotated, angle=90), oddities="rotated small"),
    "rotated 180": Case(partial(damage.rotated, angle=180), oddities="rotated small"),
    "rotated 270": Case(partial(damage.rotated, angle=270), oddities="rotated small"),
    "missing": held("missing.mp4", None, "does not exist", "missing"),
    "zero bytes": held("zero.mp4", b"", "is empty", "empty"),
    "text": held("text.mp4", b"not a video\n", "cannot read", "unreadable"),
    "list of other files": held(
        "list.mp4", b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n", "is a list of other files", "unreadable"
    ),
    "audio only": Case(damage.audio_only, *NO_VIDEO),
    "unknown codec": Case(damage.unknown_codec, "no decoder", "unreadable", "unreadable"),
    "cut off in the middle": Case(
        damage.cut_off,
        "frames were read before that",
        "cut off, undecodable",
        "cut off",
        "truncated corrupt small",
    ),
    "packets lost": Case(damage.dropped, oddities="variable_rate small"),
}


def supplied(folder: Path, *, variable: str, name: str) -> Path:
    """A real file, of the folder that an environment variable names."""
    return Path(os.environ[variable]) / name


def real(name: str, *expected: str, oddities: str = "", **film: Any) -> tuple[str, Case]:
    variable = film.pop("variable", "SEFAR_VIDEOS_DIR")
    write = partial(supplied, variable=variable, name=name)
    return name, Case(write, *expected, oddities=oddities, **film)


REAL = dict(
    [
        real("mmaction2_demo_armwrestling.mp4", oddities="pixels_not_square odd_rate"),
        real("mmaction2_part_0.mp4", oddities="variable_rate pixels_not_square"),
        real("mmaction2_test.avi", oddities="no_display_times"),
        real("decord_flipping_a_pancake.mkv"),
        real("decord_rot_0.mov"),
        real("decord_rot_90.mov", oddities="rotated"),
        real("decord_rot_180.mov", oddities="rotated"),
        real("decord_rot_270.mov", oddities="rotated"),
        real("decord_unordered.mov", oddities="odd_rate small"),
        real("torchcodec_av1_video.mkv"),
        real("torchcodec_h265_video.mp4", oddities="open_gop odd_rate"),
        real("torchcodec_nasa_13013.mp4", oddities="many_streams"),
        real("damaged/cut_copy.mp4", oddities="edit_list"),
        real("damaged/hang_55.mp4", oddities="edit_list"),
        real("damaged/odd.mp4", oddities="pixels_not_square odd_side"),
        real("damaged/one.mp4", oddities="one_frame"),
        real("damaged/opengop.mp4", oddities="open_gop"),
        real("damaged/ts.ts"),
        real("damaged/vfr.mp4", oddities="variable_rate"),
        real("damaged/audio_only.mp4", *NO_VIDEO),
        real("damaged/zero.mp4", "is empty", "empty", "empty"),
        real("damaged/text.mp4", "cannot read", "unreadable", "unreadable"),
        real(
            "damaged/fast_trunc.mp4",
            "32 of 35 frames were read before that",
            "cut off, undecodable",
            "cut off",
            oddities="truncated corrupt variable_rate",
        ),
        real(
            "damaged/dropped.mp4",
            "lists 55 frames, but frame 50 does not come out",
            "frames missing",
            oddities="variable_rate",
        ),
        real("decord_corrupted.mp4", "28 of 50 frames", "undecodable", oddities="odd_rate"),
    ]
)
reported = partial(real, variable="SEFAR_REPORTS_DIR")
REPORTED = dict(
    [
        reported("01/vp8_2pass.webm", oddities="hidden_frames"),
        reported("02/hevc_radl.mp4", oddities="open_gop"),
        reported("03/intra_refresh.mp4", oddities="false_keyframes"),
        reported("04/h264_b.avi", oddities="no_display_times"),
        reported("05/mpeg2_open.mpg", oddities="open_gop false_keyframes"),
        reported("06/raw_h264.mp4", oddities="no_display_times"),
        reported("07/h264.mpg", oddities="no_display_times"),
        reported("08/mirror_h.mp4", oddities="mirrored", mirrored=True),
        reported("09/cover_first.mkv", oddities="many_streams", stream=1),
        reported("10/concat_cat.ts", oddities="times_jump_back"),
        reported("13/trim_tail.mp4", oddities="edit_list"),
        reported("33/sar.mp4", oddities="pixels_not_square"),
    ]
)
"""Files of public reports that a reader once got wrong."""
FLIPPED = (
    "H.264 in MP4",
    "H.264 in Matroska",
    "H.264 in a transport stream",
    "open GOP",
    "cut without encoding",
    "HEVC",
    "AV1",
    "MPEG-4 in AVI",
    "GIF",
)
"""Kinds of files of which copies with one bit flipped are read."""
FLIPPED_REAL = (
    "mmaction2_part_0.mp4",
    "mmaction2_test.avi",
    "torchcodec_h265_video.mp4",
    "torchcodec_av1_video.mkv",
    "damaged/opengop.mp4",
    "damaged/ts.ts",
)
