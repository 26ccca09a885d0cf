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
from sefar_mllm.build import build_vlm
from sefar_mllm.dataset import pad_batch
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import Turn, encode_conversation
from sefar_mllm.scoring import positions
from tests.oracles import toy_llm, toy_trained
from tests.oracles.letters import encoded
from tests.oracles.toy_trained import video

ROOT = Path(__file__).parents[2]
SHAPE = {"token_dim": toy_llm.DIM, "token_shape": toy_llm.SHAPE, "encoder": {}}


@pytest.fixture(scope="module")
def model(llm):
    return build_vlm(llm, **SHAPE, seed=0).eval()


@pytest.fixture(scope="module")
def ids(model, tokenizer):
    return torch.tensor([encoded(model, tokenizer, Turn("what is this?")).ids])


def test_merged_embeddings_are_words_and_projected_tokens_each_in_its_place(model, tokenizer, ids):
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)  # not resized
    assert model.config.video_token_id == len(tokenizer)
    merged = model.model.merge(ids, video())[0]
    projected = list(model.model.multi_modal_projector(video())[0])
    table = model.get_input_embeddings().weight
    for place, token in enumerate(ids[0].tolist()):
        expected = projected.pop(0) if token == model.config.video_token_id else table[token]
        assert_close(merged[place], expected)
    assert not projected


@pytest.mark.parametrize(
    "family",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1},
        {"vocab_size": 704},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        {"attention_bias": True},
    ],
    ids=lambda family: next(iter(family), "llama"),
)
def test_llama_and_its_relatives_keep_their_own_logits_and_come_back(
    llm, tokenizer, tmp_path, family
):
    # Large weights: what is lost of a trait is then seen in the logits.
    relative = toy_trained.relative(llm, tmp_path / "llm", initializer_range=0.3, **family)
    whole = build_vlm(relative, **SHAPE).eval()
    plain = AutoModelForCausalLM.from_pretrained(relative, dtype=torch.float32).eval()
    text = torch.tensor([tokenizer("what is this?")["input_ids"]])
    near = {"rtol": 1e-4, "atol": 1e-4}
    assert_close(whole(input_ids=text).logits, plain(input_ids=text).logits, **near)
    assert whole.config.video_token_id == plain.config.vocab_size  # rows, padding included
    whole.save_pretrained(tmp_path / "whole")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "whole"), SefarVlmConfig)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole").eval()
    assert isinstance(again, SefarVlmForConditionalGeneration)
    ids = torch.tensor([encoded(whole, tokenizer, Turn("what is this?")).ids])
    seen = {"input_ids": ids, "video_tokens": video()}
    assert_close(again(**seen).logits, whole(**seen).logits, **near)
    tied = again.lm_head.weight is again.get_input_embeddings().weight
    assert tied == family.get("tie_word_embeddings", False)


def test_a_wrong_number_of_placeholders_names_the_clip_and_both_counts(model, tokenizer, ids):
    for count in (31, 33):
        other = encode_conversation(
            tokenizer, [Turn("q")], num_video_tokens=count, video_id=model.config.video_token_id
        ).ids
        with pytest.raises(SefarError, match=f"clip somersault.*{count} .*32 tokens"):
            model(input_ids=torch.tensor([other]), video_tokens=video(), clip_ids=["somersault"])
    words = "row 0 of the batch: the prompt has 32 placeholders, the video 0 "
    with pytest.raises(SefarError, match=words):
        model(input_ids=ids)
    with pytest.raises(SefarError, match="1 prompts came with the tokens of 2"):
        model(input_ids=ids, video_tokens=video(2))


