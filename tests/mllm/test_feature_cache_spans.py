"""A video that changed under its old name is found out; a moved or missing one does no harm."""

import shutil

import pytest
import torch

from qa_data.manifest import Clip
from sefar_core.data.video import VideoReadError
from sefar_mllm import feature_cache, features
from sefar_mllm.encoders import Encoder
from sefar_mllm.feature_cache import CacheError, TokenCache, size_of, spans_of, write_tokens
from sefar_mllm.features import extract

CLIPS = [
    Clip(id="a", path="one.mp4", split="labeled", start_s=0.5, end_s=1.5),
    Clip(id="b", path="one.mp4", split="labeled", start_s=2.0, end_s=3.0),
    Clip(id="c", path="pictures", split="labeled"),
]


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """A file of 300 bytes and a folder of three pictures, 60 bytes in all."""
    root = tmp_path / "videos"
    (root / "pictures").mkdir(parents=True)
    (root / "one.mp4").write_bytes(b"x" * 300)
    for number in (1, 2, 3):
        (root / f"pictures/{number}.jpg").write_bytes(b"x" * 10 * number)
    (root / "pictures/.hidden.jpg").write_bytes(b"x")
    (root / "pictures/notes.txt").write_bytes(b"x")

    def read(path, fractions, *, start_s=None, end_s=None, short_side=None):
        if not path.exists():
            raise VideoReadError(f"{path} is missing")
        return torch.zeros(len(fractions), 4, 4, 3, dtype=torch.uint8)

    monkeypatch.setattr(features, "read_fractions", read)
    monkeypatch.setattr(features, "surroundings", dict)
    return root


def blind():
    return Encoder(
        name="sefar",
        digest="abc",
        moments=(0.5,),
        dim=4,
        origin={"folder": "", "seed": 0},
        encode=lambda frames: torch.zeros(*frames.shape[:2], 2, 2, 4),
    )


def test_a_span_says_the_cut_and_the_size_of_the_video(videos):
    assert spans_of(CLIPS, videos) == {
        "a": ["one.mp4", 0.5, 1.5, 1, 300],
        "b": ["one.mp4", 2.0, 3.0, 1, 300],
        "c": ["pictures", None, None, 3, 60],
    }


def test_a_video_of_many_clips_is_looked_at_once(videos, monkeypatch):
    looked = []
    monkeypatch.setattr(
        feature_cache, "size_of", lambda path: looked.append(path.name) or size_of(path)
    )
    spans_of(CLIPS, videos)
    assert sorted(looked) == ["one.mp4", "pictures"]


def test_the_cache_keeps_the_sizes(videos, tmp_path):
    extract(CLIPS, videos, blind(), tmp_path / "out")
    assert TokenCache(tmp_path / "out", ["a", "b", "c"]).spans == spans_of(CLIPS, videos)
    assert extract(CLIPS, videos, blind(), tmp_path / "out") == 0


def replace_video(root):
    (root / "one.mp4").write_bytes(b"y" * 1301)
    return (
        r"clip a from one.mp4 as it was with 1 file\(s\) of 300 bytes, but it has 1 .* 1,301 bytes"
    )


def add_picture(root):
    (root / "pictures/4.jpg").write_bytes(b"")
    return r"clip c from pictures as it was with 3 file\(s\) of 60 bytes, but it has 4 file"


def change_picture(root):
    (root / "pictures/2.jpg").write_bytes(b"x" * 21)
    return r"clip c from pictures as it was with 3 file\(s\) of 60 bytes, but it has 3 .* 61 bytes"


@pytest.mark.parametrize("change", [replace_video, add_picture, change_picture])
def test_a_video_that_was_replaced_is_refused(videos, tmp_path, change):
    out = tmp_path / "out"
    extract(CLIPS, videos, blind(), out)
    words = change(videos)
    with pytest.raises(CacheError, match=rf"{out} holds the tokens of {words}.*; put .* or delete"):
        extract(CLIPS, videos, blind(), out)


def test_a_video_that_is_replaced_while_it_is_read_is_refused_later(videos, tmp_path, monkeypatch):
    """The size is that from before, so that the tokens never pass for those of the old video."""
    read = features.read_fractions

    def replaced(path, fractions, **cut):
        (videos / "one.mp4").write_bytes(b"y" * 1301)
        return read(path, fractions, **cut)

    monkeypatch.setattr(features, "read_fractions", replaced)
    extract(CLIPS, videos, blind(), tmp_path / "out")
    with pytest.raises(CacheError, match="encoded again or replaced"):
        extract(CLIPS, videos, blind(), tmp_path / "out")


def test_copied_videos_are_the_same_videos(videos, tmp_path):
    extract(CLIPS, videos, blind(), tmp_path / "out")
    copied = shutil.copytree(videos, tmp_path / "elsewhere")
    shutil.rmtree(videos)
    assert extract(CLIPS, copied, blind(), tmp_path / "out") == 0


def test_who_reads_tokens_needs_no_video(videos, tmp_path):
    out = tmp_path / "out"
    extract(CLIPS, videos, blind(), out)
    shutil.rmtree(videos)
    cache = TokenCache(out, ["a", "b", "c"])
    assert cache.spans["a"] == ["one.mp4", 0.5, 1.5, 1, 300]
    write_tokens(tmp_path / "mapped", cache.key, {}, cache.spans, (cache[i] for i in cache.spans))
    assert extract(CLIPS, videos, blind(), out) == 0


def test_what_is_cached_of_a_missing_video_is_not_asked_for_again(videos, tmp_path):
    out = tmp_path / "out"
    extract(CLIPS[:1], videos, blind(), out)
    (videos / "one.mp4").unlink()
    with pytest.raises(VideoReadError, match="one.mp4 is missing"):
        extract(CLIPS, videos, blind(), out)
    cut = Clip(id="a", path="one.mp4", split="labeled", start_s=0.0, end_s=1.5)
    with pytest.raises(CacheError, match=r"clip a cut as \['one.mp4', 0.5, 1.5\], the manifest"):
        extract([cut], videos, blind(), out)
