"""Clips -> tokens in a cache, resumed and checked against the videos that they were made of."""

import json
import shutil
import signal
import threading
import time

import pytest
import torch

from qa_data.files import SefarError
from qa_data.manifest import Clip
from sefar_core.data.video import VideoReadError
from sefar_core.evaluate import FRAME_ORDERS
from sefar_core.signals import Interrupted
from sefar_mllm import feature_cache, features
from sefar_mllm.encoders import Encoder
from sefar_mllm.feature_cache import (
    CacheError,
    TokenCache,
    read_places,
    size_of,
    spans_of,
    write_tokens,
)
from sefar_mllm.features import ahead, batches_to_encode, encode, extract, token_key
from tests.oracles.holder import held

MOMENTS = (0.25, 0.75)


def encoder(digest="abc", encode=None):
    """Two frames, 2 x 2 places, four numbers: the mean of each frame, whatever is beside it."""

    def means(frames):
        mean = frames.float().mean(dim=(2, 3, 4))[..., None, None, None]
        return mean.expand(*mean.shape[:2], 2, 2, 4).contiguous()

    return Encoder(
        name="sefar",
        digest=digest,
        moments=MOMENTS,
        dim=4,
        origin={"folder": "somewhere", "seed": 0},
        encode=encode or means,
    )


def clips(*numbers):
    return [Clip(id=f"clip{i}", path=f"{i}.mp4", split="labeled") for i in numbers]


def names(*numbers):
    return [clip.id for clip in clips(*numbers)]


@pytest.fixture(autouse=True)
def videos(monkeypatch):
    """Two grays for each video, its number and 100 more; 5 is broken, 3 is larger than others."""
    opened = []

    def read(path, fractions, *, start_s=None, end_s=None, short_side=None):
        number = int(path.stem)
        opened.append(number)
        if number == 5:
            raise VideoReadError(f"cannot decode {path}; cut it again")
        side = 6 if number == 3 else 4
        grays = torch.tensor([number, number + 100], dtype=torch.uint8)
        return grays[:, None, None, None].expand(2, side, side, 3).contiguous()

    monkeypatch.setattr(features, "read_fractions", read)
    monkeypatch.setattr(features, "BATCH_CLIPS", 2)
    monkeypatch.setattr(features, "SHARD_BATCHES", 2)
    monkeypatch.setattr(features, "surroundings", lambda: {"commit": "0123"})
    return opened


@pytest.fixture
def run(tmp_path):
    """Extracts the tokens of some clips into the folder `tokens`."""

    def extract_clips(wanted, by=None, **how):
        return extract(wanted, tmp_path / "videos", by or encoder(), tmp_path / "tokens", **how)

    return extract_clips


def grays(folder, count):
    """First number of each frame of each clip."""
    cache = TokenCache(folder / "tokens", names(*range(count)))
    return [cache[name][:, 0, 0, 0].tolist() for name in names(*range(count))]


def kept(folder):
    return list(read_places(folder / "tokens", token_key(encoder(), 2)))


def test_every_clip_gets_its_own_tokens(tmp_path, run, videos):
    assert run(clips(*range(5), 1, 0)) == 5  # two are listed twice
    assert sorted(videos) == list(range(5))
    assert grays(tmp_path, 5) == [[i, i + 100] for i in range(5)]
    cache = TokenCache(tmp_path / "tokens", names(*range(5)))
    assert (cache.token_shape, cache.token_dim) == ([2, 2, 2], 4)
    assert cache["clip0"].dtype == torch.float16
    assert cache.key == token_key(encoder(), 2)
    assert cache.origin == {"folder": "somewhere", "seed": 0}
    assert len(list((tmp_path / "tokens").glob("tokens-*"))) == 2


def test_a_key_has_all_that_the_tokens_depend_on():
    key = token_key(encoder(), 3, "reversed")
    assert key == {"format": 3, "encoder": "sefar", "digest": "abc", "moments": [0.25, 0.75],
                   "dim": 4, "grid": 3, "frame_order": "reversed"}  # fmt: skip
    assert token_key(encoder(), 3)["frame_order"] == "in_order"
    with pytest.raises(ValueError, match="no frame order 'backward'; choose one of in_order, rev"):
        token_key(encoder(), 3, "backward")


@pytest.mark.parametrize("order", FRAME_ORDERS)
def test_frames_are_shown_in_the_requested_order(tmp_path, run, order):
    run(clips(0, 1, 2), frame_order=order)
    expected = {"in_order": [0, 100], "middle": [100, 100]}.get(order, [100, 0])
    assert grays(tmp_path, 3) == [[i + gray for gray in expected] for i in range(3)]


