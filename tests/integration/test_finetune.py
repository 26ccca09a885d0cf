"""What a fine-tuning step computes, what each setting does, and what a run leaves."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file
from torch.nn import functional

from qa_data.files import SefarError
from qa_data.generate import build_questions, resample_distractors
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass
from sefar_core.checkpoint import CheckpointError
from sefar_mllm.adapters import composite, lora_parameters, projector_parameters
from sefar_mllm.build import load_tokenizer
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.config import PRESETS, FinetuneConfig, LoraSettings
from sefar_mllm.dataset import QuestionDataset
from sefar_mllm.evaluation.significance import compare_seeds
from sefar_mllm.prompt import IGNORE, TEXT_REQUEST, Turn, encode_conversation, question_text
from sefar_mllm.scoring import read_predictions
from sefar_mllm.stages import QuestionTrainer
from sefar_mllm.train import build_trainable, finetune, refuse_rounding_shards
from tests.integration.faulty_script import options, shipped_fsdp
from tests.integration.run_folders import lines
from tests.integration.tiny_finetune import ADAPTER, LORA_LR, PROJECTOR_LR, Watch, make_toy
from tests.oracles import toy_llm
from tests.oracles.permissions import unlike_opened
from tests.script_process import ROOT, call_script
from tests.world import FINETUNING


@pytest.fixture(scope="module")
def toy(world, tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("finetune"), world.language_model)


def weights(toy, run_dir: Path, **changes) -> dict[str, torch.Tensor]:
    """What a run with these settings has learned."""
    return load_file(toy.finetune(run_dir, toy.config(**changes)) / ADAPTER)


def by_hand(model, dataset, clips) -> dict[str, torch.Tensor]:
    """Gradients of the mean over all labeled tokens, each question read by itself."""
    model.zero_grad()
    total, count = torch.zeros(()), 0
    places = {question.video: place for place, question in enumerate(dataset.questions)}
    for clip in clips:
        item = dataset[places[clip]]
        ids, labels = (torch.tensor([values]) for values in vars(item["prompt"]).values())
        logits = composite(model)(input_ids=ids, video_tokens=item["video_tokens"][None]).logits
        total = total + functional.cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=IGNORE, reduction="sum"
        )
        count += int((labels[0, 1:] != IGNORE).sum())
    (total / count).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "changes", [{"micro_batch_size": 2}, {}, {"micro_batch_size": 2, "recompute": True}]
)
def test_a_step_is_the_mean_over_all_labeled_tokens_of_its_questions(
    toy, tmp_path, monkeypatch, changes
):
    """However it comes in pieces, and whether or not activations are made twice."""
    config = toy.config(answer_style="mixed", **changes)
    seen = Watch(monkeypatch)
    monkeypatch.setattr(QuestionTrainer, "_clip_grad_norm", lambda *_: torch.tensor(1.0))
    toy.finetune(tmp_path / "run", config)
    tokenizer = load_tokenizer(toy.language_model)
    torch.manual_seed(config.seed)
    model = build_trainable(config, toy.cache, tokenizer)
    model.train()
    video_id = composite(model).config.video_token_id
    dataset = QuestionDataset(
        toy.questions, toy.cache, tokenizer, video_id=video_id, answer_style="mixed"
    )
    first = seen.clips(slice(8 // config.micro_batch_size))
    assert len(set(first)) == 8
    expected = by_hand(model, dataset, first)
    assert set(seen.steps[0]) == set(expected)
    assert max(gradient.abs().max().item() for gradient in expected.values()) > 1e-2
    for name, gradient in expected.items():
        torch.testing.assert_close(seen.steps[0][name][1], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert Counter(seen.clips()) == Counter(question.video for question in toy.questions)


@pytest.mark.slow
def test_recomputing_gives_the_same_weights_to_the_last_bit(toy, tmp_path):
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.1, lr=1e-2)
    plain, recomputed = (
        weights(toy, tmp_path / str(recompute), lora=lora, recompute=recompute)
        for recompute in (False, True)
    )
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_stage_a_moves_the_projector_alone_and_stage_b_lora_too(toy, tmp_path):
    torch.manual_seed(0)
    begun = build_trainable(toy.config(), toy.cache, load_tokenizer(toy.language_model))
    start = {n.removeprefix("base_model.model."): p for n, p in projector_parameters(begun)}
    assert len(start) == 7
    for name, epochs, moved in (("a", 0, False), ("b", 1, True)):
        found = weights(toy, tmp_path / name, projector_epochs=1, epochs=epochs)
        lora = [tensor for tensor_name, tensor in found.items() if "lora_B" in tensor_name]
        assert len(lora) == len(list(lora_parameters(begun))) // 2
        assert all(tensor.abs().max().item() > 1e-4 for tensor in lora) == moved
        assert any(tensor.any() for tensor in lora) == moved
        for full, before in start.items():
            after = found["base_model.model." + full.replace(".modules_to_save.default", "")]
            assert (after - before.detach()).abs().max() > 1e-4, full


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_first_step_is_adamws_with_a_rate_and_decay_for_each_group(
    toy, tmp_path, monkeypatch, decay
):
    seen = Watch(monkeypatch)
    weights(toy, tmp_path, warmup=0.0, weight_decay=decay, epochs=2)
    rates = set()
    for name, (before, gradient, after) in seen.steps[0].items():
        rate = LORA_LR if "lora_" in name else PROJECTOR_LR
        rates.add(rate)
        # AdamW's first step: both moments are the gradient's own, after the correction of bias.
        expected = before * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert rates == {LORA_LR, PROJECTOR_LR}
    logged = [line["grad_norm"] for line in lines(tmp_path)]  # gradients are cut to length one
    assert min(logged) < 1 < max(logged)
    for norm, step in zip(logged, seen.steps, strict=True):
        cut = torch.stack([gradient.norm() for _, gradient, _ in step.values()]).norm().item()
        assert cut == pytest.approx(min(norm, 1.0), rel=1e-4)


def test_both_rates_rise_and_then_follow_a_cosine_in_each_stage(toy, tmp_path):
    weights(toy, tmp_path, projector_epochs=1, epochs=3, warmup=0.3)
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


@pytest.mark.slow
def test_noise_and_precision_do_what_they_say(toy, tmp_path):
    plain = weights(toy, tmp_path / "float32", dtype="float32")
    noisy = weights(toy, tmp_path / "noisy", token_noise=0.5)
    half = weights(toy, tmp_path / "bfloat16", dtype="bfloat16")
    assert any(not torch.equal(plain[name], noisy[name]) for name in plain)
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}
    for dtype in ("float32", "bfloat16"):  # of the language model
        fingerprint = json.loads((tmp_path / dtype / "model/fingerprint.json").read_text())
        assert fingerprint["precision"] == dtype


@pytest.mark.slow
def test_another_seed_and_another_stage_show_the_options_in_other_orders(
    toy, tmp_path, monkeypatch
):
    prompts = []
    for seed in (0, 1):
        with monkeypatch.context() as patch:
            seen = Watch(patch)
            weights(toy, tmp_path / str(seed), seed=seed, projector_epochs=1, epochs=1)
        prompts += [
            (clip, *ids[mask.bool()].tolist())
            for batch in seen.inputs
            for clip, ids, mask in zip(
                batch["clip_ids"], batch["input_ids"], batch["attention_mask"], strict=True
            )
        ]
    assert len(prompts) == 4 * 22
    assert len(set(prompts)) > 3 * 22  # an order comes again for one in 24 by chance


def test_validation_questions_are_scored_after_each_epoch_and_never_learned(
    toy, tmp_path, monkeypatch
):
    seen = Watch(monkeypatch)
    config = toy.config(epochs=2, projector_epochs=1, dev_rate=0.3)
    toy.finetune(tmp_path, config, files=(Path("a/train.jsonl"),))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["question_files"] == ["train.jsonl"]
    assert (record["train_questions"], record["dev_questions"]) == (15, 7)
    kept_apart = {q.video for q in toy.questions if q.source in record["dev_sources"]}
    assert len(kept_apart) == 7 and not set(seen.clips()) & kept_apart
    scored = [line for line in lines(tmp_path) if "dev_micro" in line]
    assert [(one["stage"], one["step"], one["epoch"]) for one in scored] == [
        ("projector", 2, 1.0), ("joint", 4, 1.0), ("joint", 6, 2.0),
    ]  # fmt: skip
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert all(0 <= one["dev_macro"] <= 1 for one in scored)
    assert record["best_dev"] == max(scored, key=lambda one: one["dev_micro"])
    adapter = load_trained(tmp_path / "model")[0].state_dict()
    sizes = [t.numel() for n, t in adapter.items() if "lora_" in n]
    assert record["lora_parameters"] == sum(sizes)
    assert record["projector_parameters"] == sum(
        tensor.numel() for name, tensor in adapter.items() if ".modules_to_save." in name
    )
    assert record["features"]["encoder"] == "sefar" and len(record["packages"]) > 5
    assert unlike_opened(tmp_path) == []


def turned(asked, by: int):
    """The same questions, their options turned round."""
    return [
        replace(q, options=q.options[by:] + q.options[:by], answer=(q.answer - by) % 4)
        for q in asked
    ]


def test_each_epoch_of_either_stage_is_trained_with_its_own_options(toy, tmp_path):
    drawn = []

    def draw(epoch):
        drawn.append(epoch)
        return turned(toy.questions, epoch % 4)

    config = toy.config(projector_epochs=1, epochs=2, redraw="hard")
    toy.finetune(tmp_path, config, redraw=draw)
    assert drawn[-3:] == [0, 1, 2]  # after a look at the lengths of all
    tokenizer = load_tokenizer(toy.language_model)
    made = QuestionDataset(toy.questions, toy.cache, tokenizer, video_id=640, redraw=draw)
    made.begin_epoch(3)
    options = toy.questions[0].options
    assert made.questions[0].options == options[3:] + options[:3]


def test_validation_clips_are_in_no_redrawn_epoch(toy, tmp_path, monkeypatch):
    """`--dev-rate 0.3 --redraw hard`: the questions of each epoch are drawn about all clips."""
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
    config = toy.config(epochs=2, redraw="hard", dev_rate=0.3)
    finetune(config, asked, tmp_path / "tokens", tmp_path / "run", redraw=draw)
    record = json.loads((tmp_path / "run/run.json").read_text())
    validation = {question.video for question in asked if question.source in record["dev_sources"]}
    others = {question.video for question in asked} - validation
    assert len(validation) == 6 and set(seen.clips()) == others


def spoiled(asked, fault: str):
    return {
        "missing": asked[1:],
        "twice": [*asked, asked[2]],
        "answer": [replace(asked[0], answer=2), *asked[1:]],
    }[fault]


@pytest.mark.parametrize(
    ("changes", "redraw", "message"),
    [
        ({"redraw": "hard"}, "missing", "epoch 0 .*1 are missing and 0 are others; .*about clip0"),
        ({"redraw": "hard"}, "twice", "epoch 0 .*0 are missing and 1 are others; .*about clip2"),
        ({"redraw": "hard"}, "answer", "epoch 0 .*'salto forward tucked' is missing"),
        ({"redraw": "hard"}, None, "redraw is hard, but questions are not drawn"),
        ({}, "twice", "redraw is none, but questions are drawn"),
        ({"max_length": 60}, None, "22 of 22 prompts exceed 60 tokens"),
    ],
)
def test_questions_that_cannot_be_trained_on_are_refused_before_the_run(
    toy, tmp_path, changes, redraw, message
):
    draw = redraw and (lambda _: spoiled(toy.questions, redraw))
    with pytest.raises(SefarError, match=message):
        toy.finetune(tmp_path / "run", toy.config(**changes), redraw=draw)
    assert not (tmp_path / "run").exists()


def test_processes_that_cannot_work_together_are_refused(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="the launcher started 2 processes"):
        toy.finetune(tmp_path / "run", toy.config())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changed", [{"FSDP_VERSION": "1"}, {"ACCELERATE_MIXED_PRECISION": "bf16"}])
def test_sharding_that_would_round_the_projector_is_refused(monkeypatch, changed):
    for name, value in (shipped_fsdp() | {"ACCELERATE_MIXED_PRECISION": "no"}).items():
        monkeypatch.setenv(name, value)
    refuse_rounding_shards()
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SefarError, match="launch with scripts/accelerate/fsdp2.yaml"):
        refuse_rounding_shards()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    refuse_rounding_shards()


@pytest.mark.parametrize("name", ["one_gpu_bf16", "ddp", "fsdp2", "zero2"])
def test_launch_settings_are_read_by_accelerate(name):
    path = ROOT / f"scripts/accelerate/{name}.yaml"
    config = ClusterConfig.from_yaml_file(str(path))
    # Mixed precision of FSDP would round the projector; the language model is in bfloat16 anyway.
    assert config.mixed_precision == ("no" if name == "fsdp2" else "bf16")
    known = vars(launch_command_parser().parse_args(["script.py"]))
    given = yaml.safe_load(path.read_text())
    for group in ("fsdp_config", "deepspeed_config"):
        assert set(given.get(group, {})) <= set(known)
    assert path.read_text().startswith("# ")
    assert ("Untested: needs several GPUs" in path.read_text()) == (name != "one_gpu_bf16")
    assert f"{name}.yaml" in (ROOT / "scripts/finetune_mllm.py").read_text()


def test_a_run_is_resumed_with_its_own_settings_and_questions_or_not_at_all(world, tmp_path):
    run_dir = shutil.copytree(world.finetuned, tmp_path / "run")
    config = replace(FINETUNING, language_model=str(world.language_model))
    questions = ("--questions", world.questions / "train.jsonl")
    words = ("finetune_mllm.py", "demo", "--encoder-features", world.tokens, "--run-dir", run_dir)
    words += tuple(options(config, PRESETS["demo"]))
    for more, message in [
        ((*questions, "--epochs", 3), "a run with epochs = 1, but 3 is requested"),
        (("--questions", world.questions / "val.jsonl"), "holds a run with questions = "),
    ]:
        done = call_script(*words, *more)
        assert done.returncode == 1 and message in done.stderr
    settings = json.loads((run_dir / "config.json").read_text())
    assert settings["num_processes"] == "1"
    (run_dir / "config.json").write_text(json.dumps(settings | {"num_processes": "2"}))
    done = call_script(*words, *questions)
    assert "a run with num_processes = 2, but 1 is requested" in done.stderr


def test_a_trained_model_is_scored_by_its_script_the_same_again(world, tmp_path):
    for name in ("one", "two"):
        done = call_script(
            "evaluate_mllm.py", "--model", world.finetuned / "model",
            "--encoder-features", world.tokens, "--questions", world.questions / "test.jsonl",
            "--out", tmp_path / name, "--resamples", 100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    first, second = (
        read_predictions(tmp_path / f"{name}/predictions-test.jsonl") for name in ("one", "two")
    )
    assert len(first) == 17
    rng = np.random.default_rng(0)
    same = compare_seeds([first], [second], resamples=100, rng=rng).micro
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert [one.probs for one in first] == [one.probs for one in second]


def test_a_folder_that_merging_would_refuse_is_refused_before_anything_is_learned(toy, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").touch()
    words = toy.command(tmp_path / "run", toy.config())
    done = call_script(*words, "--merge", tmp_path / "thesis")
    assert done.returncode == 1
    assert "thesis holds something that is not a merged model" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_model_trained_on_both_says_a_text_or_a_letter_as_it_is_asked(tmp_path):
    asked = [one for one in toy_llm.questions(16) if one.answer in (0, 3)]
    cache = toy_llm.cache(tmp_path / "tokens", asked)
    config = FinetuneConfig(
        # The demo's can read letters, and knows nothing of these clips.
        language_model=PRESETS["demo"].language_model,
        lora=LoraSettings(rank=16, alpha=32.0, dropout=0.0, lr=4e-3),
        projector_lr=4e-3,
        epochs=30,
        batch_size=8,
        micro_batch_size=8,
        answer_style="mixed",
    )
    model, tokenizer = load_trained(finetune(config, asked, tmp_path / "tokens", tmp_path / "run"))
    vlm = composite(model)

    def said(clip, text):
        prompt = encode_conversation(
            tokenizer, [Turn(text)], num_video_tokens=32, video_id=vlm.config.video_token_id
        )
        ids = torch.tensor([prompt.ids])
        out = vlm.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            video_tokens=cache[clip][None].float(),
            do_sample=False,
            max_new_tokens=16,
        )
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()

    for one in asked:
        assert said(one.video, f"{one.stem} {TEXT_REQUEST}") == one.options[one.answer]
        for by in range(4):  # the letter follows the options, the text does not need them
            (other,) = turned([one], by)
            letter = "ABCD"[other.answer]
            assert said(one.video, question_text(one.stem, other.options)) == letter


def test_a_run_leaves_settings_numbers_and_a_model_without_its_base(world):
    run_dir = world.finetuned
    assert json.loads((run_dir / "config.json").read_text())["lora"]["rank"] == 2
    assert "packages" in json.loads((run_dir / "run.json").read_text())
    assert lines(run_dir) and all(np.isfinite(line["loss"]) for line in lines(run_dir))
    names = {path.name for path in (run_dir / "model").iterdir()}
    assert {ADAPTER, "config.json", "tokenizer.json", "fingerprint.json"} <= names
    assert not any(name.startswith("model") or name.endswith((".bin", ".pt")) for name in names)


def test_another_language_model_is_noticed_when_loading(world, tmp_path):
    other = toy_llm.language_model(tmp_path / "llm", seed=5)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(world.finetuned / "model", language_model=str(other))
