"""Sources that a file's name tells: the person or the video that a clip was cut from."""

import re
from collections.abc import Sequence
from dataclasses import replace

from qa_data.manifest import Clip
from qa_data.text_file import composed
from sefar_core.data.lists.listing import ListError, Listing


def with_sources(listing: Listing, pattern: str) -> Listing:
    """The listing with the source of every clip taken from the name of its file.

    Args:
        listing: a data set.
        pattern: a regular expression with one group, which is the source where it is found in the
            name of a clip's file or picture folder (without the folders above it), such as
            `_s([0-9]+)_` for `a1_s3_t2_color.avi`.

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
            f"the source, and nothing else, in round brackets ((?:...) is no group)"
        )
    return replace(
        listing,
        pool=_named(listing.pool, compiled),
        settled=_named(listing.settled, compiled),
    )


def _named(clips: Sequence[Clip], pattern: re.Pattern[str]) -> list[Clip]:
    return [replace(clip, source=_source(clip, pattern)) for clip in clips]


def _source(clip: Clip, pattern: re.Pattern[str]) -> str:
    name = re.split(r"[/\\]", clip.path)[-1]
    match = pattern.search(composed(name))
    if match is None or not match[1]:
        raise ListError(
            f"--source-pattern {pattern.pattern!r} finds no source in the name of {clip.path}; "
            f"give a pattern that fits every file, or take the file out of the list"
        )
    return match[1]
