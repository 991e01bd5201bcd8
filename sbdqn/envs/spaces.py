"""Observations and actions between users, environments and the replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces

from sbdqn.errors import SpaceError
from sbdqn.observations import flattened, parts_of
from sbdqn.protocols import ObservationPart
from sbdqn.types import Array, Arrays, IntArray

_STORED_AS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.uint16): np.dtype(np.int32),
    np.dtype(np.uint32): np.dtype(np.int64),
    np.dtype(np.uint64): np.dtype(np.int64),
}
_BY_CHANNELS = {0: (0, 3, 1, 2), 2: (0, 2, 3, 1)}  # axes of the other layout, in this order
_SUPPORTED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def discrete_actions(space: Space[Any]) -> spaces.Discrete:
    """The action space, if a Q-network can enumerate it.

    Raises:
        SpaceError: if it cannot.
    """
    if isinstance(space, spaces.Discrete):
        return space
    if isinstance(space, spaces.Box):
        way_out = "make it discrete with gymnasium.wrappers.DiscretizeAction"
    else:
        way_out = "map its actions to one Discrete space with gymnasium.wrappers.TransformAction"
    raise SpaceError(
        f"DQN chooses among a finite number of actions, so it needs a Discrete action space, "
        f"not {space}; {way_out}"
    )


class ObservationAdapter:
    """Brings observations into the form in which they are stored and predicted.

    That is an array, or for Dict and Tuple spaces a flat dict of arrays, with
    names as `sbdqn.observations` gives them; float64 is kept as float32.

    Args:
        space: of one observation.

    Raises:
        SpaceError: if observations of this space cannot be stored.

    Example:
        >>> from gymnasium import spaces
        >>> from sbdqn.envs import ObservationAdapter
        >>> space = spaces.Dict({"speed": spaces.Box(0, 1, (2,)), "gear": spaces.Discrete(5)})
        >>> ObservationAdapter(space).batch({"speed": [0.5, 0.0], "gear": 3})[0]["gear"]
        array([3])
    """

    def __init__(self, space: Space[Any]) -> None:
        self.space = space
        parts = parts_of(space)
        self._whole = _Part(space) if parts is None else None
        self._parts = {name: _Part(part, name) for name, part in (parts or {}).items()}

    @property
    def layout(self) -> ObservationPart | dict[str, ObservationPart]:
        """How a replay holds an observation, or each part of it."""
        if self._whole is not None:
            return self._whole.layout
        return {name: part.layout for name, part in self._parts.items()}

    def stored(self, observations: Any) -> Arrays:
        """A copy of an environment's observations (E, ...) as they are stored."""
        if self._whole is not None:
            return self._whole.stored(observations)
        given = flattened(self.space, observations)
        return {name: part.stored(given[name]) for name, part in self._parts.items()}

    def batch(self, observation: Any) -> tuple[Arrays, bool]:
        """One observation, or a batch, as a user may give it.

        Args:
            observation: an array, a tensor, a list or a number; for a Dict or
                Tuple space a dict or a tuple of them, or a flat dict of the parts.

        Returns:
            The batch (B, ...) as it is stored, and whether it was a single
            observation.

        Raises:
            SpaceError: if it is not of this space.
        """
        if self._whole is not None:
            return self._whole.batch(observation)
        given = self._named(observation)
        batches = {name: part.batch(given[name]) for name, part in self._parts.items()}
        sizes = {
            name: "one" if single else len(values) for name, (values, single) in batches.items()
        }
        first = next(iter(sizes.values()))
        if any(size != first for size in sizes.values()):
            raise SpaceError(
                f"all parts must be of one observation, or of batches of the same size; the sizes "
                f"given are {sizes}"
            )
        return {name: values for name, (values, _) in batches.items()}, first == "one"

    def _named(self, observation: Any) -> dict[str, Any]:
        if isinstance(observation, dict) and observation.keys() == self._parts.keys():
            return observation
        if isinstance(self.space, spaces.Dict):
            _require_no_info(observation)
        _require_structure(self.space, observation)
        return flattened(self.space, observation)


def _require_no_info(observation: Any) -> None:
    if (
        isinstance(observation, tuple)
        and len(observation) == 2
        and isinstance(observation[1], dict)
    ):
        raise SpaceError(
            "got a tuple (observation, info), as env.reset() returns; pass its first part"
        )


