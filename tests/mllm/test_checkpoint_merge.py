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
from sefar_mllm.dataset import pad_batch
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.prompt import Turn, encode_conversation
from sefar_mllm.scoring import positions
from tests.oracles import toy_llm, toy_trained
from tests.oracles.permissions import unlike_opened
from tests.script_process import run_script


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    return toy_trained.save(base, tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def merged(saved, tmp_path_factory):
    return merge(saved, tmp_path_factory.mktemp("merged") / "whole")


def prompt(model, tokenizer, text="which move is it?"):
    return encode_conversation(
        tokenizer, [Turn(text)], num_video_tokens=32, video_id=model.config.video_token_id
    )


def logits(model, tokenizer):
    ids = torch.tensor([prompt(composite(model), tokenizer).ids])
    with torch.inference_mode():
        return composite(model)(input_ids=ids, video_tokens=toy_trained.video()).logits


def test_every_merged_weight_is_the_base_weight_plus_the_scaled_product(base, saved, merged):
    plain = load_file(base / "model.safetensors")
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


def test_a_merged_folder_loads_by_the_auto_class_and_by_ours_to_the_same_logits(saved, merged):
    beside, tokenizer = load_trained(saved)
    want = logits(beside, tokenizer)
    for model in (load_trained(merged)[0], AutoModelForImageTextToText.from_pretrained(merged)):
        torch.testing.assert_close(logits(model, tokenizer), want, atol=1e-5, rtol=1e-5)


def test_a_merged_folder_holds_no_encoder_and_names_it(merged):
    config = json.loads((merged / "config.json").read_text())
    assert config["encoder"]["key"] == toy_llm.KEY
    assert {name.split(".")[1] for name in load_file(merged / "model.safetensors")} == {
        "language_model",
        "multi_modal_projector",
        "weight",  # lm_head
    }
    assert "merged into this folder" in (merged / "README.md").read_text()


def test_files_of_a_model_have_the_permissions_of_opened_ones(saved, merged):
    assert unlike_opened(saved) == unlike_opened(merged) == []


def test_a_merged_model_writes_what_the_adapted_one_writes(saved, merged):
    written = []
    for folder in (saved, merged):
        model, tokenizer = load_trained(folder)
        ids = torch.tensor([prompt(composite(model), tokenizer).ids])
        settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        written.append(
            composite(model).generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                video_tokens=toy_trained.video(),
                **settings,
            )
        )
    assert torch.equal(*written)
    assert written[0].shape[1] == ids.shape[1] + 6


def test_padding_on_the_left_changes_no_answer_of_a_merged_model(merged):
    model, tokenizer = load_trained(merged)
    prompts = [prompt(model, tokenizer, text) for text in ("what?", "which of the moves is it?")]
    batch = pad_batch(prompts, tokenizer.pad_token_id, side="left")
    del batch["labels"]
    videos = toy_trained.video(2)
    place = positions(batch["attention_mask"])
    together = model(**batch, position_ids=place, video_tokens=videos).logits[:, -1]
    for row, one in enumerate(prompts):
        alone = model(input_ids=torch.tensor([one.ids]), video_tokens=videos[row : row + 1])
        torch.testing.assert_close(together[row], alone.logits[0, -1], atol=1e-5, rtol=1e-4)


def test_a_16_bit_base_is_merged_into_16_bits_and_the_projector_keeps_32(base, tmp_path):
    half = toy_llm.language_model(tmp_path / "llm")
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    saved = toy_trained.save(half, tmp_path / "model")
    whole = load_file(merge(saved, tmp_path / "whole") / "model.safetensors")
    for name, tensor in whole.items():
        expected = torch.float32 if "projector" in name else torch.bfloat16
        assert tensor.dtype == expected, name
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    assert again.lm_head.weight.dtype == torch.bfloat16
    assert again.model.multi_modal_projector.up.weight.dtype == torch.float32
    up = "model.language_model.layers.0.mlp.up_proj.weight"
    exact = merge(saved, tmp_path / "exact", dtype=torch.float32) / "model.safetensors"
    assert torch.equal(whole[up], load_file(exact)[up].bfloat16())  # rounded once, after the sum
    load_trained(tmp_path / "whole")