def test_every_row_sees_its_own_video_and_padding_changes_no_answer(model, tokenizer):
    texts = ("what is this?", "what is this move called?")
    prompts = [encoded(model, tokenizer, Turn(text)) for text in texts]
    batch = pad_batch(prompts, tokenizer.pad_token_id, side="left")
    del batch["labels"]
    place = positions(batch["attention_mask"])
    together = model(**batch, position_ids=place, video_tokens=video(2)).logits[:, -1]
    for row, prompt in enumerate(prompts):
        own, other = video(2)[row : row + 1], video(2)[1 - row : 2 - row]
        ids = torch.tensor([prompt.ids])
        alone = model(input_ids=ids, video_tokens=own).logits
        assert_close(together[row], alone[0, -1], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(model(input_ids=ids, video_tokens=other).logits, alone)
        last = model(input_ids=ids, video_tokens=own, logits_to_keep=1).logits
        assert_close(alone[:, -1:], last)


def generated(model, ids, count, **how):
    return model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        video_tokens=video(),
        max_new_tokens=count,
        do_sample=False,
        **how,
    )[0].tolist()


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_follows_the_highest_logit_step_by_step(model, tokenizer, ids, use_cache):
    written = generated(model, ids, 5, min_new_tokens=5, use_cache=use_cache)
    expected = ids[0].tolist()
    for _ in range(5):
        logits = model(input_ids=torch.tensor([expected]), video_tokens=video()).logits[0, -1]
        logits[tokenizer.eos_token_id] = -torch.inf
        expected.append(int(logits.argmax()))
    assert written == expected


@pytest.mark.slow
def test_a_decoded_token_is_one_graph_with_and_without_lora():
    command = [sys.executable, "-m", "tests.oracles.compiled_step"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_placeholders_are_counted_except_in_a_decoded_token(model, ids, monkeypatch):
    placeholder = model.config.video_token_id
    cache = DynamicCache(config=model.config.text_config)
    refused = "row 0 of the batch: the prompt has 1 placeholders, the video 0 tokens"
    with pytest.raises(SefarError, match=refused):
        model(input_ids=torch.tensor([[placeholder]]), past_key_values=cache)
    model(input_ids=torch.tensor([[1, 5]]), past_key_values=cache)
    with pytest.raises(SefarError, match=refused):
        model(input_ids=torch.tensor([[6, placeholder]]), past_key_values=cache)
    # Counting waits for the device: decoded tokens are not counted.
    counted = []
    monkeypatch.setattr(module, "check_counts", lambda place, *_: counted.append(place.shape[1]))
    generated(model, ids, 4)
    assert counted == [ids.shape[1]]


@pytest.mark.parametrize("count", [None, 7])
def test_the_loss_and_its_gradient_are_those_of_the_labeled_ids(model, ids, count):
    ids = ids.repeat(2, 1)
    ids[1, -5:] += 1
    labels = torch.full_like(ids, -100)
    labels[0, -3:], labels[1, -1] = ids[0, -3:], ids[1, -1]
    logits = model(input_ids=ids, video_tokens=video(2)).logits
    # By hand: the token before a labeled id predicts it.
    chosen = [(row, place) for row, place in (labels >= 0).nonzero().tolist()]
    log_probs = torch.stack([logits[r, p - 1].log_softmax(-1)[ids[r, p]] for r, p in chosen])
    expected = -log_probs.sum() / (count or len(chosen))
    weights = [model.lm_head.weight, model.model.multi_modal_projector.up.weight]
    gradients = torch.autograd.grad(expected, weights)
    model.train()
    out = model(input_ids=ids, video_tokens=video(2), labels=labels, num_items_in_batch=count)
    model.eval()
    assert out.logits.shape == (4, model.config.text_config.vocab_size)  # of labeled ids alone
    assert_close(out.loss, expected)
    for got, wanted in zip(torch.autograd.grad(out.loss, weights), gradients, strict=True):
        assert_close(got, wanted)


def test_the_projector_keeps_32_bits_over_a_16_bit_language_model(llm):
    model = build_vlm(llm, **SHAPE, seed=0, dtype=torch.bfloat16)
    assert type(AutoModel.from_config(model.config)).__name__ == "SefarVlmModel"
    assert {p.dtype for p in model.model.multi_modal_projector.parameters()} == {torch.float32}
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.dtype == torch.bfloat16  # what others cast their inputs to
    ids = torch.full((1, 33), model.config.video_token_id)
    ids[0, 0] = 1
    assert model(input_ids=ids, video_tokens=video().half()).logits.isfinite().all()
