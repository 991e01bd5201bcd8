"""Small environments with known answers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class CountingEnv(gym.Env[Any, Any]):
    """Every observation names its environment, its episode and its step.

    Episodes end after `lengths[episode % len(lengths)]` steps, by termination
    and truncation in turn (`kinds`). The reward of a step is a number that no
    other step has.
    """

    def __init__(
        self,
        index: int = 0,
        lengths: tuple[int, ...] = (1, 4, 7, 2),
        kinds: str = "TUUTB",
        start: int = 0,
    ) -> None:
        self.observation_space = spaces.Box(-1, 1e6, (3,), np.float32)
        self.action_space = spaces.Discrete(3, start=start)
        self.index, self.lengths, self.kinds = index, lengths, kinds
        self.episode = -1
        self.actions: list[int] = []

    def _obs(self) -> Any:
        return np.array([self.index, self.episode, self.t], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        return self._obs(), {}

    def length(self, episode: int) -> int:
        return self.lengths[(episode + self.index) % len(self.lengths)]

    def kind(self, episode: int) -> str:
        return self.kinds[(episode + self.index) % len(self.kinds)]

    @staticmethod
    def reward(index: int, episode: int, t: int) -> float:
        return float((index * 7919 + episode * 104729 + t * 15485863) % 1009) / 100

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(int(action))
        reward = self.reward(self.index, self.episode, self.t)
        self.t += 1
        ended = self.t >= self.length(self.episode)
        kind = self.kind(self.episode)
        terminated = ended and kind in "TB"
        truncated = ended and kind in "UB"
        info = {"is_success": kind == "T"} if ended else {}
        return self._obs(), reward, terminated, truncated, info


class ChainEnv(gym.Env[Any, Any]):
    """Five states in a row; right from the last one ends with reward 1.

    Action 0 goes left (and stays in the first state), action 1 goes right. With
    gamma 0.9 the optimal Q of `right` in state s is `0.9 ** (4 - s)`, that of
    `left` is `0.9 * max Q` of where it leads.
    """

    def __init__(self, limit: int = 30) -> None:
        self.observation_space = spaces.Discrete(5)
        self.action_space = spaces.Discrete(2)
        self.limit = limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.t = int(self.np_random.integers(5)), 0
        return self.state, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        truncated = self.t >= self.limit
        if action == 1 and self.state == 4:
            return 4, 1.0, True, False, {}
        self.state = min(4, self.state + 1) if action == 1 else max(0, self.state - 1)
        return self.state, 0.0, False, truncated, {}

    @staticmethod
    def optimal_q(gamma: float = 0.9) -> Any:
        right = gamma ** np.arange(4, -1, -1.0)
        left = gamma * right[[0, 0, 1, 2, 3]]
        return np.stack([left, right], axis=1)
