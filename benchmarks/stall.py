"""The loader's share of training: real runs, as their timing.jsonl reports it.

    python -m benchmarks.stall --presets vit_s vit_b --workers 14 --out benchmarks/results
    python -m benchmarks.stall --presets demo --clips 24 --steps 8 --workers 1     # a dry run

Clips of 1 to 3 s, 320x256 pixels, are written first; a tenth of them is labeled. Each preset trains
for a few steps, all but a few of them semi-supervised, with the videos read each time and with a
store of JPEGs. The stall is the part of the second half of the steps that is spent waiting for
batches: of its whole time, as waiting comes in bursts. The result is written after every run.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from benchmarks.moving_clips import write_clip
from benchmarks.timing import Row, report_incrementally, result_name
from qa_data.manifest import Clip, write_manifest
from sefar_core.presets import preset
from sefar_core.train import fit

NUM_CLASSES = 4


@dataclass(frozen=True, kw_only=True)
class Stall:
    """The settings of the measurement."""

    presets: tuple[str, ...] = ("vit_s", "vit_b")
    """Networks, as words of train_ssl.py."""
    stores: tuple[Literal["none", "jpeg", "raw"], ...] = ("none", "jpeg")
    """Where frames come from."""
    clips: int = 400
    """Training clips."""
    steps: int = 30
    """Optimizer steps of a run; a sixth of them are warm-up."""
    workers: int = 14
    """Loader processes, of labeled and unlabeled clips together."""
    out: Path | None = None
    """Folder for a dated result."""


def write_set(root: Path, num_clips: int) -> Path:
    """Video files and the manifest that lists them."""
    clips = []
    for number in tqdm(range(num_clips), desc="write", unit="clip"):
        name = f"clip-{number:04d}"
        write_clip(root / f"{name}.mp4", num_frames=25 + number % 50, gop=250, seed=number)
        clip = Clip(id=name, path=f"{name}.mp4", split="unlabeled")
        if number % 10 == 0:
            clip = replace(clip, label=number // 10 % NUM_CLASSES, split="labeled")
        clips.append(clip)
    write_manifest(clips, root / "manifest.csv")
    return root / "manifest.csv"


def timed_run(
    word: str, store: Literal["none", "jpeg", "raw"], settings: Stall, root: Path
) -> dict:
    """Train, and sum up the second half of timing.jsonl."""
    config = preset(word)
    data = replace(config.data, store=store, workers=settings.workers)
    config = replace(config, data=data, steps=settings.steps, save_every_epochs=config.epochs)
    run_dir = root / f"{word}-{store}"
    shutil.rmtree(run_dir, ignore_errors=True)
    fit(config, manifest=root / "manifest.csv", video_root=root, run_dir=run_dir)
    lines = [json.loads(line) for line in (run_dir / "timing.jsonl").read_text().splitlines()]
    return over(lines[len(lines) // 2 :])


def over(steps: list[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of steps, and of all their time the clips a second and the part waited."""
    whole_s = sum(step["seconds"] for step in steps)
    clips, waited_s = (
        sum(step[name] * step["seconds"] for step in steps) for name in ("clips_per_s", "stall")
    )
    return {
        "seconds": whole_s / len(steps),
        "clips_per_s": clips / whole_s,
        "stall": waited_s / whole_s,
    }


def rows(settings: Stall) -> Iterator[Row]:
    """The table: a line for each preset and store."""
    head = f"{settings.workers} loader processes, {settings.steps} steps of {settings.clips} clips"
    yield f"{head}\n", {}
    yield "| preset | frames from | s a step | clips/s | stall |", {}
    yield "|---|---|---|---|---|", {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_set(root, settings.clips)
        for word, store in product(settings.presets, settings.stores):
            found = timed_run(word, store, settings, root)
            yield (
                f"| {word} | {'videos' if store == 'none' else store + ' store'} | "
                f"{found['seconds']:.3f} | {found['clips_per_s']:.0f} | {found['stall']:.1%} |",
                {f"{word}, {store}": found},
            )


def main(settings: Stall) -> None:
    if not torch.cuda.is_available() and set(settings.presets) != {"demo"}:
        print("stall: not measured, this machine has no CUDA device; --presets demo is a dry run")
        return
    report_incrementally(result_name("stall", settings), rows(settings), settings.out)


if __name__ == "__main__":
    main(tyro.cli(Stall, description=__doc__))
