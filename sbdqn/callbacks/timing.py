"""When something is due, in timesteps whatever the number of environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbdqn.callbacks.base import EventCallback, MaybeCallback
from sbdqn.errors import ConfigurationError


class Every:
    """Says once for each interval of a counter that it is over.

    Args:
        interval: counts from one event to the next.
    """

    def __init__(self, interval: int) -> None:
        if interval < 1:
            raise ConfigurationError(f"an interval must be at least 1, not {interval!r}")
        self.interval = interval
        self._last = 0
        self._is_started = False

    def start(self, count: int) -> None:
        """Intervals begin here, unless they began before and the counter goes on."""
        if not self._is_started or count < self._last:
            self._last = count
        self._is_started = True

    def is_due(self, count: int) -> bool:
        """Whether an interval has ended since the last one that did."""
        if count - self._last < self.interval:
            return False
        self._last += (count - self._last) // self.interval * self.interval
        return True

    @property
    def last(self) -> int | None:
        """The count at the last event; None before it is started. May be assigned."""
        return self._last if self._is_started else None

    @last.setter
    def last(self, count: int | None) -> None:
        self._is_started = count is not None
        self._last = 0 if count is None else int(count)


class EveryNTimesteps(EventCallback):
    """Calls a callback every `n_steps` timesteps.

    Args:
        n_steps: timesteps from one call to the next.
        callback: called; whatever `learn` takes for one.
    """

    def __init__(self, n_steps: int, callback: MaybeCallback) -> None:
        super().__init__(callback)
        self.n_steps = n_steps
        self._every = Every(n_steps)

    def _state_dict(self) -> dict[str, Any]:
        return {**super()._state_dict(), "last": self._every.last}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        super()._load_state_dict(state)
        self._every.last = state["last"]

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        return self._on_event() if self._every.is_due(self.num_timesteps) else True
