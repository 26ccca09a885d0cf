"""Every damage to a cache that could pass unseen, done to a whole one, is refused in words."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sefar_mllm import feature_cache
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


def rewrite(path, change=lambda rows: rows, **head):
    """A shard of other rows or another header."""
    with safe_open(path, framework="pt") as shard:
        known, rows = shard.metadata(), shard.get_tensor("tokens").clone()
    save_file({"tokens": change(rows)}, path, known | head)


def edit_index(folder, **key):
    index = json.loads((folder / "index.json").read_text())
    index["key"] |= key
    (folder / "index.json").write_text(json.dumps(index))


def refused(folder, clip_ids, words):
    with pytest.raises(CacheError, match=words):
        TokenCache(folder, clip_ids)


def test_what_was_written_is_read(whole):
    cache = TokenCache(whole, list(spans(7)))
    for clip_id, row in zip(spans(7), tokens(7), strict=True):
        assert torch.equal(cache[clip_id], row.half())
    assert cache.key == KEY and cache.origin == ORIGIN and cache.spans == spans(7)
    assert (cache.token_shape, cache.token_dim) == ([3, 2, 2], 5)
    assert len(list(whole.glob("tokens-*"))) == 3
    assert not list(whole.glob(".*"))
    # Rows count from the first of a shard, which may not be wanted.
    part = TokenCache(whole, ["clip1", "clip2", "clip4"])
    assert torch.equal(part["clip2"], tokens(7)[2].half())
    assert torch.equal(part["clip4"], tokens(7)[4].half())
    # The clips of a shard are in one piece of memory: mapped, not copied.
    assert part["clip2"].data_ptr() - part["clip1"].data_ptr() == part["clip1"].nbytes


def test_a_cache_is_the_source_of_another_and_grows(whole, tmp_path):
    source = TokenCache(whole, list(spans(4)))
    key = KEY | {"encoder": "clip_probe", "digest": "def"}
    doubled = (source[i].float() * 2 for i in source.spans)
    write_tokens(tmp_path / "mapped", key, ORIGIN, source.spans, doubled)
    mapped = TokenCache(tmp_path / "mapped", list(spans(4)))
    assert all(torch.equal(mapped[i], source[i] * 2) for i in spans(4))
    assert mapped.spans == source.spans and mapped.key == key
    write_tokens(whole, KEY, ORIGIN, spans(9), [row + 1 for row in tokens(9)])
    grown = TokenCache(whole, list(spans(9)))
    assert torch.equal(grown["clip6"], tokens(7)[6].half())  # what is there stays as it is
    assert torch.equal(grown["clip7"], tokens(9)[7].half() + 1)


def test_more_or_fewer_tokens_than_clips_are_refused(tmp_path):
    for count in (6, 8):
        with pytest.raises(ValueError, match="argument 2 is"):
            write_tokens(tmp_path, KEY, ORIGIN, spans(7), tokens(count))
    with pytest.raises(CacheError, match=f"{tmp_path} got 3 rows of tokens for 2 clips"):
        write_shard(tmp_path, KEY, spans(2), torch.stack(tokens(3)))


def test_only_shards_with_wanted_clips_are_read(whole):
    path = shard_with(whole, "clip5")
    rewrite(path, lambda rows: rows * torch.inf)
    TokenCache(whole, ["clip0", "clip6"])
    refused(whole, ["clip0", "clip4"], path.name)


@pytest.mark.parametrize("keep", [0, 4, 60, 300, -100, -1])
def test_a_shard_that_is_cut_short_is_refused(whole, keep):
    path = shard_with(whole, "clip0")
    path.write_bytes(path.read_bytes()[:keep])
    refused(whole, ["clip6"], rf"{path} is damaged .*; {FIX}")


def test_a_longer_shard_is_refused_and_one_of_an_older_version_read(whole):
    path = shard_with(whole, "clip0")
    rewrite(path, sha256="0" * 64)
    assert torch.equal(TokenCache(whole, ["clip1"])["clip1"], tokens(7)[1].half())
    path.write_bytes(path.read_bytes() + b"\0\0")
    refused(whole, ["clip0"], rf"{path} is damaged .*; {FIX}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:2].clone(), "names 3 clips and holds 2 rows"),
        (lambda rows: rows.float(), r"holds torch.float32 of shape \(3, 3, 2, 2, 5\), not float16"),
        (lambda rows: rows[:, 0].clone(), r"of shape \(3, 2, 2, 5\), not float16 of shape \(clip"),
        (lambda rows: rows[..., :4].clone(), r"width \[2, 2, 4\], but the cache's key says \[2, 2"),
        (lambda rows: rows[:, :, :1].clone(), r"width \[1, 2, 5\], but the cache's key says"),
        (lambda rows: rows.where(rows != 2.5, torch.inf), "not finite 16-bit numbers"),
        (lambda rows: rows.where(rows != 2.5, torch.nan), "not finite 16-bit numbers"),
    ],
)
def test_rows_that_are_not_the_caches_are_refused(whole, change, words):
    path = shard_with(whole, "clip0")
    rewrite(path, change)
    refused(whole, ["clip0"], rf"{path}.*{words}.*{FIX}")


def test_shards_that_do_not_belong_together_are_refused(whole, tmp_path):
    other = tmp_path / "other"
    write_tokens(other, KEY | {"digest": "xyz"}, ORIGIN, spans(2, first=7), tokens(2, first=7))
    (stray,) = other.glob("tokens-*")
    os.replace(stray, whole / stray.name)
    refused(whole, ["clip0"], rf"{stray.name} does not belong to {whole}: .*; move it")
    (whole / stray.name).unlink()
    rewrite(shard_with(whole, "clip3"), lambda rows: rows[:, :2].clone())
    words = r"unlike shapes, \(3, 2, 2, 5\) in .*; delete .* extract"
    refused(whole, list(spans(7)), words)


def test_a_clip_in_two_shards_is_read_once_unless_they_cut_it_differently(whole):
    write_shard(whole, KEY, spans(2, first=2), torch.stack(tokens(2, first=2)))
    assert torch.equal(TokenCache(whole, ["clip2"])["clip2"], tokens(3)[2].half())
    write_shard(whole, KEY, {"clip2": ["2.mp4", 0.0, 9.0]}, torch.stack(tokens(1)))
    refused(whole, ["clip0"], "hold clip clip2 cut as .* delete .* extract")


def test_missing_clips_are_counted_and_named(whole):
    refused(whole, ["clip0", "clip8", "clip9"], f"{whole} lacks 2 of 3 clips, .*clip8")
    shard_with(whole, "clip4").unlink()
    TokenCache(whole, ["clip0", "clip6"])
    refused(whole, ["clip0", "clip4", "clip5"], r"lacks 2 of 3 clips, .*clip4.*run scripts")


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", '{"key": 3, "origin": {}}', '{"key": {}}'])
def test_a_damaged_index_is_refused(whole, text):
    (whole / "index.json").write_text(text)
    refused(whole, ["clip0"], "index.json is damaged, or not of .* into another folder")


def test_another_index_or_none_is_refused(whole, tmp_path):
    edit_index(whole, digest="xyz")
    refused(whole, ["clip0"], "does not belong to")
    (tmp_path / "empty").mkdir()
    words = f"{tmp_path}/empty is not a token cache: it has no index.json; make"
    refused(tmp_path / "empty", ["clip0"], words)


@pytest.mark.parametrize("other", [1, 2, 4])
def test_a_cache_of_another_format_is_refused(whole, other):
    assert feature_cache.FORMAT == KEY["format"]
    edit_index(whole, format=other)
    words = (
        f"{whole} is a token cache of format {other}, and format 3 is read; delete {whole} and "
        f"extract the tokens again with scripts/extract_features.py"
    )
    refused(whole, ["clip0"], words)
    with pytest.raises(CacheError, match=words):
        write_tokens(whole, KEY, ORIGIN, spans(8), tokens(8))


OTHER = {"format": 2, "encoder": "clip", "digest": "x", "moments": [0.5], "dim": 6, "grid": 1,
         "labels": 5}  # fmt: skip


def test_keys_that_differ_anywhere_are_refused():
    who = {"where": "here", "who": "who"}
    check_keys(KEY, dict(KEY), **who)
    shuffled = KEY | {"frame_order": "shuffled"}
    check_keys(shuffled, KEY, **who, any_frame_order=True)
    with pytest.raises(CacheError, match="frame_order = shuffled, but who needs frame_order = in_"):
        check_keys(shuffled, KEY, **who)
    for name, value in OTHER.items():
        fix = {"format": "extract the tokens again, and train again"}
        words = f"here has tokens with {name} = .*, but who needs {name} = .*; "
        words += fix.get(name, "give the cache of that encoder, or extract into another folder")
        for any_order in (False, True):
            with pytest.raises(CacheError, match=words):
                check_keys(KEY | {name: value}, KEY, **who, any_frame_order=any_order)
