"""Observations and actions between users, environments and the replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces

from sbdqn.errors import SpaceError
from sbdqn.types import Array, IntArray

_STORED_AS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.uint16): np.dtype(np.int32),
    np.dtype(np.uint32): np.dtype(np.int64),
    np.dtype(np.uint64): np.dtype(np.int64),
}
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

    Args:
        space: of one observation.

    Raises:
        SpaceError: if observations of this space cannot be stored.

    Attributes:
        shape: of one observation.
        dtype: the stored dtype; float64 is kept as float32.
    """

    def __init__(self, space: Space[Any]) -> None:
        if not isinstance(space, _SUPPORTED):
            raise SpaceError(
                f"observations of {space} are not supported; accepted are Box, Discrete, "
                f"MultiDiscrete and MultiBinary spaces; flatten others with "
                f"gymnasium.wrappers.FlattenObservation"
            )
        self.space = space
        self.shape: tuple[int, ...] = tuple(space.shape or ())
        given = np.dtype(space.dtype)
        self.dtype: np.dtype[Any] = _STORED_AS.get(given, given)

    def stored(self, observations: Any) -> Array:
        """A copy of an environment's observations (E, ...) as they are stored."""
        values: Array = np.array(observations, dtype=self.dtype)
        return values

    def batch(self, observation: Any) -> tuple[Array, bool]:
        """One observation, or a batch, as a user may give it.

        Args:
            observation: an array, a tensor, a list or a number.

        Returns:
            The batch (B, ...) as it is stored, and whether it was a single
            observation.

        Raises:
            SpaceError: if it is not of this space.
        """
        values = self._checked(observation)
        if values.shape == self.shape:
            return values[np.newaxis], True
        if values.shape[1:] == self.shape and values.ndim == len(self.shape) + 1:
            return values, False
        channels_moved = self._with_channels_moved(values)
        if channels_moved is not None:
            return channels_moved
        raise SpaceError(
            f"expected one observation of shape {self.shape} or a batch of shape "
            f"(B, {', '.join(map(str, self.shape))}), got shape {values.shape}"
        )

    def _checked(self, observation: Any) -> Array:
        if isinstance(observation, np.ndarray) and observation.dtype == self.dtype:
            return self._in_range(observation)
        if (
            isinstance(observation, tuple)
            and len(observation) == 2
            and isinstance(observation[1], dict)
        ):
            raise SpaceError(
                "got a tuple (observation, info), as env.reset() returns; pass its first part"
            )
        if isinstance(observation, dict):
            raise SpaceError(
                f"got a dict with the keys {list(observation)}, expected an observation of "
                f"{self.space}"
            )
        if isinstance(observation, torch.Tensor):
            observation = observation.detach().cpu().numpy()
        try:
            values = np.asarray(observation)
        except ValueError as error:
            raise SpaceError(f"the observation is no regular array: {error}") from error
        if not _fits(values, self.dtype):
            raise SpaceError(
                f"got an observation of dtype {values.dtype}, which cannot become {self.dtype} "
                f"without loss; the space is {self.space}"
            )
        return self._in_range(values.astype(self.dtype))

    def _in_range(self, values: Array) -> Array:
        low, high = _category_bounds(self.space)
        if low is not None and ((values < low) | (values > high)).any():
            raise SpaceError(f"got an observation outside of {self.space}: {values!r}")
        return values

    def _with_channels_moved(self, values: Array) -> tuple[Array, bool] | None:
        if len(self.shape) != 3 or self.dtype != np.uint8 or values.ndim not in (3, 4):
            return None
        single = values.ndim == 3
        batch = values[np.newaxis] if single else values
        for order in ((0, 3, 1, 2), (0, 2, 3, 1)):
            moved = batch.transpose(order)
            if moved.shape[1:] == self.shape:
                return np.ascontiguousarray(moved), single
        return None


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
