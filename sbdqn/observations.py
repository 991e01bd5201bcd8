"""Observations: one array, or a flat dict of arrays for spaces of several parts.

A Dict or a Tuple space, nested as it may be, has one part for each of its
innermost spaces. A part is named by the way to it: `"camera/left"`, `"0"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from gymnasium import Space, spaces

from sbdqn.errors import SpaceError
from sbdqn.types import Arrays, BoolArray, Tensors

Value = TypeVar("Value")

_SEPARATOR = "/"


def parts_of(space: Space[Any]) -> dict[str, Space[Any]] | None:
    """The innermost spaces by name, None for a space of a single part.

    Raises:
        SpaceError: if a composite space has no parts, or two of one name.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return None
    found: dict[str, Space[Any]] = {}
    for name, inner in _members(space):
        parts = parts_of(inner)
        for way, part in {name: inner}.items() if parts is None else parts.items():
            full = way if parts is None else f"{name}{_SEPARATOR}{way}"
            if full in found:
                raise SpaceError(
                    f"two parts of {space} would both be called {full!r}; rename a key, for "
                    f"instance with gymnasium.wrappers.TransformObservation"
                )
            found[full] = part
    if not found:
        raise SpaceError(f"there is nothing to learn from in observations of {space}")
    return found


def flattened(space: Space[Any], observation: Any) -> dict[str, Any]:
    """The parts of an observation of a composite space, or of a batch of them, by name."""
    found: dict[str, Any] = {}
    for name, inner in _members(space):
        key: Any = name if isinstance(space, spaces.Dict) else int(name)
        value = observation[key]
        if isinstance(inner, (spaces.Dict, spaces.Tuple)):
            nested = flattened(inner, value)
            found |= {f"{name}{_SEPARATOR}{way}": part for way, part in nested.items()}
        else:
            found[name] = value
    return found


def apply(function: Callable[..., Value], *observations: Any) -> Value | dict[str, Value]:
    """The function's value for each part of observations of the same space."""
    first = observations[0]
    if isinstance(first, dict):
        return {name: function(*(each[name] for each in observations)) for name in first}
    return function(*observations)


def rows_of(observations: Arrays | Tensors) -> int:
    """B, the length of the batch axis."""
    parts: Any = observations.values() if isinstance(observations, dict) else (observations,)
    return len(next(iter(parts)))


def take(observations: Arrays, index: Any) -> Arrays:
    """Those of a batch that are at these places."""
    return apply(lambda part: part[index], observations)


def same_rows(one: Arrays, other: Arrays) -> BoolArray:
    """Which of two batches' observations are equal in all parts, (B,)."""
    same = apply(lambda a, b: (a == b).reshape(len(a), -1).all(axis=1), one, other)
    equal: BoolArray = np.all(list(same.values()), axis=0) if isinstance(same, dict) else same
    return equal


def _members(space: Space[Any]) -> list[tuple[str, Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    assert isinstance(space, spaces.Tuple)
    return [(str(index), inner) for index, inner in enumerate(space.spaces)]
