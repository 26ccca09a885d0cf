"""Each setting of a fine-tuning does what it says, in the weights and the examples themselves."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from qa_data.files import SefarError
from qa_data.generate import build_questions, resample_distractors
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass
from sefar_mllm.adapters import lora_parameters, projector_parameters
from sefar_mllm.build import load_tokenizer
from sefar_mllm.config import FinetuneConfig, LoraSettings
from sefar_mllm.stages import QuestionTrainer
from sefar_mllm.train import build_trainable, finetune
from tests.oracles import toy_llm

ADAPTER = "adapter_model.safetensors"
LORA_LR, PROJECTOR_LR = 1e-2, 3e-3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A language model, and the tokens of the clips of 22 questions."""
    root = tmp_path_factory.mktemp("settings")
    toy_llm.language_model(root / "llm")
    asked = toy_llm.questions(22)
    return root, asked, toy_llm.cache(root / "tokens", asked)


def tiny(root, **changes):
    settings = {"epochs": 1, "batch_size": 8, "micro_batch_size": 8, "projector_lr": PROJECTOR_LR}
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.0, lr=LORA_LR)
    return FinetuneConfig(language_model=str(root / "llm"), lora=lora, **settings | changes)


def learned(world, run_dir, **changes):
    """The weights of a run with these settings."""
    root, asked, _ = world
    return load_file(finetune(tiny(root, **changes), asked, root / "tokens", run_dir) / ADAPTER)


class Watch(TrainerCallback):
    """Keeps what learns before, its gradient in, and its value after every step; and the inputs."""

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
        self.steps.append(
            {
                name: [p.detach().clone(), p.grad.clone()]
                for name, p in model.named_parameters()
                if p.grad is not None
            }
        )

    def on_optimizer_step(self, args, state, control, model=None, **_):
        named = dict(model.named_parameters())
        for name, kept in self.steps[-1].items():
            kept.append(named[name].detach().clone())


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_stage_a_moves_the_projector_alone_and_stage_b_lora_too(world, tmp_path):
    root, _, cache = world
    torch.manual_seed(0)
    begun = build_trainable(tiny(root), cache, load_tokenizer(root / "llm"))
    start = {n.removeprefix("base_model.model."): p for n, p in projector_parameters(begun)}
    assert len(start) == 7
    for name, epochs, moved in (("a", 0, False), ("b", 1, True)):
        found = learned(world, tmp_path / name, projector_epochs=1, epochs=epochs)
        lora = [tensor for tensor_name, tensor in found.items() if "lora_B" in tensor_name]
        assert len(lora) == len(list(lora_parameters(begun))) // 2
        assert all(tensor.abs().max().item() > 1e-4 for tensor in lora) == moved
        assert any(tensor.any() for tensor in lora) == moved
        for full, before in start.items():
            after = found["base_model.model." + full.replace(".modules_to_save.default", "")]
            assert (after - before.detach()).abs().max() > 1e-4, full


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_first_step_is_adamws_with_a_rate_and_decay_for_each_group(
    world, tmp_path, monkeypatch, decay
):
    seen = Watch(monkeypatch)
    learned(world, tmp_path, warmup=0.0, weight_decay=decay)
    rates = set()
    for name, (before, gradient, after) in seen.steps[0].items():
        rate = LORA_LR if "lora_" in name else PROJECTOR_LR
        rates.add(rate)
        # AdamW's first step: both moments are the gradient's own, after the correction of bias.
        expected = before * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert rates == {LORA_LR, PROJECTOR_LR}


def test_both_rates_rise_and_then_follow_a_cosine_in_each_stage(world, tmp_path):
    learned(world, tmp_path, projector_epochs=1, epochs=3, warmup=0.3)
    found = [line for line in lines(tmp_path) if "loss" in line]
    for first, count, warm in ((0, 3, 0), (3, 9, 2)):  # 0.3 of 3 steps is none whole
        for step in range(count):
            share = step / warm if step < warm else 1.0
            turned = math.pi * max(step - warm, 0) / (count - warm)
            share *= (1 + math.cos(turned)) / 2
            line = found[first + step]
            assert line["projector_lr"] == pytest.approx(share * PROJECTOR_LR, rel=1e-6, abs=1e-12)
            if first:
                assert line["lora_lr"] == pytest.approx(share * LORA_LR, rel=1e-6, abs=1e-12)
            else:
                assert "lora_lr" not in line


