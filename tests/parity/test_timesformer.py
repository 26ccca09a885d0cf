"""The backbone against the TimeSformer of transformers, at toy size with random weights."""

import pytest
import torch
from transformers import TimesformerConfig, TimesformerModel

from sefar_core.timesformer import TimeSformer

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


RENAMED = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.time_embeddings": "time_embed.0",
    "encoder.layer": "blocks",
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm": "norm",
}


def ours_with_the_same_weights(reference: TimesformerModel) -> TimeSformer:
    model = TimeSformer((FRAMES,), image_size=32, patch_size=16, dim=24, depth=3, num_heads=4)
    state = {}
    for name, tensor in reference.state_dict().items():
        for theirs, mine in RENAMED.items():
            name = name.replace(theirs, mine)
        state[name] = tensor
    model.load_state_dict(state)
    return model.eval()


def test_every_token_equals_the_reference(reference):
    ours = ours_with_the_same_weights(reference)
    clip = torch.randn(2, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = reference(clip.transpose(1, 2)).last_hidden_state
        cls, patches = ours(clip, 0)
    torch.testing.assert_close(cls, theirs[:, 0], atol=2e-5, rtol=1e-4)
    # The reference lays tokens out place by place, time running fastest.
    by_place = theirs[:, 1:].unflatten(1, (4, FRAMES)).transpose(1, 2)
    torch.testing.assert_close(patches, by_place, atol=2e-5, rtol=1e-4)


def test_the_order_of_frames_matters_through_the_time_embedding(reference):
    ours = ours_with_the_same_weights(reference)
    clip = torch.randn(1, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        forward, backward = ours(clip, 0)[0], ours(clip.flip(2), 0)[0]
        ours.time_embed[0].zero_()
        blind, blind_too = ours(clip, 0)[0], ours(clip.flip(2), 0)[0]
    assert (forward - backward).abs().max() > 1e-4
    torch.testing.assert_close(blind, blind_too)
