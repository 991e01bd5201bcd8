"""Observations that do not fit their space are told apart from those that do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces

from sbdqn.envs.misfits import misfit

FLOATS = spaces.Box(-1, 1, (3,), np.float32)
PIXELS = spaces.Box(0, 255, (2, 2), np.uint8)
BOTH = spaces.Dict({"a": FLOATS, "b": spaces.Tuple((spaces.Discrete(3), PIXELS))})


@pytest.mark.parametrize(
    ("observation", "space"),
    [
        (np.zeros(3, np.float32), FLOATS),
        (np.zeros(3), FLOATS),
        ([1, 2, 3], FLOATS),
        ((0.5, True, 9.0), FLOATS),  # numbers out of bounds are none of its business
        (np.zeros((2, 2), np.uint8), PIXELS),
        ([[1, 2], [3, 4]], PIXELS),
        (2, spaces.Discrete(3)),
        (np.int32(2), spaces.Discrete(3)),
        (np.array(2), spaces.Discrete(3)),
        (np.zeros(2, np.int64), spaces.MultiDiscrete([2, 3])),
        ([True, False], spaces.MultiBinary(2)),
        ({"b": (1, PIXELS.sample()), "a": FLOATS.sample()}, BOTH),
        ("abc", spaces.Text(3)),  # not read by any network
    ],
)
def test_what_can_become_an_observation_of_the_space_fits(
    observation: Any, space: Space[Any]
) -> None:
    assert misfit(observation, space) == ""


@pytest.mark.parametrize(
    ("observation", "space", "wrong"),
    [
        (np.zeros(4, np.float32), FLOATS, "is of shape (4,), not (3,)"),
        (np.zeros(1), FLOATS, "is of shape (1,), not (3,)"),
        (0.5, FLOATS, "is of shape (), not (3,)"),
        (None, FLOATS, "is None"),
        ([None] * 3, FLOATS, "is of dtype object, which cannot become float32"),
        (["a", "b", "c"], FLOATS, "is of dtype <U1, which cannot become float32"),
        (np.zeros(3, np.complex64), FLOATS, "is of dtype complex64, which cannot become float32"),
        (np.zeros((2, 2)), PIXELS, "is of dtype float64, which cannot become uint8"),
        (1.0, spaces.Discrete(3), "is of dtype float64, which cannot become int64"),
        ([1], spaces.Discrete(3), "is of shape (1,), not ()"),
        (FLOATS.sample(), BOTH, f"is a ndarray, and none of {BOTH}"),
        ({"a": FLOATS.sample()}, BOTH, "has the parts ['a'], not ['a', 'b']"),
        (
            {"a": FLOATS.sample(), "b": (1, np.zeros((2, 3), np.uint8))},
            BOTH,
            "has a part 'b' that has a part 1 that is of shape (2, 3), not (2, 2)",
        ),
        (
            {"a": FLOATS.sample(), "b": (1,)},
            BOTH,
            "has a part 'b' that has the parts [0], not [0, 1]",
        ),
    ],
)
def test_what_cannot_is_described(observation: Any, space: Space[Any], wrong: str) -> None:
    assert misfit(observation, space) == wrong


def test_what_is_no_array_at_all_is_described() -> None:
    assert misfit([[1], [1, 2]], PIXELS).startswith("is no regular array")