def test_gradients_are_cut_to_length_one(world, tmp_path, monkeypatch):
    seen = Watch(monkeypatch)
    learned(world, tmp_path, epochs=2)
    logged = [line["grad_norm"] for line in lines(tmp_path)]
    assert min(logged) < 1 < max(logged)
    for norm, step in zip(logged, seen.steps, strict=True):
        cut = torch.stack([gradient.norm() for _, gradient, _ in step.values()]).norm().item()
        assert cut == pytest.approx(min(norm, 1.0), rel=1e-4)


def test_noise_on_tokens_changes_what_is_learned(world, tmp_path):
    plain = learned(world, tmp_path / "plain")
    noisy = learned(world, tmp_path / "noisy", token_noise=0.5)
    assert any(not torch.equal(plain[name], noisy[name]) for name in plain)


def test_prompts_longer_than_allowed_are_refused(world, tmp_path):
    with pytest.raises(SefarError, match="22 of 22 prompts exceed 60 tokens"):
        learned(world, tmp_path / "run", max_length=60)
    assert not (tmp_path / "run").exists()


def test_the_language_model_is_held_in_the_numbers_that_are_asked_for(world, tmp_path):
    for dtype in ("float32", "bfloat16"):
        found = learned(world, tmp_path / dtype, dtype=dtype)
        fingerprint = json.loads((tmp_path / dtype / "model/fingerprint.json").read_text())
        assert fingerprint["precision"] == dtype
        assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def shown(inputs):
    """The prompt and answer of each clip, in one pass over the clips."""
    return {
        clip: ids[mask.bool()].tolist()
        for batch in inputs
        for clip, ids, mask in zip(
            batch["clip_ids"], batch["input_ids"], batch["attention_mask"], strict=True
        )
    }


def test_another_seed_and_another_stage_show_the_options_in_other_orders(
    world, tmp_path, monkeypatch
):
    passes = []
    for seed in (0, 1):
        seen = Watch(monkeypatch)
        learned(world, tmp_path / str(seed), seed=seed, projector_epochs=1, epochs=1)
        passes += [shown(seen.inputs[:3]), shown(seen.inputs[3:6])]
        monkeypatch.undo()
    assert all(len(one) == 22 for one in passes)
    for first in range(4):
        for second in range(first):
            same = [clip for clip in passes[0] if passes[first][clip] == passes[second][clip]]
            assert len(same) < 8  # one in 24 by chance


def test_each_epoch_of_either_stage_is_drawn_for_itself(world, tmp_path):
    root, asked, _ = world
    drawn = []
    config = tiny(root, projector_epochs=1, epochs=2, redraw="hard")
    finetune(
        config, asked, root / "tokens", tmp_path, redraw=lambda epoch: drawn.append(epoch) or asked
    )
    assert drawn[-3:] == [0, 1, 2]


def test_validation_clips_are_in_no_redrawn_epoch(world, tmp_path, monkeypatch):
    """`--dev-rate 0.3 --redraw hard`: the questions of each epoch are drawn about all clips."""
    root, _, _ = world
    classes = {n: ElementClass(n, 0, n, "FX", f"move {n}") for n in range(6)}
    clips = [
        Clip(id=f"c{n}-{i}", path="", label=n, text=f"move {n}", event="FX", source=f"s{i}",
             split="labeled")
        for n in classes
        for i in range(4)
    ]  # fmt: skip
    asked = build_questions(clips, classes, rule="event_prior", seed=0).questions
    toy_llm.cache(tmp_path / "tokens", asked)
    draw = resample_distractors(asked, clips, classes, rule="hard", seed=0)
    seen = Watch(monkeypatch)
    config = tiny(root, epochs=2, redraw="hard", dev_rate=0.3)
    finetune(config, asked, tmp_path / "tokens", tmp_path / "run", redraw=draw)
    record = json.loads((tmp_path / "run/run.json").read_text())
    validation = {question.video for question in asked if question.source in record["dev_sources"]}
    trained = {clip for batch in seen.inputs for clip in batch["clip_ids"]}
    assert len(validation) == 6 and trained == {question.video for question in asked} - validation
