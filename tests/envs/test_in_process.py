"""Environments in this process step exactly as gymnasium's `SyncVectorEnv` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from sbdqn.envs.in_process import InProcessVectorEnv
from tests.environments import CountingEnv


class Telling(gymnasium.Env[Any, int]):
    """Episodes of seven and four steps in turn, with infos now and then.

    Args:
        space: of observations.
        give: makes an observation of the number of the step.
    """

    action_space = spaces.Discrete(3, start=-1)

    def __init__(self, space: spaces.Space[Any], give: Callable[[int], Any]) -> None:
        self.observation_space = space
        self._give = give
        self._episodes = 0
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._episodes += 1
        self._steps = 0
        return self._give(100 * self._episodes), {"begun": self._episodes}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        ends = self._steps == (7 if self._episodes % 2 else 4)
        cut = ends and self._episodes % 3 == 0
        info = {"at": self._steps, "name": "even"} if self._steps % 2 == 0 else {}
        obs = self._give(100 * self._episodes + self._steps)
        return obs, float(action) / self._steps, ends and not cut, cut, info


BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
SPACES: dict[str, tuple[spaces.Space[Any], Callable[[int], Any]]] = {
    "floats": (BOX, lambda step: np.array([step, -step], np.float32)),
    "doubles in a space of floats": (BOX, lambda step: np.array([step, 0.5])),
    "lists": (BOX, lambda step: [float(step), 1.0]),
    "one list among arrays": (
        BOX,
        lambda step: [float(step), 1.0] if step % 3 else np.array([step, -step], np.float32),
    ),
    "pixels": (
        spaces.Box(0, 255, (2, 2, 1), np.uint8),
        lambda step: np.full((2, 2, 1), step % 250, np.uint8),
    ),
    "categories": (spaces.Discrete(1000), lambda step: step),
    "parts": (
        spaces.Dict({"a": BOX, "b": spaces.Discrete(1000)}),
        lambda step: {"a": np.array([step, 0], np.float32), "b": step},
    ),
}


def both(
    name: str, mode: AutoresetMode, n_envs: int, copy: bool = True
) -> tuple[InProcessVectorEnv, SyncVectorEnv]:
    makers = [lambda: Telling(*SPACES[name])] * n_envs
    ours = InProcessVectorEnv(makers, copy=copy, autoreset_mode=mode)
    return ours, SyncVectorEnv(makers, copy=copy, autoreset_mode=mode)


def assert_same(mine: Any, theirs: Any) -> None:
    assert type(mine) is type(theirs)
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert_same(value, theirs[key])
    elif isinstance(mine, tuple):
        assert len(mine) == len(theirs)
        for pair in zip(mine, theirs, strict=True):
            assert_same(*pair)
    elif isinstance(mine, np.ndarray) and mine.dtype == object:
        assert_same(tuple(mine), tuple(theirs))
    elif isinstance(mine, np.ndarray):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    else:
        assert mine == theirs


def end(env: VectorEnv[Any, Any, Any], outcome: tuple[Any, ...]) -> Any:
    """What a user of the mode DISABLED does."""
    ended = outcome[2] | outcome[3]
    if ended.any():
        return env.reset(options={"reset_mask": ended})
    return None


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", SPACES)
def test_a_step_is_gymnasiums_own(name: str, mode: AutoresetMode, n_envs: int) -> None:
    ours, plain = both(name, mode, n_envs)
    assert_same(ours.reset(seed=3), plain.reset(seed=3))
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        actions = rng.integers(-1, 2, n_envs)
        mine, theirs = ours.step(actions), plain.step(actions)
        assert_same(mine, theirs)
        if mode is AutoresetMode.DISABLED:
            assert_same(end(ours, mine), end(plain, theirs))
        ends += int((mine[2] | mine[3]).sum())
    assert ends > 4 * n_envs
    assert_same(ours.reset(), plain.reset())
    assert_same(ours.call("reset"), plain.call("reset"))


@pytest.mark.parametrize("copy", [True, False])
def test_arrays_are_given_away_only_where_that_is_wanted(copy: bool) -> None:
    for env in both("floats", AutoresetMode.NEXT_STEP, 2, copy):
        env.reset()
        first = env.step(np.zeros(2, np.int64))
        kept = [part.copy() for part in first[:4]]
        second = env.step(np.ones(2, np.int64))
        assert (second[0] is first[0]) is not copy
        assert np.array_equal(first[0], kept[0]) is copy
        for before, now in zip(first[1:4], kept[1:], strict=True):
            np.testing.assert_array_equal(before, now)


def test_observations_of_another_shape_are_an_error_as_ever() -> None:
    for env in both("floats", AutoresetMode.NEXT_STEP, 2):
        env.reset()
        env.envs[1].unwrapped._give = lambda step: np.zeros(3, np.float32)
        with pytest.raises(ValueError, match="same shape"):
            env.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_actions_as_environments_are_taken(count: int) -> None:
    for env in both("floats", AutoresetMode.NEXT_STEP, 2):
        env.reset()
        with pytest.raises(ValueError, match="zip"):
            env.step(np.zeros(count, np.int64))


def test_an_exception_is_the_environments_own() -> None:
    env = InProcessVectorEnv([CountingEnv])
    env.reset()
    with pytest.raises(TypeError):
        env.step([object()])
