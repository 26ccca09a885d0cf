"""A training run small enough for a test, in processes of its own, with faults to order.

    python tests/integration/tiny_run.py '{"manifest": ..., "video_root": ..., "run_dir": ...}'

What the script train_ssl.py does with the same settings, so its messages and exit codes too.
"""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sefar_core.cli import start as start_script  # noqa: E402

from qa_data.manifest import Clip, write_manifest  # noqa: E402
from qa_data.synthetic.dataset import make_set  # noqa: E402
from qa_data.synthetic.plan import SyntheticSettings  # noqa: E402
from sefar_core.config import (  # noqa: E402
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TeacherConfig,
    TrainConfig,
)
from tests.script_process import LIMIT_S, started  # noqa: E402

CLIP_NORM = 2.0  # below the norm of most steps, see test_train_faults
SGD = OptimConfig(kind="sgd", lr=0.05, clip_norm=CLIP_NORM, rate_warmup_steps=3)
CONFIG = TrainConfig(
    model=ModelConfig(
        image_size=32,
        patch_size=16,
        dim=16,
        depth=2,
        num_heads=2,
        fusion_dim=8,
        dropout=0.2,
        drop_path_rate=0.2,
    ),
    data=DataConfig(short_side=(32, 36), workers=0),
    teacher=TeacherConfig(ema_decay=0.5, dropout_passes=3),
    loss=LossConfig(gamma_un=2.0, gamma_mix=2.0),
    optim=OptimConfig(
        kind="adamw", lr=1e-3, schedule="cosine", clip_norm=CLIP_NORM, rate_warmup_steps=3
    ),
    batch_size=4,
    micro_batch_size=2,
    epochs=4,
    warmup_epochs=1,
    steps=8,
    save_every_epochs=1,
    mixed_precision="no",
)
NOTHING_RANDOM = replace(
    CONFIG,
    model=replace(CONFIG.model, dropout=0.0, drop_path_rate=0.0),
    loss=replace(CONFIG.loss, gamma_mix=0.0),
)
CONFIGS = {
    "random": CONFIG,
    "nothing random, sgd": replace(NOTHING_RANDOM, optim=SGD),
}


def make_world(root: Path) -> Path:
    """A rendered set and its manifests: 8 labeled clips, 16 unlabeled, and in one 24 val clips."""
    settings = SyntheticSettings(num_train=24, num_test=24, size=48, num_train_sources=4)
    make_set(root / "gym", settings)
    clips = []
    for name in ("train", "val"):
        lines = (root / f"gym/{name}_element.txt").read_text().splitlines()
        for number, line in enumerate(lines):
            clip, label = line.split()
            split = "val" if name == "val" else "unlabeled" if number % 3 else "labeled"
            path = f"{clip}.mp4"
            known = int(label) if split != "unlabeled" else None
            clips.append(Clip(id=clip, path=path, label=known, source=clip[:11], split=split))
    write_manifest([clip for clip in clips if clip.split != "val"], root / "manifest.csv")
    write_manifest(clips, root / "with_val.csv")
    return root


def order(world: Path, run_dir: Path, **faults) -> str:
    """The one argument of this program."""
    places = {"manifest": world / "manifest.csv", "video_root": world / "gym/videos"}
    return json.dumps({**places, "run_dir": run_dir, **faults}, default=str)


def start(
    argument: str, ranks: int = 1, **surroundings: str
) -> AbstractContextManager[subprocess.Popen]:
    """Run this program in as many processes; its output is one text."""
    launch = [sys.executable]
    if ranks > 1:
        surroundings = {"ACCELERATE_USE_CPU": "true"} | surroundings
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        launch += ["--num_processes", str(ranks), "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    return started(
        [*launch, __file__, argument],
        env=os.environ | surroundings,  # as many threads as the test has, so the same sums
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(argument: str, ranks: int = 1, **surroundings: str) -> tuple[int, str]:
    """Exit code and output."""
    with start(argument, ranks, **surroundings) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def disturb(faults: dict) -> None:
    """Faults to order, by the number of steps before.

    `nan_at` [step, rank], `signal_at` [step, rank, name], `kill_loader_at` step, `pause_s` a step;
    `backend`, no fault, makes torch.compile take less time and print its arguments.
    """
    import torch

    from sefar_core import train

    if "backend" in faults:
        torch.compile = partial(reported_compile, torch.compile, faults["backend"])
    rank = int(os.environ.get("RANK", "0"))
    whole_step, whole_micro, steps = train.optimizer_step, train.micro_step, []

    def step(loop, batches):
        steps.append(loop.step)
        time.sleep(faults.get("pause_s", 0))
        if faults.get("signal_at", [None])[:2] == [loop.step, rank]:
            os.kill(os.getpid(), signal.Signals[faults["signal_at"][2]])
        if faults.get("kill_loader_at") == loop.step:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        return whole_step(loop, batches)

    def micro(*parts):
        losses, report = whole_micro(*parts)
        if faults.get("nan_at") == [steps[-1], rank]:
            losses = losses._replace(supervised=losses.supervised * torch.nan)
        return losses, report

    train.optimizer_step, train.micro_step = step, micro


def reported_compile(compile, backend: str, call, **how):
    print(f"compiles with {how}")
    return compile(call, backend=backend, **how)


def main(argument: str) -> None:
    faults = json.loads(argument)
    specification = importlib.util.spec_from_file_location("t", ROOT / "scripts/train_ssl.py")
    script = importlib.util.module_from_spec(specification)
    sys.modules["t"] = script
    specification.loader.exec_module(script)
    disturb(faults)
    config = replace(CONFIGS[faults.get("config", "random")], **faults.get("changes", {}))
    if "workers" in faults:
        config = replace(config, data=replace(config.data, workers=faults["workers"]))
    places = {name: Path(faults[name]) for name in ("manifest", "video_root", "run_dir")}
    start_script(script.main, partial(script.TrainSsl, config=config, **places))


if __name__ == "__main__":
    main(sys.argv[1])
