"""Score a trained recognizer on labeled clips, beside controls that show what it looks at.

    scripts/evaluate_ssl.py --run-dir runs/sefar --manifest data/splits/manifest.csv \\
        --video-root data/gym/videos --categories data/gym/categories.txt

Every clip is seen at fixed moments and crops; probabilities of its views are averaged. The
controls repeat one middle frame, shuffle the frames, and (given --background-root, videos of the
same names with the figure removed) leave only the background. Writes scores.json, ROLE_probs.npy,
ROLE_confusion.png, trust.png and curves.png into the run folder's evaluation/SPLIT.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class EvaluateSsl:
    run_dir: Path
    """Folder that train_ssl.py wrote."""
    manifest: Path
    """CSV of clips."""
    video_root: Path
    """Folder that the manifest's paths start from."""
    categories: Path | None = None
    """FineGym's class list: names of the classes, and which differ in direction alone. Without it
    the manifest names the classes."""
    split: Literal["test", "val"] = "test"
    """Which clips. Tune on val, report test."""
    protocol: Literal["fixed", "released"] = "fixed"
    """The same views every time, beside the controls; or one random view of each clip, as the
    public code tests."""
    views: int = 5
    """Temporal views of a clip."""
    crops: int = 3
    """Crops of each view, 1 or 3; on square frames 3 are no better than 1."""
    background_root: Path | None = None
    """The same videos with figure and apparatus removed."""
    workers: int = 0
    """Loader processes."""


def main(settings: EvaluateSsl) -> None:
    import numpy as np
    import torch

    from qa_data.manifest import by_split, read_manifest
    from sefar_core.checkpoint import load_encoder
    from sefar_core.data.leaks import compare
    from sefar_core.evaluate import clustered_interval, confusion, pair_accuracy, score
    from sefar_core.plots import plot_confusion
    from sefar_core.runs.folder import surroundings, write_json

    roles = [role for role in ("student", "teacher") if (settings.run_dir / role).exists()]
    if not roles:
        raise SystemExit(
            f"error: {settings.run_dir} holds no student; give the folder that train_ssl.py wrote"
        )
    listed = read_manifest(settings.manifest)
    names, pairs = classes_of(settings, listed)
    clips = by_split(listed, settings.split)
    if not clips:
        raise SystemExit(
            f"error: {settings.manifest} has no clip of split {settings.split}; cut one with "
            f"make_splits.py, or name another --split"
        )
    shared = compare([*by_split(listed, "labeled"), *by_split(listed, "unlabeled")], clips)
    sources = [clip.source for clip in clips]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    suffix = "-released" if settings.protocol == "released" else ""
    out = settings.run_dir / "evaluation" / f"{settings.split}{suffix}"
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict] = {}
    for role in roles:
        network = load_encoder(settings.run_dir / role).to(device)
        if network.classifier.out_features != len(names):
            raise SystemExit(
                f"error: {settings.run_dir / role} scores {network.classifier.out_features} "
                f"classes, but {settings.categories or settings.manifest} has {len(names)}; give "
                f"the list it was trained with"
            )
        for control, probs, labels in looks(settings, network, clips, device):
            name = role if control is None else f"{role}, {control}"
            in_pairs = pair_accuracy(probs, labels, pairs).numpy()
            of_pairs = [
                s
                for s, label in zip(sources, labels.tolist(), strict=True)
                if any(label in pair for pair in pairs)
            ]
            rows[name] = asdict(score(probs, labels, sources)) | {
                "direction": float(in_pairs.mean()) if len(in_pairs) else None,
                "direction_interval": clustered_interval(in_pairs, of_pairs)
                if len(in_pairs)
                else None,
            }
            if control is None:
                np.save(out / f"{role}_probs.npy", probs.numpy())
                plot_confusion(
                    confusion(probs, labels).numpy(), names, out / f"{role}_confusion.png"
                )
        if role == "teacher":
            rows[role]["trust"] = trust_of(settings, network, clips, device, out)
    draw_curves(settings.run_dir, out / "curves.png")
    write_json(
        out / "scores.json",
        {"settings": asdict(settings), "rows": rows, "shared_with_training": shared}
        | surroundings(),
    )
    show(rows, settings)
    print(
        f"{shared['clips_of_shared_sources']:,} of {len(clips):,} clips come from source videos "
        f"that training clips come from too"
    )


