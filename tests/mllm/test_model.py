import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    DynamicCache,
)

from qa_data.files import SefarError
from sefar_mllm import model as module
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.dataset import pad_batch
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import Turn, encode_conversation
from sefar_mllm.scoring import positions
from tests.oracles import toy_llm, toy_trained

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    return build_vlm(
        folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={}, seed=0
    ).eval()


def prompt(model, tokenizer, text="what is this?"):
    return encode_conversation(
        tokenizer, [Turn(text)], num_video_tokens=32, video_id=model.config.video_token_id
    )


def video(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *toy_llm.SHAPE, toy_llm.DIM, generator=generator)


def test_merged_embeddings_are_words_and_projected_tokens_each_in_its_place(model, tokenizer):
    ids = prompt(model, tokenizer).ids
    tokens = video(1)
    merged = model.model.merge(torch.tensor([ids]), tokens)[0]
    projected = list(model.model.multi_modal_projector(tokens)[0])
    table = model.get_input_embeddings().weight
    for place, token in enumerate(ids):
        expected = projected.pop(0) if token == model.config.video_token_id else table[token]
        torch.testing.assert_close(merged[place], expected)
    assert not projected


def test_text_alone_gives_the_language_models_own_logits(model, tokenizer, folder):
    ids = torch.tensor([tokenizer("what is this?")["input_ids"]])
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.parametrize(
    "family",
    [
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1},
        {"vocab_size": 704},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        {"attention_bias": True},
    ],
    ids=lambda family: next(iter(family)),
)
def test_relatives_of_llama_keep_their_own_logits(folder, tokenizer, tmp_path, family):
    # Large weights: what is lost of a trait is then seen in the logits.
    relative = toy_trained.relative(folder, tmp_path / "llm", initializer_range=0.3, **family)
    whole = build_vlm(relative, token_dim=12, token_shape=toy_llm.SHAPE, encoder={}).eval()
    plain = AutoModelForCausalLM.from_pretrained(relative, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer("what is this?")["input_ids"]])
    assert_close(whole(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert whole.config.video_token_id == plain.config.vocab_size  # rows, padding included
    whole.save_pretrained(tmp_path / "whole")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole").eval()
    seen = {"input_ids": torch.tensor([prompt(whole, tokenizer).ids]), "video_tokens": video(1)}
    assert_close(again(**seen).logits, whole(**seen).logits, rtol=1e-4, atol=1e-4)
    tied = again.lm_head.weight is again.get_input_embeddings().weight
    assert tied == family.get("tie_word_embeddings", False)


def test_the_vocabulary_is_not_resized(model, tokenizer):
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.config.video_token_id == len(tokenizer)


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_placeholders_names_the_clip_and_both_counts(model, tokenizer, surplus):
    ids = encode_conversation(
        tokenizer,
        [Turn("q")],
        num_video_tokens=32 + surplus,
        video_id=model.config.video_token_id,
    ).ids
    with pytest.raises(SefarError, match=f"clip somersault.*{32 + surplus} .*32 tokens"):
        model(input_ids=torch.tensor([ids]), video_tokens=video(1), clip_ids=["somersault"])


def test_placeholders_without_a_video_are_refused(model, tokenizer):
    with pytest.raises(
        SefarError, match="row 0 of the batch: the prompt has 32 placeholders, the video 0 "
    ):
        model(input_ids=torch.tensor([prompt(model, tokenizer).ids]))


def test_more_clips_than_prompts_are_refused(model, tokenizer):
    with pytest.raises(SefarError, match="1 prompts came with the tokens of 2"):
        model(input_ids=torch.tensor([prompt(model, tokenizer).ids]), video_tokens=video(2))


def test_every_row_sees_its_own_video(model, tokenizer):
    ids = torch.tensor([prompt(model, tokenizer).ids] * 2)
    both = model(input_ids=ids, video_tokens=video(2)).logits
    alone = model(input_ids=ids[1:], video_tokens=video(2)[1:]).logits
    torch.testing.assert_close(both[1], alone[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])


def test_padding_on_the_left_changes_no_answer(model, tokenizer):
    short, long = prompt(model, tokenizer), prompt(model, tokenizer, "what is this move called?")
    batch = pad_batch([short, long], tokenizer.pad_token_id, side="left")
    del batch["labels"]
    together = model(
        **batch, position_ids=positions(batch["attention_mask"]), video_tokens=video(2)
    ).logits[:, -1]
    for row, one in enumerate((short, long)):
        alone = model(input_ids=torch.tensor([one.ids]), video_tokens=video(2)[row : row + 1])
        torch.testing.assert_close(together[row], alone.logits[0, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_follows_the_highest_logit_step_by_step(model, tokenizer, use_cache):
    ids = prompt(model, tokenizer).ids
    written = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        video_tokens=video(1),
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        use_cache=use_cache,
    )[0].tolist()
    expected = list(ids)
    for _ in range(5):
        logits = model(input_ids=torch.tensor([expected]), video_tokens=video(1)).logits[0, -1]
        logits[tokenizer.eos_token_id] = -torch.inf
        expected.append(int(logits.argmax()))
    assert written == expected


@pytest.mark.slow
def test_a_decoded_token_is_one_graph_with_and_without_lora():
    command = [sys.executable, "-m", "tests.oracles.compiled_step"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_nothing_is_asked_of_the_device_about_a_decoded_token(model, tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "check_counts", lambda place, *_: asked.append(place.shape[1]))
    ids = prompt(model, tokenizer).ids
    model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        video_tokens=video(1),
        max_new_tokens=4,
        do_sample=False,
    )
    assert asked == [len(ids)]


def test_a_placeholder_is_counted_wherever_it_is_not_surely_decoded(model):
    placeholder = model.config.video_token_id
    cache = DynamicCache(config=model.config.text_config)
    refused = "row 0 of the batch: the prompt has 1 placeholders, the video 0 tokens"
    with pytest.raises(SefarError, match=refused):
        model(input_ids=torch.tensor([[placeholder]]), past_key_values=cache)
    model(input_ids=torch.tensor([[1, 5]]), past_key_values=cache)
    with pytest.raises(SefarError, match=refused):
        model(input_ids=torch.tensor([[6, placeholder]]), past_key_values=cache)


def test_only_the_asked_positions_get_logits(model, tokenizer):
    ids = torch.tensor([prompt(model, tokenizer).ids])
    full = model(input_ids=ids, video_tokens=video(1)).logits
    last = model(input_ids=ids, video_tokens=video(1), logits_to_keep=1).logits
    torch.testing.assert_close(full[:, -1:], last)


@pytest.mark.parametrize("count", [None, 7])
def test_in_training_what_is_labeled_alone_gets_logits_and_nothing_else_changes(
    model, tokenizer, count
):
    ids = torch.tensor([prompt(model, tokenizer).ids] * 2)
    ids[1, -5:] += 1
    labels = torch.full_like(ids, -100)
    labels[0, -3:], labels[1, -1] = ids[0, -3:], ids[1, -1]
    logits = model(input_ids=ids, video_tokens=video(2)).logits
    # By hand: what stands before a labeled id is to predict it.
    chosen = [(row, place) for row, place in (labels >= 0).nonzero().tolist()]
    log_probs = torch.stack([logits[r, p - 1].log_softmax(-1)[ids[r, p]] for r, p in chosen])
    expected = -log_probs.sum() / (count or len(chosen))
    weights = [model.lm_head.weight, model.model.multi_modal_projector.up.weight]
    gradients = torch.autograd.grad(expected, weights)
    model.train()
    message = model(input_ids=ids, video_tokens=video(2), labels=labels, num_items_in_batch=count)
    model.eval()
    assert message.logits.shape == (4, model.config.text_config.vocab_size)
    torch.testing.assert_close(message.loss, expected)
    for got, wanted in zip(torch.autograd.grad(message.loss, weights), gradients, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_auto_classes_know_the_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SefarVlmConfig)
    assert type(AutoModel.from_config(model.config)).__name__ == "SefarVlmModel"
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(again, SefarVlmForConditionalGeneration)
    ids = torch.arange(5).view(1, 5)
    torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_projector_stays_in_full_precision_over_a_16_bit_language_model(folder):
    model = build_vlm(
        folder,
        token_dim=toy_llm.DIM,
        token_shape=toy_llm.SHAPE,
        encoder={},
        seed=0,
        dtype=torch.bfloat16,
    )
    assert {p.dtype for p in model.model.multi_modal_projector.parameters()} == {torch.float32}
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.dtype == torch.bfloat16  # what others cast their inputs to
    ids = torch.full((1, 33), model.config.video_token_id)
    ids[0, 0] = 1
    assert model(input_ids=ids, video_tokens=video(1).half()).logits.isfinite().all()
