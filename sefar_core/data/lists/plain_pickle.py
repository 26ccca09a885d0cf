"""Pickles that hold plain data, read without running what they say.

A pickle is a program whose instructions may call any function on the machine. Here they are only
listed (`pickletools`, which runs nothing), and those that build plain data are carried out: dict,
tuple, list, str, bytes, numbers, bool, None, and numpy's arrays and scalars of numbers, bool, str
or bytes (pickled_arrays.py).
"""

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as brief

import numpy as np

from sefar_core.data.lists.listing import ListError
from sefar_core.data.lists.pickled_arrays import MAKERS, Named, Refused, call, complete

MAX_KEY_LENGTH = 16
MAX_KEY_DEPTH = 4
"""Tuples in tuples in a key of a dict: what hashes larger ones could run out of stack or time."""
MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
    DeprecationWarning,
)
"""What bytes that are no pickle come to; wherever they do, they are refused."""
PLAIN = (dict, tuple, list, str, bytes, int, float, complex, type(None), np.ndarray)


@dataclass
class _Machine:
    """Values in the making, those below the marks, and those that the pickle refers back to."""

    stack: list = field(default_factory=list)
    below: list[list] = field(default_factory=list)
    memo: dict[object, object] = field(default_factory=dict)

    def step(self, name: str, argument: object) -> None:
        """Carry out one instruction."""
        if name not in INSTRUCTIONS:
            raise Refused(f"has the instruction {name}, which plain data does not need")
        INSTRUCTIONS[name](self, argument)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list:
        """The values since the last mark, taken off the stack."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def last(self, count: int) -> list:
        """The last values, taken off the stack."""
        if count > len(self.stack):
            raise IndexError("an instruction lacks its values")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values


def read_plain_pickle(path: Path) -> object:
    """The plain data in a pickle that Python 3 wrote, in any protocol; numpy's scalars as Python's.

    Raises:
        ListError: the file is missing, is no whole pickle, or asks for more than plain data. What
            it asks for is named; none of it is done.
    """
    if not path.is_file():
        raise ListError(f"there is no file {path}; give the pickle (.pkl) of the annotations")
    content = path.read_bytes()
    machine, place = _Machine(), 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # of names with odd backslashes
            for opcode, argument, position in pickletools.genops(content):
                place = position or 0
                machine.step(opcode.name, argument)
        if machine.below:
            raise ValueError("a mark is left open")
        (result,) = machine.stack
        _refuse_unfinished(result)
    except Refused as refused:
        raise ListError(
            f"{path}, byte {place}: the pickle {refused}. Only plain data is read from a pickle, "
            f"since any other may do harm; get the list from its authors, or as JSON"
        ) from None
    except MALFORMED as cause:
        raise ListError(
            f"{path}, byte {place}: this is no whole pickle of Python 3 "
            f"({type(cause).__name__}: {str(cause):.120}); fetch it again"
        ) from None
    return result


def _push(machine: _Machine, argument: object) -> None:
    if isinstance(argument, int) and argument.bit_length() > 64:  # longer ones do not even print
        raise Refused(f"has a number of {argument.bit_length()} bits")
    machine.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)


def _refer(machine: _Machine, argument: object) -> None:
    machine.stack.append(machine.memo[argument])


def _remember(machine: _Machine, argument: object) -> None:
    place = len(machine.memo) if argument is None else argument
    machine.memo[place] = machine.stack[-1]


def _add_to_list(machine: _Machine, values: list) -> None:
    if type(machine.stack[-1]) is not list:
        raise Refused("adds to what is no list")
    machine.stack[-1].extend(values)


def _add_to_dict(machine: _Machine, values: list) -> None:
    if type(machine.stack[-1]) is not dict:
        raise Refused("puts a key into what is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        _refuse_key(key, MAX_KEY_DEPTH)
        machine.stack[-1][key] = value


def _make_dict(machine: _Machine) -> None:
    values = machine.since_mark()
    machine.stack.append({})
    _add_to_dict(machine, values)


def _name(machine: _Machine, name: str) -> None:
    if name not in MAKERS:
        raise Refused(f"asks for {name}")
    machine.stack.append(Named(name))


def _name_from_stack(machine: _Machine) -> None:
    module, name = machine.last(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("asks for something without naming it")
    _name(machine, f"{module}.{name}")


def _call(machine: _Machine) -> None:
    machine.stack.append(call(*machine.last(2)))


def _complete(machine: _Machine) -> None:
    complete(machine.stack[-2], *machine.last(1))


def _refuse_key(key: object, depth: int) -> None:
    if type(key) is tuple and depth > 0 and len(key) <= MAX_KEY_LENGTH:
        for part in key:
            _refuse_key(part, depth - 1)
    elif type(key) not in (str, bytes, int, float, bool, type(None)):
        raise Refused(f"has a {type(key).__name__} that cannot be a key, or too large a one")


def _refuse_unfinished(result: object) -> None:
    """Refuse names and types that were asked for and not used."""
    todo, seen = [result], {id(result)}
    while todo:
        value = todo.pop()
        if not isinstance(value, PLAIN):
            raise Refused(f"holds {brief(value)}, which is no plain data")
        if isinstance(value, dict):
            parts = [*value, *value.values()]
        else:
            parts = list(value) if isinstance(value, list | tuple) else []
        fresh = [part for part in parts if id(part) not in seen]
        seen.update(map(id, fresh))
        todo += fresh


INSTRUCTIONS: dict[str, Callable] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    "EMPTY_TUPLE": lambda machine, _: _push(machine, ()),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "TUPLE1": lambda machine, _: _push(machine, tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: _push(machine, tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: _push(machine, tuple(machine.last(3))),
    "TUPLE": lambda machine, _: _push(machine, tuple(machine.since_mark())),
    "LIST": lambda machine, _: _push(machine, machine.since_mark()),
    "DICT": lambda machine, _: _make_dict(machine),
    "APPEND": lambda machine, _: _add_to_list(machine, machine.last(1)),
    "APPENDS": lambda machine, _: _add_to_list(machine, machine.since_mark()),
    "SETITEM": lambda machine, _: _add_to_dict(machine, machine.last(2)),
    "SETITEMS": lambda machine, _: _add_to_dict(machine, machine.since_mark()),
    "MEMOIZE": _remember,
    "GLOBAL": lambda machine, argument: _name(machine, argument.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: _name_from_stack(machine),
    "REDUCE": lambda machine, _: _call(machine),
    "BUILD": lambda machine, _: _complete(machine),
}
for _prefix in ("", "BIN", "LONG_BIN"):
    INSTRUCTIONS |= {f"{_prefix}PUT": _remember, f"{_prefix}GET": _refer}
for _literal in (
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
).split():
    INSTRUCTIONS[_literal] = _push
