"""Weights on disk: encoders for use, and states from which a killed run resumes bit for bit.

An encoder is a folder of config.json and model.safetensors.

All randomness is a function of (seed, step, rank) or (seed, epoch, clip, view), so the state of a
run is weights, optimizer slots and the step: states/step-00000120/ with student, teacher and
optimizer as safetensors, state.json, and manifest.json with the size and SHA-256 of each file.

Either folder is written under another name and renamed when it is complete. No file is a pickle.
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qa_data.files import SefarError, as_json, file_hash, new_folder
from sefar_core.config import ModelConfig
from sefar_core.data.class_names import ClassMatch, ClassMismatch, ClassNames, match_classes
from sefar_core.model import SefarModel
from sefar_core.timesformer import TimeSformer

WEIGHTS = "model.safetensors"
SETTINGS = "config.json"


class CheckpointError(SefarError):
    """Weights that do not load. The message names the file, what was found, and the fix."""


def build_model(config: ModelConfig, num_classes: int) -> SefarModel:
    """A network with random weights."""
    backbone = TimeSformer(
        config.sizes,
        image_size=config.image_size,
        patch_size=config.patch_size,
        dim=config.dim,
        depth=config.depth,
        num_heads=config.num_heads,
        drop_path_rate=config.drop_path_rate,
    )
    return SefarModel(
        backbone,
        config.sizes,
        dim=config.dim,
        num_classes=num_classes,
        fusion_dim=config.fusion_dim,
        dropout=config.dropout,
        mean=config.mean,
        std=config.std,
        sampling=config.sampling,
    )


def save_encoder(
    model: SefarModel,
    config: ModelConfig,
    folder: Path,
    *,
    class_names: Sequence[str | None] | None = None,
) -> None:
    """Write the network and its settings, all or nothing; an encoder of that name is replaced.

    The names of its classes, in their order, are kept with it if they are known. WriteError if the
    disk is full, or refuses otherwise.
    """
    settings = asdict(config) | {
        "pretrained": None if config.pretrained is None else config.pretrained.name,
        "num_classes": model.classifier.out_features,
    }
    if class_names is not None and any(class_names):
        settings["class_names"] = list(class_names)
    weights = contiguous(model.state_dict())
    with new_folder(folder, sum(tensor.nbytes for tensor in weights.values())) as draft:
        save_file(weights, draft / WEIGHTS)
        (draft / SETTINGS).write_text(as_json(settings), encoding="utf-8")


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_encoder(folder: Path | str) -> SefarModel:
    """The trained recognizer in a folder, frozen and in evaluation mode.

    `folder` is an encoder (config.json and model.safetensors), or a training run, of which the
    student is taken, as published.

    Raises:
        CheckpointError: the folder, a file or a tensor is missing, or a tensor is of another shape
            or not finite.
    """
    folder = encoder_in(folder)
    config, num_classes = read_architecture(folder)
    model = build_model(config, num_classes)
    load_exactly(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model.requires_grad_(False).eval()


def load_for_classes(
    folder: Path, class_names: Sequence[str | None]
) -> tuple[SefarModel, ClassMatch]:
    """The trained recognizer in a folder, its classes in the order of a manifest.

    `class_names` are those of the manifest by label; None where one is not known. Also returns how
    the classes fit: "unchecked" if encoder or manifest has no names. CheckpointError as for
    `load_encoder`, or if the encoder scores another number of classes, or classes of other names.
    """
    model = load_encoder(folder)
    count = model.classifier.out_features
    if count != len(class_names):
        raise CheckpointError(
            f"{folder} scores {count} classes, but the manifest has {len(class_names)}; give the "
            f"manifest it was trained with"
        )
    try:
        match = match_classes(read_class_names(folder), class_names)
    except ClassMismatch as cause:
        raise CheckpointError(
            f"{folder} was trained on other classes: {cause}; give the manifest it was trained with"
        ) from cause
    if match.order is not None:
        order = torch.tensor(match.order)
        for parameter in model.classifier.parameters():
            parameter.data = parameter.data[order]
    return model, match


def read_class_names(folder: Path) -> ClassNames | None:
    """Names of the classes of an encoder, or of a run's student, by class; None if none are kept.
    CheckpointError if its settings are missing or damaged.
    """
    path = encoder_in(folder) / SETTINGS
    settings = read_settings(path)
    names = settings.get("class_names")
    if names is None:
        return None
    named = isinstance(names, list) and all(isinstance(name, str | None) for name in names)
    if not named or len(names) != settings["num_classes"]:
        raise CheckpointError(
            f"{path} names other classes than its {settings['num_classes']}: {names!r:.80}; train "
            f"again or fetch the file again"
        )
    return tuple(names)


def encoder_in(folder: Path | str) -> Path:
    """The folder itself if it is an encoder, else that of the student of a run."""
    folder = Path(folder)
    student = folder / "student"
    is_run = not (folder / WEIGHTS).exists() and (student / SETTINGS).exists()
    return student if is_run else folder


def read_architecture(folder: Path) -> tuple[ModelConfig, int]:
    """Settings of an encoder's network, and how many classes it scores. CheckpointError if they are
    missing, damaged, or not those of an encoder.
    """
    settings = read_settings(folder / SETTINGS)
    num_classes = settings.pop("num_classes")
    settings.pop("class_names", None)
    tuples = {name: tuple(v) for name, v in settings.items() if isinstance(v, list)}
    try:
        return ModelConfig(**{**settings, **tuples, "pretrained": None}), num_classes
    except (TypeError, ValueError) as cause:
        raise CheckpointError(
            f"{folder / SETTINGS} does not describe an encoder: {cause}; "
            f"it must be the file that training wrote"
        ) from cause


def read_settings(path: Path) -> dict:
    """The settings of an encoder. CheckpointError if the file is missing or damaged."""
    if not path.exists():
        raise CheckpointError(
            f"{path.parent} is not an encoder: it has no {path.name}; give the folder that "
            f"scripts/train_ssl.py wrote, for example runs/NAME/student"
        )
    try:
        settings = json.loads(path.read_text())
        if type(settings["num_classes"]) is not int or settings["num_classes"] < 1:
            raise ValueError(f"num_classes is {settings['num_classes']!r}")
    except (ValueError, KeyError, TypeError) as cause:
        raise CheckpointError(
            f"{path} does not hold the settings of an encoder ({cause!r}); train again or fetch "
            f"the file again"
        ) from cause
    return settings


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. CheckpointError if the file is missing, cut off, or not
    safetensors.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {found}; check the path, or train first")
    try:
        return load_file(path)
    except SafetensorError as cause:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {cause}; fetch or write it again"
        ) from cause


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights whose every name and shape agrees. CheckpointError if a tensor is missing,
    unknown, of another shape, or not finite.
    """
    refuse_misfits(module.state_dict(), state, path, fix="use the settings it was trained with")
    module.load_state_dict(state)


