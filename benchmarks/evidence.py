"""Measure the contribution of each part of the method on the synthetic gymnasts.

    python -m benchmarks.evidence run --seeds 0 1 2 3 4 --jobs 2     # adds missing results
    python -m benchmarks.evidence table                              # make evidence runs both

An arm is the run of the demo with words of a preset and single settings added (arms.py), for few
epochs over the labels or three times as many (`_long`). The demo's own settings were chosen with
SeFAR on validation clips; `paper_weights` has the paper's, and each other method has its published
settings and a second choice. A seed sets the labeled clips, the weights of the head, the order and
every augmentation, the same for all arms. Arms with the same views of clips start from one warm-up
on labels. Each finished arm adds a line to the results file, so that an interrupted run resumes
with the same code. Scores are of fixed views: on validation clips, for choosing settings, and on
test clips of athletes and arenas that no other split has.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from benchmarks.arms import ARMS, TRAINING, settings_of, warm_up_key
from benchmarks.evidence_table import RESULTS, Table, read_results, refuse_other_code, show
from qa_data.finegym import read_elements, to_clips
from qa_data.manifest import by_split, read_manifest, write_manifest
from qa_data.synthetic.dataset import make_set
from qa_data.synthetic.plan import SyntheticSettings
from qa_data.taxonomy import opposite_pairs, read_categories
from sefar_core.checkpoint import load_encoder
from sefar_core.config import TrainConfig
from sefar_core.data.dataloaders import LoaderConfig, evaluation_views
from sefar_core.data.dataset import view_moments
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.splits import SplitConfig, split_pool
from sefar_core.evaluate import pair_accuracy, predict, score
from sefar_core.run_dir import surroundings
from sefar_core.train import fit


@dataclass(frozen=True, kw_only=True)
class Run:
    """Train and score the arms that the results file lacks."""

    arms: tuple[str, ...] = tuple(ARMS)
    """Arms to run."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Random seeds of every arm."""
    jobs: int = 2
    """Number of arms at a time, each on one thread."""
    work: Path = Path("runs/evidence")
    """Folder of the clips and the runs."""
    results: Path = RESULTS
    """Results file, with one line for each arm and seed."""


def code() -> str:
    """A hash of the code that a result depends on: the packages and this benchmark."""
    root = Path(__file__).parents[1]
    files = [Path(__file__), root / "benchmarks/arms.py"]
    files += sorted(root.glob("sefar_core/**/*.py")) + sorted(root.glob("qa_data/**/*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def make_clips(work: Path, seed: int) -> None:
    """Render the dataset, and write the manifests of a seed's labeled clips."""
    settings = SyntheticSettings(num_train=3000, num_test=720, num_test_sources=24)
    make_set(work / "gym", settings, workers=2)
    manifest = work / f"seed-{seed}" / "manifest.csv"
    if not manifest.exists():
        classes = read_categories(work / "gym/categories.txt")
        pool = to_clips(read_elements(work / "gym/train_element.txt"), classes, split="labeled")
        test = to_clips(read_elements(work / "gym/val_element.txt"), classes, split="test")
        config = SplitConfig(rate=0.07, val_from="pool", val_rate=0.12, seed=seed)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        clips = [*split_pool(pool, config), *test]
        write_manifest(
            [clip for clip in clips if clip.split != "val"], manifest.with_name(TRAINING)
        )
        write_manifest(clips, manifest)


def run(settings: Run) -> None:
    """Run all arms of one seed before the next seed, so that complete tables come first."""
    lines = read_results(settings.results)
    refuse_other_code([*lines, {"code": code()}], settings.results)
    done = {(line["arm"], line["seed"]) for line in lines}
    wanted = [(a, s) for s in settings.seeds for a in settings.arms if (a, s) not in done]
    settings.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in sorted({seed for _, seed in wanted}):
        make_clips(settings.work, seed)
        warm_up_all(settings, [arm for arm, s in wanted if s == seed], seed)
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(train_and_score, arm, seed, settings.work) for arm, seed in wanted]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="arms", unit="arm"):
            with settings.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(job.result()) + "\n")


