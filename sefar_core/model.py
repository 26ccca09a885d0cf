"""The recognizer: a shared backbone on every element, pair and single fusion, class scores.

Source: SeFAR (arXiv:2501.01245); the fusion is read from its public code (multi_granular_vit,
d0435a9): each pair and each single class token is projected, all are joined into one feature, and
a dropout comes before the class scores. docs/paper_map.md, row 2.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core.sampling import SAMPLINGS, time_order
from sefar_core.shapes import Feature, FrameTokens, Logits
from sefar_core.timesformer import TimeSformer


class Fuse(nn.Module):
    """LayerNorm(GELU(Linear(x))): the building brick of the fusion."""

    def __init__(self, wide: int, narrow: int):
        super().__init__()
        self.linear = nn.Linear(wide, narrow)
        self.norm = nn.LayerNorm(narrow)

    def forward(self, feature: Float[Tensor, "batch wide"]) -> Float[Tensor, "batch narrow"]:
        return self.norm(F.gelu(self.linear(feature)))


class SefarModel(nn.Module):
    """Elements in, class logits out.

    `features()` and `classify()` are separate, so that many dropout passes of the head cost one
    pass of the backbone. `sizes` are the frames of each element, the context last; `dropout` is
    that of the fused feature before the class scores. `mean` and `std`, which each color of a clip
    is normalized by after scaling to [0, 1], and `sampling`, a name in SAMPLINGS, are kept for the
    code that prepares the clips.
    """

    def __init__(  # noqa: PLR0913 - the sizes of the published head
        self,
        backbone: TimeSformer,
        sizes: tuple[int, ...],
        *,
        dim: int,
        num_classes: int,
        fusion_dim: int = 256,
        dropout: float = 0.5,
        mean: tuple[float, float, float] = (0.45, 0.45, 0.45),
        std: tuple[float, float, float] = (0.225, 0.225, 0.225),
        sampling: str = "interleaved",
    ):
        super().__init__()
        self.backbone = backbone
        self.image_size = backbone.image_size
        self.mean, self.std = mean, std
        self.sampling = SAMPLINGS[sampling]
        self.sizes = sizes
        self.dim = dim
        num_pairs = len(sizes) * (len(sizes) - 1) // 2
        # Distributed training refuses what nothing trains.
        self.pair = Fuse(2 * dim, fusion_dim) if num_pairs else nn.Identity()
        self.single = Fuse(dim, fusion_dim)
        self.joint = Fuse((num_pairs + len(sizes)) * fusion_dim, fusion_dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(fusion_dim, num_classes)

    def features(self, elements: Sequence[Tensor]) -> Feature:
        """The fused feature of each clip, before the dropout. ValueError for elements that the
        model was not built for.
        """
        self.check(elements)
        seen = self.backbone.class_tokens(elements)
        pairs = [self.pair(torch.cat(pair, dim=-1)) for pair in combinations(seen, 2)]
        singles = [self.single(feature) for feature in seen]
        return self.joint(torch.cat([*pairs, *singles], dim=-1))

    def classify(self, feature: Feature) -> Logits:
        """Class scores; the dropout is live in training mode."""
        return self.classifier(self.dropout(feature))

    def forward(self, elements: Sequence[Tensor]) -> Logits:
        return self.classify(self.features(elements))

    def frame_tokens(self, elements: Sequence[Tensor]) -> FrameTokens:
        """Patch tokens of every frame of every element, frames in the order of time. ValueError for
        elements that the model was not built for.
        """
        self.check(elements)
        patches = [self.backbone(clip, place)[1] for place, clip in enumerate(elements)]
        in_time = torch.cat(patches, dim=1)[:, time_order(self.sampling.center(self.sizes))]
        return rearrange(
            in_time,
            "batch frame (row column) dim -> batch frame row column dim",
            row=self.backbone.grid,
        )

    def check(self, elements: Sequence[Tensor]) -> None:
        """Refuse elements of another number or of other numbers of frames."""
        found = tuple(clip.shape[2] for clip in elements)
        if found != self.sizes:
            raise ValueError(
                f"the model sees elements of {self.sizes} frames, but was given {found}; "
                f"sample with the sizes in the model's config.json"
            )
