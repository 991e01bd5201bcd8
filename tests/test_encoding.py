"""Spaces of several parts in JSON, and back."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces

from sbdqn.encoding import NotEncodableError, decode, encode

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
