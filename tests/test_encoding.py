"""Spaces of several parts in JSON, and back."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces

from sbdqn import encoding
from sbdqn.encoding import NotEncodableError, decode, encode
from sbdqn.errors import CheckpointError

BOX = spaces.Box(np.array([0.1, -np.inf]), np.array([np.inf, 1 / 3]), dtype=np.float64)
IMAGE = spaces.Box(0, 255, (3, 4, 5), np.uint8)
CATEGORY = spaces.Discrete(4, start=-2)


def through_json(space: Space[Any]) -> Any:
    return decode(json.loads(json.dumps(encode(space))))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": BOX, "b": CATEGORY}),
        spaces.Tuple([IMAGE, spaces.MultiBinary([2, 2])]),
        spaces.Dict({"in": spaces.Dict({"deep": spaces.Tuple([BOX])}), "a.b/c": IMAGE}),
        spaces.Tuple([spaces.Tuple([]), spaces.Dict({})]),
        spaces.Dict({"$space": spaces.MultiDiscrete([[2, 3], [1, 4]], dtype=np.int32)}),
    ],
    ids=str,
)
def test_spaces_of_several_parts_survive(space: Space[Any]) -> None:
    loaded = through_json(space)
    assert type(loaded) is type(space)
    assert loaded == space
    assert repr(loaded) == repr(space)  # which names the order, the bounds and the dtypes


def test_the_order_of_keys_survives() -> None:
    space = spaces.Dict(OrderedDict(z=BOX, a=CATEGORY, m=IMAGE))
    loaded = through_json(space)
    assert list(loaded) == ["z", "a", "m"]
    assert loaded["z"].dtype == np.float64
    assert loaded["z"].high.tolist() == [np.inf, 1 / 3]
    assert loaded["a"].start == -2


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Text(3)}), spaces.Tuple([spaces.Text(3)])]
)
def test_a_part_that_has_no_description_is_named(space: Space[Any]) -> None:
    with pytest.raises(NotEncodableError, match=r"Text\(.* has no description in JSON"):
        encode(space)


@pytest.mark.parametrize("part", [{"$path": "/"}, 3, {"$torch": "nn.Linear"}, None])
@pytest.mark.parametrize("name", ["Dict", "Tuple"])
def test_what_is_no_space_is_no_part_of_one(name: str, part: Any) -> None:
    parts = [["a", part]] if name == "Dict" else [part]
    described = {"$space": name, "arguments": {"$dict": [["spaces", parts]]}}
    with pytest.raises((TypeError, AssertionError)):
        decode(described)


@pytest.mark.parametrize("shape", [[1 << 25], [1 << 13, 1 << 13], [10**6] * 20])
def test_a_space_that_is_too_large_is_not_made(shape: list[int]) -> None:
    arguments = [["low", 0.0], ["high", 1.0], ["shape", {"$tuple": shape}], ["dtype", "float32"]]
    with pytest.raises(CheckpointError, match="more than 16777216 numbers are not loaded"):
        decode({"$space": "Box", "arguments": {"$dict": arguments}})


def test_many_spaces_are_counted_together() -> None:
    arguments = [["low", 0], ["high", 1], ["shape", {"$tuple": [1 << 23]}], ["dtype", "int8"]]
    box = {"$space": "Box", "arguments": {"$dict": arguments}}
    assert len(decode([box, box])) == 2
    with pytest.raises(CheckpointError, match="more than 16777216 numbers are not loaded"):
        decode([box, box, box])


def test_a_space_that_could_not_be_loaded_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MOST_NUMBERS", 5)
    assert decode(encode(spaces.Box(0, 1, (5,)))) == spaces.Box(0, 1, (5,))
    with pytest.raises(CheckpointError, match="more than 5 numbers are not saved"):
        encode(spaces.Box(0, 1, (6,)))


@pytest.mark.parametrize("dtype", ["O", "V1000000000", "U9", "datetime64[s]", "f4,f4", "c8"])
def test_spaces_are_of_numbers(dtype: str) -> None:
    boxes = [["low", 0], ["high", 1], ["shape", {"$tuple": [2]}], ["dtype", dtype]]
    categories = [["nvec", [2, 3]], ["dtype", dtype], ["start", [0, 0]]]
    for name, arguments in (("Box", boxes), ("MultiDiscrete", categories)):
        with pytest.raises(CheckpointError, match="a space of"):
            decode({"$space": name, "arguments": {"$dict": arguments}})


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(CheckpointError, match="unknown space 'Text'"):
        decode({"$space": "Text", "arguments": {"$dict": []}})


def test_tensors_are_gathered_as_they_are() -> None:
    tensors: dict[str, torch.Tensor] = {}
    given = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    assert encode({"a": [given]}, tensors) == {"$dict": [["a", [{"$tensor": "a.0"}]]]}
    assert tensors["a.0"].data_ptr() == given.data_ptr()
    assert not tensors["a.0"].requires_grad


def test_tensors_whose_ways_read_the_same_are_kept_apart() -> None:
    one, two, three, four = torch.arange(4.0)
    tensors: dict[str, torch.Tensor] = {}
    given = {1: one, "1": two, "a.b": three, "a": {"b": four}}
    assert decode(encode(given, tensors), tensors) == given


def test_keys_of_one_hash_cost_no_time() -> None:
    colliding = [[number * (2**61 - 1), 0] for number in range(50_000)]  # 16 s to compare them
    with pytest.raises(CheckpointError, match="many keys have the same hash"):
        decode({"$dict": colliding})
    given = dict.fromkeys([*range(-1000, 1000), *map(str, range(100)), 0.5, (1, 2), None])
    assert decode(encode(given)) == given


def test_long_names_of_many_parts_are_not_repeated_without_a_bound() -> None:
    inner = spaces.Dict({str(number): spaces.Discrete(2) for number in range(100)})
    assert decode(encode(spaces.Dict({"a" * 1000: inner}))) == spaces.Dict({"a" * 1000: inner})
    with pytest.raises(CheckpointError, match="more than 16777216 numbers are not loaded"):
        decode(encode(spaces.Dict({"a" * 200_000: inner})))


def test_a_number_that_python_has_no_type_for_has_no_description() -> None:
    assert encode(np.float32(0.5)) == 0.5
    with pytest.raises(NotEncodableError, match="longdouble has no description"):
        encode(np.longdouble(0.5))


def test_tensors_whose_paths_look_the_same_are_told_apart() -> None:
    given = {"a.b": 0, "a": {"b": 1, "b_": 2}, "c": {1: 3, "1": 4}}

    def mapped(value: Any, leaf: Any) -> Any:
        if isinstance(value, dict):
            return {key: mapped(each, leaf) for key, each in value.items()}
        return leaf(value)

    tensors: dict[str, torch.Tensor] = {}
    described = encode(mapped(given, torch.tensor), tensors)
    assert mapped(decode(described, tensors), int) == given
