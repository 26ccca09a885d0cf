"""Every setting of the language-model half: default, unit, source, and the check.

The command lines are made from these classes. The defaults are for Vicuna-7B. Nothing here
imports torch, so that `--help` is quick.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sefar_core.config import check_seed

EncoderName = Literal[
    "sefar",
    "supervised",
    "sefar_elements",
    "sefar_fused",
    "clip",
    "eva",
    "clip_probe",
    "eva_probe",
    "random",
    "constant",
]
AnswerStyle = Literal["letter", "text", "mixed"]
DtypeName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Which clips become tokens, and how."""

    manifest: Path
    """Table of clips that scripts/make_splits.py wrote."""
    video_root: Path
    """Folder that the clips' paths are relative to."""
    encoder: EncoderName
    """Which encoder; a key of `encoders.ENCODERS`."""
    encoder_dir: Path
    """Run folder or encoder folder of the recognizer, whose architecture controls take; for clip
    and eva a folder of their weights, for a probe what fit_probe.py wrote."""
    out: Path
    """Folder of the token cache."""
    moments_of: Path | None = None
    """Recognizer whose moments clip or eva is shown, if it was trained on others than the centers
    of equal segments."""
    splits: tuple[Literal["labeled", "unlabeled", "val", "test"], ...] = ("labeled", "val", "test")
    """Splits whose clips are encoded."""
    grid: int = 2
    """Tokens are pooled to grid x grid a frame: 8 frames and 2 make 32 tokens."""
    frame_order: Literal["in_order", "reversed", "shuffled", "middle"] = "in_order"
    """Order in which the encoder sees the frames; all but in_order are controls."""
    seed: int = 0
    """Of the random encoder's weights."""

    def __post_init__(self):
        check_seed(self.seed)
        if self.grid < 1:
            raise ValueError(f"grid must be at least 1, got {self.grid}")
        if not self.splits:
            raise ValueError("splits is empty; name at least one split")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Fits a linear map of CLIP's or EVA-CLIP's tokens on the labels that SeFAR had."""

    features: Path
    """Token cache of `clip` or `eva`, with the labeled clips and the val clips."""
    manifest: Path
    """Table of clips that scripts/make_splits.py wrote."""
    out: Path
    """Folder of the probe."""
    tokens_out: Path | None = None
    """Token cache of the mapped tokens of all clips in `features`; made without any video."""
    max_steps: int = 300
    """At most so many full-batch steps; how many of them is chosen on held-out sources."""
    lr: float = 3e-4
    """Learning rate of AdamW."""
    seed: int = 0
    """Of the cut into sources that are learned and sources that are held out."""

    def __post_init__(self):
        if self.max_steps < 25 or self.max_steps % 25:
            raise ValueError(f"max_steps must be a multiple of 25, got {self.max_steps}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be > 0, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    rank: int = 16
    """Of the LoRA matrices; all seven linears of a Llama-7B make 40 M parameters at 16."""
    alpha: float = 32.0
    """The update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Of the LoRA branch's input."""
    lr: float = 2e-4
    """Learning rate of the LoRA matrices at its highest."""

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank must be at least 1, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout must be in [0, 1), got {self.dropout}")
        if not (0 < self.lr < math.inf and 0 < self.alpha < math.inf):
            raise ValueError(f"lora.lr and lora.alpha must be > 0, got {self.lr}, {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    language_model: str = "lmsys/vicuna-7b-v1.5"
    """Folder or hub name of a Llama-family model with its tokenizer."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    projector_lr: float = 5e-4
    """Learning rate of the projector at its highest, in both stages."""
    projector_epochs: int = 0
    """Stage A: passes in which only the projector learns; 0 leaves the stage out."""
    epochs: int = 5
    """Stage B: passes in which LoRA and projector learn."""
    batch_size: int = 16
    """Questions of one optimizer step, over all devices."""
    micro_batch_size: int = 16
    """Questions that one device takes at a time; gradients add up to `batch_size`."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises; a cosine then takes it to 0."""
    weight_decay: float = 0.0
    """Of AdamW, on everything that learns."""
    answer_style: AnswerStyle = "letter"
    """What is taught: the letter; the option's text, every other time as "C. text"; mixed: for each
    question the letter or one of these two, equally often."""
    redraw: Literal["none", "public", "hard"] = "none"
    """Wrong options drawn anew for every epoch by a rule of qa_data/distractors.py; none: as in
    the question files."""
    dev_rate: float = 0.0
    """Share of the questions that is not learned but scored after each epoch, cut by source."""
    token_noise: float = 0.0
    """Noise added to video tokens in training, in units of each token's own spread."""
    max_length: int = 2048
    """Longest prompt, tokens; longer ones are refused, never cut."""
    dtype: DtypeName = "auto"
    """Of the frozen language model; auto: bfloat16 on CUDA, float32 elsewhere."""
    four_bit: bool = False
    """Hold the frozen language model in 4 bits (needs bitsandbytes): a third of the memory."""
    recompute: bool = False
    """Make activations again in the backward pass: the same gradients in less memory, slower."""
    save_every_steps: int = 0
    """Optimizer steps from one checkpoint to the next; with 0 there is one at a stage's end, and
    where a signal ends the run."""
    seed: int = 0
    """All draws follow from it."""

    def __post_init__(self):
        check_seed(self.seed)
        self._check_numbers()
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size, got {self.batch_size} and "
                f"{self.micro_batch_size}"
            )
        if self.projector_epochs < 0 or self.epochs < 0 or self.projector_epochs + self.epochs < 1:
            raise ValueError(
                f"projector_epochs and epochs must not be negative, and one of them positive, got "
                f"{self.projector_epochs} and {self.epochs}"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, in [0, 1), got {self.warmup}")
        if not 0 <= self.dev_rate < 1:
            raise ValueError(
                f"dev_rate is a share of the questions, in [0, 1), got {self.dev_rate}"
            )
        if not 0 < self.projector_lr < math.inf:
            raise ValueError(f"projector_lr must be > 0, got {self.projector_lr}")

    def _check_numbers(self):
        for name in ("batch_size", "micro_batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("weight_decay", "token_noise", "save_every_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scores one trained model on question files."""

    model: Path
    """Folder that scripts/finetune_mllm.py wrote."""
    language_model: str | None = None
    """Where the language model lies, if not where it lay in training."""
    encoder_features: Path
    """Token cache of the encoder that the model was trained with."""
    questions: tuple[Path, ...]
    """Question files: .jsonl of ours, the public .json, or lines of yours; one table row each."""
    out: Path
    """Folder for predictions-NAME.jsonl and metrics.json."""
    manifest: Path | None = None
    """Table of clips: it knows the class and source of questions that do not tell them, and which
    sources no training clip was cut from."""
    train_questions: Path | None = None
    """Questions that the model learned: they say which test questions a guess by frequency gets
    wrong, and how common each class was."""
    shuffle_videos: bool = False
    """Control: every question is shown the video of another clip."""
    frame_order: Literal["in_order", "reversed", "shuffled", "middle"] | None = None
    """Control: the order of the frames that `encoder_features` was extracted in, where the model
    learned another one; by default the two must agree."""
    letters: str | None = None
    """Control: what marks the options in place of A, B, C, ..., such as 1234."""
    diagnostics: bool = False
    """Also let the model speak its answers, and score the options' texts: some times slower."""
    batch_size: int = 32
    """Questions scored at a time, each in all its rotations."""
    resamples: int = 2000
    """Draws of the bootstrap over source videos."""
    seed: int = 0
    """Of the bootstrap and of the shuffling."""

    def __post_init__(self):
        check_seed(self.seed, least=0)
        if not self.questions:
            raise ValueError("questions is empty; name at least one question file")
        if self.letters is not None and len(set(self.letters)) < max(2, len(self.letters)):
            raise ValueError(f"letters must be two or more different ones, got {self.letters!r}")
        if self.letters is not None and self.diagnostics:
            raise ValueError("diagnostics speak in A, B, C, ...; run them without --letters")
        if self.batch_size < 1 or self.resamples < 100:
            raise ValueError(
                f"batch_size must be at least 1 and resamples at least 100, got "
                f"{self.batch_size} and {self.resamples}"
            )


@dataclass(frozen=True, kw_only=True)
class ChatLimits:
    """How much a chat takes and gives."""

    max_new_tokens: int = 128
    """Longest answer, tokens."""
    max_question_chars: int = 2000
    """Longest question or option; some 500 tokens."""
    max_turns: int = 20
    """Questions of one conversation; the model's own length may end it earlier."""

    def __post_init__(self):
        for name in ("max_new_tokens", "max_question_chars", "max_turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
