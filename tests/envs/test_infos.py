"""The infos of a vector environment, taken apart."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn.envs import split_infos


class TellingEnv(gym.Env[Any, Any]):
    """Says different things at different steps; ends after two."""

    observation_space = spaces.Discrete(9)
    action_space = spaces.Discrete(2)

    def __init__(self, index: int) -> None:
        self.index = index

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.t = 0
        return 0, {"begun": self.index}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        info: dict[str, Any] = {"t": self.t, "nested": {"x": self.index, "deep": {"y": 0.5}}}
        if self.index == 1:
            info |= {"only_one": "words", "array": np.arange(3)}
        return self.t, 0.0, self.t == 2, False, info


def test_each_environment_gets_what_it_said() -> None:
    env = SyncVectorEnv([lambda index=index: TellingEnv(index) for index in range(3)])
    _, infos = env.reset()
    assert split_infos(infos, 3) == [{"begun": 0}, {"begun": 1}, {"begun": 2}]

    *_, infos = env.step([0, 0, 0])
    zero, one, two = split_infos(infos, 3)
    assert zero == {"t": 1, "nested": {"x": 0, "deep": {"y": 0.5}}}
    assert two == {"t": 1, "nested": {"x": 2, "deep": {"y": 0.5}}}
    assert one["only_one"] == "words"
    np.testing.assert_array_equal(one["array"], [0, 1, 2])


def test_nothing_said_is_an_empty_dict() -> None:
    assert split_infos({}, 2) == [{}, {}]


def test_what_has_no_mask_was_said_by_all() -> None:
    assert split_infos({"score": np.array([3, 4])}, 2) == [{"score": 3}, {"score": 4}]


def test_what_is_no_array_was_said_of_all_at_once() -> None:
    infos = {"phase": "late", "limit": 3, "table": np.zeros((5, 2))}
    for info in split_infos(infos, 2):
        assert (info["phase"], info["limit"], info["table"].shape) == ("late", 3, (5, 2))


def test_the_last_info_of_an_episode_is_nested_under_same_step() -> None:
    makers = [lambda index=index: TellingEnv(index) for index in range(2)]
    env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset()
    env.step([0, 0])
    *_, infos = env.step([0, 0])
    zero, one = split_infos(infos, 2)
    assert (zero["begun"], zero["final_obs"], zero["final_info"]["t"]) == (0, 2, 2)
    assert one["final_info"]["only_one"] == "words"
