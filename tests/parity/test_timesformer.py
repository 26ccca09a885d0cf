"""The backbone against the TimeSformer of transformers, at toy size with random weights."""

import pytest
import torch

from sefar_core.timesformer import TimeSformer
from tests.oracles.timesformer import assert_same_tokens, random_timesformer, renamed

FRAMES = 4


@pytest.fixture(scope="module")
def reference():
    return random_timesformer(FRAMES, dim=24, depth=3, heads=4)


@pytest.fixture
def ours(reference) -> TimeSformer:
    model = TimeSformer((FRAMES,), image_size=32, patch_size=16, dim=24, depth=3, num_heads=4)
    model.load_state_dict(renamed(reference, time_embed="time_embed.0"))
    return model.eval()


def test_every_token_equals_the_reference(ours, reference):
    assert_same_tokens(ours, reference, FRAMES)


def test_the_order_of_frames_matters_through_the_time_embedding(ours):
    clip = torch.randn(1, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        forward, backward = ours(clip, 0)[0], ours(clip.flip(2), 0)[0]
        ours.time_embed[0].zero_()
        blind, blind_too = ours(clip, 0)[0], ours(clip.flip(2), 0)[0]
    assert (forward - backward).abs().max() > 1e-4
    torch.testing.assert_close(blind, blind_too)
