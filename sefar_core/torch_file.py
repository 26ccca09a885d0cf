"""Files that `torch.save` wrote, read without running what is in them."""

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefar_core.checkpoint import CheckpointError

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"  # torch.save's form since 1.6, and before

# What torch's reader was seen to raise on cut and altered files, and on objects that it refuses.
DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, if it is nothing but tensors, numbers, text, lists and mappings.

    A pickle can run any program when it is read. This one is read by torch's own reader, which
    refuses everything else before it is made. Tensors are mapped from the file where its form
    allows it, so that what is never used, such as an optimizer's state, is never read.

    Raises:
        CheckpointError: missing, damaged, no such file, or one that asks for other objects.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; check the path")
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
    if start != ZIP_START and not start.startswith(PICKLE_START):
        raise CheckpointError(
            f"{path} is not a checkpoint: torch.save did not write it; check the path, or fetch "
            f"the file again"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=start == ZIP_START)
    except DAMAGE as cause:
        if rejected := re.search(r"GLOBAL (?P<object>[\w.]+)", str(cause)):
            raise CheckpointError(
                f"{path} holds an object of {rejected['object']}, which could run a program when "
                f"it is read; whoever trusts the file may save it again with tensors, numbers and "
                f"text alone"
            ) from cause
        told = re.search(r"WeightsUnpickler error:\s*(?P<reason>.+)", str(cause))
        reason = told["reason"] if told else str(cause).partition("\n")[0]
        raise CheckpointError(
            f"{path} is not a whole checkpoint ({type(cause).__name__}: {reason}); fetch or write "
            f"it again"
        ) from cause


def named_tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """A mapping of names to plain tensors of real numbers, and nothing else.

    Raises:
        CheckpointError: something else.
    """
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__} where named tensors are due; check that it is "
            f"the file that was meant"
        )
    for name, value in found.items():
        plain = isinstance(value, Tensor) and value.layout is torch.strided
        if not (isinstance(name, str) and plain and value.is_floating_point() and value.is_cpu):
            kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(
                f"{path}: {name} is a {kind}, not a plain tensor of real numbers; save the file "
                f"again with the weights alone"
            )
    return dict(found)


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names less what torch.compile and DistributedDataParallel put before them, in any order.

    torch.compile names the network itself, or any part of it that was compiled alone.
    """
    found = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    while found and all(name.startswith("module.") for name in found):
        found = without_prefix(found, "module.")
    return found


def without_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Names less a wrapper's prefix, if all of them have it; otherwise as they are."""
    wrapped = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix) if wrapped else name: state[name] for name in state}