def warm_up_all(settings: Run, arms: Sequence[str], seed: int) -> None:
    """Run each warm-up that the arms share, once."""
    wanted = {warm_up_key(settings_of(arm, seed)) for arm in arms}
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(warm_up, key, config, settings.work)
            for key, config in warm_ups(seed).items()
            if key in wanted
        ]
        for job in jobs:
            job.result()


def warm_ups(seed: int) -> dict[str, TrainConfig]:
    """The settings of each warm-up, by key: those of its first arm among all arms, whichever arms
    are requested, so that a later command reuses it.
    """
    configs: dict[str, TrainConfig] = {}
    for arm in ARMS:
        config = settings_of(arm, seed)
        # All states are kept: arms start from the first.
        warm = replace(config, warmup_epochs=config.epochs, keep_last=config.epochs)
        configs.setdefault(warm_up_key(config), warm)
    return configs


def warm_up(key: str, config: TrainConfig, work: Path) -> None:
    """Train on labels alone, to the end; all arms start from the first state."""
    folder = work / f"seed-{config.seed}"
    train(config, folder, folder / f"warm-up-{code()}-{key}")


def train(config: TrainConfig, folder: Path, run_dir: Path) -> None:
    torch.set_num_threads(1)
    videos = folder.parent / "gym/videos"
    fit(config, manifest=folder / TRAINING, video_root=videos, run_dir=run_dir)


def train_and_score(arm: str, seed: int, work: Path) -> dict[str, Any]:
    """Run one arm with one seed; its line of the results."""
    began = time.process_time()
    config = settings_of(arm, seed)
    folder = work / f"seed-{seed}"
    run_dir = folder / arm
    shutil.rmtree(run_dir, ignore_errors=True)
    warm = folder / f"warm-up-{code()}-{warm_up_key(config)}"
    first = min((warm / "states").glob("step-*"))
    shutil.copytree(first, run_dir / "states" / first.name)
    train(config, folder, run_dir)
    figures, facts = scores(folder, run_dir), surroundings()
    return {
        "arm": arm,
        "seed": seed,
        "scores": figures,
        "cpu_s": round(time.process_time() - began, 1),
        "commit": facts["commit"],
        "code": code(),
        "torch": facts["packages"]["torch"],
    }


def scores(folder: Path, run_dir: Path) -> dict[str, dict[str, float]]:
    """Top-1, mean-class and direction accuracy of student and teacher, on validation and test."""
    gym = folder.parent / "gym"
    pairs = opposite_pairs(read_categories(gym / "categories.txt").values())
    accuracies = {}
    for split in ("val", "test"):
        clips = by_split(read_manifest(folder / "manifest.csv"), split)
        store = open_frame_cache(clips, gym / "videos", CacheConfig(folder.parent / "frames"))
        for role in ("student", "teacher"):
            if not (run_dir / role).exists():
                continue
            network = load_encoder(run_dir / role)
            moments = view_moments(network.sampling, network.sizes, 1)
            views = evaluation_views(
                network, clips, store.read, moments=moments, num_crops=1, loader=LoaderConfig()
            )
            probs, labels = predict(network, views, torch.device("cpu"))
            result = score(probs, labels, [clip.source for clip in clips])
            accuracies[f"{role} {split}"] = {
                "top1": result.top1,
                "mean_class": result.mean_class,
                "direction": pair_accuracy(probs, labels, pairs).mean().item(),
            }
    return accuracies


def main(command: Run | Table) -> None:
    named = [*command.arms, *([command.baseline] if isinstance(command, Table) else [])]
    unknown = [name for name in named if name not in ARMS]
    if unknown:
        raise SystemExit(f"error: no arm is named {unknown[0]}; the arms are {', '.join(ARMS)}")
    run(command) if isinstance(command, Run) else show(command)


if __name__ == "__main__":
    main(tyro.cli(Run | Table, description=__doc__))
