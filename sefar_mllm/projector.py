"""From encoder tokens to the language model's embeddings.

Source: LLaVA-1.5's two-layer GELU projector, with two additions for all encoders alike: a LayerNorm
removes each encoder's own scale, and a learned vector for each frame gives the order of time, which
tokens of image encoders do not have. docs/paper_map.md, row "projector".
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core.shapes import FrameTokens

GELU_RMS = 0.65  # root mean square of gelu(x) for x ~ N(0, 1)


class Projector(nn.Module):
    """LayerNorm, frame position, Linear, GELU, Linear; always in 32-bit floats, autocast or not.

    Each of `num_frames` frames of a clip has a position of its own.
    """

    def __init__(self, token_dim: int, num_frames: int, embed_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(token_dim, dtype=torch.float32)
        self.frame_position = nn.Parameter(torch.zeros(num_frames, token_dim, dtype=torch.float32))
        self.up = nn.Linear(token_dim, embed_dim, dtype=torch.float32)
        self.down = nn.Linear(embed_dim, embed_dim, dtype=torch.float32)

    @torch.no_grad()
    def init(
        self, anchor: Float[Tensor, "embed"], embed_rms: float, generator: torch.Generator
    ) -> None:
        """Draw the weights: projected tokens are around a word's embedding, with the words' spread.

        `anchor` is the embedding that every projected token starts from, `embed_rms` the root mean
        square of the language model's embedding entries, > 0.
        """
        if embed_rms <= 0:
            raise ValueError(f"embed_rms must be > 0, got {embed_rms}; are the embeddings empty?")
        wide, narrow = self.up.in_features, self.down.in_features
        self.up.weight.normal_(std=1 / math.sqrt(wide), generator=generator)
        self.down.weight.normal_(std=embed_rms / GELU_RMS / math.sqrt(narrow), generator=generator)
        self.up.bias.zero_()
        self.down.bias.copy_(anchor)
        self.frame_position.zero_()

    def forward(self, video_tokens: FrameTokens) -> Float[Tensor, "batch token embed"]:
        """One embedding for each token, frames in the order of time, rows before columns."""
        with torch.autocast(video_tokens.device.type, enabled=False):
            tokens = self.norm(video_tokens.float())
            tokens = tokens + rearrange(self.frame_position, "frame dim -> frame 1 1 dim")
            tokens = rearrange(tokens, "batch frame row column dim -> batch (frame row column) dim")
            return self.down(F.gelu(self.up(tokens)))
