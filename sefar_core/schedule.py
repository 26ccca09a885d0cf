"""A run in optimizer steps: how many, which of them are warm-up, and what varies over them.

Source: the public code of SeFAR (arXiv:2501.01245), train_net_emamix.py and its defaults, d0435a9.
"""

import math
from dataclasses import dataclass
from typing import Literal

from sefar_core.loss import ramp

FIRST_FALL, SECOND_FALL = 25 / 30, 28 / 30  # of the run, where the published rate falls tenfold


def learning_rate(highest: float, schedule: Literal["step", "cosine"], progress: float) -> float:
    """The rate at a part of the run.

    `step` falls to a tenth and to a hundredth, as published; `cosine` falls to 0. `progress` is the
    part of the run that is over, in [0, 1).
    """
    if schedule == "cosine":
        return highest * 0.5 * (1 + math.cos(math.pi * progress))
    return highest * (1.0 if progress < FIRST_FALL else 0.1 if progress < SECOND_FALL else 0.01)


def rising_share(step: int, warmup_steps: int) -> float:
    """Share of the scheduled rate at a step, counted from 0: (step + 1) / warmup_steps, then 1.

    The usual linear warm-up of the rate (Goyal et al. 2017, arXiv:1706.02677, section 2.2), whose
    first step already moves. 1 throughout for 0 warm-up steps.
    """
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The run in optimizer steps. An epoch is one pass over the labeled clips. ValueError for not
    one whole batch in a pass whose leftovers are dropped.
    """

    num_labeled: int
    batch_size: int
    """Labeled clips of one step, over all processes."""
    epochs: int
    """The unit of warm-up, ramp and learning rate."""
    warmup_epochs: int
    steps: int | None = None
    """Length of the run instead of `epochs` passes; warm-up and ramp keep their shares."""
    leftovers: Literal["kept", "dropped"] = "kept"
    """`kept`: a batch that begins in one pass ends in the next. `dropped`: what is left of a pass
    after its last whole batch is thrown away, as published."""

    def __post_init__(self):
        if self.per_pass == 0:
            raise ValueError(
                f"leftovers = dropped leaves no step: {self.num_labeled} labeled clips are fewer "
                f"than batch_size = {self.batch_size}; take a smaller batch_size, or leftovers = "
                f"kept"
            )

    @property
    def per_pass(self) -> int:
        """Labeled clips that each pass trains on."""
        if self.leftovers == "kept":
            return self.num_labeled
        return self.num_labeled // self.batch_size * self.batch_size

    @property
    def num_steps(self) -> int:
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * self.per_pass / self.batch_size))

    @property
    def warmup_steps(self) -> int:
        """Rounded up, so that the ramp is above 0 from the first semi-supervised step on."""
        return -(-self.num_steps * self.warmup_epochs // self.epochs)

    def epoch(self, step: int) -> int:
        """The pass, of `epochs`, in which a step begins."""
        return step * self.epochs // self.num_steps

    def steps_in(self, epochs: int) -> int:
        """Steps from one checkpoint to the next, if there are `epochs` between them."""
        return max(1, round(self.num_steps * epochs / self.epochs))

    def ramp(self, step: int) -> float:
        """Weight of the unsupervised losses at a step, constant within an epoch.

        0 in the warm-up, 1 in the steps that begin in the last epoch.
        """
        stage = self.epochs - self.warmup_epochs
        done = self.epoch(step) + 1 - self.warmup_epochs
        return ramp(done / stage) if step >= self.warmup_steps else 0.0

    def warmup_left(self, decay: float, updates_per_step: int) -> float:
        """Share of the warm-up model in the teacher at the end of the run, in [0, 1]."""
        return decay ** ((self.num_steps - self.warmup_steps) * updates_per_step)
