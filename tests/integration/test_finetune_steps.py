"""What a step computes, what a run writes down, and what a trained model then says."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from torch.nn import functional
from transformers import TrainerCallback

from qa_data.files import SefarError
from sefar_mllm import train
from sefar_mllm.adapters import composite
from sefar_mllm.build import load_tokenizer
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.config import FinetuneConfig, LoraSettings
from sefar_mllm.dataset import QuestionDataset
from sefar_mllm.prompt import (  # fmt: skip
    IGNORE,
    TEXT_REQUEST,
    Turn,
    encode_conversation,
    question_text,
)
from sefar_mllm.stages import QuestionTrainer
from sefar_mllm.train import build_trainable, finetune
from tests.oracles import toy_llm
from tests.oracles.permissions import unlike_opened

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A language model, and the tokens of the clips of 22 questions."""
    root = tmp_path_factory.mktemp("steps")
    toy_llm.language_model(root / "llm")
    asked = toy_llm.questions(22)
    return root, asked, toy_llm.cache(root / "tokens", asked)


def tiny(root, **changes):
    settings = {"epochs": 1, "batch_size": 8, "micro_batch_size": 2, "answer_style": "mixed"}
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.0, lr=1e-2)
    return FinetuneConfig(language_model=str(root / "llm"), lora=lora, **settings | changes)


class Gradients(TrainerCallback):
    """Keeps the gradients of each step, and the questions that it was made from."""

    def __init__(self, monkeypatch):
        self.found, self.clips = [], []
        whole = QuestionTrainer.training_step

        def step(trainer, model, inputs, *rest):
            self.clips.append(inputs["clip_ids"])
            return whole(trainer, model, inputs, *rest)

        monkeypatch.setattr(QuestionTrainer, "training_step", step)
        monkeypatch.setattr(QuestionTrainer, "_clip_grad_norm", lambda *_: torch.tensor(1.0))
        start = QuestionTrainer.__init__

        def with_callback(trainer, *parts, **named):
            start(trainer, *parts, **named)
            trainer.add_callback(self)

        monkeypatch.setattr(QuestionTrainer, "__init__", with_callback)

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        learned = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        self.found.append(learned)


def by_hand(model, dataset, clips):
    """Gradients of the mean over all labeled tokens, each question read by itself."""
    model.zero_grad()
    total = torch.zeros(())
    count = 0
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


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 8}, {"recompute": True}])
def test_a_step_is_the_mean_over_all_labeled_tokens_of_its_questions(
    world, tmp_path, monkeypatch, changes
):
    """However it comes in pieces, and whether or not activations are made twice."""
    root, asked, cache = world
    config = tiny(root, **changes)
    seen = Gradients(monkeypatch)
    finetune(config, asked, root / "tokens", tmp_path / "run")
    tokenizer = load_tokenizer(root / "llm")
    torch.manual_seed(config.seed)
    model = build_trainable(config, cache, tokenizer)
    model.train()
    dataset = QuestionDataset(
        asked, cache, tokenizer, video_id=composite(model).config.video_token_id,
        answer_style="mixed",
    )  # fmt: skip
    pieces = 8 // config.micro_batch_size
    first = [clip for clips in seen.clips[:pieces] for clip in clips]
    assert len(set(first)) == 8
    expected = by_hand(model, dataset, first)
    assert set(seen.found[0]) == set(expected)
    assert max(gradient.abs().max().item() for gradient in expected.values()) > 1e-2
    for name, gradient in expected.items():
        torch.testing.assert_close(seen.found[0][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert Counter(clip for clips in seen.clips for clip in clips) == Counter(
        question.video for question in asked
    )


def test_recomputing_gives_the_same_weights_to_the_last_bit(world, tmp_path):
    root, asked, _ = world
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.1, lr=1e-2)
    files = [
        finetune(
            replace(tiny(root, recompute=recompute), lora=lora), asked, root / "tokens",
            tmp_path / str(recompute),
        ) / "adapter_model.safetensors"
        for recompute in (False, True)
    ]  # fmt: skip
    assert files[0].read_bytes() == files[1].read_bytes()


def test_validation_questions_are_scored_after_each_epoch_and_never_learned(
    world, tmp_path, monkeypatch
):
    root, asked, _ = world
    seen = Gradients(monkeypatch)
    config = tiny(root, epochs=2, projector_epochs=1, dev_rate=0.3)
    finetune(config, asked, root / "tokens", tmp_path, files=(Path("a/train.jsonl"),))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["question_files"] == ["train.jsonl"]
    assert (record["train_questions"], record["dev_questions"]) == (15, 7)
    learned = {clip for clips in seen.clips for clip in clips}
    kept_apart = {q.video for q in asked if q.source in record["dev_sources"]}
    assert len(kept_apart) == 7 and not learned & kept_apart
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "dev_micro" in line]
    assert [(one["stage"], one["step"], one["epoch"]) for one in scored] == [
        ("projector", 2, 1.0), ("joint", 4, 1.0), ("joint", 6, 2.0),
    ]  # fmt: skip
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
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


