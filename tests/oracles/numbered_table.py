"""The numbered videos: codecs, containers and structures as far as PyAV's encoders write them.

All are small, and each is written when it is first needed.
"""

from fractions import Fraction
from pathlib import Path

from tests.oracles import numbered_changes as changes
from tests.oracles.numbered_cases import (
    COUNT,
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

H264 = {"preset": "veryfast", "crf": "24", "g": "12", "sc_threshold": "0", "bf": "0"}
REORDERED = H264 | {"bf": "3"}
OPEN = REORDERED | {"x264-params": "open-gop=1"}
REFRESH = H264 | {"x264-params": "intra-refresh=1:keyint=20"}
MPEG4 = {"g": "12", "bf": "2", "qscale": "3"}
CLOSED = MPEG4 | {"flags": "+cgop", "sc_threshold": "1000000000"}
INTERLACED = MPEG4 | {"flags": "+ildct+ilme"}
VP8 = {"g": "20", "deadline": "realtime", "cpu-used": "4"}
VP9 = VP8 | {"cpu-used": "6", "b": "100k"}
# Long enough for alternate references: pictures that are decoded ahead and never shown.
VP9_AHEAD = VP9 | {"g": "100", "lag-in-frames": "16", "auto-alt-ref": "1"}
AV1 = {"preset": "12", "g": "20"}


def hevc(parameters: str) -> dict[str, str]:
    """Options of libx265: a keyframe every 12 pictures, and what is given."""
    fixed = "log-level=none:keyint=12:min-keyint=12:scenecut=0:pools=none:frame-threads=1"
    return {"preset": "ultrafast", "x265-params": f"{fixed}:{parameters}"}


HEVC = hevc("open-gop=0:bframes=3")
HEVC_OPEN = hevc("open-gop=1:bframes=3")
RADL = hevc("open-gop=0:bframes=3:radl=2")

AAC_DELAY_S = Fraction(1024, SOUND_RATE)
MP2_DELAY_S = Fraction(481, SOUND_RATE)
"""By how much the sound of an encoder begins before 0."""
LIVE = {"live": "1"}
"""A file of which no part is written again: neither a length nor an index."""
NEGATIVE_OFFSETS = {"movflags": "negative_cts_offsets"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
WRAP_S = 2**33 // 90_000
"""After so many seconds the times of an MPEG stream begin at 0 again."""


PLAIN = (
    even("h264.mp4", "libx264", H264),
    even("h264-b.mp4", "libx264", REORDERED),
    even("h264-b.mov", "libx264", REORDERED),
    even("h264-b.mkv", "libx264", REORDERED),
    even("h264-b.ts", "libx264", REORDERED),
    even("h264-b.flv", "libx264", REORDERED),
    even("h264-b.nut", "libx264", REORDERED),
    even("h264-b-no-pyramid.mp4", "libx264", REORDERED | {"x264-params": "b-pyramid=none"}),
    even("h264-b-fragments.mp4", "libx264", REORDERED, muxer=FRAGMENTS),
    even("h264-fragments.mov", "libx264", H264, muxer=FRAGMENTS),
    even("h264-b-negative-offsets.mp4", "libx264", REORDERED, muxer=NEGATIVE_OFFSETS),
    even("h264-b-live.mkv", "libx264", REORDERED, muxer=LIVE),
    even("h264-b.m2ts", "libx264", REORDERED, format="mpegts", muxer={"mpegts_m2ts_mode": "1"}),
    even("h264-b-interlaced.ts", "libx264", REORDERED | {"x264-params": "tff=1"}),
    even("h264-gop-1.mp4", "libx264", H264 | {"g": "1"}),
    even("h264-gop-250.mp4", "libx264", REORDERED | {"g": "250"}, numbers=range(100)),
    even("h264-gop-250.ts", "libx264", REORDERED | {"g": "250"}, numbers=range(100)),
    even("h264-29.97.mp4", "libx264", REORDERED, rate=Fraction(30_000, 1001)),
    even("h264-29.97.mkv", "libx264", REORDERED, rate=Fraction(30_000, 1001), slack_s=0.002),
    even("h264-50.flv", "libx264", REORDERED, rate=50),
    even("hevc-b.mp4", "libx265", HEVC),
    even("hevc-b.mkv", "libx265", HEVC),
    even("hevc-b.ts", "libx265", HEVC),
    even("hevc-b.flv", "libx265", HEVC),
    even("vp8.webm", "libvpx", VP8),
    even("vp8.mkv", "libvpx", VP8),
    even("vp8.ivf", "libvpx", VP8),
    even("vp9.webm", "libvpx-vp9", VP9),
    even("vp9-live.webm", "libvpx-vp9", VP9, muxer=LIVE),
    even("vp9.mp4", "libvpx-vp9", VP9),
    even("vp9-ahead.webm", "libvpx-vp9", VP9_AHEAD, numbers=range(60)),
    even("vp9-ahead.ivf", "libvpx-vp9", VP9_AHEAD, numbers=range(60)),
    even("av1.mp4", "libsvtav1", AV1),
    even("av1.webm", "libsvtav1", AV1),
    even("av1.mkv", "libsvtav1", AV1),
    even("av1.ivf", "libsvtav1", AV1),
    even("mpeg4-b.mp4", "mpeg4", MPEG4),
    even("mpeg4-b.mkv", "mpeg4", MPEG4),
    even("mpeg4-b.ts", "mpeg4", MPEG4),
    even("mpeg4.avi", "mpeg4", MPEG4 | {"bf": "0"}),
    even("mpeg2-b.mp4", "mpeg2video", MPEG4),
    even("mpeg2-b.mkv", "mpeg2video", MPEG4),
    even("mpeg2-b.ts", "mpeg2video", MPEG4),
    even("mpeg2-b-interlaced.ts", "mpeg2video", INTERLACED),
    even("mpeg2-b.mxf", "mpeg2video", MPEG4),
    even("mpeg2-b.wtv", "mpeg2video", MPEG4),
    even("mpeg2-closed.ts", "mpeg2video", CLOSED),
    even("h264.avi", "libx264", H264),
    even("mjpeg.avi", "mjpeg", {}, pix_fmt="yuvj420p"),
    even("mjpeg.mov", "mjpeg", {}, pix_fmt="yuvj420p"),
    even("prores.mov", "prores_ks", {}, pix_fmt="yuv422p10le", numbers=range(12)),
    even("ffv1.mkv", "ffv1", {}),
    even("h263.3gp", "h263", {}, size=(128, 96)),
    even("flv1.flv", "flv", {}),
    even("wmv2.asf", "wmv2", {}),
    even("rv20.rm", "rv20", {}),
    even("gif.gif", "gif", {}, pix_fmt="rgb8"),
)
ONE_PICTURE = (
    uneven("one.mp4", "libx264", H264, []),
    uneven("one.mkv", "libx264", H264, []),
    uneven("one.ts", "libx264", H264, []),
    uneven("one.avi", "mpeg4", MPEG4, []),
)
OPEN_GROUPS = (
    even("h264-open.mp4", "libx264", OPEN),
    even("h264-open.mkv", "libx264", OPEN),
    even("h264-open.ts", "libx264", OPEN),
    even("h264-refresh.mp4", "libx264", REFRESH),
    even("h264-refresh.mkv", "libx264", REFRESH),
    even("h264-refresh.ts", "libx264", REFRESH),
    even("hevc-open.mp4", "libx265", HEVC_OPEN),
    even("hevc-open.mkv", "libx265", HEVC_OPEN),
    even("hevc-open.ts", "libx265", HEVC_OPEN),
    even("hevc-radl.mp4", "libx265", RADL),
    even("hevc-radl.mkv", "libx265", RADL),
    even("hevc-radl.ts", "libx265", RADL),
)
ORDER_OF_DECODING = (
    even("h264-b.avi", "libx264", REORDERED),
    even("h264-open.avi", "libx264", OPEN),
    even("mpeg4-b.avi", "mpeg4", MPEG4),
    even("mpeg2-b.avi", "mpeg2video", MPEG4),
    remuxed("mpeg4-packed.avi", even("mpeg4-b.avi", "mpeg4", MPEG4 | {"bf": "1"}), changes.packed),
)
PROGRAM_STREAMS = (
    even("mpeg1-b.mpg", "mpeg1video", MPEG4),
    even("mpeg2-b.mpg", "mpeg2video", MPEG4),
    even("mpeg2-closed.mpg", "mpeg2video", CLOSED),
    even("mpeg2-b-interlaced.mpg", "mpeg2video", INTERLACED),
    even("mpeg4-b.mpg", "mpeg4", MPEG4),
    even("hevc-b.mpg", "libx265", HEVC),
    even("mpeg2-b.vob", "mpeg2video", MPEG4),
    even("mpeg2-large.mpg", "mpeg2video", MPEG4 | {"qscale": "1"}, size=(256, 192)),
    even("h264-b.mpg", "libx264", REORDERED),
    even("h264.vob", "libx264", H264),
    even("mpeg2-ps.mkv", "mpeg2video", MPEG4, format="vob"),
)
WITHOUT_TIMES = (
    even("h264.h264", "libx264", H264, may_refuse=True),
    even("h264-b.h264", "libx264", REORDERED, may_refuse=True),
    even("h264-bare.mp4", "libx264", H264, format="h264", may_refuse=True),
    even("hevc-b.hevc", "libx265", HEVC, may_refuse=True),
    even("mpeg4-b.m4v", "mpeg4", MPEG4, format="m4v", may_refuse=True),
    even("mpeg2-b.m2v", "mpeg2video", MPEG4, format="mpeg2video", may_refuse=True),
    even("av1.obu", "libsvtav1", AV1, may_refuse=True),
)
HIDDEN_PICTURES = tuple(
    remuxed(
        f"vp8-hidden.{suffix}",
        even("vp8.webm", "libvpx", VP8, numbers=range(COUNT)),
        changes.hidden,
        numbers=tuple(n for n in range(COUNT) if n not in changes.HIDDEN),
        times_s=tuple(n / RATE for n in range(COUNT - len(changes.HIDDEN))),
        end_s=(COUNT - len(changes.HIDDEN)) / RATE,
    )
    for suffix in ("webm", "mkv")
)
ALL_KEYS = changes.flagged(lambda place: True)
FALSE_KEYS = changes.flagged(lambda place: place % 7 == 0)
ONE_KEY = changes.flagged(lambda place: place == 0)
WRONG_KEYFRAMES = (
    remuxed("h264-all-keys.mkv", even("a.mkv", "libx264", H264), ALL_KEYS),
    remuxed(
        "h264-b-false-keys.mkv",
        even("a.mkv", "libx264", REORDERED),
        FALSE_KEYS,
    ),
    remuxed("h264-b-one-key.mkv", even("a.mkv", "libx264", REORDERED), ONE_KEY),
    remuxed("hevc-all-keys.mkv", even("a.mkv", "libx265", HEVC), ALL_KEYS),
    remuxed("mpeg4-false-keys.mkv", even("a.mkv", "mpeg4", MPEG4), FALSE_KEYS),
    remuxed("vp9-false-keys.webm", even("a.webm", "libvpx-vp9", VP9), FALSE_KEYS),
    patched("h264-b-no-stss.mp4", even("a.mp4", "libx264", REORDERED), changes.without_sync_table),
    patched("hevc-no-stss.mp4", even("a.mp4", "libx265", HEVC), changes.without_sync_table),
    patched("mpeg4-no-stss.mp4", even("a.mp4", "mpeg4", MPEG4), changes.without_sync_table),
)
GAPS = [8, 8, 16, 4, 4, 8, 40, 8, 2, 2, 2, 10] * 4
SECONDS_APART = [200, 200, 200, 600, 40, 200]
UNEVEN = (
    uneven("h264-b-uneven.mp4", "libx264", REORDERED, GAPS),
    uneven("h264-b-uneven.mkv", "libx264", REORDERED, GAPS),
    uneven("h264-b-uneven.ts", "libx264", REORDERED, GAPS),
    uneven("hevc-b-uneven.mp4", "libx265", HEVC, GAPS),
    uneven("vp9-uneven.webm", "libvpx-vp9", VP9, GAPS),
    uneven("mpeg4-uneven.avi", "mpeg4", MPEG4 | {"bf": "0"}, GAPS),
    uneven("h264-slides.mp4", "libx264", H264, SECONDS_APART),
    uneven("gif-uneven.gif", "gif", {}, [8, 16, 4, 40, 8, 8], pix_fmt="rgb8"),
)
OFFSETS = (
    even("h264-b-from-5-s.mp4", "libx264", REORDERED, begins=5),
    even("h264-b-from-5-s.mkv", "libx264", REORDERED, begins=5),
    even("h264-b-from-5-s.ts", "libx264", REORDERED, begins=5),
    even("mpeg2-from-5-s.mpg", "mpeg2video", MPEG4, begins=5),
    even("h264-b-wrap.ts", "libx264", REORDERED, begins=WRAP_S, muxer={"mpegts_copyts": "1"}),
    late("h264-b-late.mp4", "libx264", REORDERED, "aac"),
    late("h264-b-late.mov", "libx264", REORDERED, "aac"),
    late("h264-b-late.mkv", "libx264", REORDERED, "aac"),
    late("vp9-late.webm", "libvpx-vp9", VP9, "libopus"),
    late("h264-b-late.ts", "libx264", REORDERED, "mp2", MP2_DELAY_S),
    late("h264-b-late.flv", "libx264", REORDERED, "aac", AAC_DELAY_S),
    late("mpeg2-late.mpg", "mpeg2video", MPEG4, "mp2", MP2_DELAY_S),
    even("h264-b-sound.mp4", "libx264", REORDERED, sound="aac"),
    even("h264-b-sound.mkv", "libx264", REORDERED, sound="aac"),
    late("h264-b-sound.ts", "libx264", REORDERED, "mp2", MP2_DELAY_S, begins=0),
)
NEGATIVE = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
EDITED = tuple(
    part_of(
        remuxed(name, even("a.mp4", codec, options), changes.earlier_by(17), muxer=NEGATIVE), 17
    )
    for name, codec, options in (
        ("h264-cut-17.mp4", "libx264", H264),
        ("h264-b-cut-17.mp4", "libx264", REORDERED),
        ("h264-open-cut-17.mp4", "libx264", OPEN),
        ("hevc-b-cut-17.mov", "libx265", HEVC),
        ("hevc-radl-cut-17.mp4", "libx265", RADL),
        ("mpeg4-b-cut-17.mp4", "mpeg4", MPEG4),
    )
) + tuple(
    part_of(
        patched(name, even("a.mp4", codec, options), changes.edited((first, count))),
        first,
        first + count,
    )
    for name, codec, options, first, count in (
        ("h264-end-30.mp4", "libx264", H264, 0, 30),
        ("h264-b-end-30.mp4", "libx264", REORDERED, 0, 30),
        ("h264-b-9-to-30.mp4", "libx264", REORDERED, 9, 21),
        ("h264-open-23-to-40.mp4", "libx264", OPEN, 23, 17),
        ("hevc-open-9-to-30.mp4", "libx265", HEVC_OPEN, 9, 21),
        ("hevc-radl-23-to-40.mp4", "libx265", RADL, 23, 17),
    )
)
TWO_EDITS = tuple(
    patched(
        name,
        even("a.mp4", codec, options, begins=1),
        changes.edited((0, 10), (24, 12)),
        numbers=(*range(10), *range(24, 36)),
        times_s=tuple(place / RATE for place in range(22)),
        end_s=22 / RATE,
    )
    for name, codec, options in (
        ("h264-two-edits.mp4", "libx264", H264),
        ("h264-b-two-edits.mp4", "libx264", REORDERED),
        ("hevc-b-two-edits.mp4", "libx265", HEVC),
    )
)
JOINED = (
    in_pieces("h264-b-joined.ts", "libx264", REORDERED, 40, 40),
    in_pieces("h264-open-joined.ts", "libx264", OPEN, 30, 20, 30),
    in_pieces("hevc-b-joined.ts", "libx265", HEVC, 30, 30),
    in_pieces("mpeg2-joined.ts", "mpeg2video", MPEG4, 30, 30),
    in_pieces("mpeg2-joined.mpg", "mpeg2video", MPEG4, 30, 30),
    # What the decoder holds back differs between the pieces.
    joined(
        "h264-then-b-joined.ts",
        even("a.ts", "libx264", H264, numbers=range(30)),
        even("b.ts", "libx264", REORDERED, numbers=range(30, 60)),
    ),
    joined(
        "h264-b-then-none-joined.ts",
        even("a.ts", "libx264", REORDERED, numbers=range(30)),
        even("b.ts", "libx264", H264, numbers=range(30, 60)),
    ),
    in_pieces("h264-joined.h264", "libx264", REORDERED, 30, 30, may_refuse=True),
)
CUT_IN = tuple(
    part_of(
        remuxed(name, even(f"a{Path(name).suffix}", codec, options), change),
        first,
        begins_s=begins_s,
    )
    for name, codec, options, change, first, begins_s in (
        ("h264-open-from-key.mkv", "libx264", OPEN, changes.from_second_keyframe, 12, 0.0),
        ("h264-open-from-key.ts", "libx264", OPEN, changes.from_second_keyframe, 12, 0.0),
        ("hevc-open-from-key.mkv", "libx265", HEVC_OPEN, changes.from_second_keyframe, 12, 0.0),
        ("hevc-open-from-key.ts", "libx265", HEVC_OPEN, changes.from_second_keyframe, 12, 0.0),
        ("hevc-radl-from-key.mkv", "libx265", RADL, changes.from_second_keyframe, 10, 0.0),
        ("hevc-radl-from-key.ts", "libx265", RADL, changes.from_second_keyframe, 10, 0.0),
        ("mpeg2-open-from-key.ts", "mpeg2video", MPEG4, changes.from_second_keyframe, 12, 0.0),
        ("mpeg2-open-from-key.mpg", "mpeg2video", MPEG4, changes.from_second_keyframe, 12, 0.0),
        ("h264-b-from-inside.ts", "libx264", REORDERED, changes.from_inside_a_group, 12, 0.16),
        ("h264-b-from-inside.mkv", "libx264", REORDERED, changes.from_inside_a_group, 12, 0.16),
        ("hevc-b-from-inside.ts", "libx265", HEVC, changes.from_inside_a_group, 12, 0.16),
        ("mpeg4-b-from-inside.mkv", "mpeg4", MPEG4, changes.from_inside_a_group, 12, 0.32),
    )
)
FILMS = (
    films("cover-first.mkv", cover=True),
    films("cover.mp4", cover=True),
    films("film-second.mkv", cover=False),
    films("film-second.mp4", cover=False),
)
TURNED = tuple(
    even(f"turned-{exif}.{suffix}", "libx264", H264, exif=exif, numbers=range(12))
    for suffix, orientations in (("mp4", range(1, 9)), ("mov", (2, 5)), ("mkv", (4, 6, 7)))
    for exif in orientations
)
ASPECT = tuple(
    even(f"h264-aspect.{suffix}", "libx264", H264, aspect=Fraction(2), numbers=range(12))
    for suffix in ("mp4", "mkv", "ts")
)
LARGER = even("b.ts", "libx264", H264, numbers=range(48, 80), size=(128, 96))
REFUSED = (
    joined("h264-two-sizes.ts", even("a.ts", "libx264", H264), LARGER, refused="other size"),
    patched(
        "h264-b-half.mp4",
        even("a.mp4", "libx264", REORDERED, muxer={"movflags": "faststart"}),
        changes.first_half,
        refused="damaged",
    ),
)
CASES = (
    *PLAIN,
    *ONE_PICTURE,
    *OPEN_GROUPS,
    *ORDER_OF_DECODING,
    *PROGRAM_STREAMS,
    *WITHOUT_TIMES,
    *HIDDEN_PICTURES,
    *WRONG_KEYFRAMES,
    *UNEVEN,
    *OFFSETS,
    *EDITED,
    *TWO_EDITS,
    *JOINED,
    *CUT_IN,
    *FILMS,
    *TURNED,
    *ASPECT,
    *REFUSED,
)
