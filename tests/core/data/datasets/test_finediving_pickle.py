"""Plain data comes out of a pickle as Python's own reader gives it; nothing in it is ever run."""

import pickle
import struct
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.finediving import read_plain_pickle
from sefar_core.data.datasets.records import ListError

ARRAYS = [
    np.arange(100),
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.arange(5).astype(">i4"),
    np.array([True, False]),
    np.array(["back", "1.5 twists"]),
    np.array([b"x", b"yz"]),
    np.zeros((0, 3)),
    np.array(7),
    np.array([1 + 2j]),
]
INTEGERS = st.integers(-(2**64) + 1, 2**64 - 1)
KEYS = st.one_of(st.text(), INTEGERS, st.booleans(), st.binary(), st.tuples(st.text(), INTEGERS))
PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        INTEGERS,
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.sampled_from([np.int64(3), np.float32(0.5), np.bool_(True), np.str_("back")]),
    ),
    lambda parts: st.one_of(
        st.lists(parts), st.lists(parts).map(tuple), st.dictionaries(KEYS, parts)
    ),
    max_leaves=20,
)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "annotations.pkl"
    path.write_bytes(content)
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back_as_pythons_reader_gives_it(tmp_path_factory, data, protocol):
    content = pickle.dumps(data, protocol=protocol)
    path = write(tmp_path_factory.getbasetemp(), content)
    assert read_plain_pickle(path) == pickle.loads(content)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_in_every_protocol(tmp_path, protocol, array):
    path = write(tmp_path, pickle.dumps({("01", 3): [array, array]}, protocol=protocol))
    first, second = read_plain_pickle(path)[("01", 3)]
    np.testing.assert_array_equal(first, array)
    assert (first.shape, first.dtype.kind) == (array.shape, array.dtype.kind)
    assert first is second


def test_both_names_of_numpys_core_are_known(tmp_path):
    content = pickle.dumps(np.arange(3), protocol=0)
    assert content.count(b"numpy._core") + content.count(b"numpy.core") == 1
    for name in (b"numpy.core", b"numpy._core"):
        renamed = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", name)
        np.testing.assert_array_equal(read_plain_pickle(write(tmp_path, renamed)), np.arange(3))


def test_a_list_may_hold_itself(tmp_path):
    data: list = [1]
    data.append(data)
    got = read_plain_pickle(write(tmp_path, pickle.dumps(data)))
    assert got[1] is got


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Stated:
    """Pickled as the call of a function whose result is then given a state."""

    def __init__(self, function, arguments, state):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts


def canary(path: Path, protocol: int) -> dict[str, bytes]:
    """Pickles that create the file when Python reads them, by what they do."""
    import os
    import subprocess

    command = f"touch {path}"
    code = f"open({str(path)!r}, 'w').close()"
    by_call = {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(path), "w"),
        "subprocess": Calls(subprocess.call, ["touch", str(path)]),
        "getattr": Calls(getattr, os, "system"),
        "np.save": Calls(np.save, str(path) + ".npy", np.zeros(2)),
        "np.loadtxt": Calls(np.loadtxt, str(path)),
        "np.load": Calls(np.load, str(path), None, True),
        "np.memmap": Calls(np.memmap, str(path), "u1", "w+", 0, (4,)),
        "np.fromfile": Calls(np.fromfile, str(path)),
        "np.frompyfunc": Calls(np.frompyfunc, os.system, 1, 1),
        "np.runstring": Calls(np.testing.rundocs, str(path)),
        "in a dict": {"a": [1, Calls(os.system, command)]},
        "as a key": {(1, Calls(os.system, command)): 1},
        "in an array": np.array([Calls(os.system, command)], dtype=object),
        "as a state": Stated(OrderedDict, (), {"x": Calls(os.system, command)}),
        "as arguments": Calls(print, Calls(os.system, command)),
    }
    pickles = {}
    for name, value in by_call.items():
        try:
            pickles[name] = pickle.dumps(value, protocol=protocol)
        except (TypeError, pickle.PicklingError):  # a module, as an argument
            continue
    return pickles


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_pickle_is_run(tmp_path, protocol):
    target = tmp_path / "run"
    pickles = canary(target, protocol)
    assert len(pickles) > 14
    for name, content in pickles.items():
        with pytest.raises(ListError, match="Only plain data is read"):
            read_plain_pickle(write(tmp_path, content))
        assert not list(tmp_path.glob("run*")), name
    # The trap works: Python's own reader does run it.
    pickle.loads(pickles["os.system"])
    assert target.exists()


