"""Small models whose logs and hooks can be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbdqn import DQN, MlpPolicy
from sbdqn.callbacks import BaseCallback
from sbdqn.logger import KVWriter, Logger
from tests.environments import CountingEnv


class Memory(KVWriter):
    """An output that keeps every dump: its step and its values."""

    def __init__(self) -> None:
        self.dumps: list[tuple[int, dict[str, Any]]] = []

    def write(
        self,
        key_values: Mapping[str, Any],
        key_excluded: Mapping[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        self.dumps.append((step, dict(key_values)))

    def values(self, key: str) -> list[tuple[int, Any]]:
        return [(step, values[key]) for step, values in self.dumps if key in values]


class Recorder(BaseCallback):
    """Writes down which hooks are called."""

    def __init__(self, log: list[str] | None = None, prefix: str = "", stop_at: int = 0) -> None:
        super().__init__()
        self.log: list[str] = [] if log is None else log
        self.prefix = prefix
        self.stop_at = stop_at

    def _note(self, hook: str) -> None:
        self.log.append(f"{self.prefix}{hook}")

    def _init_callback(self) -> None:
        self._note("init")

    def _on_training_start(self) -> None:
        self._note("training_start")

    def _on_rollout_start(self) -> None:
        self._note("rollout_start")

    def _on_step(self) -> bool:
        self._note("step")
        return self.n_calls != self.stop_at

    def _on_update(self) -> None:
        self._note("update")

    def _on_rollout_end(self) -> None:
        self._note("rollout_end")

    def _on_training_end(self) -> None:
        self._note("training_end")


def small(env: Any = CountingEnv, **parameters: Any) -> DQN:
    """A model that learns from every step but the first ten, whatever the defaults are."""
    settings: dict[str, Any] = {
        "buffer_size": 400,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 1,
        "train_freq": 1,
        "gradient_steps": 1,
        "target_update_interval": 5,
        "seed": 0,
    }
    policy = MlpPolicy(net_arch=(8,), layer_norm=False)
    return DQN(policy, env, **{**settings, **parameters})


def watched(env: Any = CountingEnv, **parameters: Any) -> tuple[DQN, Memory]:
    """A small model and what it logs."""
    model, memory = small(env, **parameters), Memory()
    model.set_logger(Logger(None, [memory]))
    return model, memory
