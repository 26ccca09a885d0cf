import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from sefar_core.checkpoint import CheckpointError
from sefar_mllm import checkpoint as merging
from sefar_mllm.adapters import composite
from sefar_mllm.build import load_tokenizer
from sefar_mllm.checkpoint import load_trained, merge
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.prompt import Turn
from tests.oracles import toy_llm, toy_trained
from tests.oracles.letters import encoded
from tests.oracles.permissions import unlike_opened


@pytest.fixture(scope="module")
def merged(saved, tmp_path_factory):
    return merge(saved, tmp_path_factory.mktemp("merged") / "model")


def prompt(model, tokenizer):
    return encoded(composite(model), tokenizer, Turn("which move is it?")).ids


def logits(model, tokenizer):
    ids = torch.tensor([prompt(model, tokenizer)])
    with torch.inference_mode():
        return composite(model)(input_ids=ids, video_tokens=toy_trained.video()).logits


def test_every_merged_weight_is_the_base_weight_plus_the_scaled_product(llm, saved, merged):
    plain = load_file(llm / "model.safetensors")
    lora = load_file(saved / "adapter_model.safetensors")
    whole = load_file(merged / "model.safetensors")
    scale = 8.0 / toy_trained.RANK
    moved = 0
    for name, weight in plain.items():
        inside = name if name == "lm_head.weight" else f"model.language_model.{name[6:]}"
        stem = f"base_model.model.{inside.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in lora:
            product = lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"]
            weight = weight + scale * product
            moved += 1
        torch.testing.assert_close(whole[inside], weight, atol=1e-6, rtol=1e-6)
    assert moved == 14
    for name in (n for n in lora if "projector" in n):
        assert torch.equal(whole[name.removeprefix("base_model.model.")], lora[name])


def test_a_merged_folder_loads_by_the_auto_class_and_by_ours_and_answers_alike(saved, merged):
    adapted, tokenizer = load_trained(saved)
    models = [adapted, load_trained(merged)[0], AutoModelForImageTextToText.from_pretrained(merged)]
    ids = torch.tensor([prompt(adapted, tokenizer)])
    written = []
    for model in models:
        torch.testing.assert_close(
            logits(model, tokenizer), logits(adapted, tokenizer), atol=1e-5, rtol=1e-5
        )
        found = composite(model).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            video_tokens=toy_trained.video(),
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
        )
        written.append(found[0, ids.shape[1] :].tolist())
    assert written[0] == written[1] == written[2] and len(written[0]) == 6


def test_a_merged_folder_holds_no_encoder_and_names_it(saved, merged):
    config = json.loads((merged / "config.json").read_text())
    assert config["encoder"]["key"] == toy_llm.KEY
    assert {name.split(".")[1] for name in load_file(merged / "model.safetensors")} == {
        "language_model",
        "multi_modal_projector",
        "weight",  # lm_head
    }
    assert "merged into this folder" in (merged / "README.md").read_text()
    assert unlike_opened(saved) == unlike_opened(merged) == []


def test_a_16_bit_base_is_merged_into_16_bits_and_the_projector_keeps_32(llm, tmp_path):
    half = shutil.copytree(llm, tmp_path / "llm")
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    saved = toy_trained.save(half, tmp_path / "model")
    whole = load_file(merge(saved, tmp_path / "merged") / "model.safetensors")
    for name, tensor in whole.items():
        expected = torch.float32 if "projector" in name else torch.bfloat16
        assert tensor.dtype == expected, name
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert again.lm_head.weight.dtype == torch.bfloat16
    assert again.model.multi_modal_projector.up.weight.dtype == torch.float32
    up = "model.language_model.layers.0.mlp.up_proj.weight"
    exact = merge(saved, tmp_path / "exact", dtype=torch.float32) / "model.safetensors"
    assert torch.equal(whole[up], load_file(exact)[up].bfloat16())  # rounded once, after the sum
    load_trained(tmp_path / "merged")


def test_tied_embeddings_stay_tied(llm, tmp_path):
    tied = toy_trained.relative(llm, tmp_path / "llm", tie_word_embeddings=True)
    saved = toy_trained.save(tied, tmp_path / "model")
    whole = load_trained(merge(saved, tmp_path / "merged"))[0]
    assert whole.lm_head.weight is whole.get_input_embeddings().weight
    tokenizer = load_tokenizer(llm)
    expected = logits(load_trained(saved)[0], tokenizer)
    torch.testing.assert_close(logits(whole, tokenizer), expected, atol=1e-5, rtol=1e-5)


def test_large_weights_are_written_in_shards(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SHARD_SIZE", "60KB")
    whole = merge(saved, tmp_path / "merged")
    assert len(list(whole.glob("model-*.safetensors"))) > 1
    load_trained(whole)
    next(whole.glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="merged cannot be loaded"):
        load_trained(whole)


def test_too_little_memory_is_not_reported_as_a_damaged_folder(merged, monkeypatch):
    def load(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SefarVlmForConditionalGeneration, "from_pretrained", load)
    with pytest.raises(torch.OutOfMemoryError, match="^CUDA out of memory$"):
        load_trained(merged)


def test_lost_and_changed_weights_of_a_merged_model_are_noticed(merged, tmp_path):
    copy = shutil.copytree(merged, tmp_path / "copy")
    path, name = copy / "model.safetensors", "model.multi_modal_projector.down.weight"
    weights = load_file(path)
    save_file(weights | {name: weights[name] * 1.5}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(copy)
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*projector.down.weight"):
        load_trained(copy)


def test_merging_replaces_only_an_older_merged_folder(llm, saved, tmp_path):
    merge(toy_trained.save(llm, tmp_path / "other", seed=8), tmp_path / "merged")
    before = (tmp_path / "merged/model.safetensors").read_bytes()
    merge(saved, tmp_path / "merged")
    assert (tmp_path / "merged/model.safetensors").read_bytes() != before
    (tmp_path / "thesis.tex").write_text("years of work")
    for foreign in (tmp_path, saved):
        with pytest.raises(CheckpointError, match="something that is not a merged model"):
            merge(saved, foreign)
    assert (tmp_path / "thesis.tex").exists() and (saved / "adapter_model.safetensors").exists()
    with pytest.raises(CheckpointError, match="is not a trained model"):
        merge(saved, llm)


def test_merging_that_fails_leaves_nothing(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "write_fingerprint", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge(saved, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_merged_folder_is_not_merged_again_and_takes_no_language_model(llm, merged, tmp_path):
    with pytest.raises(CheckpointError, match="is merged already"):
        merge(merged, tmp_path / "twice")
    with pytest.raises(CheckpointError, match="it holds its language model"):
        load_trained(merged, language_model=llm)
