"""How Q-values become actions while data is collected.

Every environment gets a draw of its own: one coin for the whole vector would
make all environments explore at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sbdqn.errors import is_number, require
from sbdqn.protocols import Schedule, value_at
from sbdqn.types import Array, Clock, FloatArray, IntArray

QValues = Callable[[IntArray], FloatArray]


@dataclass(frozen=True)
class EpsilonGreedy:
    """A uniformly random action with probability epsilon, else the best one.

    Attributes:
        epsilon: a probability, or a schedule of one.
        ladder: 0 for the same epsilon everywhere. Above 0, environment i of E
            has `epsilon ** (1 + ladder * i / (E - 1))`: the first explores most.
            Horgan et al. 2018, "Distributed Prioritized Experience Replay", have
            an epsilon of 0.4 and a ladder of 7.

    Example:
        >>> ape_x = EpsilonGreedy(0.4, ladder=7.0)
        >>> ape_x.rates(3, Clock(steps=0)).round(4)
        array([0.4   , 0.0162, 0.0007])
    """

    epsilon: float | Schedule
    ladder: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not isinstance(self.epsilon, Schedule):
            _require_probability(self.epsilon)
        fits = is_number(self.ladder) and self.ladder >= 0
        require(fits, "ladder", self.ladder, "a finite number of at least 0")

    def select(
        self,
        q_values: QValues,
        n_envs: int,
        n_actions: int,
        clock: Clock,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions (E,); the network runs only for environments that exploit."""
        coin, choice = rng.random((2, n_envs))
        rate = self.rates(n_envs, clock) if self.ladder else self.rate(clock)
        (exploits,) = (coin >= rate).nonzero()
        if exploits.size == n_envs:
            best: IntArray = q_values(exploits).argmax(axis=1)
            return best
        actions: IntArray = (choice * n_actions).astype(np.int64)
        if exploits.size:
            actions[exploits] = q_values(exploits).argmax(axis=1)
        return actions

    def rate(self, clock: Clock) -> float:
        """Epsilon; with a ladder the highest, that of the first environment."""
        epsilon = value_at(self.epsilon, clock)
        _require_probability(epsilon)
        return epsilon

    def rates(self, n_envs: int, clock: Clock) -> Array:
        """The epsilon (E,) of each environment."""
        rungs = np.arange(n_envs) / max(1, n_envs - 1)
        return self.rate(clock) ** (1.0 + self.ladder * rungs)


@dataclass(frozen=True)
class Greedy:
    """Always the best action, for networks that explore by their own noise."""

    def select(
        self,
        q_values: QValues,
        n_envs: int,
        n_actions: int,
        clock: Clock,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions (E,)."""
        actions: IntArray = q_values(np.arange(n_envs)).argmax(axis=1)
        return actions

    def rate(self, clock: Clock) -> float:
        """0: nothing is left to chance here."""
        return 0.0


@dataclass(frozen=True)
class Boltzmann:
    """Actions with probability `softmax(q / temperature)`.

    Attributes:
        temperature: above 0, in units of the return, or a schedule of one.
    """

    temperature: float | Schedule

    def __post_init__(self) -> None:
        """Refuse a constant that is not a temperature."""
        if not isinstance(self.temperature, Schedule):
            _require_positive(self.temperature)

    def select(
        self,
        q_values: QValues,
        n_envs: int,
        n_actions: int,
        clock: Clock,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions (E,), drawn by the Gumbel-max trick."""
        logits = q_values(np.arange(n_envs)) / self.rate(clock)  # (E, A)
        actions: IntArray = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        return actions

    def rate(self, clock: Clock) -> float:
        """The temperature."""
        temperature = value_at(self.temperature, clock)
        _require_positive(temperature)
        return temperature


def _require_probability(epsilon: float) -> None:
    if type(epsilon) is float and 0.0 <= epsilon <= 1.0:  # so at each step; the rest takes longer
        return
    require(is_number(epsilon) and 0 <= epsilon <= 1, "epsilon", epsilon, "a number from 0 to 1")


def _require_positive(temperature: float) -> None:
    fits = is_number(temperature) and temperature > 0
    advice = "use Greedy() for its limit at 0"
    require(fits, "temperature", temperature, "a finite number above 0", advice)
