"""Observations of several parts are a flat dict with names that say the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sbdqn.errors import SpaceError
from sbdqn.observations import apply, flattened, parts_of, rows_of, same_rows, take

BOX, STATES = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(5)
NESTED = spaces.Dict(
    {"eye": spaces.Dict({"left": BOX, "right": BOX}), "rest": spaces.Tuple((STATES,))}
)


def test_a_part_is_named_by_the_way_to_it() -> None:
    assert parts_of(NESTED) == {"eye/left": BOX, "eye/right": BOX, "rest/0": STATES}
    assert parts_of(spaces.Tuple((BOX, spaces.Dict(a=STATES)))) == {"0": BOX, "1/a": STATES}


def test_the_order_is_that_of_the_space() -> None:
    space = spaces.Tuple([STATES] * 11)
    assert list(parts_of(space) or {}) == [str(index) for index in range(11)]


@pytest.mark.parametrize("space", [BOX, STATES, spaces.MultiBinary(3)], ids=str)
def test_a_single_array_has_no_parts(space: spaces.Space[Any]) -> None:
    assert parts_of(space) is None


def test_two_parts_of_one_name_are_refused_with_the_way_out() -> None:
    space = spaces.Dict({"a": spaces.Dict({"b": BOX}), "a/b": BOX})
    with pytest.raises(SpaceError, match=r"(?s)both be called 'a/b'; rename a key"):
        parts_of(space)


@pytest.mark.parametrize("space", [spaces.Dict(), spaces.Tuple(()), spaces.Dict(a=spaces.Dict())])
def test_a_space_of_nothing_is_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(SpaceError, match="nothing to learn from"):
        parts_of(space)


def test_an_observation_is_flattened_under_the_same_names() -> None:
    given = {"rest": (3,), "eye": {"right": [1, 2], "left": [3, 4]}}
    assert flattened(NESTED, given) == {"eye/left": [3, 4], "eye/right": [1, 2], "rest/0": 3}


def test_a_function_is_applied_to_each_part_or_to_the_whole() -> None:
    assert apply(lambda a, b: a + b, 1, 2) == 3
    assert apply(lambda a, b: a - b, {"x": 5, "y": 1}, {"y": 1, "x": 2}) == {"x": 3, "y": 0}


def test_rows_are_counted_and_taken_in_all_parts_alike() -> None:
    obs = {"a": np.arange(6).reshape(3, 2), "b": np.arange(3)}
    assert rows_of(obs) == rows_of(obs["a"]) == 3
    taken: Any = take(obs, np.array([2, 0]))
    assert {name: part.tolist() for name, part in taken.items()} == {
        "a": [[4, 5], [0, 1]],
        "b": [2, 0],
    }
    assert take(obs["b"], 1) == 1


def test_rows_are_the_same_if_they_are_in_every_part() -> None:
    one = {"a": np.zeros((3, 2)), "b": np.array([1, 2, 3])}
    other = {"a": np.array([[0, 0], [0, 1], [0, 0]]), "b": np.array([1, 2, 4])}
    assert same_rows(one, other).tolist() == [True, False, False]
    assert same_rows(one["b"], other["b"]).tolist() == [True, True, False]
