import json
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
from sefar_mllm import features
from sefar_mllm.encoders import Encoder
from sefar_mllm.feature_cache import CacheError, TokenCache, read_places
from sefar_mllm.features import ahead, batches_to_encode, encode, extract, token_key
from tests.oracles.holder import held

MOMENTS = (0.25, 0.75)
ROOT = "root"


def encoder(digest="abc", encode=None):
    """Two frames, 2 x 2 places, four numbers: the mean of each frame, whatever it stands beside."""

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


def clips(count):
    return [Clip(id=f"clip{i}", path=f"{i}.mp4", split="labeled") for i in range(count)]


def names(count):
    return [clip.id for clip in clips(count)]


@pytest.fixture(autouse=True)
def videos(monkeypatch, tmp_path):
    """Two shades for each video, its number and 100 more; 5 is broken, 3 is larger than others."""
    opened = []

    def read(path, fractions, *, start_s=None, end_s=None, short_side=None):
        number = int(path.stem)
        opened.append(number)
        if number == 5:
            raise VideoReadError(f"cannot decode {path}; cut it again")
        side = 6 if number == 3 else 4
        shades = torch.tensor([number, number + 100], dtype=torch.uint8)
        return shades[:, None, None, None].expand(2, side, side, 3).contiguous()

    monkeypatch.setattr(features, "read_fractions", read)
    monkeypatch.setattr(features, "BATCH_CLIPS", 2)
    monkeypatch.setattr(features, "SHARD_BATCHES", 2)
    monkeypatch.setattr(features, "surroundings", lambda: {"commit": "0123"})
    return opened


def shades(folder, count):
    """First number of each frame of each clip."""
    cache = TokenCache(folder, names(count))
    return [cache[name][:, 0, 0, 0].tolist() for name in names(count)]


def test_every_clip_gets_its_own_tokens(tmp_path):
    assert extract(clips(5), tmp_path / ROOT, encoder(), tmp_path) == 5
    assert shades(tmp_path, 5) == [[i, i + 100] for i in range(5)]
    cache = TokenCache(tmp_path, names(5))
    assert (cache.token_shape, cache.token_dim) == ([2, 2, 2], 4)
    assert cache["clip0"].dtype == torch.float16
    assert cache.key == token_key(encoder(), 2)
    assert cache.origin == {"folder": "somewhere", "seed": 0}
    assert len(list(tmp_path.glob("tokens-*"))) == 2


def test_a_key_says_all_that_the_tokens_depend_on():
    key = token_key(encoder(), 3, "reversed")
    assert key == {"format": 3, "encoder": "sefar", "digest": "abc", "moments": [0.25, 0.75],
                   "dim": 4, "grid": 3, "frame_order": "reversed"}  # fmt: skip
    assert token_key(encoder(), 3)["frame_order"] == "in_order"
    with pytest.raises(ValueError, match="no frame order 'backward'; choose one of in_order, rev"):
        token_key(encoder(), 3, "backward")


@pytest.mark.parametrize("order", FRAME_ORDERS)
def test_frames_are_shown_in_the_order_that_is_asked_for(tmp_path, order):
    extract(clips(3), tmp_path / ROOT, encoder(), tmp_path, frame_order=order)
    expected = {"in_order": [0, 100], "middle": [100, 100]}.get(order, [100, 0])
    assert shades(tmp_path, 3) == [[i + shade for shade in expected] for i in range(3)]


def test_an_order_does_not_mix_with_another(tmp_path):
    extract(clips(2), tmp_path / ROOT, encoder(), tmp_path)
    with pytest.raises(
        CacheError, match="frame_order = in_order, but encoder sefar needs .*middle"
    ):
        extract(clips(4), tmp_path / ROOT, encoder(), tmp_path, frame_order="middle")


def test_a_second_run_opens_no_video_that_it_has(tmp_path, videos):
    extract(clips(2), tmp_path / ROOT, encoder(), tmp_path)
    videos.clear()
    assert extract(clips(4), tmp_path / ROOT, encoder(), tmp_path) == 2
    assert sorted(videos) == [2, 3]
    assert shades(tmp_path, 4) == [[i, i + 100] for i in range(4)]
    assert extract(clips(4), tmp_path / ROOT, encoder(), tmp_path) == 0


def test_a_clip_that_is_listed_twice_is_encoded_once(tmp_path, videos):
    assert extract(clips(3) + clips(2), tmp_path / ROOT, encoder(), tmp_path) == 3
    assert sorted(videos) == [0, 1, 2]


def test_a_broken_video_stops_the_run_and_keeps_what_is_done(tmp_path):
    with pytest.raises(VideoReadError, match="5.mp4; cut it again"):
        extract(clips(8), tmp_path / ROOT, encoder(), tmp_path)
    assert list(read_places(tmp_path, token_key(encoder(), 2))) == names(4)
    assert not list(tmp_path.glob(".*"))


