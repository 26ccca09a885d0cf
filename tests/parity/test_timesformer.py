"""The backbone against the TimeSformer of transformers, at toy size with random weights."""

import pytest
import torch
from transformers import TimesformerConfig, TimesformerModel

from sefar_core.timesformer import TimeSformer
from tests.oracles.timesformer import assert_same_tokens, renamed

FRAMES = 4


@pytest.fixture(scope="module")
def reference() -> TimesformerModel:
    torch.manual_seed(0)
    config = TimesformerConfig(
        image_size=32,
        patch_size=16,
        num_frames=FRAMES,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        attention_type="divided_space_time",
        layer_norm_eps=1e-6,
        drop_path_rate=0,
    )
    model = TimesformerModel(config).eval()
    with torch.no_grad():  # nothing may hide behind a zero start
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def ours_with_the_same_weights(reference: TimesformerModel) -> TimeSformer:
    model = TimeSformer((FRAMES,), image_size=32, patch_size=16, dim=24, depth=3, num_heads=4)
    model.load_state_dict(renamed(reference, time_embed="time_embed.0"))
    return model.eval()


def test_every_token_equals_the_reference(reference):
    assert_same_tokens(ours_with_the_same_weights(reference), reference, FRAMES)


def test_the_order_of_frames_matters_through_the_time_embedding(reference):
    ours = ours_with_the_same_weights(reference)
    clip = torch.randn(1, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        forward, backward = ours(clip, 0)[0], ours(clip.flip(2), 0)[0]
        ours.time_embed[0].zero_()
        blind, blind_too = ours(clip, 0)[0], ours(clip.flip(2), 0)[0]
    assert (forward - backward).abs().max() > 1e-4
    torch.testing.assert_close(blind, blind_too)
