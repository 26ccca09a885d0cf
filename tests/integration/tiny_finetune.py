"""Fine-tuning small enough for a test: questions, tokens of their clips, settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import TrainerCallback

from qa_data.questions import Question, write_questions
from sefar_mllm.config import PRESETS, FinetuneConfig, LoraSettings
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.stages import QuestionTrainer
from sefar_mllm.train import finetune
from tests.integration.faulty_script import options
from tests.oracles import toy_llm

ADAPTER = "adapter_model.safetensors"
NUM_QUESTIONS = 22  # no multiple of a step's 4 or 8: the last step of an epoch is filled up
LORA_LR, PROJECTOR_LR = 1e-2, 3e-3


@dataclass(frozen=True)
class Toy:
    """A language model, 22 questions about clips, and the clips' tokens."""

    root: Path
    language_model: Path
    questions: Sequence[Question]
    cache: TokenCache

    def config(self, **changes) -> FinetuneConfig:
        """One epoch in three steps of eight; every source of chance that a test does not ask for
        is off."""
        settings = {
            "language_model": str(self.language_model),
            "lora": LoraSettings(rank=2, alpha=4.0, dropout=0.0, lr=LORA_LR),
            "projector_lr": PROJECTOR_LR,
            "epochs": 1,
            "batch_size": 8,
            "micro_batch_size": 8,
        }
        return FinetuneConfig(**settings | changes)

    def all_random(self, **changes) -> FinetuneConfig:
        """Both stages, with all that is drawn, and a checkpoint after every step."""
        lora = LoraSettings(rank=2, alpha=4.0, dropout=0.1, lr=LORA_LR)
        settings = {
            **{"lora": lora, "projector_lr": 1e-2, "projector_epochs": 1, "epochs": 2},
            **{"batch_size": 4, "micro_batch_size": 2, "warmup": 0.0, "answer_style": "mixed"},
            **{"token_noise": 0.1, "dev_rate": 0.3, "save_every_steps": 1},
        }
        return replace(self.config(), **settings | changes)

    def finetune(self, run_dir: Path, config: FinetuneConfig, **how) -> Path:
        """The model's folder."""
        return finetune(config, self.questions, self.root / "tokens", run_dir, **how)

    def command(self, run_dir: Path, config: FinetuneConfig) -> list[str]:
        """The command line of a run with these settings."""
        where = ["--encoder-features", self.root / "tokens", "--run-dir", run_dir]
        where += ["--questions", self.root / "questions.jsonl"]
        return ["finetune_mllm.py", "demo", *map(str, where), *options(config, PRESETS["demo"])]


def make_toy(root: Path, language_model: Path) -> Toy:
    asked = toy_llm.questions(NUM_QUESTIONS)
    write_questions(asked, root / "questions.jsonl")
    return Toy(root, language_model, asked, toy_llm.cache(root / "tokens", asked))


class Watch(TrainerCallback):
    """Keeps the inputs of every micro-batch, and of each step what learns: value before, gradient,
    value after."""

    def __init__(self, monkeypatch):
        self.steps, self.inputs = [], []
        start, whole = QuestionTrainer.__init__, QuestionTrainer.training_step

        def started(trainer, *parts, **named):
            start(trainer, *parts, **named)
            trainer.add_callback(self)

        def step(trainer, model, inputs, *rest):
            self.inputs.append(inputs)
            return whole(trainer, model, inputs, *rest)

        monkeypatch.setattr(QuestionTrainer, "__init__", started)
        monkeypatch.setattr(QuestionTrainer, "training_step", step)

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        learned = {n: p for n, p in model.named_parameters() if p.grad is not None}
        self.steps.append({n: [p.detach().clone(), p.grad.clone()] for n, p in learned.items()})

    def on_optimizer_step(self, args, state, control, model=None, **_):
        named = dict(model.named_parameters())
        for name, kept in self.steps[-1].items():
            kept.append(named[name].detach().clone())

    def clips(self, micro_batches: slice = slice(None)) -> list[str]:
        """The clips of these micro-batches, one after the other."""
        return [clip for inputs in self.inputs[micro_batches] for clip in inputs["clip_ids"]]
