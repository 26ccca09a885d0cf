"""transformers' TimeSformer as the reference of ours: its names, its tokens."""

import torch
from torch import Tensor
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from sefar_core.timesformer import TimeSformer

RENAMED = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
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


def random_timesformer(frames: int, *, dim: int = 16, depth: int = 2, heads: int = 2, head=False):
    """transformers' TimeSformer with random weights, none behind a zero start.

    Its clips have 32 pixels and patches of 16; `head` adds class scores.
    """
    torch.manual_seed(0)
    config = TimesformerConfig(
        image_size=32,
        patch_size=16,
        num_frames=frames,
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        layer_norm_eps=1e-6,
        drop_path_rate=0,
    )
    model = (TimesformerForVideoClassification if head else TimesformerModel)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def renamed(model: TimesformerModel, *, time_embed: str) -> dict[str, Tensor]:
    """Its tensors under public names; `time_embed` is what the embedding of time is called."""
    state = {}
    for name, tensor in model.state_dict().items():
        for theirs, public in (RENAMED | {"embeddings.time_embeddings": time_embed}).items():
            name = name.replace(theirs, public)
        state[name] = tensor
    return state


def assert_same_tokens(ours: TimeSformer, reference: TimesformerModel, frames: int) -> None:
    clip = torch.randn(2, 3, frames, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = reference(clip.transpose(1, 2)).last_hidden_state
        cls, patches = ours(clip, 0)
    torch.testing.assert_close(cls, theirs[:, 0], atol=2e-5, rtol=1e-4)
    # The reference lays tokens out place by place, time running fastest.
    by_place = theirs[:, 1:].unflatten(1, (4, frames)).transpose(1, 2)
    torch.testing.assert_close(patches, by_place, atol=2e-5, rtol=1e-4)