def test_tied_embeddings_stay_tied(base, tmp_path):
    tied = toy_trained.tied_llama(base, tmp_path / "llm")
    saved = toy_trained.save(tied, tmp_path / "model")
    whole = load_trained(merge(saved, tmp_path / "whole"))[0]
    assert whole.lm_head.weight is whole.get_input_embeddings().weight
    tokenizer = load_tokenizer(base)
    want = logits(load_trained(saved)[0], tokenizer)
    torch.testing.assert_close(logits(whole, tokenizer), want, atol=1e-5, rtol=1e-5)


def test_weights_come_in_shards(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SHARD_SIZE", "60KB")
    whole = merge(saved, tmp_path / "whole")
    assert len(list(whole.glob("model-*.safetensors"))) > 1
    load_trained(whole)
    next(whole.glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="whole cannot be loaded"):
        load_trained(whole)


def test_too_little_memory_is_not_taken_for_a_damaged_folder(merged, monkeypatch):
    def load(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SefarVlmForConditionalGeneration, "from_pretrained", load)
    with pytest.raises(torch.OutOfMemoryError, match="^CUDA out of memory$"):
        load_trained(merged)


def test_a_merged_weight_that_is_lost_is_not_drawn_anew(merged, tmp_path):
    holed = shutil.copytree(merged, tmp_path / "holed")
    weights = load_file(holed / "model.safetensors")
    del weights["model.multi_modal_projector.down.weight"]
    save_file(weights, holed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*projector.down.weight"):
        load_trained(holed)


def test_a_merged_weight_that_changed_is_noticed(merged, tmp_path):
    changed = shutil.copytree(merged, tmp_path / "changed")
    weights = load_file(changed / "model.safetensors")
    weights["model.multi_modal_projector.down.weight"] *= 1.5
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(changed)


def test_merging_again_replaces_the_older_merged_folder(base, saved, tmp_path):
    merge(toy_trained.save(base, tmp_path / "other", seed=8), tmp_path / "whole")
    before = (tmp_path / "whole/model.safetensors").read_bytes()
    merge(saved, tmp_path / "whole")
    assert (tmp_path / "whole/model.safetensors").read_bytes() != before


def test_a_folder_of_something_else_is_not_replaced(saved, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="something that is not a merged model"):
        merge(saved, tmp_path)
    with pytest.raises(CheckpointError, match="something that is not a merged model"):
        merge(saved, saved)
    assert (tmp_path / "thesis.tex").exists() and (saved / "adapter_model.safetensors").exists()


def test_a_language_model_is_not_replaced(base, saved):
    with pytest.raises(CheckpointError, match="is not a trained model"):
        merge(saved, base)


def test_merging_that_fails_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "write_fingerprint", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge(saved, tmp_path / "whole")
    assert not list(tmp_path.iterdir())


def test_a_merged_folder_is_not_merged_again(merged, tmp_path):
    with pytest.raises(CheckpointError, match="is merged already"):
        merge(merged, tmp_path / "twice")


def test_a_merged_folder_takes_no_other_language_model(base, merged):
    with pytest.raises(CheckpointError, match="it holds its language model"):
        load_trained(merged, language_model=base)


@pytest.mark.slow
def test_the_script_merges_and_explains_its_errors(saved, tmp_path):
    done = run_script("merge_mllm.py", saved, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    load_trained(tmp_path / "whole")
    failed = run_script("merge_mllm.py", tmp_path, "--out", tmp_path / "out")
    assert failed.returncode == 1 and "is not a trained model" in failed.stderr
    assert "Traceback" not in failed.stderr