def classes_of(settings: EvaluateSsl, clips: Sequence) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of the classes, and pairs that differ in direction alone, which only FineGym tells."""
    from qa_data.taxonomy import opposite_pairs, read_categories

    if settings.categories is not None:
        classes = read_categories(settings.categories)
        names = [f"{c.event} {c.text}" for _, c in sorted(classes.items())]
        return names, opposite_pairs(classes.values())
    texts = {clip.label: clip.text for clip in clips if clip.label is not None}
    return [texts.get(label) or f"class {label}" for label in range(max(texts) + 1)], []


def looks(settings: EvaluateSsl, network, clips: Sequence, device):
    """(control or none, probabilities, labels): the plain look first, then the controls."""
    import torch

    from sefar_core.data.dataset import read_from_folder, view_moments
    from sefar_core.data.feeds import evaluation_views, released_views
    from sefar_core.data.loader import Feed
    from sefar_core.evaluate import middle_moments, predict, shuffle_frames

    feed = Feed(settings.workers)
    read = partial(read_from_folder, root=settings.video_root)
    if settings.protocol == "released":
        views = released_views(network, clips, read, seed=0, feed=feed)
        yield None, *predict(network, views, device)
        return
    views = partial(evaluation_views, network, clips, num_crops=settings.crops, feed=feed)
    plain = partial(views, moments=view_moments(network.sampling, network.sizes, settings.views))
    yield None, *predict(network, plain(read), device)
    middle = views(read, moments=[middle_moments(network.sizes)])
    yield "one middle frame", *predict(network, middle, device)
    generator = torch.Generator().manual_seed(0)
    shuffled = (
        (shuffle_frames(elements, generator), labels, places)
        for elements, labels, places in plain(read)
    )
    yield "frames shuffled", *predict(network, shuffled, device)
    if settings.background_root is not None:
        empty = plain(partial(read_from_folder, root=settings.background_root))
        yield "background only", *predict(network, empty, device)


def trust_of(settings: EvaluateSsl, network, clips: Sequence, device, out: Path) -> dict:
    """Trust in the teacher's right and wrong pseudo-labels, and the picture of it."""
    import json

    import torch

    from sefar_core.data.dataset import read_from_folder, view_moments
    from sefar_core.data.feeds import evaluation_views
    from sefar_core.data.loader import Feed
    from sefar_core.plots import plot_trust
    from sefar_core.regulation import adaptive_weight, fixed_threshold
    from sefar_core.teacher import EmaTeacher

    config = json.loads((settings.run_dir / "config.json").read_text())
    rules = {
        "adaptive": adaptive_weight,
        "fixed": partial(fixed_threshold, threshold=config["loss"]["threshold"]),
    }
    regulate = rules[config["loss"]["regulation"]]
    teacher = EmaTeacher(network, decay=0.0, dropout_passes=config["teacher"]["dropout_passes"])
    torch.manual_seed(0)
    read = partial(read_from_folder, root=settings.video_root)
    views = evaluation_views(
        network,
        clips,
        read,
        moments=view_moments(network.sampling, network.sizes, 1),
        num_crops=1,
        feed=Feed(settings.workers),
    )
    trust, right = [], []
    for elements, labels, _ in views:
        pseudo = teacher.predict([clip.to(device) for clip in elements])
        trust.append(regulate(pseudo.confidence, pseudo.spread).cpu())
        right.append(pseudo.label.cpu() == labels)
    trusts, rights = torch.cat(trust).numpy(), torch.cat(right).numpy()
    plot_trust(trusts, rights, out / "trust.png")
    return {
        "pseudo_labels_right": float(rights.mean()),
        "trust_of_right": float(trusts[rights].mean()) if rights.any() else None,
        "trust_of_wrong": float(trusts[~rights].mean()) if (~rights).any() else None,
    }


def draw_curves(run_dir: Path, path: Path) -> None:
    """The losses and the mean trust over the steps of training."""
    import json

    from sefar_core.plots import plot_curves

    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    curves = {}
    for name in ("supervised", "unsupervised", "mix", "trust"):
        told = [line for line in lines if name in line]
        if told:
            curves[name] = ([line["step"] for line in told], [line[name] for line in told])
    plot_curves(curves, path, ylabel="loss, or trust")


def show(rows: dict[str, dict], settings: EvaluateSsl) -> None:
    """The scores as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "network",
        "top-1 [95 %]",
        "top-5",
        "mean class",
        "direction [95 %]",
        "majority",
        title=f"{settings.run_dir.name} on {settings.split}",
    )
    for name, row in rows.items():
        low, high = row["top1_interval"]
        direction = "-"
        if row["direction"] is not None:
            left, right = row["direction_interval"]
            direction = f"{row['direction']:.1%} [{left:.1%}, {right:.1%}]"
        table.add_row(
            name,
            f"{row['top1']:.1%} [{low:.1%}, {high:.1%}]",
            f"{row['top5']:.1%}",
            f"{row['mean_class']:.1%}",
            direction,
            f"{row['majority']:.1%}",
        )
    Console().print(table)


def run() -> None:
    settings = tyro.cli(EvaluateSsl, description=__doc__)

    from sefar_core.checkpoint import CheckpointError
    from sefar_core.data.video import VideoReadError

    try:
        main(settings)
    except (CheckpointError, VideoReadError, ValueError, OSError) as cause:
        raise SystemExit(f"error: {str(cause).strip().splitlines()[-1]}") from cause


if __name__ == "__main__":
    run()