def test_a_second_run_opens_only_new_videos_and_both_are_recorded(
    tmp_path, run, videos, monkeypatch
):
    run(clips(0, 1))
    videos.clear()
    monkeypatch.setattr(features, "surroundings", lambda: {"commit": "4567"})
    assert run(clips(0, 1, 2, 3)) == 2
    assert sorted(videos) == [2, 3]
    assert grays(tmp_path, 4) == [[i, i + 100] for i in range(4)]
    assert run(clips(0, 1, 2, 3)) == 0  # nothing to record
    lines = (tmp_path / "tokens/runs.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"commit": "0123", "clips_asked_for": 2, "clips_there": 0},
        {"commit": "4567", "clips_asked_for": 4, "clips_there": 2},
    ]


def test_a_broken_video_stops_the_run_and_keeps_what_is_encoded(tmp_path, run):
    with pytest.raises(VideoReadError, match="5.mp4; cut it again"):
        run(clips(*range(8)))
    assert kept(tmp_path) == names(0, 1, 2, 3)
    assert not list((tmp_path / "tokens").glob(".*"))


def test_elongated_pictures_are_refused(run, monkeypatch):
    wide = torch.zeros(2, 4, 68, 3, dtype=torch.uint8)
    monkeypatch.setattr(features, "read_fractions", lambda *_, **__: wide)
    with pytest.raises(VideoReadError, match=r"0\.mp4 has pictures of 68 x 4 pixels"):
        run(clips(0))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_encoded_and_the_run_resumes(tmp_path, run, number):
    wanted = clips(*(i for i in range(40) if i not in (3, 5)))

    def interrupted(frames):
        signal.raise_signal(number)
        return encoder().encode(frames)

    with pytest.raises(Interrupted, match="keeps what is encoded, and the same command resumes"):
        run(wanted, encoder(encode=interrupted))
    assert kept(tmp_path) == names(0, 1)  # one batch, though a shard holds two
    assert run(wanted) == 36


def test_batches_do_not_change_when_a_run_resumes(run):
    """What a clip is encoded beside may change its last bit."""
    whole = batches_to_encode(clips(*range(9)), [])
    assert whole == [clips(0, 1), clips(2, 3), clips(4, 5), clips(6, 7), clips(8)]
    assert batches_to_encode(clips(*range(9)), names(0, 1, 2, 3)) == whole[2:]
    assert batches_to_encode(clips(*range(9)), ["clip2"])[1] == clips(3)
    seen = []

    def watch(frames):
        seen.append(frames[:, 0, 0, 0, 0].tolist())
        return encoder().encode(frames)

    run(clips(*range(5)), encoder(encode=watch))
    assert seen == [[0, 1], [2], [3], [4]]  # clip 3 has larger frames than clip 2


def test_clips_are_decoded_ahead_and_returned_in_order():
    """The first takes longest: the next ones are decoded before it is returned."""
    release, begun = threading.Event(), []

    def read(clip):
        begun.append(clip.id)
        if clip.id == "clip0":
            assert release.wait(60)
        if clip.id == "clip3":
            release.set()
        return torch.full((1, 2, 2, 3), int(clip.id[4:]), dtype=torch.uint8)

    frames = ahead(read, clips(*range(60)), 4)
    assert next(frames)[0, 0, 0, 0] == 0
    time.sleep(0.05)
    assert len(begun) <= features.DECODED_AHEAD + 1
    assert [one[0, 0, 0, 0].item() for one in frames] == list(range(1, 60))


@pytest.mark.slow
def test_a_folder_in_use_is_refused(tmp_path, run):
    # The lock is the process's own, so the other run is another process.
    busy = f"{tmp_path}/tokens is in use by process"
    (tmp_path / "tokens").mkdir()
    with held(tmp_path / "tokens") as pid, pytest.raises(SefarError, match=f"{busy} {pid}"):
        run(clips(0, 1))
    assert run(clips(0, 1)) == 2


def test_tokens_of_another_kind_are_refused_by_name(run):
    run(clips(0, 1))
    with pytest.raises(CacheError, match="digest = abc, but encoder sefar needs digest = xyz"):
        run(clips(0, 1), encoder(digest="xyz"))
    with pytest.raises(CacheError, match="/tokens has tokens with grid = 2"):
        run(clips(0, 1), grid=1)
    with pytest.raises(CacheError, match="frame_order = in_order, but encoder sefar .*middle"):
        run(clips(0, 1, 2, 3), frame_order="middle")


