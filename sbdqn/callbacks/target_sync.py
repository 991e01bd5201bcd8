"""Keeping the target network behind the online network."""

from __future__ import annotations

from abc import ABC

from sbdqn.callbacks.base import BaseCallback, EventCallback
from sbdqn.errors import ConfigurationError


class TargetUpdate(BaseCallback, ABC):
    """Moves the target network; one passed to `learn` replaces the default one.

    `model.learner.sync(tau)` does the moving.
    """

    def _init_callback(self) -> None:
        if isinstance(self.parent, EventCallback):
            raise ConfigurationError(
                f"{type(self).__name__} keeps its own clock, so it must be passed to learn itself, "
                f"not inside {type(self.parent).__name__}"
            )
        if self.model.q_net_target is self.model.q_net:
            raise ConfigurationError(
                f"{type(self).__name__} needs a target network, which "
                f"target_update_interval=None turns off"
            )


class TargetSync(TargetUpdate):
    """Blends the online into the target network every so many transitions.

    The clock counts transitions whose updates have been made, so one
    environment and many give the same sequence of updates and syncs. Syncs that
    fall between two updates are blended in one operation of the same effect.

    Args:
        interval: transitions from one sync to the next; by default the model's
            `target_update_interval`.
        tau: share of the online network, 1 for a copy; by default the model's
            `tau`.

    Example:
        >>> hard_copies = TargetSync(interval=1_000, tau=1.0)
    """

    def __init__(self, interval: int | None = None, tau: float | None = None) -> None:
        super().__init__()
        if interval is not None and interval < 1:
            raise ConfigurationError(f"interval must be at least 1, not {interval!r}")
        if tau is not None and not 0 < tau <= 1:
            raise ConfigurationError(f"tau must be above 0 and at most 1, not {tau!r}")
        self.interval = interval
        self.tau = tau

    def share(self, before: int, now: int) -> float:
        """What the target network takes on of the online network between two moments.

        Args:
            before: transitions whose updates had all been made.
            now: transitions whose updates have all been made.

        Returns:
            0 for nothing, 1 for a copy.
        """
        interval = self.interval or self.model.target_update_interval
        assert interval is not None
        due = now // interval - before // interval
        if not due:
            return 0.0
        tau = self.tau or self.model.tau
        return 1.0 - (1.0 - tau) ** due

    def _on_step(self) -> bool:
        self._sync_if_due()
        return True

    def _on_update(self) -> None:
        self._sync_if_due()

    def _sync_if_due(self) -> None:
        share = self.share(*self.model.trainer.settled)
        if share:
            self.model.learner.sync(share)
