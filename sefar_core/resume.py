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
from torch import Tensor, nn

from sefar_core.checkpoint import contiguous
from sefar_core.teacher import EmaTeacher


class TrainState(NamedTuple):
    """What a state folder holds; `teacher` is none during the warm-up."""

    step: int
    student: dict[str, Tensor]
    teacher: dict[str, Tensor] | None
    optimizer: dict[str, Tensor]


def save_state(
    states: Path,
    step: int,
    student: nn.Module,
    teacher: EmaTeacher | None,
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write the state after `step` optimizer steps; older ones but the last two are removed."""
    states.mkdir(parents=True, exist_ok=True)
    fresh = states / f".step-{step:08d}.{os.getpid()}"
    for draft in states.glob(".step-*"):  # what a killed save left
        shutil.rmtree(draft)
    fresh.mkdir()
    save_file(contiguous(student.state_dict()), fresh / "student.safetensors")
    if teacher is not None:
        save_file(contiguous(teacher.network.state_dict()), fresh / "teacher.safetensors")
    save_file(contiguous(optimizer_tensors(optimizer)), fresh / "optimizer.safetensors")
    (fresh / "state.json").write_text(json.dumps({"step": step}) + "\n")
    listing = {file.name: fingerprint(file) for file in sorted(fresh.iterdir())}
    (fresh / "manifest.json").write_text(json.dumps(listing, indent=2) + "\n")
    final = states / f"step-{step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
    for old in complete_states(states)[:-2]:
        if old != final:
            shutil.rmtree(old)
    return final


def fingerprint(file: Path) -> dict:
    return {
        "size": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def complete_states(states: Path) -> list[Path]:
    """State folders, oldest first, that carry their final name."""
    return sorted(folder for folder in states.glob("step-*") if folder.is_dir())


def load_latest(states: Path) -> TrainState | None:
    """The newest whole state, or none. A damaged one is named in a warning and passed over."""
    for folder in reversed(complete_states(states)):
        fault = first_fault(folder)
        if fault is None:
            return read_state(folder)
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
        if fingerprint(folder / name) != expected:
            return f"{name} was changed after it was written"
    return None


def read_state(folder: Path) -> TrainState:
    teacher = folder / "teacher.safetensors"
    return TrainState(
        step=json.loads((folder / "state.json").read_text())["step"],
        student=load_file(folder / "student.safetensors"),
        teacher=load_file(teacher) if teacher.exists() else None,
        optimizer=load_file(folder / "optimizer.safetensors"),
    )


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