@pytest.mark.parametrize("value", [1e6, float("nan"), float("-inf")])
def test_tokens_that_16_bits_cannot_hold_stop_the_run_and_name_the_clip(tmp_path, run, value):
    def overflow(frames):
        tokens = encoder().encode(frames)
        tokens[frames[:, 0, 0, 0, 0] == 4] = value
        return tokens

    with pytest.raises(CacheError, match="clip clip4 are not finite 16-bit numbers; .*its weights"):
        run(clips(0, 1, 2, 3, 4, 6), encoder(encode=overflow))
    assert kept(tmp_path) == names(0, 1, 2, 3)


def test_clips_of_unlike_sizes_get_their_own_tokens_back():
    frames = [
        torch.full((2, side, side, 3), 10 * place, dtype=torch.uint8)
        for place, side in enumerate([4, 6, 4, 8, 6, 4])
    ]
    tokens = encode(encoder(), frames, 1)
    assert tokens[:, 0, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]


CUT = [
    Clip(id="a", path="1.mp4", split="labeled", start_s=0.5, end_s=1.5),
    Clip(id="b", path="1.mp4", split="labeled", start_s=2.0, end_s=3.0),
    Clip(id="c", path="2", split="labeled"),
]


@pytest.fixture
def files(tmp_path):
    """A file of 300 bytes and a folder of three pictures, 60 bytes in all."""
    root = tmp_path / "videos"
    (root / "2").mkdir(parents=True)
    (root / "1.mp4").write_bytes(b"x" * 300)
    for number in (1, 2, 3):
        (root / f"2/{number}.jpg").write_bytes(b"x" * 10 * number)
    (root / "2/.hidden.jpg").write_bytes(b"x")
    (root / "2/notes.txt").write_bytes(b"x")
    return root


def test_a_span_has_the_cut_and_the_size_of_the_video(files, monkeypatch):
    measured = []
    monkeypatch.setattr(
        feature_cache, "size_of", lambda path: measured.append(path.name) or size_of(path)
    )
    assert spans_of(CUT, files) == {
        "a": ["1.mp4", 0.5, 1.5, 1, 300],
        "b": ["1.mp4", 2.0, 3.0, 1, 300],
        "c": ["2", None, None, 3, 60],
    }
    assert sorted(measured) == ["1.mp4", "2"]  # each video once


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("1.mp4", 1301, r"a from 1.mp4 as it was with 1 file\(s\) of 300 bytes, .* 1,301 bytes"),
        ("2/4.jpg", 0, r"c from 2 as it was with 3 file\(s\) of 60 bytes, but it has 4 file"),
        ("2/2.jpg", 21, r"c from 2 as it was with 3 file\(s\) of 60 bytes, .* has 3 .* 61 bytes"),
    ],
)
def test_a_video_that_was_replaced_is_refused(files, run, name, size, words):
    run(CUT)
    (files / name).write_bytes(b"y" * size)
    with pytest.raises(CacheError, match=rf"holds the tokens of clip {words}.*; put .* or delete"):
        run(CUT)


def test_a_video_that_is_replaced_while_it_is_read_is_refused_later(files, run, monkeypatch):
    """The size is that from before, so that the tokens never pass for those of the old video."""
    read = features.read_fractions

    def replaced(path, fractions, **cut):
        (files / "1.mp4").write_bytes(b"y" * 1301)
        return read(path, fractions, **cut)

    monkeypatch.setattr(features, "read_fractions", replaced)
    run(CUT)
    with pytest.raises(CacheError, match="encoded again or replaced"):
        run(CUT)


def test_cached_tokens_need_no_video_and_survive_a_move(files, run, tmp_path):
    run(CUT)
    cache = TokenCache(tmp_path / "tokens", ["a", "b", "c"])
    assert cache.spans == spans_of(CUT, files)
    files.rename(tmp_path / "elsewhere")
    assert run(CUT) == 0
    shutil.copytree(tmp_path / "elsewhere", files)
    assert run(CUT) == 0
    write_tokens(tmp_path / "mapped", cache.key, {}, cache.spans, (cache[i] for i in cache.spans))
    moved = Clip(id="a", path="1.mp4", split="labeled", start_s=0.0, end_s=1.5)
    with pytest.raises(CacheError, match=r"clip a cut as \['1.mp4', 0.5, 1.5\], the manifest"):
        run([moved])
