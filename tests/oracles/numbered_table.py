"""The numbered videos: codecs, containers and structures as far as PyAV's encoders write them.

All are small, and each is written when it is first needed.
"""

from dataclasses import replace
from fractions import Fraction

from tests.oracles import numbered_changes as changes
from tests.oracles.numbered_cases import (
    COUNT,
    REORDER,
    Case,
    each,
    even,
    films,
    in_pieces,
    joined,
    late,
    part_of,
    patched,
    remuxed,
    uneven,
)
from tests.oracles.numbered_videos import RATE, SOUND_RATE

AAC_DELAY_S = Fraction(1024, SOUND_RATE)
MP2_DELAY_S = Fraction(481, SOUND_RATE)
"""By how much the sound of an encoder begins before 0."""
LIVE = {"live": "1"}
"""A file of which no part is written again: neither a length nor an index."""
NEGATIVE_OFFSETS = {"movflags": "negative_cts_offsets"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
WRAP_S = 2**33 // 90_000
"""After so many seconds the times of an MPEG stream begin at 0 again."""
NTSC = Fraction(30_000, 1001)
ONE_GROUP = {"g": "250"}

PLAIN = (
    *each("h264.mp4 h264-b.mp4 h264-b.mov h264-b.mkv h264-b.ts h264-b.flv h264-b.nut"),
    even("h264-b-no-pyramid.mp4", {"x264-params": "b-pyramid=none"}),
    *each("h264-b-fragments.mp4 h264-fragments.mov", muxer=FRAGMENTS),
    even("h264-b-negative-offsets.mp4", muxer=NEGATIVE_OFFSETS),
    even("h264-b-live.mkv", muxer=LIVE),
    even("h264-b.m2ts", format="mpegts", muxer={"mpegts_m2ts_mode": "1"}),
    even("h264-b-interlaced.ts", {"x264-params": "tff=1"}),
    even("h264-gop-1.mp4", {"g": "1"}),
    *each("h264-gop-250.mp4 h264-gop-250.ts", REORDER | ONE_GROUP, numbers=range(100)),
    even("h264-29.97.mp4", REORDER, rate=NTSC),
    even("h264-29.97.mkv", REORDER, rate=NTSC, slack_s=0.002),
    even("h264-50.flv", REORDER, rate=50),
    *each("hevc-b.mp4 hevc-b.mkv hevc-b.ts hevc-b.flv"),
    *each("vp8.webm vp8.mkv vp8.ivf vp9.webm"),
    even("vp9-live.webm", muxer=LIVE),
    even("vp9.mp4"),
    *each("vp9-ahead.webm vp9-ahead.ivf", numbers=range(60)),
    *each("av1.mp4 av1.webm av1.mkv av1.ivf"),
    *each("mpeg4-b.mp4 mpeg4-b.mkv mpeg4-b.ts mpeg4.avi"),
    *each("mpeg2-b.mp4 mpeg2-b.mkv mpeg2-b.ts mpeg2-b-interlaced.ts mpeg2-b.mxf mpeg2-b.wtv"),
    *each("mpeg2-closed.ts h264.avi"),
    *each("mjpeg.avi mjpeg.mov", pix_fmt="yuvj420p"),
    even("prores.mov", pix_fmt="yuv422p10le", numbers=range(12)),
    even("ffv1.mkv"),
    even("h263.3gp", size=(128, 96)),
    *each("flv1.flv wmv2.asf rv20.rm"),
    even("gif.gif", pix_fmt="rgb8"),
)
ONE_PICTURE = tuple(
    replace(case, name=f"one.{case.name.split('.')[1]}")
    for case in uneven("h264.mp4 h264.mkv h264.ts mpeg4-b.avi", [])
)
OPEN_GROUPS = (
    *each("h264-open.mp4 h264-open.mkv h264-open.ts"),
    *each("h264-refresh.mp4 h264-refresh.mkv h264-refresh.ts"),
    *each("hevc-open.mp4 hevc-open.mkv hevc-open.ts"),
    *each("hevc-radl.mp4 hevc-radl.mkv hevc-radl.ts"),
)
ORDER_OF_DECODING = (
    *each("h264-b.avi h264-open.avi mpeg4-b.avi mpeg2-b.avi"),
    remuxed("mpeg4-packed.avi", changes.packed),
)
PROGRAM_STREAMS = (
    *each("mpeg1-b.mpg mpeg2-b.mpg mpeg2-closed.mpg mpeg2-b-interlaced.mpg mpeg4-b.mpg hevc-b.mpg"),
    even("mpeg2-b.vob"),
    even("mpeg2-large.mpg", {"qscale": "1"}, size=(256, 192)),
    *each("h264-b.mpg h264.vob"),
    even("mpeg2-ps.mkv", format="vob"),
)
WITHOUT_TIMES = (
    *each("h264.h264 h264-b.h264", may_refuse=True),
    even("h264-bare.mp4", format="h264", may_refuse=True),
    even("hevc-b.hevc", may_refuse=True),
    even("mpeg4-b.m4v", format="m4v", may_refuse=True),
    even("mpeg2-b.m2v", format="mpeg2video", may_refuse=True),
    even("av1.obu", may_refuse=True),
)
SHOWN = [number for number in range(COUNT) if number not in changes.HIDDEN]
HIDDEN_PICTURES = tuple(
    replace(
        remuxed(name, changes.hidden, "vp8.webm"),
        numbers=tuple(SHOWN),
        times_s=tuple(place / RATE for place in range(len(SHOWN))),
        end_s=len(SHOWN) / RATE,
    )
    for name in ("vp8-hidden.webm", "vp8-hidden.mkv")
)
ALL_KEYS = changes.flagged(lambda place: True)
FALSE_KEYS = changes.flagged(lambda place: place % 7 == 0)
ONE_KEY = changes.flagged(lambda place: place == 0)
WRONG_KEYFRAMES = (
    *(remuxed(name, ALL_KEYS) for name in ("h264-all-keys.mkv", "hevc-all-keys.mkv")),
    remuxed("h264-b-one-key.mkv", ONE_KEY),
    *(remuxed(name, FALSE_KEYS) for name in ("h264-b-false-keys.mkv", "vp9-false-keys.webm")),
    remuxed("mpeg4-false-keys.mkv", FALSE_KEYS, "mpeg4-b.mkv"),
    *(
        patched(case, changes.without_sync_table, name=name)
        for name, case in (
            ("h264-b-no-stss.mp4", even("h264-b.mp4")),
            ("hevc-no-stss.mp4", even("hevc.mp4")),
            ("mpeg4-no-stss.mp4", even("mpeg4-b.mp4")),
        )
    ),
)
GAPS = [8, 8, 16, 4, 4, 8, 40, 8, 2, 2, 2, 10] * 4
UNEVEN = (
    *uneven("h264-b-uneven.mp4 h264-b-uneven.mkv h264-b-uneven.ts hevc-b-uneven.mp4", GAPS),
    *uneven("vp9-uneven.webm mpeg4-uneven.avi", GAPS),
    *uneven("h264-slides.mp4", [200, 200, 200, 600, 40, 200]),
    *uneven("gif-uneven.gif", [8, 16, 4, 40, 8, 8], pix_fmt="rgb8"),
)
OFFSETS = (
    *each(
        "h264-b-from-5-s.mp4 h264-b-from-5-s.mkv h264-b-from-5-s.ts mpeg2-from-5-s.mpg", begins=5
    ),
    even("h264-b-wrap.ts", begins=WRAP_S, muxer={"mpegts_copyts": "1"}),
    *(late(f"h264-b-late.{suffix}", "aac") for suffix in ("mp4", "mov", "mkv")),
    late("vp9-late.webm", "libopus"),
    late("h264-b-late.ts", "mp2", MP2_DELAY_S),
    late("h264-b-late.flv", "aac", AAC_DELAY_S),
    late("mpeg2-late.mpg", "mp2", MP2_DELAY_S),
    *each("h264-b-sound.mp4 h264-b-sound.mkv", sound="aac"),
    late("h264-b-sound.ts", "mp2", MP2_DELAY_S, begins=0),
)


def cut(name: str, encoded_as: str, first: int, count: int) -> Case:
    """An edit list shows so many pictures, from one on."""
    whole = patched(even(f"{encoded_as}.mp4"), changes.edited((first, count)), name=name)
    return part_of(whole, first, first + count)


NEGATIVE = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
EDITED = (
    *(
        part_of(remuxed(name, changes.earlier_by(17), of, muxer=NEGATIVE), 17)
        for name, of in (
            ("h264-cut-17.mp4", ""),
            ("h264-b-cut-17.mp4", ""),
            ("h264-open-cut-17.mp4", ""),
            ("hevc-b-cut-17.mov", "hevc-b.mp4"),
            ("hevc-radl-cut-17.mp4", ""),
            ("mpeg4-b-cut-17.mp4", ""),
        )
    ),
    cut("h264-end-30.mp4", "h264", 0, 30),
    cut("h264-b-end-30.mp4", "h264-b", 0, 30),
    cut("h264-b-9-to-30.mp4", "h264-b", 9, 21),
    cut("h264-open-23-to-40.mp4", "h264-open", 23, 17),
    cut("hevc-open-9-to-30.mp4", "hevc-open", 9, 21),
    cut("hevc-radl-23-to-40.mp4", "hevc-radl", 23, 17),
)
TWO_EDITS = tuple(
    patched(
        case,
        changes.edited((0, 10), (24, 12)),
        numbers=(*range(10), *range(24, 36)),
        times_s=tuple(place / RATE for place in range(22)),
        end_s=22 / RATE,
    )
    for case in each("h264-two-edits.mp4 h264-b-two-edits.mp4 hevc-b-two-edits.mp4", begins=1)
)
LATER = range(30, 60)
JOINED = (
    in_pieces("h264-b-joined.ts", 40, 40),
    in_pieces("h264-open-joined.ts", 30, 20, 30),
    *(in_pieces(f"{name}-joined.ts", 30, 30) for name in ("hevc-b", "mpeg2")),
    in_pieces("mpeg2-joined.mpg", 30, 30),
    # What the decoder holds back differs between the pieces.
    joined(
        "h264-then-b-joined.ts",
        even("h264.ts", numbers=range(30)),
        even("h264-b.ts", numbers=LATER),
    ),
    joined(
        "h264-b-then-none-joined.ts",
        even("h264-b.ts", numbers=range(30)),
        even("h264.ts", numbers=LATER),
    ),
    in_pieces("h264-joined.h264", 30, 30, options=REORDER, may_refuse=True),
)
FROM_KEY, FROM_INSIDE = changes.from_second_keyframe, changes.from_inside_a_group
CUT_IN = (
    *(
        part_of(remuxed(f"{name}-from-key.{suffix}", FROM_KEY), first)
        for name, first, suffixes in (
            ("h264-open", 12, ("mkv", "ts")),
            ("hevc-open", 12, ("mkv", "ts")),
            ("hevc-radl", 10, ("mkv", "ts")),
            ("mpeg2-open", 12, ("ts", "mpg")),
        )
        for suffix in suffixes
    ),
    *(
        part_of(remuxed(name, FROM_INSIDE), 12, begins_s=begins_s)
        for name, begins_s in (
            ("h264-b-from-inside.ts", 0.16),
            ("h264-b-from-inside.mkv", 0.16),
            ("hevc-b-from-inside.ts", 0.16),
            ("mpeg4-b-from-inside.mkv", 0.32),
        )
    ),
)
FILMS = (
    films("cover-first.mkv", cover=True),
    films("cover.mp4", cover=True),
    films("film-second.mkv", cover=False),
    films("film-second.mp4", cover=False),
)
TURNED = tuple(
    replace(even("h264.mp4", exif=exif, numbers=range(12)), name=f"turned-{exif}.{suffix}")
    for suffix, orientations in (("mp4", range(1, 9)), ("mov", (2, 5)), ("mkv", (4, 6, 7)))
    for exif in orientations
)
ASPECT = tuple(
    each("h264-aspect.mp4 h264-aspect.mkv h264-aspect.ts", aspect=Fraction(2), numbers=range(12))
)
REFUSED = (
    joined(
        "h264-two-sizes.ts",
        even("h264.ts"),
        even("h264.ts", numbers=range(48, 80), size=(128, 96)),
        refused="other size",
    ),
    patched(
        even("h264-b-half.mp4", muxer={"movflags": "faststart"}),
        changes.first_half,
        refused="damaged",
    ),
)
GROUPS = (
    PLAIN, ONE_PICTURE, OPEN_GROUPS, ORDER_OF_DECODING, PROGRAM_STREAMS, WITHOUT_TIMES,
    HIDDEN_PICTURES, WRONG_KEYFRAMES, UNEVEN, OFFSETS, EDITED, TWO_EDITS, JOINED, CUT_IN, FILMS,
    TURNED, ASPECT, REFUSED,
)  # fmt: skip
CASES = tuple(case for group in GROUPS for case in group)
BY_NAME = {case.name: case for case in CASES}
