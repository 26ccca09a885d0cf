"""Every setting of the language-model half: default, unit, source, and the check; the presets.

The command lines are made from these classes. The defaults are for Vicuna-7B. Nothing here
imports torch, so that `--help` is quick.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from sefar_core.config import check, check_seed

RecognizerName = Literal["sefar", "supervised", "sefar_elements", "sefar_fused"]
EncoderName = Literal[
    RecognizerName, "clip", "eva", "clip_probe", "eva_probe", "random", "constant"
]
AnswerStyle = Literal["letter", "text", "mixed"]
DtypeName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Settings of scripts/extract_features.py."""

    manifest: Path
    """CSV of clips, written by make_splits.py."""
    video_root: Path
    """Folder that the paths in the manifest start from."""
    encoder: EncoderName
    """Encoder of the frames."""
    encoder_dir: Path
    """Run folder or encoder folder of the recognizer, also for the controls, which take its
    architecture. For clip and eva a folder of their weights or a hub name; for a probe the folder
    that fit_probe.py wrote."""
    out: Path
    """Folder of the token cache to write."""
    moments_of: Path | None = None
    """Run folder of a recognizer: show clip or eva the frames at its moments. By default the
    centers of equal segments."""
    splits: tuple[Literal["labeled", "unlabeled", "val", "test"], ...] = ("labeled", "val", "test")
    """Splits of the manifest to encode."""
    grid: int = 2
    """Pool the tokens of a frame to grid x grid: 8 frames at grid 2 give 32 tokens."""
    frame_order: Literal["in_order", "reversed", "shuffled", "middle"] = "in_order"
    """Order in which the encoder sees the frames; all but in_order are controls."""
    seed: int = 0
    """Random seed of the weights of the encoder random."""

    def __post_init__(self):
        check_seed(self.seed)
        check(self.grid >= 1, "grid must be at least 1", self.grid)
        if not self.splits:
            raise ValueError("splits is empty; name at least one split")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Settings of scripts/fit_probe.py."""

    features: Path
    """Token cache of `clip` or `eva`, with the labeled clips and the val clips."""
    manifest: Path
    """CSV of clips, written by make_splits.py."""
    out: Path
    """Folder of the probe to write."""
    tokens_out: Path | None = None
    """Also write the mapped tokens of all clips in --features to this token cache."""
    max_steps: int = 300
    """Most full-batch steps. The number of steps is chosen on held-out sources, up to this."""
    lr: float = 3e-4
    """AdamW learning rate."""
    seed: int = 0
    """Random seed of the held-out sources."""

    def __post_init__(self):
        in_25s = self.max_steps >= 25 and self.max_steps % 25 == 0
        check(in_25s, "max_steps must be a multiple of 25", self.max_steps)
        check(0 < self.lr < math.inf, "lr must be > 0", self.lr)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Settings of LoRA."""

    rank: int = 16
    """Rank of the LoRA matrices; 16 in all seven linears of a Llama-7B is 40 M parameters."""
    alpha: float = 32.0
    """Scale of LoRA: the update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout of the input of LoRA."""
    lr: float = 2e-4
    """Peak learning rate of the LoRA matrices."""

    def __post_init__(self):
        check(self.rank >= 1, "lora.rank must be at least 1", self.rank)
        check(0 <= self.dropout < 1, "lora.dropout must be in [0, 1)", self.dropout)
        positive = 0 < self.lr < math.inf and 0 < self.alpha < math.inf
        check(positive, "lora.lr and lora.alpha must be > 0", f"{self.lr}, {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of scripts/finetune_mllm.py."""

    language_model: str = "lmsys/vicuna-7b-v1.5"
    """Folder or hub name of a Llama-family language model with its tokenizer; `demo:llm` is the
    demo's, which the package ships."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    projector_lr: float = 5e-4
    """Peak learning rate of the projector, in both stages."""
    projector_epochs: int = 0
    """Epochs of stage A, which trains the projector alone; 0 skips the stage."""
    epochs: int = 5
    """Epochs of stage B, which trains LoRA and the projector."""
    batch_size: int = 16
    """Questions per optimizer step, over all devices."""
    micro_batch_size: int = 16
    """Questions that a device takes at a time; gradients are accumulated up to batch_size."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises; a cosine then lowers it to 0."""
    weight_decay: float = 0.0
    """AdamW weight decay, applied to all trained parameters."""
    answer_style: AnswerStyle = "letter"
    """Form of the answers that are trained on. letter: the option's letter; text: the option's
    text, half of the time as "C. text"; mixed: letter or text at random for each question."""
    redraw: Literal["none", "public", "hard"] = "none"
    """Draw the wrong options anew in every epoch, by a rule of qa_data/distractors.py; none: keep
    those of the question files."""
    dev_rate: float = 0.0
    """Share of the questions to hold out, by source video, and to validate on after each epoch."""
    token_noise: float = 0.0
    """Standard deviation of noise on video tokens in training, in units of a token's spread."""
    max_length: int = 2048
    """Longest prompt in tokens. Longer prompts are refused, never truncated."""
    dtype: DtypeName = "auto"
    """Precision of the frozen language model; auto: bfloat16 on CUDA, float32 elsewhere."""
    four_bit: bool = False
    """Load the frozen language model in 4 bits: a third of the memory. Needs bitsandbytes."""
    recompute: bool = False
    """Recompute activations in the backward pass: less memory, slower, the same gradients."""
    save_every_steps: int = 0
    """Optimizer steps between checkpoints; 0: only at the end of a stage. A run that is stopped by
    a signal always saves one."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self):
        check_seed(self.seed)
        for name in ("batch_size", "micro_batch_size", "max_length"):
            value = getattr(self, name)
            check(value >= 1, f"{name} must be at least 1", value)
        for name in ("weight_decay", "token_noise", "save_every_steps"):
            value = getattr(self, name)
            check(0 <= value < math.inf, f"{name} must not be negative", value)
        batch, micro = self.batch_size, self.micro_batch_size
        rule = "batch_size must be a multiple of micro_batch_size"
        check(batch % micro == 0, rule, f"{batch} and {micro}")
        alone, both = self.projector_epochs, self.epochs
        rule = "projector_epochs and epochs must not be negative, and one of them positive"
        check(min(alone, both) >= 0 and max(alone, both) >= 1, rule, f"{alone} and {both}")
        check(0 <= self.warmup < 1, "warmup is a share of the steps, in [0, 1)", self.warmup)
        rule = "dev_rate is a share of the questions, in [0, 1)"
        check(0 <= self.dev_rate < 1, rule, self.dev_rate)
        check(0 < self.projector_lr < math.inf, "projector_lr must be > 0", self.projector_lr)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of scripts/evaluate_mllm.py."""

    model: Path
    """Folder that finetune_mllm.py wrote, RUN/model, or merge_mllm.py."""
    language_model: str | None = None
    """Folder or hub name of the language model, if it is not where it was in training."""
    encoder_features: Path
    """Token cache of the encoder that the model was trained with."""
    questions: tuple[Path, ...]
    """Question files, one table row each: .jsonl, public .json, or lines of your own."""
    out: Path
    """Folder for predictions-NAME.jsonl and metrics.json."""
    manifest: Path | None = None
    """CSV of clips, written by make_splits.py. It gives class and source to questions without them,
    and shows which sources have no training clip."""
    train_questions: Path | None = None
    """Questions that the model was trained on. They show which test questions a guess by frequency
    gets wrong, and how frequent each class is."""
    shuffle_videos: bool = False
    """Control: show every question the video of another clip."""
    frame_order: Literal["in_order", "reversed", "shuffled", "middle"] | None = None
    """Control: frame order of the token cache, where the model was trained on another one. By
    default the two must agree."""
    letters: str | None = None
    """Control: mark the options by these characters in place of A, B, C, ..., such as 1234."""
    diagnostics: bool = False
    """Also generate answers and score the texts of the options: several times slower."""
    batch_size: int = 32
    """Questions that are scored at a time, each in all rotations of its options."""
    resamples: int = 2000
    """Bootstrap resamples of the source videos."""
    seed: int = 0
    """Random seed of the bootstrap and of --shuffle-videos."""

    def __post_init__(self):
        check_seed(self.seed, least=0)
        if not self.questions:
            raise ValueError("questions is empty; name at least one question file")
        if self.letters is not None and len(set(self.letters)) < max(2, len(self.letters)):
            raise ValueError(f"letters must be two or more different ones, got {self.letters!r}")
        if self.letters is not None and self.diagnostics:
            raise ValueError("diagnostics use the letters A, B, C, ...; run them without --letters")
        found = f"{self.batch_size} and {self.resamples}"
        enough = self.batch_size >= 1 and self.resamples >= 100
        check(enough, "batch_size must be at least 1 and resamples at least 100", found)


@dataclass(frozen=True, kw_only=True)
class ChatLimits:
    """Limits of questions and answers in a chat."""

    max_new_tokens: int = 128
    """Longest answer in tokens."""
    max_question_chars: int = 2000
    """Longest question or option in characters; 2000 are some 500 tokens."""
    max_turns: int = 20
    """Most questions in a conversation. The model's context may end it earlier."""

    def __post_init__(self):
        for name in ("max_new_tokens", "max_question_chars", "max_turns"):
            value = getattr(self, name)
            check(value >= 1, f"{name} must be at least 1", value)


def demo() -> FinetuneConfig:
    """The toy language model of the demo, on two CPU cores in a minute."""
    return FinetuneConfig(
        language_model="demo:llm",
        lora=LoraSettings(rank=8, alpha=16.0, dropout=0.0, lr=1e-3),
        projector_lr=2e-3,
        epochs=10,
        batch_size=16,
        micro_batch_size=16,
        warmup=0.1,
    )


def vicuna_7b() -> FinetuneConfig:
    """Vicuna-7B v1.5: the projector alone first, then LoRA with it. Proposed, not tuned."""
    return FinetuneConfig(projector_epochs=2, epochs=5, answer_style="mixed")


PRESETS = {preset.__name__: preset() for preset in (demo, vicuna_7b)}


class PresetChoice(NamedTuple):
    """A preset from a command line, and the rest of the line for tyro."""

    config: FinetuneConfig
    prog: str
    changes: list[str]


def choose_preset(arguments: Sequence[str], script: str) -> PresetChoice:
    """The preset that the first argument names; with --help alone, vicuna_7b for its values.

    `arguments` is the command line without the script; `script` is for its usage line. ValueError
    if the first argument is not a preset.
    """
    name, *changes = arguments or ("",)
    if name in ("-h", "--help"):
        return PresetChoice(PRESETS["vicuna_7b"], f"{script} {{{','.join(PRESETS)}}}", ["--help"])
    if name not in PRESETS:
        raise ValueError(
            f"the first argument is a preset, {' or '.join(PRESETS)}, got {name!r}; "
            f"{script} --help lists every setting"
        )
    return PresetChoice(PRESETS[name], f"{script} {name}", changes)
