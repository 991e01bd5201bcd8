"""Values that change over time, as functions of absolute counters.

A schedule maps a step to a value and keeps no state, so a second `learn`, a
resumed run and any number of environments all read the same curve. Steps are
transitions summed over environments, or episodes with `per="episode"`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Literal

from sbdqn.errors import is_number, require
from sbdqn.types import Clock

Unit = Literal["step", "episode"]


@dataclass(frozen=True)
class CountingSchedule(ABC):
    """A schedule that reads one counter of the clock.

    Attributes:
        per: the counter, `"step"` or `"episode"`.
    """

    _: KW_ONLY
    per: Unit = "step"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        require(self.per in ("step", "episode"), "per", self.per, "'step' or 'episode'")
        for field in fields(self):
            if field.type in (float, "float"):
                value = getattr(self, field.name)
                require(is_number(value), field.name, value, "a finite number")

    @abstractmethod
    def __call__(self, count: int) -> float:
        """The value after `count` steps or episodes."""

    def at(self, clock: Clock) -> float:
        """The value at this moment."""
        return self(clock.episodes if self.per == "episode" else clock.steps)


@dataclass(frozen=True)
class Constant(CountingSchedule):
    """The same value for ever.

    Example:
        >>> Constant(0.1)(1_000)
        0.1
    """

    value: float

    def __call__(self, count: int) -> float:
        """The value, whatever `count` is."""
        return self.value


@dataclass(frozen=True)
class Linear(CountingSchedule):
    """A straight line from `start` to `end`, then `end`.

    Example:
        >>> Linear(1.0, 0.0, 100)(25)
        0.75
    """

    start: float
    end: float
    duration: int

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        super().__post_init__()
        require(self.duration >= 0, "duration", self.duration, "at least 0")

    def __call__(self, count: int) -> float:
        """The value after `count` steps or episodes."""
        if count >= self.duration:
            return self.end
        return self.start + (self.end - self.start) * (count / self.duration)


@dataclass(frozen=True)
class Exponential(CountingSchedule):
    """`end + (start - end) * exp(-rate * count)`.

    Example:
        >>> round(Exponential(1.0, 0.01, rate=0.001)(1_000), 4)
        0.3742
    """

    start: float
    end: float
    rate: float

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        super().__post_init__()
        require(self.rate >= 0, "rate", self.rate, "at least 0")

    def __call__(self, count: int) -> float:
        """The value after `count` steps or episodes."""
        return self.end + (self.start - self.end) * math.exp(-self.rate * count)


@dataclass(frozen=True)
class Multiplicative(CountingSchedule):
    """`start * factor**count`, but never below `end`.

    Example:
        >>> Multiplicative(1.0, 0.1, factor=0.5)(3)
        0.125
    """

    start: float
    end: float
    factor: float

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        super().__post_init__()
        require(0 < self.factor <= 1, "factor", self.factor, "above 0 and at most 1")

    def __call__(self, count: int) -> float:
        """The value after `count` steps or episodes."""
        return max(self.end, self.start * self.factor**count)


@dataclass(frozen=True)
class OfProgress:
    """A function of the share of the current `learn` that is left, from 1 to 0.

    The schedules that Stable-Baselines3 takes. Unlike the others it depends on
    the length of the run, so each `learn` changes it.

    Example:
        >>> OfProgress(lambda remaining: 1e-3 * remaining).at(Clock(25, 0, 100))
        0.00075
    """

    function: Callable[[float], float]

    def at(self, clock: Clock) -> float:
        """The function's value; after the end of a `learn`, its last one."""
        share = clock.steps / clock.total_steps if clock.total_steps else 0.0
        return float(self.function(1.0 - min(share, 1.0)))
