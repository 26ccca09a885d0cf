"""Every setting of the recognizer: default, unit, source, and the check that refuses nonsense.

The defaults are the paper's for Gym99 (ViT-S/16). The command line is made from these classes.
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
"""Numbers that torch takes for a seed."""


def check_seed(seed: int, *, least: int = SEEDS[0]) -> None:
    """Raise ValueError for a seed that the generators of a script do not take."""
    if not least <= seed <= SEEDS[1]:
        raise ValueError(f"seed must be in [{least}, {SEEDS[1]}], got {seed}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    sizes: tuple[int, ...] = (2, 2, 4)
    """Frames of each temporal element, the fine ones first, the context last."""
    sampling: Literal["interleaved", "local_window"] = "interleaved"
    """Which frames they are: one in each of as many segments of time as there are frames, dealt out
    to the elements, or for the fine elements a short dense window each."""
    image_size: int = 224
    """Side of the square frames that the network sees, pixels."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    dim: int = 384
    """Width of a token: 384 is ViT-S, 768 is ViT-B."""
    depth: int = 12
    """Transformer blocks."""
    num_heads: int = 6
    """Heads of every attention."""
    drop_path_rate: float = 0.1
    """Stochastic depth of the last block, rising linearly from 0."""
    fusion_dim: int = 256
    """Width of the fused feature."""
    dropout: float = 0.5
    """Dropout before the class scores; the teacher's predictions differ by it."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Subtracted from each color, after scaling to [0, 1]."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Divides each color."""
    pretrained: Path | None = None
    """Weights to start from, or none for a random start: a file of a ViT in timm's naming or of a
    TimeSformer (public code or transformers), or `timm:NAME`, for example
    `timm:vit_small_patch16_224.augreg_in21k_ft_in1k`, which timm fetches. Give `num_heads` as the
    weights were trained. `mean` and `std` stay as published; what a ViT was trained with is told by
    `timm.data.resolve_model_data_config` (0.5 for augreg)."""

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
    short_side: tuple[int, int] = (256, 320)
    """Range from which the short side of a training clip is drawn, pixels."""
    flip: bool = True
    """Mirror half of the clips; off where left and right mean different classes."""
    weak_flip: bool = True
    """Mirror half of the teacher's views as well; the public code does not."""
    placement: Literal["one_for_all", "one_each"] = "one_for_all"
    """Scale, crop and mirror a clip's elements alike, or each by a draw of its own, as the public
    code does."""
    moments: Literal["independent", "shared"] = "independent"
    """Whether the student's strong view shows moments of its own or those that the teacher saw."""
    workers: int = 4
    """Loader processes of each training process, shared between labeled and unlabeled clips; 1
    gives each of the two one of its own, 0 loads in the training process. Validation on a split
    val starts as many again while it lasts."""
    reader: Literal["auto", "decord"] = "auto"
    """What reads the videos. auto is PyAV, which reads every file that plays; decord is faster on
    some files, and refuses all but MP4, MOV and Matroska files without oddities (docs/damage.md).
    """
    store: Literal["none", "raw", "jpeg"] = "none"
    """Decode every clip once into a file of frames and train from it: raw ones, or JPEGs (quality
    95) of a tenth of the size."""
    store_short_side: int = 256
    """Larger frames are stored with their shorter side scaled down to this, pixels."""

    def __post_init__(self):
        if self.store_short_side < 1:
            raise ValueError(
                f"data.store_short_side must be at least 1, got {self.store_short_side}"
            )
        if self.store != "none" and self.reader != "auto":
            raise ValueError(
                f"data.store is filled by reader auto, got {self.reader}; leave data.reader alone, "
                f"or set data.store to none"
            )
        low, high = self.short_side
        if not 0 < low <= high:
            raise ValueError(f"data.short_side must be a rising range, got {self.short_side}")
        if self.workers < 0:
            raise ValueError(f"data.workers must be at least 0, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    ema_decay: float | None = None
    """Part of the old teacher kept at each update. None follows the public code, which keeps 0.9999
    at each micro-batch of 8 labeled clips: 0.9999 ** (batch_size / 8) a step, 0.9992 at 64."""
    dropout_passes: int = 10
    """Stochastic predictions averaged into one pseudo-label; 0 is a single one without dropout. The
    adaptive regulation takes at least 2."""
    ema_every: Literal["step", "micro_batch"] = "step"
    """When the teacher moves: with the optimizer, or after every micro-batch, as published."""

    def __post_init__(self):
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"teacher.ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.dropout_passes < 0:
            raise ValueError(
                f"teacher.dropout_passes must be at least 0, got {self.dropout_passes}"
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    perturbation: PerturbationName = "reverse_fine"
    """What is done to time in the student's strong view: a row of the paper's Table 4."""
    color_dropout: float = 0.0
    """Probability that a color plane of an element of the strong view is dropped; 0.2 as published
    in the code, not mentioned in the paper."""
    regulation: RegulationName = "adaptive"
    """Trust in a pseudo-label: the paper's weight, its part without the spread, or 1 above a fixed
    confidence."""
    threshold: float = 0.3
    """Confidence that the fixed regulation asks for."""
    mix_on: Literal["logits", "probs"] = "logits"
    """What the mixing loss compares with the mixed probabilities; the public code takes logits."""
    mix_partners: Literal["one_for_all", "one_each"] = "one_for_all"
    """Mixed with one clip, or with another one for each element, as published, though the target
    knows only the last."""
    mix_targets: Literal["soft", "sharp"] = "soft"
    """What is mixed: the teacher's probabilities, or, where it is trusted wholly, its label
    (SVFormer)."""
    mix_concentration: float = 10.0
    """Both parameters of the Beta distribution of the mixing share."""
    gamma_un: float = 1.0
    """Weight of the pseudo-label loss; the public code has 2."""
    gamma_mix: float = 1.0
    """Weight of the mixing loss; the public code has 2. At 0 nothing is mixed."""
    ramp: Literal["sine", "none"] = "sine"
    """Whether the unsupervised weights rise from 0 over the semi-supervised stage."""

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"loss.threshold is a probability, got {self.threshold}")
        if not 0 <= self.color_dropout < 1:
            raise ValueError(f"loss.color_dropout must be in [0, 1), got {self.color_dropout}")
        if not 0 < self.mix_concentration < math.inf:
            raise ValueError(f"loss.mix_concentration must be > 0, got {self.mix_concentration}")
        for name in ("gamma_un", "gamma_mix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    kind: Literal["sgd", "adamw"] = "sgd"
    """SGD has momentum 0.9 with Nesterov, as published."""
    lr: float = 0.005
    """Learning rate at its highest."""
    weight_decay: float = 1e-3
    """On every parameter, as published."""
    schedule: Literal["step", "cosine"] = "step"
    """Step: a tenth at 25/30 of the run and a hundredth at 28/30. Cosine: down to 0."""
    clip_norm: float | None = None
    """Longest gradient of a step, as the L2 norm over all parameters; a longer one is scaled down
    to it. None clips nothing, as published. First steps from a real ViT have norms of hundreds."""
    rate_warmup_steps: int = 0
    """Optimizer steps in which the learning rate rises linearly to its schedule; 0 as published.
    Other than `warmup_epochs`, which learns from labels alone."""

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
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    batch_size: int = 64
    """Labeled clips of one optimizer step, over all devices."""
    micro_batch_size: int = 8
    """Labeled clips that one device takes at a time; gradients add up to `batch_size`."""
    unlabeled_per_labeled: int = 3
    """Unlabeled clips for each labeled one."""
    epochs: int = 30
    """Passes over the labeled clips."""
    warmup_epochs: int = 5
    """Passes on labels alone, before the teacher is made. As many as `epochs`: supervised only."""
    steps: int | None = None
    """Optimizer steps of the run, in place of `epochs` passes; warm-up, ramp and learning rate keep
    their shares of it."""
    leftovers: Literal["kept", "dropped"] = "kept"
    """Clips of a pass that are fewer than a batch: they begin the next batch, or are thrown away,
    as published."""
    seed: int = 0
    """All draws follow from it."""
    expected_classes: int | None = None
    """Classes that the manifest must have; presets of data sets say so."""
    expected_rate: float | None = None
    """Labeled share of the training clips that the manifest must have, give or take a fifth."""
    save_every_epochs: int = 5
    """Epochs from one checkpoint to the next; the last state is always kept."""
    keep_last: int = 2
    """Newest checkpoints that are kept, besides the best on validation clips if there are any."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """auto: bf16 on CUDA, fp32 elsewhere."""
    recompute: bool = False
    """Compute activations twice in place of storing them: less memory, more time."""
    compile: bool = False
    """Translate the student by torch.compile, which takes minutes at the start."""
    deterministic: bool = False
    """Bit-equal runs on CUDA as well, by slower kernels."""
    log: Literal["none", "tensorboard"] = "none"
    """Where curves are drawn, besides metrics.jsonl."""

    @property
    def ema_decay(self) -> float:
        """Part of the old teacher kept at each of its updates."""
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
                f"warmup_epochs must lie in [0, epochs], got {self.warmup_epochs} of {self.epochs}"
            )
