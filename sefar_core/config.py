"""Every setting of the recognizer: default, unit, source, and the check of its value.

The defaults are the paper's for Gym99 (ViT-S/16). The command line is generated from these classes,
and their docstrings are its help texts.
"""

import math
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

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

SHIPPED = {
    "demo:vit": ("sefar_core", "demo_weights/vit.safetensors"),
    "demo:llm": ("sefar_mllm", "demo_weights"),
}
"""Names of the demo's small models, which are files of the packages: package and place in it.

Settings and model folders record the name, which is the same on every machine and from every
working folder, where a path is not. demo/backbone.py and demo/llm.py make the models.
"""
OLD_PATHS = {"demo/backbone/vit.safetensors": "demo:vit", "demo/llm": "demo:llm"}
"""Where they were in a checkout, which settings of older code record."""


def present_name(name: str | Path) -> str:
    """The name of a shipped model for the path that it had, unless that exists; else `name`."""
    return str(name) if Path(name).exists() else OLD_PATHS.get(str(name), str(name))


def shipped(name: str | Path) -> str:
    """The path of a shipped model, by its name or its old path; any other name as it is."""
    present = present_name(name)
    if present not in SHIPPED:
        return present
    package, place = SHIPPED[present]
    return str(files(package).joinpath(place))


def check(holds: bool, rule: str, found: object) -> None:
    """Raise ValueError for a setting whose rule does not hold."""
    if not holds:
        raise ValueError(f"{rule}, got {found}")


def check_seed(seed: int, *, least: int = SEEDS[0]) -> None:
    """Raise ValueError for a seed that the generators of a script do not accept."""
    check(least <= seed <= SEEDS[1], f"seed must be in [{least}, {SEEDS[1]}]", seed)


def dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under their names on the command line."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat |= dotted(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


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
        check(
            min(self.sizes, default=0) >= 1,
            "model.sizes needs a frame in every element",
            self.sizes,
        )
        for name in ("image_size", "patch_size", "dim", "depth", "num_heads", "fusion_dim"):
            size = getattr(self, name)
            check(size >= 1, f"model.{name} must be at least 1", size)
        for name, divisor in (("image_size", "patch_size"), ("dim", "num_heads")):
            size, part = getattr(self, name), getattr(self, divisor)
            rule = f"model.{name} must be a multiple of model.{divisor}"
            check(size % part == 0, rule, f"{size} and {part}")
        for name in ("drop_path_rate", "dropout"):
            rate = getattr(self, name)
            check(0 <= rate < 1, f"model.{name} must be in [0, 1)", rate)
        finite = all(map(math.isfinite, self.mean))
        check(finite, "model.mean must hold finite numbers", self.mean)
        positive = all(0 < value < math.inf for value in self.std)
        check(positive, "model.std must hold finite numbers above 0", self.std)


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
        side = self.store_short_side
        check(side >= 1, "data.store_short_side must be at least 1", side)
        if self.store != "none" and self.reader != "auto":
            raise ValueError(
                f"data.store needs data.reader auto, got {self.reader}; leave data.reader alone, "
                f"or set data.store to none"
            )
        low, high = self.short_side
        check(0 < low <= high, "data.short_side must be a rising range", self.short_side)
        check(self.workers >= 0, "data.workers must be at least 0", self.workers)


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
        decay, passes = self.ema_decay, self.dropout_passes
        check(decay is None or 0 <= decay < 1, "teacher.ema_decay must be in [0, 1)", decay)
        check(passes >= 0, "teacher.dropout_passes must be at least 0", passes)


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
        check(0 <= self.threshold <= 1, "loss.threshold must be in [0, 1]", self.threshold)
        dropped, beta = self.color_dropout, self.mix_concentration
        check(0 <= dropped < 1, "loss.color_dropout must be in [0, 1)", dropped)
        check(0 < beta < math.inf, "loss.mix_concentration must be > 0", beta)
        for name in ("gamma_un", "gamma_mix"):
            gamma = getattr(self, name)
            check(0 <= gamma < math.inf, f"loss.{name} must be at least 0", gamma)


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
        decay, norm, steps = self.weight_decay, self.clip_norm, self.rate_warmup_steps
        check(0 < self.lr < math.inf, "optim.lr must be > 0", self.lr)
        check(0 <= decay < math.inf, "optim.weight_decay must be at least 0", decay)
        clips = norm is None or 0 < norm < math.inf
        check(clips, "optim.clip_norm must be > 0, or None", norm)
        check(steps >= 0, "optim.rate_warmup_steps must be at least 0", steps)


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
            check(value is None or value >= 1, f"{name} must be at least 1", value)
        batch, micro = self.batch_size, self.micro_batch_size
        rule = "batch_size must be a multiple of micro_batch_size"
        check(batch % micro == 0, rule, f"{batch} and {micro}")
        if self.loss.regulation == "adaptive" and self.teacher.dropout_passes < 2:
            raise ValueError(
                f"teacher.dropout_passes must be at least 2 for a standard deviation, got "
                f"{self.teacher.dropout_passes}; or set loss.regulation to confidence_only"
            )
        warmup = self.warmup_epochs
        in_range = 0 <= warmup <= self.epochs
        check(in_range, "warmup_epochs must be in [0, epochs]", f"{warmup} of {self.epochs}")
