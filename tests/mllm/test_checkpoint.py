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
from sefar_mllm.prompt import Turn, encode_conversation
from tests.oracles import toy_llm, toy_trained

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    return toy_trained.save(base, tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to do harm to."""
    return shutil.copytree(saved, tmp_path / "model")


def logits(model, tokenizer):
    vlm = composite(model)
    ids = encode_conversation(
        tokenizer, [Turn("who?")], num_video_tokens=32, video_id=vlm.config.video_token_id
    ).ids
    with torch.inference_mode():
        return vlm(input_ids=torch.tensor([ids]), video_tokens=toy_trained.video()).logits


def assert_same(one, other, tokenizer):
    """The same tensors, and logits as near as where tensors lie in memory allows."""
    found, expected = one.state_dict(), other.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    got, wanted = (logits(model, tokenizer) for model in (one, other))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def edit_adapter(folder, change):
    """Rewrite the adapter's file with other tensors."""
    save_file(change(load_file(folder / ADAPTER)), folder / ADAPTER)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_comes_back_with_the_same_logits(base, saved):
    model, tokenizer = load_trained(saved)
    assert_same(model, toy_trained.adapted(base), tokenizer)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_saving_what_was_loaded_writes_the_same_weights(saved, tmp_path):
    save_trained(*load_trained(saved), tmp_path / "again")
    assert (tmp_path / "again" / ADAPTER).read_bytes() == (saved / ADAPTER).read_bytes()


def test_a_folder_holds_neither_language_model_nor_encoder(saved):
    names = load_file(saved / ADAPTER)
    assert all("lora_" in name or "multi_modal_projector" in name for name in names)
    assert not list(saved.glob("model*")) and not list(saved.glob("*.bin"))


def test_the_card_names_language_model_and_encoder(base, saved):
    card = (saved / "README.md").read_text()
    assert str(base) in card and "`sefar`" in card and "Information Needed" not in card


def test_a_model_saved_in_16_bits_is_loaded_in_32(base, tmp_path):
    folder = toy_trained.save(base, tmp_path / "model", dtype=torch.bfloat16)
    assert json.loads((folder / "fingerprint.json").read_text())["precision"] == "bfloat16"
    assert composite(load_trained(folder)[0]).dtype == torch.float32


def test_a_base_that_has_moved_is_named_with_the_mend(folder, tmp_path):
    edit_json(folder / "config.json", language_model=str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"(?s)gone.*by --language-model"):
        load_trained(folder)


def test_a_base_that_has_moved_can_be_shown(base, folder, tmp_path):
    edit_json(folder / "config.json", language_model=str(tmp_path / "gone"))
    assert composite(load_trained(folder, language_model=base)[0])


@pytest.fixture
def no_hub(monkeypatch):
    """What transformers is given must be a folder that exists."""

    def local(name, **settings):
        assert os.path.isdir(name), f"the hub was queried for {name}"
        return from_pretrained(name, **settings)

    from_pretrained = AutoConfig.from_pretrained
    monkeypatch.setattr(AutoConfig, "from_pretrained", local)


def as_older_code_wrote(folder, place):
    """Let config.json name a place without saying whether it is of the hub."""
    settings = json.loads((folder / "config.json").read_text())
    del settings["language_model_from_hub"]
    (folder / "config.json").write_text(json.dumps(settings | {"language_model": place}))


def test_a_base_is_found_from_any_working_directory(base, tmp_path, monkeypatch, no_hub):
    monkeypatch.chdir(base.parent)
    folder = toy_trained.save(base.name, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["language_model"] == str(base)
    monkeypatch.chdir(tmp_path)
    load_trained(folder)


@pytest.mark.parametrize("place", ["toys/llm", "llm", "../llm", "/nosuch/llm"])
def test_a_base_that_was_a_folder_is_never_asked_of_the_hub(
    folder, place, no_hub, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    as_older_code_wrote(folder, place)
    with pytest.raises(CheckpointError, match=f"model {place}, and .*by --language-model$"):
        load_trained(folder)
    with pytest.raises(CheckpointError, match="--language-model"):
        merge(folder, folder.parent / "merged")


@pytest.mark.parametrize("inside", [True, False])
def test_a_relative_place_counts_from_here_and_from_the_model_folder(
    base, folder, tmp_path, monkeypatch, inside
):
    shutil.copytree(base, (folder if inside else tmp_path) / "inner" / "llm")
    as_older_code_wrote(folder, "inner/llm")
    monkeypatch.chdir(tmp_path)
    load_trained(folder)


def test_a_base_of_the_hub_is_named_as_such(base, monkeypatch):
    language = load_language_model(base)
    monkeypatch.setattr("sefar_mllm.build.load_language_model", lambda *_, **__: language)
    sizes = {"token_dim": toy_llm.DIM, "token_shape": toy_llm.SHAPE}
    config = build_vlm("lmsys/vicuna", **sizes, encoder={}).config
    assert (config.language_model, config.language_model_from_hub) == ("lmsys/vicuna", True)
    assert language_model_of(Path("model"), config) == "lmsys/vicuna"


def test_what_older_code_fetched_from_the_hub_is_taken(folder, tmp_path, monkeypatch):
    as_older_code_wrote(folder, "lmsys/vicuna")
    cached = tmp_path / "models--lmsys--vicuna" / "snapshots" / "0123"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    (tmp_path / "models--lmsys--vicuna" / "refs").mkdir()
    (tmp_path / "models--lmsys--vicuna" / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert language_model_of(folder, read_config(folder)) == "lmsys/vicuna"


@pytest.mark.parametrize("size", [{"hidden_size": 64}, {"num_hidden_layers": 3}])
def test_a_base_of_another_size_is_refused(base, folder, tmp_path, size):
    other = toy_trained.relative(base, tmp_path / "other", **size)
    with pytest.raises(
        CheckpointError, match="does not fit its language model: .*--language-model"
    ):
        load_trained(folder, language_model=other)


def test_a_base_of_another_vocabulary_is_noticed(base, folder, tmp_path):
    other = toy_trained.relative(base, tmp_path / "other", vocab_size=700, num_attention_heads=2)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(folder, language_model=other)


def test_another_base_of_the_same_size_is_noticed(folder, tmp_path):
    other = toy_llm.language_model(tmp_path / "llm", seed=5)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(folder, language_model=other)


@pytest.mark.parametrize(
    "changes",
    [{"text_config": 5}, {"encoder": {}}, {"encoder": None}, {"token_shape": "8"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_config_whose_settings_make_no_sense_is_named(folder, changes):
    edit_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=r"config\.json does not describe a model of ours"):
        load_trained(folder)


def test_a_base_that_lacks_a_weight_is_refused(base, folder, tmp_path):
    other = shutil.copytree(base, tmp_path / "holed")
    weights = load_file(other / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holed: 1 tensors are missing.*up_proj"):
        load_trained(folder, language_model=other)


def test_a_damaged_base_is_refused(base, folder, tmp_path):
    other = shutil.copytree(base, tmp_path / "torn")
    whole = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="torn cannot be loaded"):
        load_trained(folder, language_model=other)


def test_too_little_memory_is_not_taken_for_a_damaged_folder(base, folder, monkeypatch):
    def load(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sefar_mllm.build.AutoModelForCausalLM.from_pretrained", load)
    with pytest.raises(torch.OutOfMemoryError, match="^CUDA out of memory$"):
        load_trained(folder, language_model=base)


def test_a_damaged_adapter_is_refused(folder):
    whole = (folder / ADAPTER).read_bytes()
    (folder / ADAPTER).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{ADAPTER} is damaged"):
        load_trained(folder)


@pytest.mark.parametrize("part", ["multi_modal_projector", "lora_"])
def test_an_adapter_that_was_stripped_is_refused(folder, part):
    edit_adapter(folder, lambda found: {n: t for n, t in found.items() if part not in n})
    with pytest.raises(
        CheckpointError, match=rf"fit .* \d+ tensors .*{part}.*: found none, expected"
    ):
        load_trained(folder)


def test_an_adapter_of_another_model_is_refused(folder):
    edit_adapter(folder, lambda found: found | {"base_model.model.stranger": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"1 tensors are .*stranger: found \(1,\), expected none"
    ):
        load_trained(folder)


def test_an_adapter_of_another_rank_is_refused(folder):
    edit_json(folder / "adapter_config.json", r=5)
    with pytest.raises(CheckpointError, match=r"found \(2, 48\), expected \(5, 48\)"):
        load_trained(folder)


def test_an_adapter_of_another_scale_is_noticed(folder):
    edit_json(folder / "adapter_config.json", lora_alpha=32)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(folder)


def test_a_projector_of_another_training_is_noticed(folder):
    def stretch(found):
        return {n: t * 1.5 if "multi_modal_projector" in n else t for n, t in found.items()}

    edit_adapter(folder, stretch)
    with pytest.raises(CheckpointError, match="computes other logits"):
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


def test_a_folder_without_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.*copy tokenizer.json"):
        load_trained(folder)


def test_a_tokenizer_larger_than_the_embeddings_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["handstand"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="has 641 tokens, the language model 640 embeddings"):
        load_trained(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "adapter_config.json", ADAPTER, "fingerprint.json"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"it has no {name}; give the folder"):
        load_trained(folder)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "fingerprint.json"])
def test_a_half_written_file_is_named(folder, name):
    (folder / name).write_text((folder / name).read_text()[:20])
    with pytest.raises(CheckpointError, match=name):
        load_trained(folder)


def test_a_language_model_in_place_of_a_trained_one_is_refused(base, folder):
    shutil.copy(base / "config.json", folder / "config.json")
    with pytest.raises(CheckpointError, match="is of a llama, expected sefar_vlm"):
        load_trained(folder)


def test_a_base_in_pytorchs_files_is_read(base, folder, tmp_path):
    other = shutil.copytree(base, tmp_path / "older")
    torch.save(load_file(base / "model.safetensors"), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    assert composite(load_trained(folder, language_model=other)[0])


def test_code_in_a_base_is_not_run(base, folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    other = shutil.copytree(base, tmp_path / "trap")
    torch.save({"model.norm.weight": Trap()}, other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="trap cannot be loaded"):
        load_trained(folder, language_model=other)
    assert not (tmp_path / "sprung").exists()


def test_saving_that_fails_leaves_the_older_model_alone(base, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("sefar_mllm.checkpoint.write_fingerprint", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_trained(toy_trained.adapted(base, seed=9), load_tokenizer(base), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_vicunas_generation_settings_become_plain_greedy_ones(base, tmp_path):
    other = shutil.copytree(base, tmp_path / "sampling")
    settings = {"temperature": 0.9, "top_p": 0.6, "max_length": 4096, "eos_token_id": 2}
    (other / "generation_config.json").write_text(json.dumps(settings))
    found = composite(toy_trained.adapted(other)).generation_config
    assert (found.temperature, found.top_p, found.eos_token_id) == (None, None, 2)
    assert found.max_length in (None, 20)
    found.save_pretrained(tmp_path)


def test_another_family_is_refused(base, folder, tmp_path):
    small = dict(vocab_size=640, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    GPTNeoXForCausalLM(GPTNeoXConfig(**small, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="is a gpt_neox; a language model of the Llama family"
    ):
        toy_trained.adapted(tmp_path)


@pytest.mark.parametrize("family", [{"tie_word_embeddings": True}, {"num_key_value_heads": 1}])
def test_relatives_of_llama_come_back(base, tmp_path, family):
    other = toy_trained.relative(base, tmp_path / "llm", **family)
    folder = toy_trained.save(other, tmp_path / "model")
    model, tokenizer = load_trained(folder)
    assert_same(model, toy_trained.adapted(other), tokenizer)