def test_tokens_are_never_made_of_elongated_pictures(tmp_path, monkeypatch):
    wide = torch.zeros(2, 4, 68, 3, dtype=torch.uint8)
    monkeypatch.setattr(features, "read_fractions", lambda *_, **__: wide)
    with pytest.raises(VideoReadError, match=r"0\.mp4 has pictures of 68 x 4 pixels"):
        extract(clips(1), tmp_path / ROOT, encoder(), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_done_and_the_run_resumes_later(tmp_path, number):
    asked = [clip for clip in clips(40) if clip.id not in ("clip3", "clip5")]

    def interrupted(frames):
        signal.raise_signal(number)
        return encoder().encode(frames)

    with pytest.raises(Interrupted, match="keeps what is encoded, and the same command resumes"):
        extract(asked, tmp_path / ROOT, encoder(encode=interrupted), tmp_path)
    kept = set(read_places(tmp_path, token_key(encoder(), 2)))
    assert kept == {"clip0", "clip1"}  # one batch, though a shard holds two
    assert extract(asked, tmp_path / ROOT, encoder(), tmp_path) == 36


def test_batches_do_not_change_when_a_run_goes_on():
    """What a clip is encoded beside may change its last bit."""
    whole = batches_to_encode(clips(9), [])
    assert [[clip.id for clip in batch] for batch in whole] == [
        ["clip0", "clip1"], ["clip2", "clip3"], ["clip4", "clip5"], ["clip6", "clip7"], ["clip8"],
    ]  # fmt: skip
    assert batches_to_encode(clips(9), names(4)) == whole[2:]
    assert batches_to_encode(clips(9), ["clip2"])[1] == clips(4)[3:]


def test_clips_are_decoded_ahead_and_come_in_order():
    """The first takes longest: the next ones are decoded before it is handed out."""
    release = threading.Event()

    def read(clip):
        if clip.id == "clip0":
            assert release.wait(60)
        if clip.id == "clip3":
            release.set()
        return torch.full((1, 2, 2, 3), int(clip.id[4:]), dtype=torch.uint8)

    out = [frames[0, 0, 0, 0].item() for frames in ahead(read, clips(60), 4)]
    assert out == list(range(60))


def test_decoding_stays_within_its_lead():
    begun = []

    def read(clip):
        begun.append(clip.id)
        return torch.zeros(1, 2, 2, 3, dtype=torch.uint8)

    frames = ahead(read, clips(200), 4)
    next(frames)
    time.sleep(0.05)
    assert len(begun) <= features.DECODED_AHEAD + 1
    frames.close()
    assert len(begun) <= features.DECODED_AHEAD + 1


def test_a_folder_that_is_written_to_is_refused(tmp_path):
    # The lock is the process's own, so the other run is another process.
    busy = f"{tmp_path} is in use by process"
    with held(tmp_path) as pid, pytest.raises(SefarError, match=f"{busy} {pid}"):
        extract(clips(2), tmp_path / ROOT, encoder(), tmp_path)
    assert extract(clips(2), tmp_path / ROOT, encoder(), tmp_path) == 2


def test_what_ran_stands_beside_the_tokens_and_not_in_the_key(tmp_path, monkeypatch):
    extract(clips(2), tmp_path / ROOT, encoder(), tmp_path)
    monkeypatch.setattr(features, "surroundings", lambda: {"commit": "4567"})
    extract(clips(4), tmp_path / ROOT, encoder(), tmp_path)
    extract(clips(4), tmp_path / ROOT, encoder(), tmp_path)  # nothing to do, nothing to tell
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert lines == [
        {"commit": "0123", "clips_asked_for": 2, "clips_there": 0},
        {"commit": "4567", "clips_asked_for": 4, "clips_there": 2},
    ]


def test_tokens_of_another_encoder_are_refused_by_name(tmp_path):
    extract(clips(2), tmp_path / ROOT, encoder(), tmp_path)
    with pytest.raises(CacheError, match="digest = abc, but encoder sefar needs digest = xyz"):
        extract(clips(2), tmp_path / ROOT, encoder(digest="xyz"), tmp_path)
    with pytest.raises(CacheError, match=f"{tmp_path} has tokens with grid = 2"):
        extract(clips(2), tmp_path / ROOT, encoder(), tmp_path, grid=1)


def test_a_clip_that_was_cut_anew_is_refused(tmp_path):
    extract(clips(2), tmp_path / ROOT, encoder(), tmp_path)
    other = Clip(id="clip1", path="1.mp4", start_s=0.5, end_s=1.0, split="labeled")
    with pytest.raises(CacheError, match="clip1 cut as .* delete .* and extract the tokens again"):
        extract([other], tmp_path / ROOT, encoder(), tmp_path)


@pytest.mark.parametrize("value", [1e6, float("nan"), float("-inf")])
def test_tokens_that_16_bits_cannot_hold_stop_the_run_and_name_the_clip(tmp_path, value):
    def overflow(frames):
        tokens = encoder().encode(frames)
        tokens[frames[:, 0, 0, 0, 0] == 4] = value
        return tokens

    asked = [clip for clip in clips(7) if clip.id != "clip5"]
    with pytest.raises(CacheError, match="clip clip4 are not finite 16-bit numbers; .*its weights"):
        extract(asked, tmp_path / ROOT, encoder(encode=overflow), tmp_path)
    assert list(read_places(tmp_path, token_key(encoder(), 2))) == names(4)


def test_encoders_see_the_batches_that_the_list_is_cut_into(tmp_path):
    seen = []

    def watch(frames):
        seen.append(frames[:, 0, 0, 0, 0].tolist())
        return encoder().encode(frames)

    extract(clips(5), tmp_path / ROOT, encoder(encode=watch), tmp_path)
    assert seen == [[0, 1], [2], [3], [4]]  # clip 3 has larger frames than clip 2


def test_clips_of_unlike_sizes_get_their_own_tokens_back():
    sides = [4, 6, 4, 8, 6, 4]
    frames = [
        torch.full((2, side, side, 3), 10 * place, dtype=torch.uint8)
        for place, side in enumerate(sides)
    ]
    tokens = encode(encoder(), frames, 1)
    assert tokens[:, 0, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
