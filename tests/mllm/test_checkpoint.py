import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPTNeoXConfig, GPTNeoXForCausalLM

from sefar_core.checkpoint import CheckpointError
from sefar_mllm.adapters import composite
from sefar_mllm.build import build_vlm, load_language_model, load_tokenizer
from sefar_mllm.checkpoint import language_model_of, load_trained, merge, read_config, save_trained
from sefar_mllm.prompt import Turn
from tests.oracles import toy_llm, toy_trained
from tests.oracles.letters import encoded

ADAPTER = "adapter_model.safetensors"


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the trained model's folder to damage."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def base(llm, tmp_path):
    """A copy of the language model to damage."""
    return shutil.copytree(llm, tmp_path / "base")


def logits(model, tokenizer):
    vlm = composite(model)
    ids = torch.tensor([encoded(vlm, tokenizer, Turn("who?")).ids])
    with torch.inference_mode():
        return vlm(input_ids=ids, video_tokens=toy_trained.video()).logits


def assert_same(one, other, tokenizer):
    """The same tensors, and logits as near as where tensors lie in memory allows."""
    found, expected = one.state_dict(), other.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    got, wanted = (logits(model, tokenizer) for model in (one, other))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_is_loaded_with_the_same_weights_and_logits(llm, saved, tmp_path):
    model, tokenizer = load_trained(saved)
    assert_same(model, toy_trained.adapted(llm), tokenizer)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    save_trained(model, tokenizer, tmp_path / "again")
    assert (tmp_path / "again" / ADAPTER).read_bytes() == (saved / ADAPTER).read_bytes()


def test_a_folder_holds_adapter_and_projector_and_names_the_rest(llm, saved):
    names = load_file(saved / ADAPTER)
    assert all("lora_" in name or "multi_modal_projector" in name for name in names)
    assert not list(saved.glob("model*")) and not list(saved.glob("*.bin"))
    card = (saved / "README.md").read_text()
    assert str(llm) in card and "`sefar`" in card and "Information Needed" not in card


def test_a_model_saved_in_16_bits_is_loaded_in_32(llm, tmp_path):
    folder = toy_trained.save(llm, tmp_path / "model", dtype=torch.bfloat16)
    assert json.loads((folder / "fingerprint.json").read_text())["precision"] == "bfloat16"
    assert composite(load_trained(folder)[0]).dtype == torch.float32


@pytest.mark.parametrize("family", [{"tie_word_embeddings": True}, {"num_key_value_heads": 1}])
def test_relatives_of_llama_are_loaded_as_saved(llm, tmp_path, family):
    relative = toy_trained.relative(llm, tmp_path / "llm", **family)
    model, tokenizer = load_trained(toy_trained.save(relative, tmp_path / "model"))
    assert_same(model, toy_trained.adapted(relative), tokenizer)


@pytest.fixture
def no_hub(monkeypatch):
    """What transformers is given must be a folder that exists."""

    def local(name, **settings):
        assert os.path.isdir(name), f"the hub was queried for {name}"
        return from_pretrained(name, **settings)

    from_pretrained = AutoConfig.from_pretrained
    monkeypatch.setattr(AutoConfig, "from_pretrained", local)


def as_older_code_wrote(folder, place):
    """Let config.json name a place without saying whether it is on the hub."""
    settings = json.loads((folder / "config.json").read_text())
    del settings["language_model_from_hub"]
    (folder / "config.json").write_text(json.dumps(settings | {"language_model": place}))


def test_a_base_is_found_from_any_working_directory(llm, tmp_path, monkeypatch, no_hub):
    monkeypatch.chdir(llm.parent)
    folder = toy_trained.save(llm.name, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["language_model"] == str(llm)
    monkeypatch.chdir(tmp_path)
    load_trained(folder)


def test_a_base_that_has_moved_can_be_named(llm, folder, tmp_path):
    edit_json(folder / "config.json", language_model=str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"(?s)gone.*by --language-model"):
        load_trained(folder)
    assert composite(load_trained(folder, language_model=llm)[0])


@pytest.mark.parametrize("place", ["toys/llm", "llm", "../llm", "/nosuch/llm"])
def test_a_missing_folder_is_never_queried_from_the_hub(
    folder, place, no_hub, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    as_older_code_wrote(folder, place)
    with pytest.raises(CheckpointError, match=f"model {place}, and .*by --language-model$"):
        load_trained(folder)
    with pytest.raises(CheckpointError, match="--language-model"):
        merge(folder, folder.parent / "merged")


@pytest.mark.parametrize("inside", [True, False])
def test_a_relative_base_counts_from_here_or_from_the_model_folder(
    llm, folder, tmp_path, monkeypatch, inside
):
    shutil.copytree(llm, (folder if inside else tmp_path) / "inner" / "llm")
    as_older_code_wrote(folder, "inner/llm")
    monkeypatch.chdir(tmp_path)
    load_trained(folder)


def test_a_base_on_the_hub_is_recorded_by_its_name(llm, folder, tmp_path, monkeypatch):
    language = load_language_model(llm)
    monkeypatch.setattr("sefar_mllm.build.load_language_model", lambda *_, **__: language)
    sizes = {"token_dim": toy_llm.DIM, "token_shape": toy_llm.SHAPE}
    config = build_vlm("lmsys/vicuna", **sizes, encoder={}).config
    assert (config.language_model, config.language_model_from_hub) == ("lmsys/vicuna", True)
    assert language_model_of(Path("model"), config) == "lmsys/vicuna"
    # Older code did not record it: what was fetched before is taken.
    as_older_code_wrote(folder, "lmsys/vicuna")
    snapshot = tmp_path / "models--lmsys--vicuna" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--lmsys--vicuna" / "refs").mkdir()
    (tmp_path / "models--lmsys--vicuna" / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert language_model_of(folder, read_config(folder)) == "lmsys/vicuna"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ({"hidden_size": 64}, "does not fit its language model: .*--language-model"),
        ({"num_hidden_layers": 3}, "does not fit its language model: .*--language-model"),
        ({"vocab_size": 700, "num_attention_heads": 2}, "computes other logits"),
        ({"num_attention_heads": 2}, "computes other logits"),
    ],
)
def test_another_base_is_noticed(llm, folder, tmp_path, family, words):
    other = toy_trained.relative(llm, tmp_path / "other", **family)
    with pytest.raises(CheckpointError, match=words):
        load_trained(folder, language_model=other)


def test_a_damaged_base_is_refused(base, folder, tmp_path):
    path = base / "model.safetensors"
    whole = path.read_bytes()
    weights = load_file(path)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"base: 1 tensors are missing.*up_proj"):
        load_trained(folder, language_model=base)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="base cannot be loaded"):
        load_trained(folder, language_model=base)


