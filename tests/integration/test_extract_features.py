"""The script on real files: shared by processes, killed, stopped, resumed, run twice at once.

    python tests/integration/test_extract_features.py '{"arguments": [...], ...}'

runs the script in small batches, with faults to order.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sefar_core.cli import start as start_script  # noqa: E402

from qa_data.files import write_json  # noqa: E402
from qa_data.manifest import Clip, write_manifest  # noqa: E402
from scripts.extract_features import main as extract_script  # noqa: E402
from sefar_core.checkpoint import CheckpointError, build_model, save_encoder  # noqa: E402
from sefar_core.config import ModelConfig  # noqa: E402
from sefar_core.presets import preset  # noqa: E402
from sefar_mllm import features  # noqa: E402
from sefar_mllm.config import ExtractConfig  # noqa: E402
from sefar_mllm.feature_cache import (  # noqa: E402
    CacheError,
    TokenCache,
    read_head,  # noqa: E402
)
from tests.oracles import image_folders  # noqa: E402
from tests.oracles.videos import write_video  # noqa: E402
from tests.script_process import LIMIT_S, run_script, started  # noqa: E402

NUM_CLIPS = 22
KILLS = 6
SETTINGS = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, fusion_dim=8)


def main(order: dict) -> None:
    """The script, two clips a batch and two batches a shard.

    Args:
        order: `arguments` of the script; `pause_s` for each video; `mark`, a file that is made
            once the first video is opened; `release`, a file that reading then waits for; `kills`,
            seconds after which a copy of this process, forked for it, is killed, one after the
            other.
    """
    from importlib.util import module_from_spec, spec_from_file_location

    import tyro

    spec = spec_from_file_location("script", ROOT / "scripts/extract_features.py")
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    features.BATCH_CLIPS, features.SHARD_BATCHES = 2, 2
    read = features.read_fractions

    def slow(*args, **kwargs):
        if "mark" in order:
            Path(order["mark"]).touch()
        time.sleep(order.get("pause_s", 0))
        until = time.monotonic() + LIMIT_S
        while "release" in order and not Path(order["release"]).exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        return read(*args, **kwargs)

    features.read_fractions = slow
    settings = tyro.cli(ExtractConfig, args=[str(a) for a in order["arguments"]])
    for delay_s in order.get("kills", ()):
        child = os.fork()
        if child == 0:
            script.main(settings)
            os._exit(0)
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(f"<kept {kept(settings.out)}>", flush=True)  # behind the rest of a progress bar
    start_script(script.main, lambda: settings)


def kept(folder: Path) -> int:
    """Clips that a reader finds, each of them whole."""
    ids = [f"clip{i}" for i in range(NUM_CLIPS)]
    found = 0
    for clip_id in ids:
        try:
            found += bool(len(TokenCache(folder, [clip_id])[clip_id]))
        except CacheError as refusal:
            if "lacks" not in str(refusal) and "is not a token cache" not in str(refusal):
                raise
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Videos of two sizes that are all different, their manifest, and two tiny recognizers."""
    root = tmp_path_factory.mktemp("extract")
    (root / "videos").mkdir()
    draw = np.random.default_rng(0)
    clips = []
    for number in range(NUM_CLIPS):
        side = 32 if number % 5 else 40
        coarse = draw.integers(0, 256, (10, side // 8, 6, 3), dtype=np.uint8)
        write_video(root / f"videos/{number}.mp4", coarse.repeat(8, axis=1).repeat(8, axis=2))
        clips.append(Clip(id=f"clip{number}", path=f"{number}.mp4", label=0, split="labeled",
                          source=f"source{number}"))  # fmt: skip
    write_manifest(clips, root / "manifest.csv")
    torch.manual_seed(0)
    save_encoder(build_model(SETTINGS, 4), SETTINGS, root / "encoder")
    return root


@pytest.fixture(scope="module")
def straight(world) -> dict[str, torch.Tensor]:
    """Tokens of one process that nothing disturbed."""
    code, output = run(world, world / "straight")
    assert code == 0, output
    assert f"straight: encoded {NUM_CLIPS} clips" in output
    return tokens(world / "straight")


def arguments(world: Path, out: Path, *more: str) -> list[str]:
    places = {"manifest": "manifest.csv", "video-root": "videos", "encoder-dir": "encoder"}
    message = [text for name, place in places.items() for text in (f"--{name}", str(world / place))]
    return [*message, "--encoder", "sefar", "--splits", "labeled", "--out", str(out), *more]


def start(
    world: Path, out: Path, *more: str, ranks: int = 1, **order
) -> AbstractContextManager[subprocess.Popen]:
    """Run this program in as many processes; its output is one text."""
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        launch += ["--num_processes", str(ranks), "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    message = json.dumps({"arguments": arguments(world, out, *more), **order}, default=str)
    surroundings = {"ACCELERATE_USE_CPU": "true", "COLUMNS": "120"}
    return started(
        [*launch, __file__, message],
        env=os.environ | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def run(world: Path, out: Path, *more: str, ranks: int = 1, **order) -> tuple[int, str]:
    """Exit code and output."""
    with start(world, out, *more, ranks=ranks, **order) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def tokens(folder: Path) -> dict[str, torch.Tensor]:
    ids = [f"clip{i}" for i in range(NUM_CLIPS)]
    cache = TokenCache(folder, ids)
    return {clip_id: cache[clip_id] for clip_id in ids}


def equal(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[i], others[i]) for i in some)


def test_every_clip_has_tokens_of_its_own(straight):
    firsts = {tuple(found.flatten()[:4].tolist()) for found in straight.values()}
    assert len(firsts) == NUM_CLIPS


def test_a_cache_says_what_ran(world, straight):
    (line,) = (world / "straight/runs.jsonl").read_text().splitlines()
    message = json.loads(line)
    assert "--encoder-dir" in " ".join(message["command"])
    assert {"packages", "commit", "machine"} <= message.keys()
    assert (message["clips_asked_for"], message["clips_there"]) == (NUM_CLIPS, 0)


def test_killed_at_any_moment_a_cache_is_smaller_and_never_wrong(world, straight, tmp_path):
    draw = random.Random()  # other moments in every run of the tests
    kills = [round(draw.uniform(0.02, 0.5), 3) for _ in range(KILLS)]
    code, output = run(world, tmp_path / "out", kills=kills, pause_s=0.03)
    assert code == 0, (kills, output)
    counts = [int(count) for count in re.findall(r"<kept (\d+)>", output)]
    assert len(counts) == KILLS and counts == sorted(counts), (kills, output)
    assert equal(tokens(tmp_path / "out"), straight), kills
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
def test_two_processes_make_the_cache_of_one(world, straight, tmp_path):
    code, output = run(world, tmp_path / "out", ranks=2)
    assert code == 0, output
    assert output.count(f"encoded {NUM_CLIPS} clips") == 1
    assert equal(tokens(tmp_path / "out"), straight)
    assert len((tmp_path / "out/runs.jsonl").read_text().splitlines()) == 1
    shares = [len(read_head(path).clips) for path in (tmp_path / "out").glob("tokens-*")]
    assert sum(shares) == NUM_CLIPS  # none was encoded twice


@pytest.mark.slow
def test_a_broken_video_stops_both_processes_and_one_completes_what_they_began(
    world, straight, tmp_path
):
    broken = world / "videos/13.mp4"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    try:
        code, output = run(world, tmp_path / "out", ranks=2)
    finally:
        broken.write_bytes(whole)
    assert code != 0
    assert output.count("error: ") == 1 and str(broken) in output.partition("error: ")[2], output
    before = kept(tmp_path / "out")
    assert 0 < before < NUM_CLIPS

    code, output = run(world, tmp_path / "out")
    assert code == 0, output
    assert f"encoded {NUM_CLIPS - before} clips, {before} were there already" in output
    assert equal(tokens(tmp_path / "out"), straight)


@pytest.mark.slow
def test_two_processes_complete_what_one_began_until_a_signal_came(world, straight, tmp_path):
    mark, release = tmp_path / "mark", tmp_path / "release"
    with start(world, tmp_path / "out", mark=mark, release=release) as process:
        wait_for(mark, process)
        process.send_signal(signal.SIGTERM)
        release.touch()
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, output
    assert "stopped; " in output and "the same command resumes" in output
    assert 0 < kept(tmp_path / "out") < NUM_CLIPS
    code, output = run(world, tmp_path / "out", ranks=2)
    assert code == 0, output
    assert equal(tokens(tmp_path / "out"), straight)


def asked(world: Path, out: Path) -> ExtractConfig:
    return ExtractConfig(
        manifest=world / "manifest.csv",
        video_root=world / "videos",
        encoder="sefar",
        encoder_dir=world / "encoder",
        splits=("labeled",),
        out=out,
    )


def test_a_video_that_was_replaced_is_refused(world, straight):
    video = world / "videos/7.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole + b"\0")
    message = f"{world / 'straight'} holds the tokens of clip clip7 from 7.mp4 as it was with"
    try:
        with pytest.raises(CacheError, match=message):
            extract_script(asked(world, world / "straight"))
    finally:
        video.write_bytes(whole)
    assert equal(tokens(world / "straight"), straight)


def test_clip_is_shown_the_moments_of_a_run_and_says_whose_weights_it_has(world, tmp_path, capsys):
    """A run on labels alone, of local windows."""
    settings = replace(preset("recommended"), epochs=2, warmup_epochs=2)
    network = replace(SETTINGS, sampling="local_window")
    save_encoder(build_model(network, 4), network, tmp_path / "run/student")
    write_json(tmp_path / "run/config.json", asdict(settings))
    weights, run_dir = image_folders.timm_folder(tmp_path / "clip", "clip"), tmp_path / "run"
    clip = replace(asked(world, tmp_path / "tokens"), encoder="clip", encoder_dir=weights)
    with image_folders.published_in_miniature():
        extract_script(replace(clip, moments_of=run_dir))
    message = TokenCache(clip.out, ["clip0"])
    assert f"clip: {message.origin['weights']}" in capsys.readouterr().out
    assert message.origin["weights"].startswith("weights not verified against a published hash: ")
    local = replace(asked(world, tmp_path / "own"), encoder="supervised", encoder_dir=run_dir)
    extract_script(local)
    assert TokenCache(local.out, ["clip0"]).key["moments"] == message.key["moments"]
    with pytest.raises(CheckpointError, match="run was trained on labels alone, but sefar is"):
        extract_script(replace(local, encoder="sefar", out=tmp_path / "none"))


def wait_for(mark: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + LIMIT_S
    while not mark.exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
def test_two_runs_at_once_in_one_folder_are_refused(world, straight, tmp_path):
    mark = tmp_path / "mark"
    release = tmp_path / "release"
    with start(world, tmp_path / "out", mark=mark, release=release) as first:
        wait_for(mark, first)
        code, output = run(world, tmp_path / "out")
        release.touch()
        assert code == 1, output
        assert f"error: {tmp_path / 'out'} is in use by process {first.pid}" in output
        message, _ = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 0, message
    assert equal(tokens(tmp_path / "out"), straight)


@pytest.mark.slow
def test_another_frame_order_is_refused_in_one_line(world, straight):
    code, output = run(world, world / "straight", "--frame-order", "shuffled")
    assert code == 1
    assert "has tokens with frame_order = in_order, but encoder sefar needs" in output
    assert "Traceback" not in output


def test_the_help_teaches():
    message = run_script("extract_features.py", "--help")
    assert message.returncode == 0, message.stderr
    for word in ("--frame-order", "accelerate launch", "runs.jsonl", "resumes a run"):
        assert word in message.stdout


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
