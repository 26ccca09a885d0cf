"""Score a trained recognizer on labeled clips, beside controls that show what it uses.

    scripts/evaluate_ssl.py --run-dir runs/sefar --manifest data/splits/manifest.csv \\
        --video-root data/gym/videos --categories data/gym/categories.txt

Every clip is shown at fixed moments and crops, and the probabilities of its views are averaged. The
controls repeat one middle frame, shuffle the frames, and (with --background-root, videos of the
same names without the figure) leave only the background. Writes scores.json, ROLE_probs.npy,
ROLE_confusion.png, trust.png and curves.png into the run folder's evaluation/SPLIT.

Encoders from convert_checkpoint.py are scored as well, without trust and curves, which need the
config.json and metrics.jsonl of a training run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from sefar_core.cli import refuse_unwritable, start

import tyro

OTHER_MANIFEST = "; it was trained with another manifest (see manifest_sha256)"


@dataclass(frozen=True, kw_only=True)
class EvaluateSsl:
    run_dir: Path
    """Folder that train_ssl.py wrote, or any that holds an encoder `student` or `teacher`."""
    manifest: Path
    """CSV of clips, written by make_splits.py."""
    video_root: Path
    """Folder that the paths in the manifest start from."""
    categories: Path | None = None
    """FineGym's class list, which names the classes and shows which differ in direction alone.
    Without it the names come from the manifest."""
    split: Literal["test", "val"] = "test"
    """Split to score. Tune on val, report test."""
    protocol: Literal["fixed", "released"] = "fixed"
    """fixed: the same views every time, and the controls. released: one random view of each
    clip, as in the public code."""
    views: int = 5
    """Number of temporal views of a clip."""
    crops: int = 3
    """Number of crops of each view, 1 or 3; on square frames 3 bring nothing over 1."""
    background_root: Path | None = None
    """Folder of the same videos without figure and apparatus."""
    workers: int = 0
    """Number of data-loader workers; 0 loads in this process."""

    def __post_init__(self):
        if self.views < 1:
            raise ValueError(f"views must be at least 1, got {self.views}")
        if self.crops not in (1, 3):
            raise ValueError(f"crops must be 1 or 3, got {self.crops}")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")


def main(settings: EvaluateSsl) -> None:
    import numpy as np

    from qa_data.files import write_json
    from qa_data.manifest import by_split, read_manifest
    from sefar_core.data.class_names import class_names, refuse_several_names
    from sefar_core.data.leaks import overlap, overlap_lines
    from sefar_core.run_dir import read_history, surroundings

    history = read_history(settings.run_dir)
    listed = read_manifest(settings.manifest)
    suffix = "-released" if settings.protocol == "released" else ""
    out = settings.run_dir / "evaluation" / f"{settings.split}{suffix}"
    refuse_unwritable(folders=[out])  # before networks are loaded and files compared
    clips = by_split(listed, settings.split)
    if not clips:
        raise ValueError(
            f"{settings.manifest} has no clip of split {settings.split}; cut one with "
            f"make_splits.py --val-rate 0.1, or name another --split"
        )
    refuse_several_names(listed, settings.manifest)
    names, pairs = classes_of(settings, listed)
    named = class_names(listed, len(names))
    if settings.categories is not None:
        named = tuple(one or other for one, other in zip(named, names, strict=True))
    networks, match = load_networks(settings, named)
    note = note_on_classes(settings, match)
    training = [*by_split(listed, "labeled"), *by_split(listed, "unlabeled")]
    shared = overlap(training, clips, video_root=settings.video_root)
    out.mkdir(parents=True, exist_ok=True)

    rows, plain, trust = score_all(settings, networks, clips, pairs, history)
    for role, (probs, _) in plain.items():
        np.save(out / f"{role}_probs.npy", probs.numpy())
    write_json(
        out / "scores.json",
        {"settings": asdict(settings), "rows": rows, "shared_with_training": shared}
        | {"classes": {"match": match.state, "note": note}}
        | surroundings(),
    )
    show(rows, settings)
    print("\n".join([*([f"note: {note}"] if note else []), *overlap_lines(shared)]))
    if history is None:
        print(
            f"{settings.run_dir} has no record of training (config.json, metrics.jsonl): trust and "
            f"curves are left out"
        )
    draw(out, names, plain, trust, history)


def load_networks(settings: EvaluateSsl, class_names: Sequence[str | None]):
    """Student and teacher, whichever exist, by name, and how their classes match the manifest's.

    Raises:
        CheckpointError: a network scores other classes.
        ValueError: the run folder holds none.
    """
    from sefar_core.checkpoint import load_for_classes

    roles = [role for role in ("student", "teacher") if (settings.run_dir / role).exists()]
    if not roles:
        raise ValueError(
            f"{settings.run_dir} holds no student; give the folder that train_ssl.py wrote"
        )
    found = {role: load_for_classes(settings.run_dir / role, class_names) for role in roles}
    return {role: network for role, (network, _) in found.items()}, found[roles[0]][1]


def note_on_classes(settings: EvaluateSsl, match) -> str | None:
    """What readers of the scores must know about the classes; None if the names are the same."""
    from sefar_core.run_dir import same_manifest

    if match.state == "same":
        rest = f"the names of {match.unnamed} classes could not be compared"
        return rest if match.unnamed else None
    if match.state == "by_name":
        return (
            f"{settings.run_dir} was trained with the classes in another order than in "
            f"{settings.manifest}; they were matched by name"
        )
    same = same_manifest(settings.run_dir, settings.manifest)
    origin = {None: "", True: "; it was trained with this manifest", False: OTHER_MANIFEST}[same]
    return (
        f"class names could not be checked: {settings.run_dir} or {settings.manifest} has "
        f"no class names{origin}"
    )


def score_all(settings: EvaluateSsl, networks: dict, clips: Sequence, pairs: Sequence, history):
    """Rows of scores.json; (probabilities, labels) of each network without control; trust, or
    None."""
    import torch

    from sefar_core.data.group_split import group_key
    from sefar_core.evaluate import score, score_direction, score_trust

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sources = [group_key(clip) for clip in clips]
    rows, plain, trust = {}, {}, None
    for role, network in networks.items():
        network.to(device)
        for control, probs, labels in outputs(settings, network, clips, device):
            name = role if control is None else f"{role}, {control}"
            rows[name] = asdict(score(probs, labels, sources)) | asdict(
                score_direction(probs, labels, sources, pairs)
            )
            if control is None:
                plain[role] = probs, labels
        if role == "teacher" and history is not None:
            trust = weigh(settings, network, clips, device, history)
            rows[role]["trust"] = asdict(score_trust(*trust))
    return rows, plain, trust


def classes_of(settings: EvaluateSsl, clips: Sequence) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of the classes, and pairs that differ in direction alone, which only FineGym lists."""
    from qa_data.taxonomy import opposite_pairs, read_categories
    from sefar_core.data.class_names import class_names

    if settings.categories is not None:
        classes = read_categories(settings.categories)
        refuse_other_categories(settings, clips, classes)
        names = [f"{c.event} {c.text}" for _, c in sorted(classes.items())]
        return names, opposite_pairs(classes.values())
    return [name or f"class {label}" for label, name in enumerate(class_names(clips))], []


