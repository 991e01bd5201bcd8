"""Environments that step in this process do what gymnasium's `SyncVectorEnv` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from hypothesis import given, settings, strategies as st

from sbdqn.envs.in_process import InProcessVectorEnv
from tests.environments import CountingEnv, DictCountingEnv, PictureEnv, TupleCountingEnv


class Telling(CountingEnv):
    """Tells of every second step, of the reset, and of things within things."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, _ = super().reset(seed=seed, options=options)
        return obs, {"begins": self.episode}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *outcome, info = super().step(action)
        told = {"action": action, "where": {"t": self.t, "obs": self._obs()}, "name": "telling"}
        return *outcome, (info | told if (self.t + self.index) % 2 else info)  # type: ignore[return-value]


class Reusing(CountingEnv):
    """Returns the same array again and again."""

    def _obs(self) -> Any:
        self.memory = vars(self).get("memory", np.zeros(3, np.float32))
        self.memory[:] = super()._obs()
        return self.memory


class Doubles(CountingEnv):
    """Returns another dtype than its space says."""

    def _obs(self) -> Any:
        return super()._obs().astype(np.float64)


class Lists(CountingEnv):
    """Returns a list from time to time, and a reward that is an array."""

    def _obs(self) -> Any:
        return super()._obs().tolist() if self.t % 2 else super()._obs()

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, np.array(reward), *rest


class Numbered(CountingEnv):
    """Observes a category, and acts by names from 5."""

    def __init__(self, index: int = 0, **kwargs: Any) -> None:
        super().__init__(index, start=5, **kwargs)
        self.observation_space = spaces.Discrete(10**9)

    def _obs(self) -> Any:
        return int(self.index * 10**6 + self.episode * 10**3 + self.t)


class Pushed(CountingEnv):
    """Acts by a dict."""

    def __init__(self, index: int = 0, **kwargs: Any) -> None:
        super().__init__(index, **kwargs)
        self.action_space = spaces.Dict({"push": spaces.Discrete(3)})

    def step(self, action: Any) -> Any:
        return super().step(action["push"])


KINDS: list[Callable[..., gym.Env[Any, Any]]] = [
    *(CountingEnv, Telling, Reusing, Doubles, Lists, Numbered, Pushed),
    *(PictureEnv, DictCountingEnv, TupleCountingEnv),
]


def assert_equal(mine: Any, theirs: Any) -> None:
    """The same values of the same types, all the way down."""
    assert type(mine) is type(theirs)
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert_equal(mine[key], theirs[key])
    elif isinstance(mine, tuple):
        for one, other in zip(mine, theirs, strict=True):
            assert_equal(one, other)
    elif isinstance(mine, np.ndarray):
        assert mine.dtype == theirs.dtype
        if mine.dtype == object:
            assert_equal(tuple(mine), tuple(theirs))
            return
        np.testing.assert_array_equal(mine, theirs)
    else:
        assert mine == theirs


@given(
    kind=st.sampled_from(KINDS),
    mode=st.sampled_from(AutoresetMode),
    n_envs=st.integers(1, 4),
    copies=st.booleans(),
    calls=st.lists(st.sampled_from(["step"] * 8 + ["reset", "reset some"]), max_size=30),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None)
def test_every_step_is_that_of_gymnasium(
    kind: Any, mode: AutoresetMode, n_envs: int, copies: bool, calls: list[str], seed: int
) -> None:
    makers = [lambda index=index: kind(index) for index in range(n_envs)]
    both = [
        made(makers, copy=copies, autoreset_mode=mode)
        for made in (InProcessVectorEnv, SyncVectorEnv)
    ]
    both[0].action_space.seed(seed)
    mask_of = np.random.default_rng(seed).random
    outcomes = [tuple(env.reset(seed=seed) for env in both)]
    for call in calls:
        ended = outcomes[-1][1][2] | outcomes[-1][1][3] if len(outcomes[-1][1]) == 5 else None
        mask = mask_of(n_envs) < 0.5
        if mode is AutoresetMode.DISABLED and ended is not None and ended.any():
            mask |= ended  # who does not reset them must not step
            call = "reset some"
        actions = both[0].action_space.sample()
        if call == "step":
            outcomes.append(tuple(env.step(actions) for env in both))
        elif call == "reset some" and mask.any():
            outcomes.append(tuple(env.reset(options={"reset_mask": mask.copy()}) for env in both))
        else:
            outcomes.append(tuple(env.reset() for env in both))
        assert_equal(*outcomes[-1])
    for mine, theirs in outcomes:  # what was returned is left alone, or written to as there
        assert_equal(mine, theirs)
    lived = [[each.unwrapped.actions for each in env.envs] for env in both]
    assert lived[0] == lived[1]


def test_actions_may_be_a_list_and_must_be_one_for_each() -> None:
    env = InProcessVectorEnv([CountingEnv] * 2)
    env.reset()
    assert env.step([0, 1])[0].tolist() == [[0, 0, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="zip"):
        env.step([0])
    with pytest.raises(ValueError, match="zip"):
        env.step([0, 1, 2])


class Wrong(CountingEnv):
    """Its observations have one shape at the reset and another one afterwards."""

    def _obs(self) -> Any:
        return np.zeros(1 if self.t else 3, np.float32)


class Silent(CountingEnv):
    """Forgets the info."""

    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], None


@pytest.mark.parametrize("kind", [Wrong, Silent])
def test_what_gymnasium_refuses_is_refused(kind: Any) -> None:
    refused = []
    for made in (InProcessVectorEnv, SyncVectorEnv):
        env = made([kind] * 2)
        env.reset()
        with pytest.raises((ValueError, AttributeError)) as error:
            env.step(np.array([0, 1]))
        refused.append((type(error.value), str(error.value)))
    assert refused[0] == refused[1]


def test_it_goes_on_after_an_environment_failed() -> None:
    class Failing(CountingEnv):
        def step(self, action: Any) -> Any:
            if action == 2:
                raise RuntimeError("two is too much")
            return super().step(action)

    env = InProcessVectorEnv([Failing] * 2)
    env.reset()
    with pytest.raises(RuntimeError, match="two"):
        env.step(np.array([0, 2]))
    assert env.reset()[0].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert env.step(np.array([0, 1]))[0].tolist() == [[0, 1, 1], [0, 1, 1]]


def test_a_discrete_action_reaches_the_environment_as_gymnasiums_does() -> None:
    seen: list[type] = []

    class Noting(CountingEnv):
        def step(self, action: Any) -> Any:
            seen.append(type(action))
            return super().step(action)

    for made in (InProcessVectorEnv, SyncVectorEnv):
        env = made([Noting])
        env.reset()
        env.step(np.array([1]))
        (expected,) = iterate(env.action_space, np.array([1]))
        assert seen.pop() is type(expected) is np.int64
