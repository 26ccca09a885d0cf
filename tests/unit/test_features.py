import json
from pathlib import Path

import pytest
import torch

from qa_data.manifest import Clip
from sefar_core.data.video import VideoReadError
from sefar_mllm import features
from sefar_mllm.encoders import Encoder
from sefar_mllm.features import extract
from sefar_mllm.token_cache import CacheError, TokenCache, check_keys

MOMENTS = (0.25, 0.75)


def encoder(digest="abc"):
    """Two frames, one patch, four numbers: the mean of each frame, and its place in time."""

    def encode(frames):
        mean = frames.float().mean(dim=(2, 3, 4))[..., None, None, None]
        return mean.expand(*mean.shape[:2], 2, 2, 4).contiguous()

    return Encoder(
        name="sefar",
        digest=digest,
        moments=MOMENTS,
        dim=4,
        origin={"folder": "somewhere", "seed": 0},
        encode=encode,
    )


def clips(count):
    return [Clip(id=f"clip{i}", path=f"{i}.mp4", split="labeled") for i in range(count)]


@pytest.fixture(autouse=True)
def videos(monkeypatch):
    """Videos of one shade, the file's number; clip 5 of any set is broken, clip 3 is larger."""
    opened = []

    def read(path, fractions, *, start_s=None, end_s=None):
        number = int(path.stem)
        opened.append(number)
        if number == 5:
            raise VideoReadError(f"cannot decode {path}")
        side = 6 if number == 3 else 4
        return torch.full((len(fractions), side, side, 3), number, dtype=torch.uint8)

    monkeypatch.setattr(features, "read_fractions", read)
    return opened


def test_every_clip_gets_its_own_tokens(tmp_path):
    assert extract(clips(5), Path("root"), encoder(), tmp_path, shard_clips=2) == 5
    cache = TokenCache(tmp_path, [clip.id for clip in clips(5)])
    assert [cache[f"clip{i}"].unique().tolist() for i in range(5)] == [[i] for i in range(5)]
    assert cache.token_shape == [2, 2, 2]
    assert cache.token_dim == 4
    assert cache["clip0"].dtype == torch.float16


def test_a_second_run_opens_no_video_that_it_has(tmp_path, videos):
    extract(clips(2), Path("root"), encoder(), tmp_path)
    videos.clear()
    assert extract(clips(4), Path("root"), encoder(), tmp_path) == 2
    assert sorted(videos) == [2, 3]
    assert len(TokenCache(tmp_path, [clip.id for clip in clips(4)]).key) > 3


def test_a_broken_video_stops_the_run_and_keeps_what_is_done(tmp_path):
    with pytest.raises(VideoReadError, match="5.mp4"):
        extract(clips(7), Path("root"), encoder(), tmp_path)
    kept = json.loads((tmp_path / "index.json").read_text())["clips"]
    assert set(kept) <= {f"clip{i}" for i in range(5)}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_tokens_of_another_encoder_are_refused_by_name(tmp_path):
    extract(clips(2), Path("root"), encoder(), tmp_path)
    with pytest.raises(CacheError, match="digest = abc, but encoder sefar needs digest = xyz"):
        extract(clips(2), Path("root"), encoder(digest="xyz"), tmp_path)
    with pytest.raises(CacheError, match="grid = 2"):
        extract(clips(2), Path("root"), encoder(), tmp_path, grid=1)


def test_a_clip_that_was_cut_anew_is_refused(tmp_path):
    extract(clips(2), Path("root"), encoder(), tmp_path)
    other = Clip(id="clip1", path="1.mp4", start_s=0.5, end_s=1.0, split="labeled")
    with pytest.raises(CacheError, match="clip1 cut as"):
        extract([other], Path("root"), encoder(), tmp_path)


def test_missing_clips_are_counted_and_named(tmp_path):
    extract(clips(2), Path("root"), encoder(), tmp_path)
    with pytest.raises(CacheError, match="lacks 2 of 3 clips, for example .*clip7"):
        TokenCache(tmp_path, ["clip0", "clip7", "clip8"])


def test_a_damaged_shard_is_refused(tmp_path):
    extract(clips(2), Path("root"), encoder(), tmp_path)
    shard = tmp_path / "tokens-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(CacheError, match="tokens-00000.safetensors is damaged"):
        TokenCache(tmp_path, ["clip0"])


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{"])
def test_a_damaged_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CacheError, match="index.json is damaged"):
        TokenCache(tmp_path, ["clip0"])


def test_a_folder_without_a_cache_is_refused(tmp_path):
    with pytest.raises(CacheError, match="is no token cache"):
        TokenCache(tmp_path, ["clip0"])


def test_tokens_that_overflow_16_bits_are_refused(tmp_path):
    huge = encoder()
    huge = Encoder(**{**vars(huge), "encode": lambda f: torch.full((len(f), 2, 2, 2, 4), 1e6)})
    extract(clips(1), Path("root"), huge, tmp_path)
    with pytest.raises(CacheError, match="no finite 16-bit numbers"):
        TokenCache(tmp_path, ["clip0"])


def test_equal_keys_pass():
    check_keys({"a": 1, "b": 2}, {"a": 1}, where="here", who="who")
