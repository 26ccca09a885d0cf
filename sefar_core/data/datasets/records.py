"""What every reader of a data set gives: a Listing of classes and clips.

scripts/make_splits.py cuts the pool of a Listing and writes the manifest. A reader opens lists and
folders, never a video. Also here: reading text lists by line, each line with its place for errors;
and taking the source of clips (the person or the video that they were cut from) from file names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from qa_data.files import SefarError, composed, parse_json, read_text
from qa_data.finegym import TimeSpan
from qa_data.manifest import Clip


class ListError(SefarError):
    """A list that cannot be used. The message names file, line, what was found, the fix."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A data set before labels are drawn.

    Attributes:
        classes: names of all classes by label, from 0 without gaps.
        pool: training clips with known labels, of split `labeled`, which are cut further.
        settled: clips whose split is final, such as the official test clips, clips that
            never had a label, or the parts of a published draw.
        times: when clips begin and end in their source video, by id, where their files do not
            hold it.
        other_files: number of files of each ending among the clips of one's own folders that are
            not clips.
    """

    classes: dict[int, str]
    pool: list[Clip] = field(default_factory=list)
    settled: list[Clip] = field(default_factory=list)
    times: Mapping[str, TimeSpan] = field(default_factory=dict)
    other_files: Mapping[str, int] = field(default_factory=dict)


ALIKE = " (names that differ only in how their accented letters are composed)"
# Signs that no name in a manifest may have: controls, and escapes of bytes not in UTF-8.
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_list_lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, in their order, each with its place.

    Windows line ends, a byte order mark and a missing last line end are fine, and blanks around a
    line are dropped.

    Returns:
        Pairs of `"<path>, line <number from 1>"` and the line.

    Raises:
        ListError: see `read_list_text`.
    """
    lines = read_list_text(path).split("\n")
    return [
        (f"{path}, line {number}", text)
        for number, line in enumerate(lines, 1)
        if (text := line.strip())
    ]


def read_list_text(path: Path) -> str:
    r"""The text of a file, its lines ended by "\n" whatever ends them there.

    Raises:
        ListError: the file is missing or blank, is not UTF-8, or holds a NUL.
    """
    text = read_text(
        path,
        error=ListError,
        missing=f"there is no file {path}; give the folder or file that holds the lists",
        fix="save the list as UTF-8, or fetch it again",
    )
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise ListError(
            f"{path}, line {line}: found a NUL, so this is not text (a video, an archive, or a "
            f"download that was cut?); fetch it again"
        )
    if not text.strip():
        raise ListError(f"{path} is empty; fetch it again")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_list_json(path: Path) -> object:
    """The value that a JSON file holds.

    Raises:
        ListError: see `read_list_text`; or the text is not JSON.
    """
    text = read_list_text(path)
    try:
        return parse_json(text)
    except ValueError as cause:
        raise ListError(f"{path} is not JSON: {cause}; fetch it again") from cause


def refuse_repeat(seen: dict[str, str], clip_id: str, where: str) -> None:
    """Note in `seen`, by id, where a clip is listed: its list and line.

    Ids that differ only in how their letters are composed are one.

    Raises:
        ListError: the clip is listed already.
    """
    name = composed(clip_id)
    if name in seen:
        other = seen[name]
        alike = ALIKE if where != other and composed(where) == composed(other) else ""
        raise ListError(
            f"{where}: found {clip_id}, which {other} lists already{alike}; a clip has one line "
            f"and one split: delete one of the two"
        )
    seen[name] = where


def with_sources(listing: Listing, pattern: str) -> Listing:
    """The listing with the source of every clip taken from the name of its file.

    The source is the one group of the regular expression, found in the name of the file or picture
    folder without the folders above it, such as `_s([0-9]+)_` for `a1_s3_t2_color.avi`.

    Raises:
        ListError: the pattern does not compile or has not one group, or a clip's name does not
            have it.
    """
    try:
        compiled = re.compile(composed(pattern))
    except re.error as cause:
        raise ListError(
            f"--source-pattern {pattern!r} is not a valid regular expression: {cause}; "
            f"'_s([0-9]+)_' takes the number behind _s"
        ) from None
    if compiled.groups != 1:
        raise ListError(
            f"--source-pattern {pattern!r} has {compiled.groups} groups; put the part that names "
            f"the source, and nothing else, in round brackets ((?:...) is not a group)"
        )
    pool, settled = (
        [replace(clip, source=_source(clip, compiled)) for clip in clips]
        for clips in (listing.pool, listing.settled)
    )
    return replace(listing, pool=pool, settled=settled)


def _source(clip: Clip, pattern: re.Pattern[str]) -> str:
    name = re.split(r"[/\\]", clip.path)[-1]
    match = pattern.search(composed(name))
    if match is None or not match[1]:
        raise ListError(
            f"--source-pattern {pattern.pattern!r} finds no source in the name of {clip.path}; "
            f"give a pattern that fits every file, or take the file out of the list"
        )
    return match[1]
