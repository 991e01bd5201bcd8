"""Observations that are not of their space, told in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces

_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def misfit(observation: Any, space: Space[Any]) -> str:
    """What is wrong with an observation's structure, shapes and dtypes; empty if nothing.

    Its numbers are not looked at, and a dtype is wrong only where it cannot become that of
    the space without losing fractions.

    Example:
        >>> misfit(np.zeros(4), spaces.Box(-1, 1, (3,)))
        'is of shape (4,), not (3,)'
    """
    if isinstance(space, spaces.Dict):
        return _misfit_of_parts(observation, space, Mapping, dict(space.spaces))
    if isinstance(space, spaces.Tuple):
        parts = dict(enumerate(space.spaces))
        return _misfit_of_parts(observation, space, (tuple, list), parts)
    if not isinstance(space, _ARRAYS):
        return ""
    if observation is None:
        return "is None"
    shape = space.shape or ()
    if type(observation) is np.ndarray and observation.dtype == space.dtype:
        values = observation
    else:
        try:
            values = np.asarray(observation)
        except ValueError as error:
            return f"is no regular array: {error}"
    if values.dtype.kind not in ("biuf" if np.dtype(space.dtype).kind == "f" else "biu"):
        return f"is of dtype {values.dtype}, which cannot become {np.dtype(space.dtype)}"
    return "" if values.shape == shape else f"is of shape {values.shape}, not {shape}"


def _misfit_of_parts(
    observation: Any, space: Space[Any], kind: Any, parts: Mapping[Any, Space[Any]]
) -> str:
    if not isinstance(observation, kind):
        return f"is a {type(observation).__name__}, and none of {space}"
    given = list(observation) if isinstance(observation, Mapping) else range(len(observation))
    if set(given) != set(parts):
        return f"has the parts {list(given)}, not {list(parts)}"
    for name, inner in parts.items():
        wrong = misfit(observation[name], inner)
        if wrong:
            return f"has a part {name!r} that {wrong}"
    return ""
