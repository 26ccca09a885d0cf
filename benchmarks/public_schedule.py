"""The step with the schedule of the public code, on this package's parameters: the plain form.

R passes of the whole teacher, three passes of the student, one element at a time, whole blocks and
explicit attention (train_net_emamix.py and vit.py, d0435a9). ssl_step.py is timed against it, and
the package's step is tested against it: with the same random numbers both give the same losses and
gradients.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core import block as blocks
from sefar_core.loss import Losses, pseudo_label_loss
from sefar_core.mixing import MixPlan, mix_elements
from sefar_core.model import SefarModel
from sefar_core.step import Method, SslBatch
from sefar_core.teacher import EmaTeacher, PseudoLabel, summarize

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Explicit attention, as in the public code."""
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


class Plain(NamedTuple):
    """The plain forward pass, with one implementation of attention."""

    attend: Attend = eager

    def attention(self, module: blocks.Attention, tokens: Tensor) -> Tensor:
        q, k, v = rearrange(
            module.qkv(tokens),
            "row token (three head d) -> three row head token d",
            three=3,
            head=module.num_heads,
        )
        gathered = self.attend(q, k, v)
        return module.proj(rearrange(gathered, "row head token d -> row token (head d)"))

    def block(self, block: blocks.Block, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """A block on (batch, dim) and (batch, frame, token, dim)."""
        drop = partial(blocks.drop_path, drop=block.drop, training=block.training)
        batch, num_frames, num_tokens, _ = patches.shape
        tracks = rearrange(patches, "batch frame token dim -> (batch token) frame dim")
        residual = self.attention(block.temporal_attn, block.temporal_norm1(tracks))
        residual = drop(
            rearrange(residual, "(batch token) f dim -> batch token f dim", batch=batch)
        )
        residual = block.temporal_fc(residual)
        patches = patches + rearrange(residual, "batch token frame dim -> batch frame token dim")

        copies = repeat(cls, "batch dim -> batch frame 1 dim", frame=num_frames)
        frames = rearrange(
            torch.cat([copies, patches], dim=2), "batch frame n dim -> (batch frame) n dim"
        )
        residual = self.attention(block.attn, block.norm1(frames))
        residual = drop(
            rearrange(residual, "(batch frame) n dim -> batch frame n dim", batch=batch)
        )
        cls = cls + residual[:, :, 0].mean(dim=1)
        patches = patches + residual[:, :, 1:]

        tokens = torch.cat([cls[:, None], patches.flatten(1, 2)], dim=1)
        hidden = F.gelu(block.mlp.fc1(block.norm2(tokens)))
        tokens = tokens + drop(block.mlp.fc2(hidden))
        return tokens[:, 0], tokens[:, 1:].unflatten(1, (num_frames, num_tokens))

    def features(self, model: SefarModel, elements: Sequence[Tensor]) -> Tensor:
        """The fused feature, one element after another."""
        features = []
        backbone = model.backbone
        for place, clip in enumerate(elements):
            cls, patches = backbone.embed([clip], [place])
            for block in backbone.blocks:
                cls, patches = self.block(block, cls, patches)
            tokens = torch.cat([cls[:, None], patches.flatten(1, 2)], dim=1)
            features.append(backbone.norm(tokens)[:, 0])
        pairs = [model.pair(torch.cat(pair, dim=-1)) for pair in combinations(features, 2)]
        return model.joint(torch.cat([*pairs, *map(model.single, features)], dim=-1))

    def logits(self, model: SefarModel, elements: Sequence[Tensor]) -> Tensor:
        return model.classify(self.features(model, elements)).float()

    @torch.no_grad()
    def predict(self, teacher: EmaTeacher, weak: Sequence[Tensor]) -> PseudoLabel:
        """The teacher's stochastic predictions, each from a pass of the whole network."""
        network = teacher.network
        passes = []
        for _ in range(teacher.dropout_passes):
            feature = self.features(network, weak)
            dropped = nn.functional.dropout(feature, network.dropout.p, training=True)
            passes.append(network.classifier(dropped).float().softmax(dim=-1))
        return summarize(torch.stack(passes))

    def step(  # noqa: PLR0913 - as ssl_step
        self,
        student: SefarModel,
        teacher: EmaTeacher,
        batch: SslBatch,
        method: Method,
        mix: MixPlan,
        generator: torch.Generator,
    ) -> Losses:
        """The losses of one micro-batch, with three passes of the student."""
        pseudo = self.predict(teacher, batch.weak)
        trust = method.regulate(pseudo.confidence, pseudo.spread)
        perturbed = method.perturb(batch.strong, generator)
        strong = method.drop_colors(perturbed, generator)
        mixed = mix_elements(strong, perturbed, mix, patch=student.backbone.patch_size)
        soft = method.mix_targets(pseudo.probs, trust)
        partner = mix.partners[-1]
        return Losses(
            supervised=F.cross_entropy(self.logits(student, batch.labeled), batch.labels),
            unsupervised=pseudo_label_loss(self.logits(student, strong), pseudo.label, trust),
            mix=method.mix_loss(
                self.logits(student, mixed),
                mix.share * soft + (1 - mix.share) * soft[partner],
                mix.share * trust + (1 - mix.share) * trust[partner],
            ),
        )