def test_a_pickled_base_is_read_and_its_code_is_not_run(base, folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    assert composite(load_trained(folder, language_model=base)[0])
    torch.save({"model.norm.weight": Trap()}, base / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="base cannot be loaded"):
        load_trained(folder, language_model=base)
    assert not (tmp_path / "sprung").exists()


def test_too_little_memory_is_not_reported_as_a_damaged_folder(llm, folder, monkeypatch):
    def load(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sefar_mllm.build.AutoModelForCausalLM.from_pretrained", load)
    with pytest.raises(torch.OutOfMemoryError, match="^CUDA out of memory$"):
        load_trained(folder, language_model=llm)


def without(part):
    return lambda found: {name: t for name, t in found.items() if part not in name}


def stretched(found):
    return {n: t * 1.5 if "multi_modal_projector" in n else t for n, t in found.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("projector"), r"fit .* \d+ tensors .*projector.*: found none, expected"),
        (without("lora_"), r"fit .* \d+ tensors .*lora_.*: found none, expected"),
        (lambda found: found | {"stranger": torch.zeros(1)}, r"stranger: found \(1,\), expected n"),
        (stretched, "computes other logits"),
    ],
)
def test_an_adapter_of_other_tensors_is_refused(folder, change, words):
    save_file(change(load_file(folder / ADAPTER)), folder / ADAPTER)
    with pytest.raises(CheckpointError, match=words):
        load_trained(folder)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("adapter_config.json", {"r": 5}, r"found \(2, 48\), expected \(5, 48\)"),
        ("adapter_config.json", {"lora_alpha": 32}, "computes other logits"),
        ("config.json", {"model_type": "llama"}, "is of a llama, expected sefar_vlm"),
        ("config.json", {"text_config": 5}, "does not describe a model of ours"),
        ("config.json", {"encoder": {}}, "does not describe a model of ours"),
        ("config.json", {"encoder": None}, "does not describe a model of ours"),
        ("config.json", {"token_shape": "8"}, "does not describe a model of ours"),
    ],
)
def test_settings_of_another_model_are_refused(folder, name, changes, words):
    edit_json(folder / name, **changes)
    with pytest.raises(CheckpointError, match=words):
        load_trained(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "adapter_config.json", ADAPTER, "fingerprint.json"]
)
def test_damaged_and_missing_files_are_named(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=name):
        load_trained(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"it has no {name}; give the folder"):
        load_trained(folder)


def test_a_folder_of_an_older_version_is_loaded_and_checked(folder):
    stored = json.loads((folder / "fingerprint.json").read_text())
    (folder / "fingerprint.json").unlink()
    older = {"precision": "float32", "adapter_sha256": "0" * 64, "logits": stored["logits"]}
    (folder / "probe.json").write_text(json.dumps(older))
    load_trained(folder)
    edit_json(folder / "probe.json", logits=stored["logits"][::-1])
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(folder)


def test_a_tokenizer_that_does_not_fit_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["handstand"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="has 641 tokens, the language model 640 embeddings"):
        load_trained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.*copy tokenizer.json"):
        load_trained(folder)


def test_saving_that_fails_leaves_the_older_model_as_it_was(llm, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("sefar_mllm.checkpoint.write_fingerprint", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_trained(toy_trained.adapted(llm, seed=9), load_tokenizer(llm), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_vicunas_generation_settings_become_plain_greedy_ones(base, tmp_path):
    settings = {"temperature": 0.9, "top_p": 0.6, "max_length": 4096, "eos_token_id": 2}
    (base / "generation_config.json").write_text(json.dumps(settings))
    found = composite(toy_trained.adapted(base)).generation_config
    assert (found.temperature, found.top_p, found.eos_token_id) == (None, None, 2)
    assert found.max_length in (None, 20)
    found.save_pretrained(tmp_path)


def test_another_family_is_refused(tmp_path):
    small = dict(vocab_size=640, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    GPTNeoXForCausalLM(GPTNeoXConfig(**small, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="is a gpt_neox; a language model of the Llama family"
    ):
        toy_trained.adapted(tmp_path)
