"""Every damage to a cache that could pass unseen, done to a whole one, must be refused in words."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sefar_mllm import feature_cache
from sefar_mllm import feature_cache as cache
from sefar_mllm.feature_cache import (
    CacheError,
    TokenCache,
    check_keys,
    read_places,
    write_shard,
    write_tokens,
)

KEY = {"format": 3, "encoder": "sefar", "digest": "abc", "moments": [0.25, 0.5, 0.75], "dim": 5,
       "grid": 2, "frame_order": "in_order"}  # fmt: skip
ORIGIN = {"folder": "somewhere", "seed": 3}
FIX = "delete this file and run scripts/extract_features.py again"


def spans(count, first=0):
    return {
        f"clip{i}": [f"{i}.mp4", i / 4, i / 4 + 1.1, 1, 100 + i]
        for i in range(first, first + count)
    }


def tokens(count, first=0):
    """Every number of every clip is distinct, and exact in 16 bits."""
    each = torch.arange(3 * 2 * 2 * 5).reshape(3, 2, 2, 5).float() / 64
    return [each + i * 2 for i in range(first, first + count)]


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """Seven clips in three shards."""
    monkeypatch.setattr(feature_cache, "SHARD_CLIPS", 3)
    write_tokens(tmp_path, KEY, ORIGIN, spans(7), tokens(7))
    return tmp_path


def shard_with(folder, clip_id):
    return read_places(folder, KEY)[clip_id].shard.path


def written(path):
    with safe_open(path, framework="pt") as shard:
        return shard.metadata(), shard.get_tensor("tokens").clone()


def test_what_was_written_is_read(whole):
    cache = TokenCache(whole, list(spans(7)))
    for clip_id, row in zip(spans(7), tokens(7), strict=True):
        assert torch.equal(cache[clip_id], row.half())
    assert cache.key == KEY and cache.origin == ORIGIN and cache.spans == spans(7)
    assert (cache.token_shape, cache.token_dim) == ([3, 2, 2], 5)
    assert len(list(whole.glob("tokens-*"))) == 3
    assert not list(whole.glob(".*"))


def test_a_part_of_the_clips_has_its_own_tokens(whole):
    """Rows are counted in the shard, whose first clips nobody wants."""
    cache = TokenCache(whole, ["clip2", "clip4"])
    assert torch.equal(cache["clip2"], tokens(7)[2].half())
    assert torch.equal(cache["clip4"], tokens(7)[4].half())


def test_a_cache_is_the_source_of_another(whole, tmp_path):
    source = TokenCache(whole, list(spans(4)))
    made = tmp_path / "mapped"
    key = KEY | {"encoder": "clip_probe", "digest": "def"}
    write_tokens(made, key, ORIGIN, source.spans, (source[i].float() * 2 for i in source.spans))
    mapped = TokenCache(made, list(spans(4)))
    assert all(torch.equal(mapped[i], source[i] * 2) for i in spans(4))
    assert mapped.spans == source.spans and mapped.key == key


def test_clips_that_are_there_stay_as_they_are(whole):
    write_tokens(whole, KEY, ORIGIN, spans(9), [row + 1 for row in tokens(9)])
    cache = TokenCache(whole, list(spans(9)))
    assert torch.equal(cache["clip6"], tokens(7)[6].half())
    assert torch.equal(cache["clip7"], tokens(9)[7].half() + 1)


@pytest.mark.parametrize("count", [6, 8])
def test_more_or_fewer_tokens_than_clips_are_refused(tmp_path, count):
    with pytest.raises(ValueError, match="argument 2 is"):
        write_tokens(tmp_path, KEY, ORIGIN, spans(7), tokens(count))


def test_a_shard_of_more_rows_than_clips_is_not_written(tmp_path):
    with pytest.raises(CacheError, match=f"{tmp_path} got 3 rows of tokens for 2 clips"):
        write_shard(tmp_path, KEY, spans(2), torch.stack(tokens(3)))


def test_only_shards_with_wanted_clips_are_read(whole):
    """A shard whose tokens are damaged serves nobody, and bothers nobody else."""
    path = shard_with(whole, "clip5")
    forge(path, rows=written(path)[1] * torch.inf)
    TokenCache(whole, ["clip0", "clip6"])
    with pytest.raises(CacheError, match=path.name):
        TokenCache(whole, ["clip0", "clip4"])


@pytest.mark.parametrize("keep", [0, 4, 60, 300, -100, -1])
def test_a_shard_that_is_cut_short_is_refused(whole, keep):
    path = shard_with(whole, "clip0")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CacheError, match=rf"{path} is damaged .*; {FIX}"):
        TokenCache(whole, ["clip6"])


def test_a_longer_shard_is_refused(whole):
    path = shard_with(whole, "clip0")
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(CacheError, match=rf"{path} is damaged .*; {FIX}"):
        TokenCache(whole, ["clip0"])


def forge(path, *, rows=None, **changes):
    """A shard of other content."""
    head, found = written(path)
    save_file({"tokens": found if rows is None else rows}, path, head | changes)


def test_a_shard_of_an_older_version_with_a_hash_is_read(whole):
    forge(shard_with(whole, "clip0"), sha256="0" * 64)
    assert torch.equal(TokenCache(whole, ["clip1"])["clip1"], tokens(7)[1].half())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: rows[:2].clone(), "names 3 clips and holds 2 rows"),
        (lambda rows: rows.float(), r"holds torch.float32 of shape \(3, 3, 2, 2, 5\), not float16"),
        (lambda rows: rows[:, 0].clone(), r"of shape \(3, 2, 2, 5\), not float16 of shape \(clip"),
        (
            lambda rows: rows[..., :4].clone(),
            r"width \[2, 2, 4\], but the cache's key says \[2, 2, 5",
        ),
        (lambda rows: rows[:, :, :1].clone(), r"width \[1, 2, 5\], but the cache's key says"),
        (lambda rows: rows.where(rows != 2.5, torch.inf), "not finite 16-bit numbers"),
        (lambda rows: rows.where(rows != 2.5, torch.nan), "not finite 16-bit numbers"),
    ],
)
def test_rows_that_are_not_what_they_must_be_are_refused(whole, change, message):
    path = shard_with(whole, "clip0")
    forge(path, rows=change(written(path)[1]))
    with pytest.raises(CacheError, match=rf"{path}.*{message}.*{FIX}"):
        TokenCache(whole, ["clip0"])


def test_shards_of_unlike_shapes_are_refused(whole):
    path = shard_with(whole, "clip3")
    forge(path, rows=written(path)[1][:, :2].clone())
    with pytest.raises(CacheError, match=r"unlike shapes, \(3, 2, 2, 5\) in .*; delete .* extract"):
        TokenCache(whole, list(spans(7)))


def test_a_shard_of_another_cache_is_refused(whole, tmp_path):
    other = tmp_path / "other"
    write_tokens(other, KEY | {"digest": "xyz"}, ORIGIN, spans(2, first=7), tokens(2, first=7))
    (stray,) = other.glob("tokens-*")
    os.replace(stray, whole / stray.name)
    with pytest.raises(CacheError, match=rf"{stray.name} does not belong to {whole}: .*; move it"):
        TokenCache(whole, ["clip0"])


def test_a_clip_in_two_shards_is_read_once_unless_they_cut_it_differently(whole):
    write_shard(whole, KEY, spans(2, first=2), torch.stack(tokens(2, first=2)))
    assert torch.equal(TokenCache(whole, ["clip2"])["clip2"], tokens(3)[2].half())
    write_shard(whole, KEY, {"clip2": ["2.mp4", 0.0, 9.0]}, torch.stack(tokens(1)))
    with pytest.raises(CacheError, match="hold clip clip2 cut as .* delete .* extract"):
        TokenCache(whole, ["clip0"])


def test_a_lost_shard_is_missed_by_whoever_wants_its_clips(whole):
    shard_with(whole, "clip4").unlink()
    TokenCache(whole, ["clip0", "clip6"])
    with pytest.raises(CacheError, match=r"lacks 2 of 3 clips, for example .*clip4.*run scripts"):
        TokenCache(whole, ["clip0", "clip4", "clip5"])


def test_missing_clips_are_counted_and_named(whole):
    with pytest.raises(CacheError, match=f"{whole} lacks 2 of 3 clips, for example .*clip8"):
        TokenCache(whole, ["clip0", "clip8", "clip9"])


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", '{"key": 3, "origin": {}}', '{"key": {}}'])
def test_a_damaged_index_is_refused(whole, text):
    (whole / "index.json").write_text(text)
    with pytest.raises(CacheError, match="index.json is damaged, or not of .* into another folder"):
        TokenCache(whole, ["clip0"])


def test_an_index_that_was_edited_no_longer_owns_its_shards(whole):
    index = json.loads((whole / "index.json").read_text())
    index["key"]["digest"] = "xyz"
    (whole / "index.json").write_text(json.dumps(index))
    with pytest.raises(CacheError, match="does not belong to"):
        TokenCache(whole, ["clip0"])


@pytest.mark.parametrize("other", [1, 2, 4])
def test_a_cache_of_another_format_is_refused(whole, other):
    index = json.loads((whole / "index.json").read_text())
    index["key"]["format"] = other
    (whole / "index.json").write_text(json.dumps(index))
    message = (
        f"{whole} is a token cache of format {other}, and format 3 is read; delete {whole} and "
        f"extract the tokens again with scripts/extract_features.py"
    )
    with pytest.raises(CacheError, match=message):
        TokenCache(whole, ["clip0"])
    with pytest.raises(CacheError, match=message):
        write_tokens(whole, KEY, ORIGIN, spans(8), tokens(8))


def test_a_folder_without_a_cache_is_refused(tmp_path):
    with pytest.raises(
        CacheError, match=f"{tmp_path} is not a token cache: it has no index.json; make"
    ):
        TokenCache(tmp_path, ["clip0"])


def test_reading_maps_the_files_and_copies_nothing(whole):
    """Two clips of one shard lie in one piece of memory."""
    cache = TokenCache(whole, ["clip0", "clip1"])
    step = cache["clip1"].data_ptr() - cache["clip0"].data_ptr()
    assert step == cache["clip0"].nbytes


OTHER = {"format": 2, "encoder": "clip", "digest": "x", "moments": [0.5], "dim": 6, "grid": 1}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("any_frame_order", [False, True])
def test_keys_that_differ_anywhere_are_refused(name, any_frame_order):
    message = f"here has tokens with {name} = .*, but who needs {name} = .*; "
    fix = {"format": "extract the tokens again, and train again"}
    message += fix.get(name, "give the cache of that encoder, or extract into another folder")
    with pytest.raises(CacheError, match=message):
        check_keys(KEY | {name: OTHER[name]}, KEY, where="here", who="who",
                   any_frame_order=any_frame_order)  # fmt: skip


def test_the_frame_order_may_differ_only_where_this_is_said():
    check_keys(KEY, dict(KEY), where="here", who="who")
    shuffled = KEY | {"frame_order": "shuffled"}
    check_keys(shuffled, KEY, where="here", who="who", any_frame_order=True)
    with pytest.raises(CacheError, match="frame_order = shuffled, but who needs frame_order = in_"):
        check_keys(shuffled, KEY, where="here", who="who")


def test_a_key_with_a_field_more_is_another_key():
    with pytest.raises(CacheError, match="labels = 5, but who needs labels = None"):
        check_keys(KEY | {"labels": 5}, KEY, where="here", who="who")


def test_the_format_is_the_one_of_the_keys():
    assert cache.FORMAT == KEY["format"]
