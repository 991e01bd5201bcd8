"""Surprising transitions more often, with weights that make up for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbdqn.errors import ConfigurationError, NonFiniteError, is_number, require
from sbdqn.protocols import ReplayLayout, Schedule, value_at
from sbdqn.replay.ring_replay import RingReplay
from sbdqn.replay.states import damaged, require_like
from sbdqn.replay.storage import Storage, rows_for
from sbdqn.replay.sum_tree import SumTree
from sbdqn.types import Array, BoolArray, Clock, IntArray


@dataclass(frozen=True)
class Prioritized:
    """Draws proportional to `(surprise + epsilon) ** alpha`, of all environments.

    Schaul et al. 2016, "Prioritized Experience Replay", proportional variant:
    stratified draws, new transitions at the highest priority of all times.
    Priorities are not clipped. The weights `(N * P) ** -beta` are divided by the
    largest of the batch, which cancels N.

    Attributes:
        alpha: 0 for uniform draws, 1 for fully proportional ones.
        beta: 0 for no correction, 1 for a full one; or a schedule of it, which
            the paper lets rise to 1 by the end of training.
        epsilon: keeps transitions without any surprise in the draw, in units of
            the surprise.

    Example:
        >>> from sbdqn.schedules import Linear
        >>> replay = Prioritized(alpha=0.6, beta=Linear(0.4, 1.0, 50_000))
    """

    alpha: float = 0.6
    beta: float | Schedule = 0.4
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        alpha, epsilon = self.alpha, self.epsilon
        require(is_number(alpha) and 0 <= alpha <= 1, "alpha", alpha, "a number from 0 to 1")
        fits = is_number(epsilon) and epsilon > 0
        require(fits, "epsilon", epsilon, "a finite number above 0")
        if not isinstance(self.beta, Schedule):
            _require_exponent(self.beta)

    def nbytes(self, layout: ReplayLayout) -> int:
        """Bytes that `build(layout)` allocates."""
        return Storage.nbytes(layout) + SumTree.nbytes(rows_for(layout) * layout.n_envs)

    def build(self, layout: ReplayLayout) -> RingReplay:
        """Allocate the replay."""
        storage = Storage(layout)
        return RingReplay(storage, _ProportionalRule(storage, self), layout.seed)


class _ProportionalRule:
    """One tree of priorities over the places of all environments."""

    def __init__(self, storage: Storage, spec: Prioritized) -> None:
        self._spec = spec
        self._storage = storage
        self._tree = SumTree(storage.size)
        self._epsilon = np.array(self._spec.epsilon)  # makes float64 of what it is added to
        self._highest = 1.0
        storage.on_change = self._follow

    def _follow(self, place: IntArray, sampleable: bool) -> None:
        """Places have become sampleable, or are no longer."""
        self._tree.set(place, self._highest if sampleable else 0.0)

    def draw(self, count: int, clock: Clock, rng: np.random.Generator) -> tuple[IntArray, Array]:
        """Places (B,) and their importance weights (B,)."""
        beta = value_at(self._spec.beta, clock)
        if beta is not self._spec.beta:  # which was checked
            _require_exponent(beta)
        place = self._tree.draw(count, rng)
        priority = self._tree.get(place)
        weight = (priority / priority[priority.argmin()]) ** -beta
        return place, weight.astype(np.float32)

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        """Give the transitions at these places the priority of their surprise.

        What has been overwritten since the draw is left alone; a place that holds
        another transition by now cannot be told from one that does not.

        Raises:
            NonFiniteError: if a surprise is NaN, infinite or negative.
        """
        place = index.numpy(force=True)
        size = _array(surprise)
        least, most = size.argmin(), size.argmax()  # of a NaN, if there is one
        if not (size[least] >= 0 and size[most] < np.inf):
            raise NonFiniteError(
                f"surprises must be finite and at least 0 to make priorities, and are from "
                f"{size[least]} to {size[most]}; look for NaN in the observations, at the scale of "
                f"rewards and the learning rate, and at the loss of a head of your own"
            )
        priority = (size + self._epsilon) ** self._spec.alpha
        self._highest = max(self._highest, float(priority[most]))
        held = self._tree.get(place)
        if held[held.argmin()] == 0:
            priority[held == 0] = 0.0
        self._tree.set(place, priority)

    def state_dict(self) -> dict[str, Any]:
        """The priorities, the highest of all times, and what made them of surprises."""
        priority = self._tree.get(np.arange(self._storage.used))
        return {
            "priority": torch.from_numpy(priority),
            "highest": self._highest,
            "alpha": float(self._spec.alpha),
            "epsilon": float(self._spec.epsilon),
        }

    def require_fit(self, state: Mapping[str, Any], sampleable: BoolArray) -> None:
        """Refuse the state of another rule, or priorities that were made otherwise."""
        mine = {"alpha": self._spec.alpha, "epsilon": self._spec.epsilon}
        given = {name: state.get(name) for name in mine}
        if mine != given:
            raise ConfigurationError(
                f"this replay makes priorities with {mine}, the stored one with {given}; use "
                f"those, or the replay that was stored"
            )
        require_like(state, "priority", torch.zeros(sampleable.size, dtype=torch.float64))
        priority = np.asarray(state["priority"])
        are_right = np.where(sampleable, priority > 0, priority == 0)
        if not (are_right.all() and np.isfinite(priority).all()):
            raise damaged("priority", "its numbers are not those of transitions")
        if not (is_number(state["highest"]) and state["highest"] > 0):
            raise damaged("highest", f"{state['highest']!r} is no priority")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self._tree = SumTree(self._storage.size)
        self._tree.set(np.arange(self._storage.used), np.asarray(state["priority"]))
        self._highest = float(state["highest"])


def _array(surprise: Tensor) -> Array:
    """The same as float32 or float64: NumPy does not know all that torch does."""
    if surprise.dtype != torch.float32:
        surprise = surprise.double()
    return surprise.numpy(force=True)


def _require_exponent(beta: float) -> None:
    require(is_number(beta) and 0 <= beta <= 1, "beta", beta, "a number from 0 to 1")
