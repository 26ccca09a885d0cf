"""What reading and checking make of every kind of file and damage: docs/damage.md, held to it."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from qa_data.manifest import Clip
from sefar_core.data.check_videos import Health, check_file
from sefar_core.data.video import VideoReadError, probe, read_clip, read_fractions
from tests.oracles import damage
from tests.oracles import videos as oracle
from tests.oracles.damage_cases import FLIPPED, FLIPPED_REAL, MADE, REAL, REPORTED

CASES = MADE | REAL | REPORTED


@pytest.fixture(autouse=True)
def quiet_decoders():
    before = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(before)


def by_name(names):
    """One test a file, skipped where the folder of real ones is not named."""
    marks: dict[str, list] = {name: [] for name in names}
    for files, mark, variable in (
        (REAL, pytest.mark.videos, "SEFAR_VIDEOS_DIR"),
        (REPORTED, pytest.mark.reports, "SEFAR_REPORTS_DIR"),
    ):
        skip = pytest.mark.skipif(variable not in os.environ, reason=f"needs {variable}")
        marks |= {name: [mark, skip] for name in names if name in files}
    rows = [pytest.param(name, marks=found) for name, found in marks.items()]
    return pytest.mark.parametrize("name", rows)


def checked(path: Path, *, quick: bool) -> Health:
    clip = Clip(id="one", path=path.name, split="unlabeled")
    return check_file([clip], lambda: None, video_root=path.parent, quick=quick)[0]


def kinds(health: Health) -> str:
    return ", ".join(fault.kind for fault in health.faults)


def last_shown(times, moments) -> list[int]:
    return [max(k for k, at in enumerate(times) if at <= moment + 1e-6) for moment in moments]


@by_name([name for name, case in CASES.items() if case.refused is None])
def test_what_is_readable_is_read_as_a_decoder_gives_it(tmp_path, name):
    case = CASES[name]
    path = case.write(tmp_path)
    frames, failed = damage.bare_decode(path, stream=case.stream, mirrored=case.mirrored)
    assert not failed
    got, appears, _ = read_clip(path)
    assert damage.same(list(got.numpy()), frames)
    info = probe(path)
    assert info.num_frames == len(frames)
    rng = np.random.default_rng(0)
    moments = rng.random(7)
    found = read_fractions(path, moments.tolist()).numpy()
    assert damage.same(list(found), [frames[k] for k in last_shown(appears, moments)])
    for _ in range(5):
        start_s, end_s = info.times_s[0] + np.sort(rng.random(2)) * info.duration_s
        moments = start_s + rng.random(5) * (end_s - start_s)
        places = ((moments - start_s) / (end_s - start_s)).tolist()
        found = read_fractions(path, places, start_s=start_s, end_s=end_s).numpy()
        assert damage.same(list(found), [frames[k] for k in last_shown(info.times_s, moments)])


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_a_rotated_file_shows_what_was_drawn(tmp_path, angle):
    path = CASES[f"rotated {angle}"].write(tmp_path)
    got, drawn = read_clip(path).frames, oracle.numbered_frames(6)
    assert got.shape == drawn.shape
    assert abs(got.numpy().astype(int) - drawn).mean() < 12
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (64, 48, angle)


@by_name([name for name, case in CASES.items() if case.refused is not None])
def test_what_is_not_is_refused_with_file_cause_and_fix(tmp_path, name):
    path = CASES[name].write(tmp_path)
    with pytest.raises(VideoReadError, match=CASES[name].refused) as refusal:
        read_clip(path)
    assert str(path) in str(refusal.value)
    assert str(refusal.value).endswith(("every broken file of a manifest.", "the video folder."))


@by_name(list(CASES))
def test_the_check_names_each_fault_and_oddity_and_nothing_else(tmp_path, name):
    case = CASES[name]
    path = case.write(tmp_path)
    full, quick = checked(path, quick=False), checked(path, quick=True)
    assert (kinds(full), kinds(quick)) == (case.full, case.quick)
    assert (case.refused is None) == (case.full == "")
    assert all(str(path) in fault.words for fault in full.faults + quick.faults)
    expected = case.oddities.split() if full.info else []
    assert list(full.oddities) == list(quick.oddities) == expected


@pytest.mark.slow
@by_name(FLIPPED + FLIPPED_REAL)
def test_a_flipped_bit_gives_an_error_or_what_a_decoder_gives(tmp_path, name):
    clean = CASES[name].write(tmp_path)
    written = damage.bare_decode(clean).frames
    for seed in range(6):
        path = damage.flipped(clean, tmp_path / f"flipped{clean.suffix}", seed=seed)
        reference = damage.bare_decode(path)
        moments = np.random.default_rng(seed).random(3).tolist()
        try:
            got = read_fractions(path, moments).numpy()
        except VideoReadError:
            got = []
        # Where a decoder loses its way, a later start can find what was written.
        known = {frame.tobytes() for frame in reference.frames + written}
        assert {frame.tobytes() for frame in got} <= known, seed
        try:
            whole = read_clip(path).frames
        except VideoReadError:
            assert kinds(checked(path, quick=False)), seed
            continue
        assert not reference.failed, seed
        assert damage.same(list(whole.numpy()), reference.frames), seed


def test_a_stretch_within_a_gap_shows_the_frame_before_it(tmp_path):
    path = damage.dropped(tmp_path)  # frames 13 to 15 of 30 a second
    before = damage.bare_decode(path).frames[12]
    got = read_fractions(path, [0.1, 0.9], start_s=0.48, end_s=0.52).numpy()
    assert damage.same(list(got), [before, before])
    with pytest.raises(VideoReadError, match="made from a longer video"):
        read_fractions(path, [0.9], start_s=0.9, end_s=4.0)


def patched_frames(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [n for n, frame in enumerate(container.decode(video=0)) if frame.is_corrupt]


def test_damage_that_the_decoder_patches_is_named_where_it_admits_it(tmp_path):
    path = oracle.write_noise(tmp_path / "noise.mp4", 12)
    content = path.read_bytes()
    admitted = 0
    for place in range(len(content) // 3, len(content), len(content) // 30):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        full, quick = checked(path, quick=False), checked(path, quick=True)
        assert quick.faults == ()
        if patched := patched_frames(path):
            admitted += 1
            (fault,) = full.faults
            assert fault.kind == "patched"
            assert f"patches {len(patched)} frames, first frame {patched[0]} of 12" in fault.words
        else:
            assert full.faults == ()
    assert admitted >= 2


@pytest.mark.reports
@pytest.mark.skipif("SEFAR_REPORTS_DIR" not in os.environ, reason="needs SEFAR_REPORTS_DIR")
def test_reported_files_that_no_network_can_take_are_faults():
    folder = Path(os.environ["SEFAR_REPORTS_DIR"])
    assert kinds(checked(folder / "14/resize.mkv", quick=False)) == "changing size"
    assert kinds(checked(folder / "24/wide.avi", quick=False)) == "too elongated"
    with pytest.raises(VideoReadError, match=r"resize\.mkv changes its picture size"):
        read_clip(folder / "14/resize.mkv")