def refuse_misfits(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path | str, *, fix: str
) -> None:
    """Refuse tensors of a file that a network cannot use, by name, saying what the fix is.
    CheckpointError if a tensor is missing, unknown, of another shape, or not finite.
    """
    faults = [f"{name} is missing" for name in expected.keys() - found.keys()]
    faults += [f"{name} is unknown" for name in found.keys() - expected.keys()]
    faults += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    if faults:
        shown = "; ".join(sorted(faults)[:5])
        raise CheckpointError(
            f"{source} does not fit the network in {len(faults)} tensors: {shown}; {fix}"
        )
    broken = sorted(n for n, t in found.items() if not t.is_meta and not t.isfinite().all())
    if broken:
        raise CheckpointError(
            f"{source} holds NaN or infinity in {len(broken)} tensors: {', '.join(broken[:5])}; "
            f"the training that wrote it diverged, or the file is damaged: take another one"
        )


SCHEMA = 1  # of the files of a state
ROLES = ("student", "teacher", "optimizer")


class Origin(NamedTuple):
    """What the random draws of a run depend on, besides its settings."""

    seed: int
    num_processes: int
    precision: str
    """Of the products: "no" is fp32, "bf16"."""


class Best(NamedTuple):
    """The network that scored highest on the validation clips so far."""

    step: int
    network: str
    """student or teacher."""
    top1: float
    """Its accuracy, in [0, 1]."""


