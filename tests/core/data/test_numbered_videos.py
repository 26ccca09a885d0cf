"""Every picture bears its number: what any kind of file gives is read back as a fact."""

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from qa_data.manifest import Clip
from sefar_core.data import video_backends
from sefar_core.data.check_videos import check_file
from sefar_core.data.video import (
    VideoReadError,
    clip_length,
    probe,
    read_clip,
    read_fractions,
)
from tests.frames_at import frames_at
from tests.oracles import numbered_videos as numbered
from tests.oracles.numbered_cases import Case
from tests.oracles.numbered_stretches import (
    Outcome,
    clip_outcome,
    fractions_outcome,
    outcome,
    stretches,
)
from tests.oracles.numbered_table import CASES, CUT_IN, FILMS, PLAIN, REFUSED, TURNED

FAST, FULL = 5, 50
"""Stretches of each file."""
READ = tuple(case for case in CASES if not case.refused)


def by_case(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Writes a case's file when it is first needed."""
    folder = tmp_path_factory.mktemp("numbered")

    def path_of(case: Case) -> Path:
        path = folder / case.name
        if not path.exists():
            case.make(path)
        return path

    return path_of


def assert_right(found: Outcome, case: Case) -> None:
    """Right; or refused, if the file has no times."""
    if found.verdict != "right" and not (found.verdict == "refused" and case.may_refuse):
        pytest.fail(f"{found.verdict}: {found.words}", pytrace=False)


@cache
def reads(path: Path) -> bool:
    try:
        read_clip(path)
    except VideoReadError:
        return False
    return True


def test_a_picture_gives_its_number_at_any_size_and_in_no_other_orientation():
    for number in range(256):
        for size in [(96, 64), (64, 48), (192, 64), (48, 64)]:
            assert numbered.read_number(numbered.numbered(number, size)) == number
    picture = numbered.numbered(90)
    for exif in range(2, 9):
        with pytest.raises(numbered.UnreadableNumber):
            numbered.read_number(numbered.stored(picture, exif))
    blend = (picture.astype(int) + numbered.numbered(91)) // 2
    with pytest.raises(numbered.UnreadableNumber):
        numbered.read_number(blend.astype(np.uint8))


def test_orientations_are_stored_as_another_library_understands_them():
    upright = numbered.numbered(37)
    for orientation in numbered.FIRST_ROW_AND_COLUMN:
        exif, content = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        stored = np.ascontiguousarray(numbered.stored(upright, orientation))
        Image.fromarray(stored).save(content, "PNG", exif=exif)
        shown = ImageOps.exif_transpose(Image.open(content))
        np.testing.assert_array_equal(np.asarray(shown), upright)


def test_names_of_files_are_all_different():
    assert len({case.name for case in CASES}) == len(CASES)


# The bare decoder knows neither orientations nor which stream is the film, and decodes what is
# before the first keyframe.
@by_case([case for case in READ if case not in (*TURNED, *FILMS, CUT_IN[-1])])
def test_a_bare_decoder_gives_the_pictures_that_a_file_was_made_of(made, case):
    assert numbered.decoded_in_order(made(case)) == list(case.numbers)


@by_case(READ)
def test_a_whole_file_gives_every_picture_once_and_in_order(made, case):
    path = made(case)
    found = outcome(list(case.numbers), lambda: read_clip(path)[0], "the whole file")
    assert_right(found, case)
    if found.verdict == "refused":
        return
    places = read_clip(path).appears
    length_s, near = clip_length(path), 1e-6 + 2 * case.slack_s
    np.testing.assert_allclose(np.diff(places) * length_s, np.diff(case.times_s), atol=near)
    assert probe(path).num_frames == len(case.numbers)
    if case.end_s is not None and case.times_s[0] == 0:
        assert length_s == pytest.approx(case.end_s, abs=near)
        middles = [(place + 0.5) / len(case.numbers) for place in range(len(case.numbers))]
        spread = outcome(list(case.numbers), lambda: read_fractions(path, middles), "its fractions")
        assert_right(spread, case)


@by_case(READ)
def test_each_moment_of_a_whole_file_shows_the_last_picture_that_has_appeared(made, case):
    path = made(case)
    moments = [time + later for time in case.times_s for later in (0.0, 0.004)]
    moments = [moment for moment in moments if case.is_sure(moment)]
    expected = [case.expected_at(moment) for moment in moments]
    found = outcome(expected, lambda: frames_at(path, moments), "its moments")
    assert_right(found, case)


@by_case(READ)
@pytest.mark.parametrize("count", [FAST, pytest.param(FULL, marks=pytest.mark.slow)])
def test_random_stretches_show_the_pictures_of_their_moments(made, case, count):
    path = made(case)
    for stretch in stretches(case, count):
        for found in (
            fractions_outcome(case, path, stretch, read_fractions),
            clip_outcome(case, path, stretch),
        ):
            assert_right(found, case)


def verdicts(path: Path, case: Case, *, quick: bool) -> list[bool]:
    """Whether the check calls the whole file sound, and then, if it can be read, stretches."""
    whole = Clip(id="whole", path=path.name, split="unlabeled")
    parts = [
        replace(whole, id=f"{part.start_s} to {part.end_s}", start_s=part.start_s, end_s=part.end_s)
        for part in stretches(case, 3)
    ]
    return [
        not health.faults
        for clips in ([whole], parts)[: 1 + reads(path)]
        for health in check_file(clips, lambda: None, video_root=path.parent, quick=quick)
    ]


@by_case(CASES)
def test_the_check_calls_sound_what_can_be_read(made, case):
    path = made(case)
    assert set(verdicts(path, case, quick=False)) == {reads(path)}


# Damaged pictures and other sizes are seen by decoding only.
@by_case(READ)
def test_the_quick_check_calls_sound_what_can_be_read(made, case):
    path = made(case)
    assert set(verdicts(path, case, quick=True)) == {reads(path)}


@by_case(REFUSED)
def test_damaged_files_and_those_of_two_sizes_are_refused(made, case):
    path = made(case)
    with pytest.raises(VideoReadError, match=path.name):
        read_clip(path)


@by_case(READ)
def test_decord_gives_the_right_pictures_or_none(made, case):
    for stretch in stretches(case, FAST):
        found = fractions_outcome(case, made(case), stretch, video_backends.read_decord)
        if found.verdict == "wrong":
            pytest.fail(found.words, pytrace=False)


ODD_NAMES = ["2024-05-01T12:30.mp4", "data:x.mp4", "%03d.mp4", "a?b#c|d.mp4", "-i.mp4", "[1].mp4"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_never_a_protocol_or_a_pattern(made, tmp_path, monkeypatch, name):
    case = PLAIN[0]
    (tmp_path / name).hardlink_to(made(case))
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / name):
        frames = read_clip(path).frames
        assert [numbered.read_number(frame) for frame in frames.numpy()] == list(case.numbers)
    clip = Clip(id="clip", path=name, split="unlabeled")
    (health,) = check_file([clip], lambda: None, video_root=Path("."), quick=False)
    assert health.faults == ()
