"""The figures that every run logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from sbdqn.callbacks.base import BaseCallback
from sbdqn.callbacks.timing import Every
from sbdqn.errors import ConfigurationError, is_integer

LogInterval: TypeAlias = int | tuple[int, Literal["step", "episode"]] | None
DEFAULT_INTERVAL_STEPS = 1_000


class LogMetrics(BaseCallback):
    """Writes episode statistics, speed and learning figures to the logger.

    Args:
        interval: None for every 1 000 timesteps, an integer for every so many
            episodes, or `(n, "step")` or `(n, "episode")`.
    """

    def __init__(self, interval: LogInterval = None) -> None:
        super().__init__()
        count, unit = _counted(interval)
        self._every = Every(count)
        self._by_episodes = unit == "episode"

    def _state_dict(self) -> dict[str, Any]:
        return {"last": self._every.last}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._every.last = state["last"]

    def _on_training_start(self) -> None:
        trainer = self.model.trainer
        self._every.start(self._counter())
        self._started = time.perf_counter()
        self._steps_before = trainer.num_timesteps
        self._updates_before = self.model.learner.n_updates
        self._dumped_at = -1

    def _on_step(self) -> bool:
        # The updates of this step are not made yet; those of the steps before are.
        if self._every.is_due(self._counter()):
            self.write()
        return True

    def _on_training_end(self) -> None:
        if self._dumped_at != self.model.num_timesteps:
            self.write()
        elif self._updates_at_dump != self.model.learner.n_updates:
            self.model.trainer.require_finite()

    def write(self) -> None:
        """Write all figures now.

        Raises:
            NonFiniteError: if the loss or the gradient is NaN or infinite.
        """
        self._dumped_at = self.model.num_timesteps
        self._updates_at_dump = self.model.learner.n_updates
        self._record_rollout()
        self._record_time()
        self._record_training()
        self.logger.dump(self.model.num_timesteps)
        self.model.trainer.require_finite()

    def _counter(self) -> int:
        return self.model.trainer.episodes if self._by_episodes else self.num_timesteps

    def _record_rollout(self) -> None:
        model = self.model
        episodes = model.ep_info_buffer
        if episodes:
            self.logger.record("rollout/ep_rew_mean", _mean([info["r"] for info in episodes]))
            self.logger.record("rollout/ep_len_mean", _mean([info["l"] for info in episodes]))
        if model.ep_success_buffer:
            self.logger.record("rollout/success_rate", _mean(list(model.ep_success_buffer)))
        self.logger.record("rollout/exploration_rate", model.exploration_rate)

    def _record_time(self) -> None:
        elapsed = time.perf_counter() - self._started
        steps = self.model.num_timesteps - self._steps_before
        self.logger.record("time/fps", int(steps / max(elapsed, 1e-9)))
        self.logger.record("time/episodes", self.model.trainer.episodes)
        self.logger.record("time/time_elapsed", round(elapsed, 3))
        self.logger.record("time/total_timesteps", self.model.num_timesteps)

    def _record_training(self) -> None:
        learner, trainer = self.model.learner, self.model.trainer
        self.logger.record("replay/size", trainer.replay.stored)
        last = learner.last
        if last is None:
            return
        steps = self.model.num_timesteps - self._steps_before
        figures = {
            "train/loss": float((last.weight * last.loss.value).mean()),
            "train/td_error": float(last.loss.surprise.mean()),
            "train/q_mean": float(last.q.mean()),
            "train/q_max": float(last.q.max()),
            "train/grad_norm": float(last.gradient_norm),
            "train/learning_rate": learner.learning_rate,
            "train/n_updates": learner.n_updates,
            "train/replay_ratio": (learner.n_updates - self._updates_before) / max(steps, 1),
        }
        for key, value in figures.items():
            self.logger.record(key, value)


def _counted(interval: LogInterval) -> tuple[int, str]:
    if interval is None:
        return DEFAULT_INTERVAL_STEPS, "step"
    pair = interval if isinstance(interval, (tuple, list)) else (interval, "episode")
    count, unit = pair if len(pair) == 2 else (None, None)
    if not is_integer(count) or count < 1 or unit not in ("step", "episode"):
        raise ConfigurationError(
            f"log_interval must be an integer of at least 1 (episodes), (n, 'step'), "
            f"(n, 'episode'), or None for every {DEFAULT_INTERVAL_STEPS} timesteps, "
            f"not {interval!r}"
        )
    return count, unit


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
