"""What readers that trust a file's header, index or timestamps stumble over."""

from collections.abc import Sequence
from pathlib import Path

from av.container import Container

from sefar_core.data.marks import Mark
from sefar_core.data.timeline import Timeline


def oddities(shown: Timeline) -> tuple[str, ...]:
    """By name:

    - `truncated`: the header counts more frames than are stored;
    - `edit_list`: frames are stored that are not shown;
    - `open_gop`: a frame is shown before the keyframe that it is decoded after;
    - `corrupt`: the container marks packets as damaged;
    - `variable_rate`: frames do not follow one another evenly;
    - `hidden_frames`: packets hold frames that are never shown;
    - `no_display_times`: timestamps do not say when each picture is shown, so that pictures are
      counted in order;
    - `undecided_order`: timestamps follow the order of decoding, which may be another than that of
      display; decoding tells;
    - `times_jump_back`: as in files that were joined byte by byte; the parts follow one another;
    - `late_start`: the picture begins later than the sound;
    - `many_streams`: there is more than one video stream.
    """
    marks, container = shown.marks, shown.stream.container
    tests = {
        "truncated": shown.is_cut_off or _promises_more(shown, container),
        "edit_list": _is_edited(shown, container) or any(mark.is_discard for mark in marks),
        "open_gop": _has_open_gop(marks),
        "corrupt": any(mark.is_corrupt for mark in marks),
        "variable_rate": not shown.constant_rate,
        "hidden_frames": any(mark.is_hidden for mark in marks),
        "no_display_times": shown.stamps is None and not shown.joined,
        "undecided_order": shown.stamps is not None and shown.may_tell_decoding,
        "times_jump_back": shown.joined,
        "late_start": shown.times_s[0] > 0,
        "many_streams": len(container.streams.video) > 1,
    }
    return tuple(name for name, holds in tests.items() if holds)


def _promises_more(shown: Timeline, container: Container) -> bool:
    """Whether a file ends before its header says.

    The header of an AVI counts moments at which nothing new is shown, too: it tells its size. That
    of an MP4 counts what an edit list leaves out: its index tells more (Timeline.is_cut_off).
    """
    if "mov" in container.format.name:
        return False
    if container.format.name != "avi":
        return shown.stream.frames > len(shown.marks)
    path = Path(container.name.removeprefix("file:"))
    with path.open("rb") as file:
        told = int.from_bytes(file.read(8)[4:], "little")
    return told + 8 > path.stat().st_size


def _is_edited(shown: Timeline, container: Container) -> bool:
    stream = shown.stream
    return "mov" in container.format.name and stream.frames > len(stream.index_entries)


def _has_open_gop(marks: Sequence[Mark]) -> bool:
    keyframe_pts = 0
    for mark in marks:
        if mark.pts is None:
            return False
        if mark.is_keyframe:
            keyframe_pts = mark.pts
        elif mark.pts < keyframe_pts and not mark.is_hidden:
            return True
    return False
