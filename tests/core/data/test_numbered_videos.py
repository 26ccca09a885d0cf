"""Every picture bears its number: what any kind of file gives is read back as a fact."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qa_data.manifest import Clip
from sefar_core.data import video_backends
from sefar_core.data.check_videos import check_file
from sefar_core.data.video import VideoReadError, probe, read_clip, read_fractions
from tests.frames_at import frames_at
from tests.oracles import numbered_videos as numbered
from tests.oracles.numbered_cases import Case
from tests.oracles.numbered_stretches import clip_outcome, fractions_outcome, stretches
from tests.oracles.numbered_table import BY_NAME, CASES, CUT_IN, FILMS, GROUPS, TURNED

FEW, MANY = 5, 15
"""Stretches of each file."""


def telling() -> set[str]:
    """Of each group of files the first one of every codec and of every container."""
    names = set()
    for group in GROUPS:
        codecs = {case.name.split(".")[0].split("-")[0]: case.name for case in group[::-1]}
        containers = {case.name.rsplit(".")[1]: case.name for case in group[::-1]}
        names |= {*codecs.values(), *containers.values()}
    return names


TELLING = telling()


def by_case(cases):
    """One test a file; those that are not telling are slow."""
    marks = [() if case.name in TELLING else pytest.mark.slow for case in cases]
    rows = zip(cases, marks, strict=True)
    return pytest.mark.parametrize(
        "case", [pytest.param(case, marks=mark, id=case.name) for case, mark in rows]
    )


READ = [case for case in CASES if not case.refused]
# A bare decoder knows neither orientations nor which stream is the film, and decodes what is
# before the first keyframe.
BARE = [case for case in READ if case not in (*TURNED, *FILMS, CUT_IN[-1])]


def test_a_picture_gives_its_number_at_any_size_and_in_no_other_orientation():
    for number in range(256):
        for size in [(96, 64), (64, 48), (192, 64), (48, 64)]:
            assert numbered.read_number(numbered.numbered(number, size)) == number
    picture = numbered.numbered(90)
    blend = (picture.astype(int) + numbered.numbered(91)) // 2
    turned = [numbered.stored(picture, exif) for exif in range(2, 9)]
    for other in [*turned, blend.astype(np.uint8)]:
        with pytest.raises(numbered.UnreadableNumber):
            numbered.read_number(other)
    assert len(BY_NAME) == len(CASES)


@by_case(READ)
def test_a_file_shows_every_picture_once_in_order_and_at_its_time(made, case):
    path = made(case.name)
    if case in BARE:
        assert numbered.decoded_in_order(path) == list(case.numbers)
    try:
        frames, places, length_s = read_clip(path)
    except VideoReadError:
        assert case.may_refuse
        return
    assert numbered.read_numbers(frames) == list(case.numbers)
    near = 1e-6 + 2 * case.slack_s
    np.testing.assert_allclose(np.diff(places) * length_s, np.diff(case.times_s), atol=near)
    assert probe(path).num_frames == len(case.numbers)
    moments = [time + later for time in case.times_s for later in (0.0, 0.004)]
    moments = [moment for moment in moments if case.is_sure(moment)]
    expected = [case.expected_at(moment) for moment in moments]
    assert numbered.read_numbers(frames_at(path, moments)) == expected
    if case.end_s is None or case.times_s[0] != 0:
        return
    assert length_s == pytest.approx(case.end_s, abs=near)
    places = [(number + 0.5) / len(case.numbers) for number in range(len(case.numbers))]
    for step in (1, 7, 23):  # few pictures are decoded in other ways than all
        shown = read_fractions(path, places[step // 2 :: step] or places)
        assert numbered.read_numbers(shown) == list(case.numbers[step // 2 :: step] or case.numbers)


def assert_stretches(case: Case, path: Path, count: int) -> None:
    for stretch in stretches(case, count):
        for found in (
            fractions_outcome(case, path, stretch, read_fractions),
            clip_outcome(case, path, stretch),
        ):
            allowed = {"right", "refused"} if case.may_refuse else {"right"}
            assert found.verdict in allowed, found.words


@by_case([case for case in READ if case.name in TELLING])
def test_stretches_show_the_pictures_of_their_moments(made, case):
    assert_stretches(case, made(case.name), FEW)


@pytest.mark.slow
@by_case(READ)
def test_many_stretches_show_the_pictures_of_their_moments(made, case):
    assert_stretches(case, made(case.name), MANY)


def verdicts(path: Path, case: Case, *, quick: bool) -> set[bool]:
    """Whether the check calls the whole file sound, and its stretches."""
    whole = Clip(id="whole", path=path.name, split="unlabeled")
    parts = [
        replace(whole, id=f"{part.start_s} to {part.end_s}", start_s=part.start_s, end_s=part.end_s)
        for part in ([] if case.refused else stretches(case, 3))
    ]
    return {
        not health.faults
        for clips in ([whole], parts)[: 1 + bool(parts)]
        for health in check_file(clips, lambda: None, video_root=path.parent, quick=quick)
    }


@by_case(CASES)
def test_the_check_calls_sound_what_can_be_read(made, case):
    path = made(case.name)
    try:
        read_clip(path)
    except VideoReadError as refusal:
        assert (case.refused or case.may_refuse) and path.name in str(refusal)
        assert False in verdicts(path, case, quick=False)
    else:
        assert not case.refused
        for quick in (True, False):
            assert verdicts(path, case, quick=quick) == {True}


@by_case(READ)
def test_decord_gives_the_right_pictures_or_none(made, case):
    for stretch in stretches(case, FEW):
        found = fractions_outcome(case, made(case.name), stretch, video_backends.read_decord)
        assert found.verdict != "wrong", found.words


ODD_NAMES = ["2024-05-01T12:30.mp4", "data:x.mp4", "%03d.mp4", "a?b#c|d.mp4", "-i.mp4", "[1].mp4"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_never_a_protocol_or_a_pattern(made, tmp_path, monkeypatch, name):
    (tmp_path / name).hardlink_to(made("h264.mp4"))
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / name):
        assert numbered.read_numbers(read_clip(path).frames) == list(range(48))
    clip = Clip(id="clip", path=name, split="unlabeled")
    (health,) = check_file([clip], lambda: None, video_root=Path("."), quick=False)
    assert health.faults == ()