def test_what_a_pickle_asks_for_is_named(tmp_path):
    path = write(tmp_path, pickle.dumps(OrderedDict(a=1), protocol=0))
    with pytest.raises(ListError, match=r"annotations.pkl: .*requests collections.Ordered"):
        read_plain_pickle(path)


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


DTYPE = b"cnumpy\ndtype\n"
I8 = DTYPE + b"(S'i8'\n".replace(b"S'i8'\n", b"\x8c\x02i8") + b"\x89\x88tR"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
LONG_2_62 = b"\x8a\x08" + struct.pack("<q", 2**62)

TRICKS = {
    "names from the stack": b"\x80\x04" + short("os") + short("system") + b"\x93.",
    "a name with dots": b"\x80\x04" + short("numpy") + short("testing.rundocs") + b"\x93.",
    "a path within what is admitted": b"\x80\x04"
    + short("numpy.dtype")
    + short("__init__")
    + b"\x93.",
    "an admitted name kept": b"cnumpy\ndtype\n.",
    "an admitted name kept in a tuple": b"cnumpy\ndtype\n\x85.",
    "a type kept": I8 + b".",
    "an array class called": b"cnumpy\nndarray\n(K\x04\x85\x8c\x01OtR.",
    "a state for a name": DTYPE + b"}\x8c\x08__call__K\x01sb.",
    "slots for a name": DTYPE + b"N}\x8c\x0c__defaults__Ns\x86b.",
    "a state for a list": b"]}\x8c\x01aK\x01sb.",
    "a state for a dict": b"}}\x8c\x01aK\x01sb.",
    "a state for a string": b"\x8c\x01x}b.",
    "a call of a string": b"\x8c\x06system\x8c\x02ls\x85R.",
    "a call of a remembered result": I8 + b"\x940h\x00)R.",
    "an object by NEWOBJ": DTYPE + b")\x81.",
    "an object by OBJ": b"(" + DTYPE + b"o.",
    "an object by INST": b"(ios\nsystem\n.",
    "a persistent id": b"Pfile\n.",
    "a registered extension": b"\x82\x01.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a set": b"\x80\x04\x8f.",
    "a list as a key": b"}]K\x01s.",
    "an array as a key": b"}" + RECONSTRUCT + b"K\x01s.",
    "a type of objects": DTYPE + b"(\x8c\x02O8\x89\x88tR.",
    "a type of records": DTYPE + b"(\x8c\x05i4,O8\x89\x88tR.",
    "a type with fields": I8 + b"(K\x03\x8c\x01|N\x8c\x01a\x85}K\x08K\x01K\x00tb.",
    "a scalar of objects": b"cnumpy.core.multiarray\nscalar\n"
    + DTYPE
    + b"(\x8c\x02O8\x89\x88tRK\x05\x86R.",
    "an array of another class": b"cnumpy.core.multiarray\n_reconstruct\n"
    + DTYPE
    + b"K\x00\x85C\x01b\x87R.",
    "an array of terabytes": RECONSTRUCT + b"(K\x01" + LONG_2_62 + b"\x85" + I8 + b"\x89C\x00tb.",
    "an array larger than its bytes": RECONSTRUCT
    + b"(K\x01K\x09\x85"
    + I8
    + b"\x89C\x08"
    + bytes(8)
    + b"tb.",
    "an empty array of terabytes": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    + LONG_2_62
    + b"\x85C\x01b\x87R.",
    "a scalar with bytes to spare": b"cnumpy.core.multiarray\nscalar\n"
    + I8
    + b"C\x10"
    + bytes(16)
    + b"\x86R.",
    "very many empty strings": RECONSTRUCT
    + b"(K\x01"
    + LONG_2_62
    + b"\x85"
    + I8.replace(b"i8", b"U0")
    + b"\x89C\x00tb.",
    "a negative shape": RECONSTRUCT + b"(K\x01J\xff\xff\xff\xff\x85" + I8 + b"\x89C\x00tb.",
    "an array of lists": RECONSTRUCT + b"(K\x01K\x01\x85" + I8 + b"\x89]tb.",
    "a string of terabytes": b"\x8d" + struct.pack("<Q", 2**62) + b"ab.",
    "bytes of terabytes": b"\x8e" + struct.pack("<Q", 2**62) + b"ab.",
    "a bytearray of terabytes": b"\x96" + struct.pack("<Q", 2**62) + b"ab.",
    "a memo of terabytes": b"Nr\xff\xff\xff\xff0.",
    "a call with arguments too deep to show": DTYPE + b")" + b"\x85" * 60_000 + b"\x85R.",
    "an odd number of keys and values": b"}(K\x01u.",
    "a mark kept": b"](.",
    "no value": b".",
    "nothing": b"",
    "text": b"<html>not found</html>",
    "a name with an odd backslash": b"cnum\\qpy\ndtype\n.",
    "a zip file": b"PK\x03\x04" + bytes(30),
}


