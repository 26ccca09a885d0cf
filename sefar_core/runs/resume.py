"""The state of an unfinished run, written so that a killed run goes on bit for bit.

All randomness is a function of (seed, step, rank) or (seed, epoch, clip, view), so the state is
weights, optimizer slots and the step. Layout: states/step-00000120/ with student, teacher and
optimizer as safetensors, state.json, and manifest.json with the size and SHA-256 of each, written
last in a folder of another name that is then renamed. No pickle.
"""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qa_data.atomic import by_umask
from sefar_core.checkpoint import contiguous
from sefar_core.runs.folder import sync, writing

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

    Args:
        states: the folder of all states of the run.
        state: what to write.
        keep_last: newest states that stay. The best ones that these name stay as well.

    Raises:
        WriteError: the disk is full, or refuses otherwise. Older states are untouched.
    """
    final = state_folder(states, state.step)
    draft = states / f".{final.name}.{os.getpid()}"
    tensors = {role: contiguous(getattr(state, role)) for role in ROLES if getattr(state, role)}
    needed = sum(t.numel() * t.element_size() for role in tensors.values() for t in role.values())
    with writing(final, needed, draft):
        draft.mkdir(parents=True)
        for role, content in tensors.items():
            save_file(content, draft / f"{role}.safetensors")
        head = {"schema": SCHEMA, "step": state.step, **state.origin._asdict()}
        head["best"] = state.best._asdict() if state.best else None
        (draft / "state.json").write_text(json.dumps(head, indent=2) + "\n")
        listing = {file.name: fingerprint(file) for file in sorted(draft.iterdir())}
        (draft / "manifest.json").write_text(json.dumps(listing, indent=2) + "\n")
        by_umask(draft)
        for file in draft.iterdir():
            sync(file)
        sync(draft)
        draft.rename(final)
        sync(states)
    prune(states, keep_last)
    return final


def state_folder(states: Path, step: int) -> Path:
    return states / f"step-{step:08d}"


def prune(states: Path, keep_last: int) -> None:
    """Remove all states but the newest, and the best that they name."""
    folders = complete_states(states)
    kept = set(folders[-keep_last:])
    named = [read_head(folder)["best"] for folder in kept]
    kept |= {state_folder(states, best["step"]) for best in named if best is not None}
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)


def sweep(states: Path) -> None:
    """Remove what a killed process left half-written. Only under the lock of the run folder."""
    for draft in states.glob(".step-*"):
        shutil.rmtree(draft)


def fingerprint(file: Path) -> dict:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def complete_states(states: Path) -> list[Path]:
    """State folders, oldest first, that carry their final name."""
    return sorted(folder for folder in states.glob("step-*") if folder.is_dir())


def latest_whole(states: Path) -> Path | None:
    """The newest whole state, or none. A damaged one is named in a warning and put aside."""
    for folder in reversed(complete_states(states)):
        fault = first_fault(folder)
        if fault is None:
            return folder
        warnings.warn(f"{folder}: {fault}; going back to the state before it", stacklevel=2)
        folder.rename(folder.with_name(f"damaged-{folder.name}.{os.getpid()}"))
    return None


def first_fault(folder: Path) -> str | None:
    """What is wrong with a state folder, or none."""
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


def read_head(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text())


def read_state(folder: Path, origin: Origin) -> TrainState:
    """A whole state, to go on with.

    Args:
        folder: found by `latest_whole`.
        origin: of the run that asks for it.

    Raises:
        ValueError: the state is of another form, or its random draws had another origin.
    """
    head = read_head(folder)
    for name, asked in {"schema": SCHEMA, **origin._asdict()}.items():
        if head.get(name) != asked:
            raise ValueError(
                f"{folder} has {name} = {head.get(name)}, but this run has {asked}, and would go "
                f"on otherwise than it began; run it as before, or give another run folder"
            )
    found = {
        role: load_file(folder / f"{role}.safetensors")
        if (folder / f"{role}.safetensors").exists()
        else {}
        for role in ROLES
    }
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
    """Put saved slots back; learning rates are a function of the step and are set by training."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, slot = name.split(".", 1)
        slots.setdefault(int(number), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
