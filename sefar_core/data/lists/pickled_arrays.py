"""What a pickle may ask to be made: numpy's arrays and scalars, and bytes.

numpy's own functions for that are not called: arrays of objects, sizes that the bytes do not bear
out and changes to numpy's own types are what they would also make. The arguments are checked and
the array made here.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as brief

import numpy as np

DTYPE = re.compile(r"[<>|=]?[biufcSU]\d{1,6}")


class Refused(Exception):
    """A pickle asks for more than plain data. The message goes on after "the pickle"."""


@dataclass(frozen=True)
class Named:
    """What a pickle calls for by its name; nothing of that name is looked up."""

    name: str


@dataclass
class Dtype:
    """A type of numpy, whose byte order the pickle may tell later."""

    dtype: np.dtype


def call(named: object, arguments: object) -> object:
    """What the pickle means by calling something with arguments.

    Raises:
        Refused: it is nothing of `MAKERS`, or the arguments are not those of plain data.
        ValueError: the arguments make no sense.
        TypeError: the same.
    """
    if type(named) is not Named or type(arguments) is not tuple:
        raise Refused("calls something that it did not ask for by name")
    return MAKERS[named.name](*arguments)


def complete(made: object, state: tuple) -> None:
    """Give what was made without content its content: an array, or a type with its byte order.

    Raises:
        Refused: it is something else, or the content is not that of plain data.
        ValueError: the content makes no sense.
        TypeError: the same.
    """
    if type(made) is np.ndarray:
        _, shape, dtype, fortran, raw = state
        _fill(made, raw, dtype, shape, fortran)
    elif type(made) is Dtype:
        _, order, *parts = state
        if parts[:3] != [None] * 3 or len(parts) != 6 or order not in ("<", ">", "|", "="):
            raise Refused(f"asks for a type of numpy with parts: {brief(state)}")
        made.dtype = made.dtype.newbyteorder(order)
    else:
        raise Refused(f"sets the state of a {type(made).__name__}")


def _make_bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """How protocols before 3 write bytes."""
    if type(text) is not str or encoding != "latin1":
        raise Refused(f"encodes a {type(text).__name__} as {brief(encoding)}")
    return text.encode("latin1")


def _make_dtype(text: str, align: bool = False, copy: bool = True) -> Dtype:
    if type(text) is not str or not DTYPE.fullmatch(text):
        raise Refused(f"asks for values of numpy type {brief(text)}, not numbers or text")
    return Dtype(np.dtype(text))


def _make_empty_array(subtype: object, shape: object, typecode: object) -> np.ndarray:
    if subtype != Named("numpy.ndarray") or shape != (0,):
        raise Refused(f"asks for an array of class {brief(subtype)} and shape {brief(shape)}")
    return np.empty(0, np.int8)


def _make_scalar(dtype: Dtype, raw: bytes) -> object:
    _refuse_array((), dtype, raw)
    return np.frombuffer(raw, dtype.dtype)[0].item()


def _make_array(raw: bytes, dtype: Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    array = np.empty(0, np.int8)
    _fill(array, raw, dtype, shape, order == "F")
    return array


def _fill(
    array: np.ndarray, raw: bytes, dtype: Dtype, shape: tuple[int, ...], fortran: bool
) -> None:
    _refuse_array(shape, dtype, raw)
    # The stub asks for numpy's bool, which numpy itself does not take.
    array.__setstate__((1, shape, dtype.dtype, bool(fortran), raw))  # type: ignore[arg-type]


def _not_called(*arguments: object) -> None:
    raise Refused("makes an array in a way that numpy does not")


def _refuse_array(shape: object, dtype: object, raw: object) -> None:
    if type(dtype) is not Dtype or type(raw) is not bytes:
        raise Refused("makes an array of something else than bytes")
    if type(shape) is not tuple or not all(type(side) is int and side >= 0 for side in shape):
        raise Refused(f"makes an array of shape {brief(shape)}")
    size = math.prod(shape) * dtype.dtype.itemsize
    if size != len(raw) or dtype.dtype.itemsize == 0:
        raise Refused(f"makes an array of {size} bytes from {len(raw)}")


MAKERS: dict[str, Callable] = {
    "numpy.ndarray": _not_called,
    "numpy.dtype": _make_dtype,
    "_codecs.encode": _make_bytes,
    "__builtin__.bytes": _make_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # before and from numpy 2
    MAKERS[f"{_core}.multiarray._reconstruct"] = _make_empty_array
    MAKERS[f"{_core}.multiarray.scalar"] = _make_scalar
    MAKERS[f"{_core}.numeric._frombuffer"] = _make_array