@pytest.mark.parametrize("content", [b"(((t.", b"K\x01K\x02.", b"(dp0\nS'a'\np1\nI1\ns."])
def test_odd_plain_data_is_read_as_pythons_reader_reads_it(tmp_path, content):
    assert read_plain_pickle(write(tmp_path, content)) == pickle.loads(content)


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_are_refused_by_the_named_error(tmp_path, name):
    with pytest.raises(ListError, match=r"annotations.pkl: "):
        read_plain_pickle(write(tmp_path, TRICKS[name]))


def test_reading_changes_no_type_of_numpy(tmp_path):
    swapped = (
        DTYPE + b"(\x8c\x02i8\x89\x89tR(K\x03\x8c\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    content = RECONSTRUCT + b"(K\x01K\x01\x85" + swapped + b"\x89C\x08" + bytes(7) + b"\x01tb."
    np.testing.assert_array_equal(read_plain_pickle(write(tmp_path, content)), [1])
    assert np.dtype("i8") == np.dtype("<i8")


def annotations() -> bytes:
    steps = np.repeat([1, 5, 7], [3, 4, 5])
    dive = {"action_type": "107b", "dive_score": np.float64(81.5), "frames_labels": steps}
    return pickle.dumps({("01", number): dict(dive) for number in range(3)}, protocol=3)


def test_every_cut_of_a_pickle_is_refused(tmp_path):
    content = annotations()
    for end in range(0, len(content), 5):
        with pytest.raises(ListError, match=r"annotations.pkl: this is not a whole pickle"):
            read_plain_pickle(write(tmp_path, content[:end]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_bytes_are_refused_or_read_as_plain_data(tmp_path_factory, changes):
    content = bytearray(annotations())
    for place, value in changes:
        content[place % len(content)] = value
    path = write(tmp_path_factory.getbasetemp(), bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read_plain_pickle(path)
        except ListError as refused:
            assert str(refused).startswith(f"{path}: ")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(tmp_path_factory, content):
    path = write(tmp_path_factory.getbasetemp(), content + b".")
    try:
        read_plain_pickle(path)
    except ListError as refused:
        assert str(refused).startswith(f"{path}: ")


def test_a_number_that_is_too_long_to_print_is_refused(tmp_path):
    for number in (2**64, -(2**64), 10**5000):
        with pytest.raises(ListError, match=f"a number of {number.bit_length()} bits"):
            read_plain_pickle(write(tmp_path, pickle.dumps({number: "back"})))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ListError, match="there is no file .*none.pkl"):
        read_plain_pickle(tmp_path / "none.pkl")
