"""What callbacks see of a step."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn.callbacks import BaseCallback, step_locals
from tests.callbacks.models import small
from tests.environments import CountingEnv


class Keep(BaseCallback):
    """Copies of everything of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        copies = {
            key: value.copy() if isinstance(value, np.ndarray) else value
            for key, value in self.locals.items()
        }
        self.steps.append(copies)
        return True


def two(mode: AutoresetMode, start: int = 0) -> SyncVectorEnv:
    """Environment 0 ends after 1, 4, ... steps; environment 1 after 4, 7, ..."""
    makers = [lambda index=index: CountingEnv(index, start=start) for index in range(2)]
    return SyncVectorEnv(makers, autoreset_mode=mode)


def steps_in(mode: AutoresetMode, timesteps: int = 12) -> list[dict[str, Any]]:
    keep = Keep()
    small(two(mode)).learn(timesteps, callback=keep)
    return keep.steps


def test_the_keys_are_those_that_are_documented() -> None:
    (step, *_) = steps_in(AutoresetMode.NEXT_STEP)
    assert list(step) == [
        "self",
        "env",
        "rewards",
        "dones",
        "terminated",
        "truncated",
        "actions",
        "obs",
        "new_obs",
        "valid",
        "infos",
        "episodes",
    ]
    for key in step:
        assert f"\n    {key}: " in inspect.cleandoc(step_locals.StepLocals.__doc__ or "")


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_step_is_what_the_environment_did(mode: AutoresetMode) -> None:
    keep = Keep()
    env = two(mode)
    model = small(env)
    model.learn(12, callback=keep)
    first, second, *_ = keep.steps

    assert first["self"] is model
    assert first["env"] is env
    assert first["obs"].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert first["new_obs"].tolist() == [[0, 0, 1], [1, 0, 1]]  # the true successor
    assert first["rewards"].tolist() == [CountingEnv.reward(index, 0, 0) for index in range(2)]
    assert first["terminated"].tolist() == [True, False]
    assert first["truncated"].tolist() == [False, False]
    assert first["dones"].tolist() == [True, False]
    assert first["valid"].tolist() == [True, True]

    resets_here = mode is AutoresetMode.NEXT_STEP
    assert second["valid"].tolist() == [not resets_here, True]
    assert second["new_obs"].tolist() == [[0, 1, 0 if resets_here else 1], [1, 0, 2]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_infos_of_an_end_hold_the_episode(mode: AutoresetMode) -> None:
    ends = [
        (step, episode) for step in steps_in(mode, timesteps=60) for episode in step["episodes"]
    ]
    assert len(ends) > 8
    counts = [0, 0]
    cut_short = set()
    for step, episode in ends:
        index = episode.env
        number, counts[index] = counts[index], counts[index] + 1
        env = CountingEnv(index)
        length = env.length(number)
        info = step["infos"][index]
        assert info["episode"]["l"] == episode.length == length
        total = sum(env.reward(index, number, t) for t in range(length))
        assert info["episode"]["r"] == episode.reward == pytest.approx(total)
        assert info["terminal_observation"].tolist() == [index, number, length]
        assert info["TimeLimit.truncated"] is (env.kind(number) == "U")
        assert episode.success is (env.kind(number) == "T")
        cut_short.add(info["TimeLimit.truncated"])
    assert cut_short == {True, False}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_infos_of_other_steps_hold_no_episode(mode: AutoresetMode) -> None:
    for step in steps_in(mode, timesteps=40):
        assert len(step["infos"]) == 2
        ended = {episode.env for episode in step["episodes"]}
        assert ended == set(np.flatnonzero(step["dones"]))
        for index, info in enumerate(step["infos"]):
            assert ("episode" in info) is (index in ended)
            assert ("terminal_observation" in info) is (index in ended)


def test_one_mapping_goes_on_from_step_to_step() -> None:
    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self.locals)
            lengths.append(int(self.locals["new_obs"][0, 2]))
            return True

    seen: list[Any] = []
    lengths: list[int] = []
    small(two(AutoresetMode.SAME_STEP)).learn(6, callback=Watch())
    assert lengths == [1, 1, 2]
    assert [kept["new_obs"][0, 2] for kept in seen] == [2, 2, 2]


def test_what_the_environment_told_is_in_the_infos() -> None:
    told = [
        info["is_success"]
        for step in steps_in(AutoresetMode.NEXT_STEP, timesteps=40)
        for info in step["infos"]
        if "is_success" in info
    ]
    assert set(told) == {True, False}


@pytest.mark.parametrize("start", [0, 5, -2])
def test_actions_are_the_environments_own(start: int) -> None:
    keep = Keep()
    env = CountingEnv(start=start)
    small(env).learn(20, callback=keep)
    seen = [int(step["actions"][0]) for step in keep.steps if step["valid"][0]]
    assert seen == env.actions
    assert set(seen) == {start, start + 1, start + 2}


def test_infos_are_built_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def count(infos: Any, n_envs: int) -> list[dict[str, Any]]:
        built.append(n_envs)
        return split(infos, n_envs)

    split = step_locals.split_infos
    monkeypatch.setattr(step_locals, "split_infos", count)

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            _ = self.locals["rewards"], self.locals["dones"], len(self.locals)
            if self.n_calls == 3:
                _ = self.locals["infos"]
            return True

    small().learn(10, callback=Look())
    assert built == [1]


def test_an_unknown_key_is_a_key_error() -> None:
    class Look(BaseCallback):
        def _on_step(self) -> bool:
            assert "rewards" in self.locals
            assert "reward" not in self.locals
            assert self.locals.get("reward", 5) == 5
            _ = self.locals["reward"]
            return True

    with pytest.raises(KeyError, match="reward"):
        small().learn(10, callback=Look())
