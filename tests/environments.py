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


class DictCountingEnv(CountingEnv):
    """The same, in a dict with a dict in it, every part of another dtype."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        whose = {"index": spaces.Discrete(90), "episode": spaces.Box(-1, 1e6, (1,), np.float64)}
        picture = spaces.Box(0, 255, (2, 1, 1), np.uint8)
        self.observation_space = spaces.Dict({"t": picture, "whose": spaces.Dict(whose)})

    def _obs(self) -> Any:
        episode = np.array([self.episode], np.float64)
        t = np.array([self.t, 255 - self.t], np.uint8).reshape(2, 1, 1)
        return {"t": t, "whose": {"index": self.index, "episode": episode}}

    @staticmethod
    def plain(obs: Any) -> Any:
        """What `CountingEnv` would show, (B, 3), of stored observations."""
        index, episode, t = obs["whose/index"], obs["whose/episode"], obs["t"]
        assert (t[:, 0] + t[:, 1] == 255).all()
        return np.stack(
            [np.asarray(each).reshape(len(t), -1)[:, 0] for each in (index, episode, t)], 1
        )


class TupleCountingEnv(CountingEnv):
    """The same, in a tuple."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        whose = spaces.Tuple((spaces.MultiDiscrete([90]), spaces.Box(-1, 1e6, (), np.float32)))
        self.observation_space = spaces.Tuple((spaces.Discrete(90, start=5), whose))

    def _obs(self) -> Any:
        return self.t + 5, (np.array([self.index]), np.array(self.episode, np.float32))

    @staticmethod
    def plain(obs: Any) -> Any:
        """What `CountingEnv` would show, (B, 3), of stored observations."""
        parts = (obs["1/0"][:, 0], obs["1/1"], obs["0"] - 5)
        return np.stack([np.asarray(each) for each in parts], 1)


class PictureEnv(CountingEnv):
    """The same, where every frame is a picture that no other step has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.observation_space = spaces.Box(0, 255, (6, 5), np.uint8)

    def _obs(self) -> Any:
        return self.picture(self.index, self.episode, self.t)

    @staticmethod
    def picture(index: int, episode: int, t: int) -> Any:
        return np.random.default_rng((index, episode, t)).integers(0, 256, (6, 5), np.uint8)


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


class DictChainEnv(ChainEnv):
    """The same, where neither of two parts says by itself in which state it is."""

    def __init__(self, limit: int = 30) -> None:
        super().__init__(limit)
        self.observation_space = spaces.Dict(
            {"high": spaces.Discrete(3), "low": spaces.Discrete(3)}
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.parts(super().reset(seed=seed)[0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        state, *rest = super().step(action)
        return self.parts(state), *rest

    @staticmethod
    def parts(state: Any) -> Any:
        return {"high": np.maximum(state, 2) - 2, "low": np.minimum(state, 2)}


class AnyObsEnv(gym.Env[Any, Any]):
    """Random observations of any space; an episode ends after 7 steps."""

    def __init__(self, space: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = space, actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 7, False, {}
