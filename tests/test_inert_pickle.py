"""Pickles are read as descriptions: their data come out, their calls are never made."""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from sbdqn.errors import CheckpointError
from sbdqn.inert_pickle import Call, Name, read_pickle

DATA = {
    "numbers": [0, 1, -1, 255, 65_535, -(2**31), 2**40, -(2**70), 2**3000, 0.5, float("inf")],
    "texts": ["", "a", "ä" * 300, b"", b"x" * 300, bytearray(b"y")],
    "nothing": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}],
    7: [{"deep": ({"er": [1, 2]},)}],
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_data_come_out_as_pickle_reads_them(protocol: int) -> None:
    data = {name: each for name, each in DATA.items() if protocol > 4 or name != "texts"}
    assert read_pickle(pickle.dumps(data, protocol)) == data


def test_an_object_that_is_there_twice_is_the_same_twice() -> None:
    shared = [1]
    first, second = read_pickle(pickle.dumps([shared, shared]))
    assert first is second
    many = [[n] for n in range(400)]  # more than fit into a byte of the memo
    read = read_pickle(pickle.dumps([many, many], 2))
    assert read[0] is read[1]
    assert read == [many, many]


class Made:
    def __init__(self) -> None:
        self.size = 3


@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_written_down_with_what_they_would_be_given(protocol: int) -> None:
    made = read_pickle(pickle.dumps(Made(), protocol))
    assert isinstance(made, Call)
    assert isinstance(made.function, Name)
    assert made.function.name.endswith("Made")
    assert (made.arguments, made.state) == ((), {"size": 3})


def test_an_ordered_dict_is_a_dict_whatever_attributes_it_has() -> None:
    ordered: Any = OrderedDict(z=1, a=2)
    ordered.extra = 5
    assert list(read_pickle(pickle.dumps(ordered)).items()) == [("z", 1), ("a", 2)]


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_that_a_pickle_names_is_imported_or_called(tmp_path: Path) -> None:
    path = tmp_path / "canary"
    pickled = pickle.dumps(Canary(path))
    assert isinstance(read_pickle(pickled), Call)
    assert not path.exists()
    pickle.loads(pickled)  # the canary does sing
    assert path.exists()
    missing = b"cno_such_module\nno_such_name\n."
    assert read_pickle(missing) == Name("no_such_module", "no_such_name")


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",  # nothing to give
        b"N",  # no end
        b"\xff.",  # no opcode
        b"t.",  # no mark
        b"h\x05.",  # not in the memo
        b"Na.",  # appends to nothing
        b"NNa.",  # appends to None
        b"}]Ns.",  # a list as a key
        b"}(K\x01u.",  # a key without a value
        b"K\x01}b.",  # state for a number
        b"cos\nsystem\nNR.",  # arguments that are no tuple
        b"NN\x93.",  # names that are no text
        b"K\x01Q.",  # a persistent id
        b"I1\n.",  # of protocol 0
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # more bytes than there are
        pickle.dumps({1, 2}),
        pickle.dumps(DATA)[:-40],
    ],
)
def test_what_is_damaged_or_not_read_is_refused(pickled: bytes) -> None:
    with pytest.raises(CheckpointError, match="a pickle is damaged"):
        read_pickle(pickled)


def test_doubling_references_cost_no_time() -> None:
    # Tuples of tuples, 2**60 in all if somebody followed them, and as a key of a dict.
    doubling = b"K\x01" + b"".join(
        b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60)
    )
    assert isinstance(read_pickle(b"\x80\x02" + doubling + b"."), tuple)
    with pytest.raises(CheckpointError):
        read_pickle(b"\x80\x02}" + doubling + b"Ns.")


def test_keys_of_one_hash_cost_no_time() -> None:
    keys = b"".join(  # 50,000 of them took 15 s
        b"\x8a\x10" + (number * (2**61 - 1)).to_bytes(16, "little") + b"N"
        for number in range(50_000)
    )
    with pytest.raises(CheckpointError, match="a key that is too large"):
        read_pickle(b"\x80\x02}(" + keys + b"u.")


def test_deep_nesting_costs_no_stack() -> None:
    deep = read_pickle(b"\x80\x02)" + b"\x85" * 100_000 + b".")
    depth = 0
    while deep:
        (deep,) = deep
        depth += 1
    assert depth == 100_000


def test_persistent_ids_are_resolved_and_calls_made_as_the_caller_says() -> None:
    pickled = b"\x80\x02cos\nsystem\nK\x05Q\x85R."
    assert "REDUCE" in [opcode.name for opcode, _, _ in pickletools.genops(pickled)]
    read = read_pickle(pickled, lambda function, arguments: (function, arguments), lambda n: n + 1)
    assert read == (Name("os", "system"), (6,))