def test_a_folder_of_other_questions_or_tokens_is_refused(world, tmp_path):
    root, asked, _ = world
    finetune(tiny(root), asked, root / "tokens", tmp_path)
    with pytest.raises(ValueError, match="holds a run with questions = "):
        finetune(tiny(root), asked[:-1], root / "tokens", tmp_path)


def test_a_batch_that_the_processes_cannot_share_is_refused_at_once(world, tmp_path, monkeypatch):
    root, asked, _ = world

    class Three:
        num_processes = 3

    monkeypatch.setattr(train, "PartialState", lambda **_: Three())
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SefarError, match="batch_size 8 cannot be split among 3 processes"):
        finetune(tiny(root), asked, root / "tokens", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named(world, tmp_path):
    root, asked, _ = world
    checkpoint = tmp_path / "checkpoints/joint/checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete").touch()
    (checkpoint / "trainer_state.json").write_text('{"global_step": ')
    with pytest.raises(ValueError, match=rf"^{checkpoint}/trainer_state\.json is damaged .*delete"):
        finetune(tiny(root), asked, root / "tokens", tmp_path)


def redraw_by_turning(asked):
    """Other options in every epoch: the given ones turned round by its number."""

    def draw(epoch):
        by = epoch % 4
        return [
            replace(q, options=q.options[by:] + q.options[:by], answer=(q.answer - by) % 4)
            for q in asked
        ]

    return draw


def test_each_epoch_is_trained_with_its_own_options(world, tmp_path):
    root, asked, cache = world
    drawn = []

    def draw(epoch):
        drawn.append(epoch)
        return redraw_by_turning(asked)(epoch)

    finetune(tiny(root, epochs=3, redraw="hard"), asked, root / "tokens", tmp_path, redraw=draw)
    assert drawn[-3:] == [0, 1, 2]  # after a look at the lengths of all
    tokenizer = load_tokenizer(root / "llm")
    made = QuestionDataset(asked, cache, tokenizer, video_id=640, redraw=redraw_by_turning(asked))
    made.begin_epoch(3)
    assert made.questions[0].options == asked[0].options[3:] + asked[0].options[:3]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda asked: asked[1:], "1 are missing and 0 are others; the one about clip0"),
        (lambda asked: [*asked, asked[2]], "0 are missing and 1 are others; the one about clip2"),
        (
            lambda asked: [replace(asked[0], answer=2), *asked[1:]],
            "with the answer 'salto forward tucked' is missing",
        ),
    ],
)
def test_an_epoch_with_other_clips_or_answers_is_refused(world, tmp_path, spoil, message):
    root, asked, _ = world
    with pytest.raises(SefarError, match=f"drawn for epoch 0 differ .*{message}"):
        finetune(
            tiny(root, redraw="hard"), asked, root / "tokens", tmp_path / "run",
            redraw=lambda _: spoil(asked),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_what_draws_must_be_given_with_the_setting_that_asks_for_it(world, tmp_path):
    root, asked, _ = world
    with pytest.raises(SefarError, match="redraw is hard, but questions are not drawn"):
        finetune(tiny(root, redraw="hard"), asked, root / "tokens", tmp_path)
    with pytest.raises(SefarError, match="redraw is none, but questions are drawn"):
        finetune(tiny(root), asked, root / "tokens", tmp_path, redraw=redraw_by_turning(asked))


def test_a_model_trained_on_both_says_a_text_or_a_letter_as_it_is_asked(tmp_path):
    asked = [one for one in toy_llm.questions(16) if one.answer in (0, 3)]
    cache = toy_llm.cache(tmp_path / "tokens", asked)
    config = FinetuneConfig(
        language_model="demo:llm",  # can read letters, knows nothing of these clips
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
            options = (*one.options[by:], *one.options[:by])
            letter = "ABCD"[(one.answer - by) % 4]
            assert said(one.video, question_text(one.stem, options)) == letter


@pytest.mark.parametrize("name", ["one_gpu_bf16", "ddp", "fsdp2", "zero2"])
def test_launch_settings_are_read_by_accelerate(name):
    path = ROOT / f"scripts/accelerate/{name}.yaml"
    config = ClusterConfig.from_yaml_file(str(path))
    # Mixed precision of FSDP would round the projector; the language model is in bfloat16 anyway.
    assert config.mixed_precision == ("no" if name == "fsdp2" else "bf16")
    options = vars(launch_command_parser().parse_args(["script.py"]))
    given = yaml.safe_load(path.read_text())
    for group in ("fsdp_config", "deepspeed_config"):
        assert set(given.get(group, {})) <= set(options)
    assert path.read_text().startswith("# ")
    assert ("Untested: needs several GPUs" in path.read_text()) == (name != "one_gpu_bf16")
    assert f"{name}.yaml" in (ROOT / "scripts/finetune_mllm.py").read_text()
