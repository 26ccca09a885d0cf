"""Every setting of the recognizer: default, unit, source, and the check of its value.

The defaults are the paper's for Gym99 (ViT-S/16). The command line is generated from these classes,
and their docstrings are its help texts.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

PerturbationName = Literal[
    "reverse_fine",
    "unchanged",
    "reverse_all",
    "shuffle_fine",
    "shuffle_all",
    "slow",
    "repeat_half",
    "warp",
    "swap_red_blue",
]
RegulationName = Literal["adaptive", "confidence_only", "fixed"]

SEEDS = (-(2**63), 2**63 - 1)
"""Smallest and largest seed that torch accepts."""


def check_seed(seed: int, *, least: int = SEEDS[0]) -> None:
    """Raise ValueError for a seed that the generators of a script do not accept."""
    if not least <= seed <= SEEDS[1]:
        raise ValueError(f"seed must be in [{least}, {SEEDS[1]}], got {seed}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, and the scale of its input."""

    sizes: tuple[int, ...] = (2, 2, 4)
    """Frames of each temporal element: the fine elements first, the context element last."""
    sampling: Literal["interleaved", "local_window"] = "interleaved"
    """How frames are chosen. interleaved: time is cut into as many segments as there are frames,
    one frame of each, distributed over the elements. local_window: a short dense window for each
    fine element."""
    image_size: int = 224
    """Side length of the square frames that the network sees, in pixels."""
    patch_size: int = 16
    """Side length of a patch, in pixels."""
    dim: int = 384
    """Token width: 384 is ViT-S, 768 is ViT-B."""
    depth: int = 12
    """Number of transformer blocks."""
    num_heads: int = 6
    """Number of attention heads."""
    drop_path_rate: float = 0.1
    """Stochastic depth rate of the last block; rises linearly from 0 at the first."""
    fusion_dim: int = 256
    """Width of the fused feature."""
    dropout: float = 0.5
    """Dropout probability before the class scores; it makes the teacher's predictions differ."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Mean that is subtracted from each color, after scaling to [0, 1]."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Standard deviation that each color is divided by."""
    pretrained: Path | None = None
    """Weights to start from; None starts from random weights. A file of a ViT in timm's naming or
    of a TimeSformer (public code or transformers); `timm:NAME`, which timm downloads, for example
    `timm:vit_small_patch16_224.augreg_in21k_ft_in1k`; or `demo:vit`, the demo's ViT. Set
    `num_heads` to that of the weights. `mean` and `std` stay as published;
    `timm.data.resolve_model_data_config` gives those that a ViT was trained with (0.5 for
    augreg)."""

    def __post_init__(self):
        if len(self.sizes) < 1 or min(self.sizes, default=0) < 1:
            raise ValueError(f"model.sizes needs a frame in every element, got {self.sizes}")
        for name in ("image_size", "patch_size", "dim", "depth", "num_heads", "fusion_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"model.image_size must be a multiple of model.patch_size, got "
                f"{self.image_size} and {self.patch_size}"
            )
        if self.dim % self.num_heads:
            raise ValueError(
                f"model.dim must be a multiple of model.num_heads, got {self.dim} and "
                f"{self.num_heads}"
            )
        for name in ("drop_path_rate", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be in [0, 1), got {getattr(self, name)}")
        self._check_colors()

    def _check_colors(self):
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"model.mean must hold finite numbers, got {self.mean}")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"model.std must hold finite numbers above 0, got {self.std}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How clips are read and augmented."""

    short_side: tuple[int, int] = (256, 320)
    """Range that the short side of a training clip is drawn from, in pixels."""
    flip: bool = True
    """Mirror half of the clips. Turn off where left and right are different classes."""
    weak_flip: bool = True
    """Mirror half of the teacher's views as well; the public code does not."""
    placement: Literal["one_for_all", "one_each"] = "one_for_all"
    """Scale, crop and mirror all elements of a clip the same way (one_for_all), or each by its own
    draw, as the public code does (one_each)."""
    moments: Literal["independent", "shared"] = "independent"
    """Whether the student's strong view has its own random moments or shows the teacher's."""
    workers: int = 4
    """Data-loader workers of each training process, split between labeled and unlabeled clips. 1
    starts one for each of the two; 0 loads in the training process. Validation on a val split
    starts the same number again while it runs."""
    reader: Literal["auto", "decord"] = "auto"
    """What reads the videos. auto is PyAV, which reads every file that plays; decord is faster on
    some files, and refuses all but MP4, MOV and Matroska files without oddities (docs/damage.md).
    """
    store: Literal["none", "raw", "jpeg"] = "none"
    """Decode every clip once into a frame cache and train from it: raw frames, or JPEGs (quality
    95), which take a tenth of the space."""
    store_short_side: int = 256
    """Short side of cached frames, in pixels; larger frames are scaled down to it."""

    def __post_init__(self):
        if self.store_short_side < 1:
            raise ValueError(
                f"data.store_short_side must be at least 1, got {self.store_short_side}"
            )
        if self.store != "none" and self.reader != "auto":
            raise ValueError(
                f"data.store needs data.reader auto, got {self.reader}; leave data.reader alone, "
                f"or set data.store to none"
            )
        low, high = self.short_side
        if not 0 < low <= high:
            raise ValueError(f"data.short_side must be a rising range, got {self.short_side}")
        if self.workers < 0:
            raise ValueError(f"data.workers must be at least 0, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The teacher and its pseudo-labels."""

    ema_decay: float | None = None
    """Share of the old teacher that each update keeps. None follows the public code, which keeps
    0.9999 at each micro-batch of 8 labeled clips: 0.9999 ** (batch_size / 8) per step, 0.9992 for
    64 clips."""
    dropout_passes: int = 10
    """Number of stochastic predictions averaged into one pseudo-label; 0 makes one prediction
    without dropout. The adaptive regulation needs at least 2."""
    ema_every: Literal["step", "micro_batch"] = "step"
    """When the teacher is updated: after each optimizer step, or after each micro-batch, as in the
    public code."""

    def __post_init__(self):
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"teacher.ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.dropout_passes < 0:
            raise ValueError(
                f"teacher.dropout_passes must be at least 0, got {self.dropout_passes}"
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The unsupervised losses and what they compare."""

    perturbation: PerturbationName = "reverse_fine"
    """Temporal perturbation of the student's strong view: a row of the paper's Table 4."""
    color_dropout: float = 0.0
    """Probability of dropping a color plane of an element of the strong view: 0.2 in the public
    code, not mentioned in the paper."""
    regulation: RegulationName = "adaptive"
    """How far a pseudo-label is trusted: the paper's weight (adaptive), its factor without the
    spread (confidence_only), or 1 above a threshold and 0 below it (fixed)."""
    threshold: float = 0.3
    """Confidence that the fixed regulation requires."""
    mix_on: Literal["logits", "probs"] = "logits"
    """What the mixing loss compares with the mixed probabilities: logits, as in the public code, or
    probabilities."""
    mix_partners: Literal["one_for_all", "one_each"] = "one_for_all"
    """Mix a clip with one partner (one_for_all), or with another partner for each element, as in
    the public code, though the target is that of the last (one_each)."""
    mix_targets: Literal["soft", "sharp"] = "soft"
    """Targets that are mixed: the teacher's probabilities (soft), or its one-hot label where the
    trust is 1, as SVFormer does (sharp)."""
    mix_concentration: float = 10.0
    """Both parameters of the Beta distribution that the mixing share is drawn from."""
    gamma_un: float = 1.0
    """Weight of the pseudo-label loss; 2 in the public code."""
    gamma_mix: float = 1.0
    """Weight of the mixing loss; 2 in the public code. 0 mixes nothing."""
    ramp: Literal["sine", "none"] = "sine"
    """Whether the weights of the unsupervised losses rise from 0 over the semi-supervised stage."""

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"loss.threshold must be in [0, 1], got {self.threshold}")
        if not 0 <= self.color_dropout < 1:
            raise ValueError(f"loss.color_dropout must be in [0, 1), got {self.color_dropout}")
        if not 0 < self.mix_concentration < math.inf:
            raise ValueError(f"loss.mix_concentration must be > 0, got {self.mix_concentration}")
        for name in ("gamma_un", "gamma_mix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning rate."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """Optimizer. SGD has Nesterov momentum of 0.9, as published."""
    lr: float = 0.005
    """Highest learning rate."""
    weight_decay: float = 1e-3
    """Weight decay, applied to all parameters, as published."""
    schedule: Literal["step", "cosine"] = "step"
    """Learning rate schedule. step: a tenth from 25/30 of the run on, a hundredth from 28/30.
    cosine: down to 0."""
    clip_norm: float | None = None
    """Largest L2 norm of the gradient of all parameters; a larger gradient is scaled down to it.
    None clips nothing, as published. The first steps from a pretrained ViT have norms of
    hundreds."""
    rate_warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly to its schedule; 0 as published.
    Not `warmup_epochs`, which train on labels alone."""

    def __post_init__(self):
        if not 0 < self.lr < math.inf:
            raise ValueError(f"optim.lr must be > 0, got {self.lr}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"optim.weight_decay must be at least 0, got {self.weight_decay}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(f"optim.clip_norm must be > 0, or None, got {self.clip_norm}")
        if self.rate_warmup_steps < 0:
            raise ValueError(
                f"optim.rate_warmup_steps must be at least 0, got {self.rate_warmup_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    batch_size: int = 64
    """Labeled clips of one optimizer step, over all processes."""
    micro_batch_size: int = 8
    """Labeled clips of one forward pass of a process; gradients accumulate to `batch_size`."""
    unlabeled_per_labeled: int = 3
    """Unlabeled clips for each labeled clip of a batch."""
    epochs: int = 30
    """Number of passes over the labeled clips."""
    warmup_epochs: int = 5
    """Passes on labels alone, before the teacher is created. Equal to `epochs`: supervised only."""
    steps: int | None = None
    """Optimizer steps of the run, instead of `epochs` passes. Warm-up, ramp and learning rate keep
    their shares of the run."""
    leftovers: Literal["kept", "dropped"] = "kept"
    """What happens to the last labeled clips of a pass, fewer than a batch: they begin the next
    batch (kept), or are skipped, as in the public code (dropped)."""
    seed: int = 0
    """Random seed."""
    expected_classes: int | None = None
    """Number of classes that the manifest must have. Presets of data sets set it."""
    expected_rate: float | None = None
    """Labeled share of the training clips that the manifest must have, within a fifth."""
    save_every_epochs: int = 5
    """Number of epochs between checkpoints; the last state is always saved."""
    keep_last: int = 2
    """Number of newest checkpoints to keep, besides the best on validation clips."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """Number format of matrix products. auto: bf16 on CUDA, fp32 elsewhere."""
    recompute: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, more
    time."""
    compile: bool = False
    """Compile the student with torch.compile, which takes minutes at the start."""
    deterministic: bool = False
    """Use slower kernels that make runs equal to the bit on CUDA as well."""
    log: Literal["none", "tensorboard"] = "none"
    """Where curves are written, besides metrics.jsonl."""

    @property
    def ema_decay(self) -> float:
        """Share of the old teacher that each update keeps."""
        if self.teacher.ema_decay is not None:
            return self.teacher.ema_decay
        clips = self.batch_size if self.teacher.ema_every == "step" else self.micro_batch_size
        return 0.9999 ** (clips / 8)

    def __post_init__(self):
        check_seed(self.seed)
        counts = ("batch_size", "micro_batch_size", "unlabeled_per_labeled", "epochs", "steps")
        for name in (*counts, "save_every_epochs", "keep_last"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size, got {self.batch_size} and "
                f"{self.micro_batch_size}"
            )
        if self.loss.regulation == "adaptive" and self.teacher.dropout_passes < 2:
            raise ValueError(
                f"teacher.dropout_passes must be at least 2 for a standard deviation, got "
                f"{self.teacher.dropout_passes}; or set loss.regulation to confidence_only"
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"warmup_epochs must be in [0, epochs], got {self.warmup_epochs} of {self.epochs}"
            )
