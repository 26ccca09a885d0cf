"""Weights on disk: encoders that others load, and what is refused when weights do not fit.

An encoder is a folder of config.json and model.safetensors. No file of ours is a pickle. A folder
is written under another name and renamed when it is complete.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qa_data.atomic import by_umask
from sefar_core.config import ModelConfig
from sefar_core.data.class_names import ClassMatch, ClassMismatch, ClassNames, match_classes
from sefar_core.model import SefarModel
from sefar_core.timesformer import TimeSformer

WEIGHTS = "model.safetensors"
SETTINGS = "config.json"


class CheckpointError(Exception):
    """Weights that do not load. The message names the file, what was found, and the mend."""


def build_model(config: ModelConfig, num_classes: int) -> SefarModel:
    """A network with fresh weights."""
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

    Args:
        model: the network.
        config: its settings.
        folder: of the encoder.
        class_names: names of the classes in their order, if they are known.
    """
    settings = asdict(config) | {
        "pretrained": None if config.pretrained is None else config.pretrained.name,
        "num_classes": model.classifier.out_features,
    }
    if class_names is not None and any(class_names):
        settings["class_names"] = list(class_names)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(contiguous(model.state_dict()), fresh / WEIGHTS)
    (fresh / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    by_umask(fresh)
    replace_folder(fresh, folder)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Give a complete folder its name; what had that name goes after it is no longer needed."""
    if not folder.exists():
        fresh.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_encoder(folder: Path | str) -> SefarModel:
    """The trained recognizer in a folder, frozen and in evaluation mode.

    Args:
        folder: an encoder (config.json and model.safetensors), or the folder of a training run,
            of which the student is taken, as published.

    Raises:
        CheckpointError: the folder, a file or a tensor is missing, or a tensor is of another shape
            or not finite.
    """
    folder = encoder_in(folder)
    config, num_classes = read_architecture(folder)
    model = build_model(config, num_classes)
    load_exactly(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model.requires_grad_(False).eval()


def load_for_classes(folder: Path, asked: Sequence[str | None]) -> tuple[SefarModel, ClassMatch]:
    """The trained recognizer in a folder, its classes in the order of a manifest.

    Args:
        folder: as for `load_encoder`.
        asked: names of the manifest's classes by label; None where one is not known.

    Returns:
        The network, and how its classes fit: "unchecked" if encoder or manifest has no names.

    Raises:
        CheckpointError: as for `load_encoder`; or the encoder scores another number of classes,
            or classes of other names.
    """
    model = load_encoder(folder)
    count = model.classifier.out_features
    if count != len(asked):
        raise CheckpointError(
            f"{folder} scores {count} classes, but {len(asked)} are asked for; give the list it "
            f"was trained with"
        )
    try:
        match = match_classes(read_class_names(folder), asked)
    except ClassMismatch as cause:
        raise CheckpointError(
            f"{folder} was trained on other classes: {cause}; give the list it was trained with"
        ) from cause
    if match.order is not None:
        order = torch.tensor(match.order)
        for parameter in model.classifier.parameters():
            parameter.data = parameter.data[order]
    return model, match


def read_class_names(folder: Path) -> ClassNames | None:
    """Names of the classes of an encoder, or of a run's student, by class; None if none are kept.

    Raises:
        CheckpointError: its settings are missing or damaged.
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
    """Settings of an encoder's network, and how many classes it scores.

    Raises:
        CheckpointError: they are missing, damaged, or not those of an encoder.
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
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: missing, cut off, or no such file.
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
    """Load when every name and shape agrees, and say which do not otherwise.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, or not finite.
    """
    refuse_misfits(module.state_dict(), state, path, mend="use the settings it was trained with")
    module.load_state_dict(state)


def refuse_misfits(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path | str, *, mend: str
) -> None:
    """Refuse tensors of a file that a network cannot use, by name.

    Args:
        expected: the network's.
        found: the file's.
        source: names the file in the message.
        mend: what the user can do.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, or not finite.
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
            f"{source} does not fit the network in {len(faults)} tensors: {shown}; {mend}"
        )
    broken = sorted(n for n, t in found.items() if not t.is_meta and not t.isfinite().all())
    if broken:
        raise CheckpointError(
            f"{source} holds NaN or infinity in {len(broken)} tensors: {', '.join(broken[:5])}; "
            f"the training that wrote it diverged, or the file is damaged: take another one"
        )
