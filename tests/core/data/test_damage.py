"""What reading and checking make of every kind of file and damage: docs/damage.md, held to it."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from qa_data.manifest import Clip
from sefar_core.data.check_videos import Health, check_file
from sefar_core.data.video import VideoReadError, probe, read_clip, read_fractions
from tests.oracles import damage, damage_cases
from tests.oracles import videos as oracle

CASES = damage_cases.MADE | damage_cases.REAL
SOUND = [name for name, case in CASES.items() if case.refused is None]
REFUSED = [name for name, case in CASES.items() if case.refused is not None]
ROTATED = [name for name in damage_cases.MADE if name.startswith("rotated")]


@pytest.fixture(autouse=True)
def quiet_decoders():
    before = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(before)


def marked(names: list[str] | tuple[str, ...]) -> list:
    skip = pytest.mark.skipif("SEFAR_VIDEOS_DIR" not in os.environ, reason="SEFAR_VIDEOS_DIR")
    marks = [pytest.mark.videos, skip]
    return [pytest.param(n, marks=marks if n in damage_cases.REAL else []) for n in names]


def checked(path: Path, *, quick: bool) -> Health:
    clip = Clip(id="one", path=path.name, split="unlabeled")
    return check_file([clip], lambda: None, video_root=path.parent, quick=quick)[0]


def kinds(health: Health) -> str:
    return ", ".join(fault.kind for fault in health.faults)


@pytest.mark.parametrize("name", marked(SOUND))
def test_what_is_readable_is_read_as_a_decoder_gives_it(tmp_path, name):
    path = CASES[name].write(tmp_path)
    frames, failed = damage.bare_decode(path)
    assert not failed
    got, appears, _ = read_clip(path)
    assert damage.same(list(got.numpy()), frames)
    moments = np.random.default_rng(0).random(7)
    shown = [max(k for k, at in enumerate(appears) if at <= f + 1e-9) for f in moments]
    at_moments = read_fractions(path, moments.tolist()).numpy()
    assert damage.same(list(at_moments), [frames[k] for k in shown])


@pytest.mark.parametrize("name", marked(SOUND))
def test_a_stretch_of_it_is_read_as_a_decoder_gives_it(tmp_path, name):
    path = CASES[name].write(tmp_path)
    frames, info = damage.bare_decode(path).frames, probe(path)
    rng = np.random.default_rng(1)
    for _ in range(4):
        start_s, end_s = np.sort(rng.random(2)) * info.duration_s
        moments = start_s + rng.random(5) * (end_s - start_s)
        shown = [max(k for k, at in enumerate(info.times_s) if at <= m + 1e-6) for m in moments]
        places = ((moments - start_s) / (end_s - start_s)).tolist()
        got = read_fractions(path, places, start_s=start_s, end_s=end_s).numpy()
        assert damage.same(list(got), [frames[k] for k in shown])


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotated_file_shows_what_was_drawn(tmp_path, name):
    got = read_clip(CASES[name].write(tmp_path)).frames
    drawn = oracle.numbered_frames(6)
    assert got.shape == drawn.shape
    assert abs(got.numpy().astype(int) - drawn).mean() < 12


@pytest.mark.parametrize("name", marked(REFUSED))
def test_what_is_not_is_refused_with_file_cause_and_mend(tmp_path, name):
    path = CASES[name].write(tmp_path)
    with pytest.raises(VideoReadError, match=CASES[name].refused) as refusal:
        read_clip(path)
    assert str(path) in str(refusal.value)
    assert str(refusal.value).endswith(("every broken file of a manifest.", "the video folder."))


@pytest.mark.parametrize("name", marked(list(CASES)))
def test_the_check_names_each_fault_and_oddity(tmp_path, name):
    case = CASES[name]
    path = case.write(tmp_path)
    full, quick = checked(path, quick=False), checked(path, quick=True)
    assert (kinds(full), kinds(quick)) == (case.full, case.quick)
    assert all(str(path) in fault.words for fault in full.faults + quick.faults)
    expected = case.oddities.split() if full.info else []
    assert list(full.oddities) == list(quick.oddities) == expected


@pytest.mark.parametrize("name", marked(list(CASES)))
def test_what_reading_refuses_the_check_names_and_nothing_else(tmp_path, name):
    case = CASES[name]
    assert (case.refused is None) == (kinds(checked(case.write(tmp_path), quick=False)) == "")


@pytest.mark.parametrize("name", marked(damage_cases.FLIPPED + damage_cases.FLIPPED_REAL))
def test_a_flipped_bit_gives_an_error_or_what_a_decoder_gives(tmp_path, name):
    clean = CASES[name].write(tmp_path)
    for seed in range(6):
        path = damage.flipped(clean, tmp_path / f"flipped{clean.suffix}", seed=seed)
        reference = damage.bare_decode(path)
        try:
            got = read_clip(path).frames
        except VideoReadError:
            assert kinds(checked(path, quick=False)), seed
            continue
        assert not reference.failed, seed
        assert damage.same(list(got.numpy()), reference.frames), seed


@pytest.mark.parametrize("name", marked(damage_cases.FLIPPED + damage_cases.FLIPPED_REAL))
def test_single_frames_of_a_damaged_file_are_those_of_a_decoder_or_whole(tmp_path, name):
    clean = CASES[name].write(tmp_path)
    for seed in range(6):
        path = damage.flipped(clean, tmp_path / f"flipped{clean.suffix}", seed=seed)
        moments = np.random.default_rng(seed).random(3).tolist()
        try:
            got = read_fractions(path, moments).numpy()
        except VideoReadError:
            continue
        # Where a decoder loses its way, a later start can find what was written.
        frames = damage.bare_decode(path).frames + damage.bare_decode(clean).frames
        known = {frame.tobytes() for frame in frames}
        assert {frame.tobytes() for frame in got} <= known, seed


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
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), dtype=np.uint8)
    path = oracle.write_video(tmp_path / "noise.mp4", noise, options={"bf": "0"})
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