class TrainState(NamedTuple):
    """A run after `step` optimizer steps; `teacher` is empty during the warm-up."""

    step: int
    origin: Origin
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: Best | None = None
    """None where nothing is validated."""


def save_state(states: Path, state: TrainState, *, keep_last: int = 2) -> Path:
    """Write a state, all or nothing, and remove old ones.

    The `keep_last` newest states stay, and the best ones that these name. WriteError if the disk is
    full, or refuses otherwise. Older states are untouched.
    """
    final = state_folder(states, state.step)
    tensors = {role: contiguous(getattr(state, role)) for role in ROLES if getattr(state, role)}
    needed = sum(t.numel() * t.element_size() for role in tensors.values() for t in role.values())
    with new_folder(final, needed) as draft:
        for role, content in tensors.items():
            save_file(content, draft / f"{role}.safetensors")
        head = {"schema": SCHEMA, "step": state.step, **state.origin._asdict()}
        head["best"] = state.best._asdict() if state.best else None
        (draft / "state.json").write_text(as_json(head), encoding="utf-8")
        listing = {file.name: fingerprint(file) for file in sorted(draft.iterdir())}
        (draft / "manifest.json").write_text(as_json(listing), encoding="utf-8")
    prune(states, keep_last)
    return final


def state_folder(states: Path, step: int) -> Path:
    return states / f"step-{step:08d}"


def prune(states: Path, keep_last: int) -> None:
    """Remove all states but the newest, and the best that they name."""
    folders = complete_states(states)
    kept = set(folders[-keep_last:])
    named = [read_state_head(folder)["best"] for folder in kept]
    kept |= {state_folder(states, best["step"]) for best in named if best is not None}
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)


def sweep(states: Path) -> None:
    """Remove half-written states of killed processes. Only under the lock of the run folder."""
    for draft in states.glob(".step-*"):
        shutil.rmtree(draft)


def fingerprint(file: Path) -> dict:
    return {"size": file.stat().st_size, "sha256": file_hash(file)}


def complete_states(states: Path) -> list[Path]:
    """State folders, oldest first, that carry their final name."""
    return sorted(folder for folder in states.glob("step-*") if folder.is_dir())


def latest_whole(states: Path) -> Path | None:
    """The newest whole state, or None. A damaged one is renamed, with a warning."""
    for folder in reversed(complete_states(states)):
        fault = first_fault(folder)
        if fault is None:
            return folder
        warnings.warn(f"{folder}: {fault}; resuming from the state before it", stacklevel=2)
        folder.rename(folder.with_name(f"damaged-{folder.name}.{os.getpid()}"))
    return None


def first_fault(folder: Path) -> str | None:
    """What is wrong with a state folder; None if nothing is."""
    try:
        listing = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as cause:
        return f"manifest.json is unreadable ({cause})"
    for name, expected in listing.items():
        if not (folder / name).exists():
            return f"{name} is missing"
        if (folder / name).stat().st_size != expected["size"]:
            return f"{name} has {(folder / name).stat().st_size} bytes of {expected['size']}"
        if fingerprint(folder / name) != expected:
            return f"{name} was changed after it was written"
    return None


def read_state_head(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text())


def read_state(folder: Path, origin: Origin) -> TrainState:
    """A whole state, found by `latest_whole`, for a run of this origin to resume from. ValueError
    if the state has another schema, or its random draws had another origin.
    """
    head = read_state_head(folder)
    for name, wanted in {"schema": SCHEMA, **origin._asdict()}.items():
        if head.get(name) != wanted:
            raise ValueError(
                f"{folder} has {name} = {head.get(name)}, but this run has {wanted}, and would not "
                f"resume exactly; run it as before, or give another run folder"
            )
    files = {role: folder / f"{role}.safetensors" for role in ROLES}
    found = {role: load_file(file) if file.exists() else {} for role, file in files.items()}
    best = Best(**head["best"]) if head["best"] else None
    return TrainState(step=head["step"], origin=origin, best=best, **found)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's slots under flat names, `parameter number.slot`."""
    return {
        f"{number}.{slot}": tensor
        for number, slots in optimizer.state_dict()["state"].items()
        for slot, tensor in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load saved slots; learning rates are a function of the step and set by training."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, slot = name.split(".", 1)
        slots.setdefault(int(number), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