def _require_structure(space: Space[Any], observation: Any, way: str = "") -> None:
    """Refuse what has not the keys of a Dict space or the length of a Tuple space."""
    name = f"the part {way[:-1]!r}" if way else "the observation"
    if isinstance(space, spaces.Dict):
        expected = list(space.spaces)
        if not isinstance(observation, Mapping):
            raise SpaceError(
                f"{name} must be a dict with the keys {expected}, not {_described(observation)}"
            )
        missing = [key for key in expected if key not in observation]
        unknown = [key for key in observation if key not in expected]
        if missing or unknown:
            raise SpaceError(
                f"{name} must have the keys {expected}, and was given {list(observation)}: "
                f"missing {missing}, unknown {unknown}"
            )
        members = [(key, inner, observation[key]) for key, inner in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        n_parts = len(space.spaces)
        if not isinstance(observation, (tuple, list)) or len(observation) != n_parts:
            raise SpaceError(
                f"{name} must be a tuple of {n_parts} parts, not {_described(observation)}"
            )
        pairs = zip(space.spaces, observation, strict=True)
        members = [(str(index), inner, value) for index, (inner, value) in enumerate(pairs)]
    else:
        return
    for key, inner, value in members:
        _require_structure(inner, value, f"{way}{key}/")


def _described(observation: Any) -> str:
    if isinstance(observation, Mapping):
        return f"a dict with the keys {list(observation)}"
    if isinstance(observation, (tuple, list)):
        return f"a {type(observation).__name__} of {len(observation)}"
    return f"a {type(observation).__name__}"


class _Part:
    """An observation, or a part of one, that is a single array."""

    def __init__(self, space: Space[Any], name: str = "") -> None:
        self._of = f" as the part {name!r}" if name else ""
        if not isinstance(space, _SUPPORTED):
            way_out = (
                f"leave out {name!r} with gymnasium.wrappers.FilterObservation, or turn it into "
                f"one of these with gymnasium.wrappers.TransformObservation"
                if name
                else "flatten others with gymnasium.wrappers.FlattenObservation"
            )
            raise SpaceError(
                f"observations of {space} are not supported; accepted are Box, Discrete, "
                f"MultiDiscrete and MultiBinary spaces, and Dict and Tuple spaces of them; "
                f"{way_out}"
            )
        self._space = space
        self._shape: tuple[int, ...] = tuple(space.shape or ())
        given = np.dtype(space.dtype)
        self._dtype: np.dtype[Any] = _STORED_AS.get(given, given)
        self._bounds = _category_bounds(space)

    @property
    def layout(self) -> ObservationPart:
        return ObservationPart(self._shape, self._dtype)

    def stored(self, observations: Any) -> Array:
        values: Array = np.array(observations, dtype=self._dtype)
        return values

    def batch(self, observation: Any) -> tuple[Array, bool]:
        values = self._checked(observation)
        if values.shape == self._shape:
            return values[np.newaxis], True
        if values.shape[1:] == self._shape and values.ndim == len(self._shape) + 1:
            return values, False
        channels_moved = self._with_channels_moved(values)
        if channels_moved is not None:
            return channels_moved
        raise SpaceError(
            f"expected one observation of shape {self._shape} or a batch of shape "
            f"(B, {', '.join(map(str, self._shape))}){self._of}, got shape {values.shape}"
            f"{self._hint}"
        )

    @property
    def _hint(self) -> str:
        """What to do about an image of the wrong shape."""
        if len(self._shape) < 3 or self._dtype != np.uint8:
            return ""
        return (
            "; images and stacks of frames must come as the environment's wrappers make them: pass "
            "what env.reset() and env.step() return, from an environment that is wrapped as the "
            "one trained in (gymnasium.wrappers.FrameStackObservation, ResizeObservation, "
            "GrayscaleObservation)"
        )

    def _checked(self, observation: Any) -> Array:
        if isinstance(observation, np.ndarray) and observation.dtype == self._dtype:
            return self._in_range(observation)
        _require_no_info(observation)
        if isinstance(observation, dict):
            raise SpaceError(
                f"got a dict with the keys {list(observation)}, expected an observation of "
                f"{self._space}{self._of}"
            )
        if isinstance(observation, torch.Tensor):
            observation = observation.detach().cpu().numpy()
        try:
            values = np.asarray(observation)
        except ValueError as error:
            raise SpaceError(f"the observation is no regular array{self._of}: {error}") from error
        if not _fits(values, self._dtype):
            raise SpaceError(
                f"got an observation of dtype {values.dtype}{self._of}, which cannot become "
                f"{self._dtype} without loss; the space is {self._space}"
            )
        return self._in_range(values.astype(self._dtype))

    def _in_range(self, values: Array) -> Array:
        low, high = self._bounds
        if low is not None and ((values < low) | (values > high)).any():
            raise SpaceError(f"got an observation outside of {self._space}{self._of}: {values!r}")
        return values

    def _with_channels_moved(self, values: Array) -> tuple[Array, bool] | None:
        if len(self._shape) != 3 or self._dtype != np.uint8 or values.ndim not in (3, 4):
            return None
        single = values.ndim == 3
        batch = values[np.newaxis] if single else values
        # The channels are the shortest axis; any order would let a stack in disorder pass.
        order = _BY_CHANNELS.get(self._shape.index(min(self._shape)))
        moved = None if order is None else batch.transpose(order)
        if moved is None or moved.shape[1:] != self._shape:
            return None
        return np.ascontiguousarray(moved), single


def actions_in(actions: Any, space: spaces.Discrete) -> IntArray:
    """From actions of the space to ones counted from 0.

    Raises:
        SpaceError: if one is not of the space.
    """
    values = np.atleast_1d(np.asarray(actions))
    if values.dtype.kind not in "iu":
        raise SpaceError(f"actions must be integers, got dtype {values.dtype}")
    counted = values.astype(np.int64) - int(space.start)
    if ((counted < 0) | (counted >= space.n)).any():
        raise SpaceError(f"got actions outside of {space}: {actions!r}")
    return counted


def _fits(values: Array, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return values.dtype.kind in "fiub"
    if values.dtype.kind == "b":
        return True
    if values.dtype.kind not in "iu" or dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    return values.size == 0 or bool(values.min() >= limits.min and values.max() <= limits.max)


def _category_bounds(space: Space[Any]) -> tuple[Any, Any]:
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    return None, None
