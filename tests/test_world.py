"""The world that the tests of a session share."""

import pytest

from qa_data.manifest import by_split, read_manifest
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.feature_cache import TokenCache
from tests.world import World


def test_the_clips_are_there_and_cut_by_source(world):
    clips = read_manifest(world.gym / "manifest.csv")
    splits = {name: by_split(clips, name) for name in ("labeled", "unlabeled", "val", "test")}
    assert {name: len(part) for name, part in splits.items()} == {
        "labeled": 8, "unlabeled": 16, "val": 7, "test": 17,
    }  # fmt: skip
    assert all((world.gym / "videos" / clip.path).exists() for clip in clips)
    val, test = ({clip.source for clip in splits[name]} for name in ("val", "test"))
    assert not val & test


@pytest.mark.slow
def test_every_part_is_made_once_and_fits_the_others(world):
    clips = read_manifest(world.gym / "manifest.csv")
    cache = TokenCache(world.tokens, [clip.id for clip in clips if clip.split != "unlabeled"])
    model, _ = load_trained(world.finetuned / "model")
    assert model.config.token_shape == cache.token_shape
    before = world.finetuned.stat().st_mtime_ns
    assert World(world.root).finetuned.stat().st_mtime_ns == before