def refuse_other_categories(settings: EvaluateSsl, clips: Sequence, classes: Mapping) -> None:
    """Raise ValueError if the class list calls a class otherwise than the manifest does."""
    from qa_data.files import composed
    from sefar_core.data.class_names import class_names

    named = class_names([replace(clip, event=None) for clip in clips])
    for label, name in enumerate(named):
        if name is not None and label in classes and composed(classes[label].text) != name:
            raise ValueError(
                f"class {label} is {classes[label].text!r} in {settings.categories}, but {name!r} "
                f"in {settings.manifest}; give the class list that the manifest was made with"
            )


def outputs(settings: EvaluateSsl, network, clips: Sequence, device):
    """(control or None, probabilities, labels): first without control, then each control."""
    import torch

    from sefar_core.data.dataloaders import LoaderConfig, evaluation_views, released_views
    from sefar_core.data.dataset import read_from_folder, view_moments
    from sefar_core.evaluate import middle_moments, predict, shuffle_frames

    loader = LoaderConfig(settings.workers)
    read = partial(read_from_folder, root=settings.video_root)
    if settings.protocol == "released":
        views = released_views(network, clips, read, seed=0, loader=loader)
        yield None, *predict(network, views, device)
        return
    views = partial(evaluation_views, network, clips, num_crops=settings.crops, loader=loader)
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


def weigh(settings: EvaluateSsl, network, clips: Sequence, device, history):
    """Trust in the teacher's pseudo-labels as its run weighed them, and which of them are right."""
    import torch

    from sefar_core.data.dataloaders import LoaderConfig, evaluation_views
    from sefar_core.data.dataset import read_from_folder, view_moments
    from sefar_core.evaluate import weigh_pseudo_labels
    from sefar_core.regulation import choose_regulation
    from sefar_core.teacher import EmaTeacher

    teacher = EmaTeacher(network, decay=0.0, dropout_passes=history.dropout_passes)
    views = evaluation_views(
        network,
        clips,
        partial(read_from_folder, root=settings.video_root),
        moments=view_moments(network.sampling, network.sizes, 1),
        num_crops=1,
        loader=LoaderConfig(settings.workers),
    )
    torch.manual_seed(0)
    regulate = choose_regulation(history.regulation, threshold=history.threshold)
    return weigh_pseudo_labels(teacher.predict, regulate, views, device)


def draw(out: Path, names: Sequence[str], plain: dict, trust, history) -> None:
    """The plots: confused classes, trust in pseudo-labels, training curves."""
    from sefar_core.evaluate import confusion
    from sefar_core.plots import plot_confusion, plot_curves, plot_trust
    from sefar_core.run_dir import curves

    for role, (probs, labels) in plain.items():
        plot_confusion(confusion(probs, labels).numpy(), names, out / f"{role}_confusion.png")
    if trust is not None:
        weights, right = trust
        plot_trust(weights.numpy(), right.numpy(), out / "trust.png")
    if history is not None:
        lines = curves(history.metrics, ("supervised", "unsupervised", "mix", "trust"))
        plot_curves(lines, out / "curves.png", ylabel="loss, or trust")


def show(rows: dict[str, dict], settings: EvaluateSsl) -> None:
    """The scores as a table."""
    from rich.table import Table

    from qa_data.terminal import console

    columns = ("network", "top-1 [95 %]", "top-5", "mean class", "direction [95 %]", "majority")
    keys = ("top1", "top5", "mean_class", "direction", "majority")
    table = Table(*columns, title=f"{settings.run_dir.name} on {settings.split}")
    for name, row in rows.items():
        cells = [shown(row, key) for key in keys]
        table.add_row(name, *cells)
    console().print(table)


def shown(row: Mapping, key: str) -> str:
    """A share of a row in percent, with its interval where it is one of those that have one."""
    value = row[key]
    if value is None or f"{key}_interval" not in row:
        return "-" if value is None else f"{value:.1%}"
    limits = row[f"{key}_interval"]
    return f"{value:.1%} " + (f"[{limits[0]:.1%}, {limits[1]:.1%}]" if limits else "(no interval)")


if __name__ == "__main__":
    start(main, partial(tyro.cli, EvaluateSsl, description=__doc__))
