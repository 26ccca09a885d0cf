"""The demo's weights are found from every folder, from a wheel, and under their old paths."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sefar_core.config import OLD_PATHS, SHIPPED, shipped
from sefar_core.presets import preset
from sefar_core.run_dir import open_run
from sefar_core.train import fresh_student
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.checkpoint import language_model_of
from sefar_mllm.config import PRESETS
from sefar_mllm.model_config import SefarVlmConfig

ROOT = Path(__file__).parents[2]
WEIGHTS = {
    "sefar_core/demo_weights/vit.safetensors",
    "sefar_mllm/demo_weights/config.json",
    "sefar_mllm/demo_weights/model.safetensors",
    "sefar_mllm/demo_weights/tokenizer.model",
    "sefar_mllm/demo_weights/tokenizer_config.json",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder without weights."""
    monkeypatch.chdir(tmp_path)


def test_both_presets_start_from_the_shipped_weights():
    student = fresh_student(preset("demo"), 12)
    vit = load_file(ROOT / "sefar_core/demo_weights/vit.safetensors")
    assert student.backbone.state_dict()["blocks.3.mlp.fc1.weight"].equal(
        vit["blocks.3.mlp.fc1.weight"]
    )
    name = PRESETS["demo"].language_model
    assert len(load_tokenizer(name)) == 768
    model = build_vlm(name, token_dim=8, token_shape=(8, 2, 2), encoder={})
    words = load_file(ROOT / "sefar_mllm/demo_weights/model.safetensors")
    assert model.get_input_embeddings().weight.equal(words["model.embed_tokens.weight"].float())
    # What is recorded holds no path of this machine, and leads back to the model.
    assert model.config.language_model == language_model_of(Path("model"), model.config) == name
    assert str(ROOT) not in model.config.to_json_string() and name == "demo:llm"


def test_old_paths_are_the_same_weights_unless_they_exist():
    for old, name in OLD_PATHS.items():
        assert shipped(old) == shipped(name) and Path(shipped(name)).exists()
    assert set(OLD_PATHS.values()) == SHIPPED.keys()
    for recorded in ("demo/llm", "/gone/checkout/demo/llm"):
        config = SefarVlmConfig(language_model=recorded)
        assert language_model_of(Path("model"), config) == "demo:llm"
    Path("demo/llm").mkdir(parents=True)
    assert shipped("demo/llm") == "demo/llm"
    assert shipped("mine/demo/llm") == "mine/demo/llm"


@pytest.mark.parametrize(
    ("settings", "name", "old"),
    [
        (preset("demo"), "demo:vit", "demo/backbone/vit.safetensors"),
        (PRESETS["demo"], "demo:llm", "demo/llm"),
    ],
)
def test_a_run_that_recorded_an_old_path_resumes(settings, name, old):
    run_dir, config = Path("run"), Path("run/config.json")
    open_run(run_dir, settings, seed=0)
    assert config.read_text().count(f'"{name}"') == 1
    config.write_text(config.read_text().replace(name, old))
    open_run(run_dir, settings, seed=0)
    assert config.read_text().count(f'"{name}"') == 1
    config.write_text(config.read_text().replace(name, "another"))
    with pytest.raises(ValueError, match=f"= another, but {name} is requested"):
        open_run(run_dir, settings, seed=0)


@pytest.mark.slow
def test_the_wheel_holds_the_weights_and_not_what_makes_them(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for package in ("sefar_core", "sefar_mllm", "qa_data", "demo", "scripts"):
        shutil.copytree(ROOT / package, source / package)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
        names = set(packed.namelist())
    assert names >= WEIGHTS
    tops = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert tops == {"sefar_core", "sefar_mllm", "qa_data"}
    (tmp_path / "empty").mkdir()
    code = """if True:
        import json, sefar_core, sefar_mllm
        from sefar_core.presets import preset
        from sefar_core.train import fresh_student
        from sefar_mllm.build import load_language_model
        from sefar_mllm.config import PRESETS
        fresh_student(preset("demo"), 12)
        load_language_model(PRESETS["demo"].language_model)
        print(json.dumps([sefar_core.__file__, sefar_mllm.__file__]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(path).is_relative_to(tmp_path / "installed") for path in used)


@pytest.mark.parametrize("recorded", ["demo/llm", "/gone/checkout/demo/llm"])
def test_a_model_folder_that_recorded_an_old_path_finds_its_language_model(recorded):
    config = SefarVlmConfig(language_model=recorded)
    assert language_model_of(Path("model"), config) == "demo:llm"
