"""Whatever an environment does wrong, the error says which and when, and the model lives on."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.callbacks import EvalCallback
from sbdqn.envs.faults import start_workers
from sbdqn.errors import SpaceError, WorkerError
from tests.warnings_of_workers import FAULT, FORK

pytestmark = [FORK, FAULT]

SPACE = spaces.Box(0, 255, (3,), np.uint8)
GOOD = np.zeros(3, np.uint8)


class FaultyEnv(gym.Env[Any, Any]):
    """Episodes of four steps; environment 1 does something wrong.

    Args:
        index: of the environment.
        fault: what goes wrong.
        when: at the `"first"` reset, at the second (`"reset"`), or at the sixth `"step"`.
    """

    observation_space = SPACE

    def __init__(self, index: int = 1, fault: str = "", when: str = "") -> None:
        self.action_space = spaces.Discrete(2)
        self.fault, self.when = (fault, when) if index == 1 else ("", "")
        self.episodes = self.steps = 0

    def observation(self, is_time: bool) -> Any:
        if not is_time or not self.fault:
            return GOOD
        if self.fault == "raise":
            raise ArithmeticError("the pole is broken")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        wrong = {"shape": np.zeros(4, np.uint8), "number": 0, "dtype": np.full(3, 0.5)}
        return wrong[self.fault]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episodes += 1
        number = {"first": 1, "reset": 2}.get(self.when)
        return self.observation(self.episodes == number), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        observation = self.observation(self.when == "step" and self.steps == 6)
        return observation, 1.0, self.steps % 4 == 0, False, {}


def makers(count: int = 3, **kwargs: Any) -> list[Any]:
    return [functools.partial(FaultyEnv, index, **kwargs) for index in range(count)]


def model_in(env: Any) -> DQN:
    policy = MlpPolicy(net_arch=(8,))
    return DQN(policy, env, buffer_size=100, learning_starts=10, n_steps=1, seed=0)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    multiprocessing.active_children()  # takes leave of those that have ended
    assert set(psutil.Process().children(recursive=True)) <= before


def require_life(model: DQN, path: Path) -> None:
    """The model can be saved, and goes on in another environment."""
    steps = model.num_timesteps
    model.save(path / "model")
    assert DQN.load(path / "model", SyncVectorEnv(makers())).num_timesteps == steps
    model.set_env(SyncVectorEnv(makers()))
    model.learn(12)
    assert model.num_timesteps == steps + 12


STEPS = {"first": 0, "reset": 12, "step": 15}
"""Timesteps before the fault, of three environments."""
SHAPE = r"is of shape \(4,\), not \(3,\)"
WRONG = {
    "shape": SHAPE,
    "number": r"is of shape \(\), not \(3,\)",
    "dtype": "is of dtype float64, which cannot become uint8",
}


@pytest.mark.parametrize("when", STEPS)
def test_an_exception_in_this_process_keeps_its_class_and_gets_its_place(
    when: str, tmp_path: Path
) -> None:
    model = model_in(SyncVectorEnv(makers(fault="raise", when=when)))
    with pytest.raises(ArithmeticError, match="the pole is broken") as caught:
        model.learn(60)
    assert caught.value.__notes__ == [
        "It came from environment 1 of 3.",
        f"It ended learn after {STEPS[when]} timesteps.",
    ]
    require_life(model, tmp_path)


@pytest.mark.parametrize("when", STEPS)
@pytest.mark.parametrize("fault", WRONG)
def test_a_misfit_in_this_process_names_its_environment(
    fault: str, when: str, tmp_path: Path
) -> None:
    model = model_in(SyncVectorEnv(makers(fault=fault, when=when)))
    with pytest.raises(SpaceError, match=f"an observation of environment 1 {WRONG[fault]}") as got:
        model.learn(60)
    assert got.value.__notes__ == [f"It ended learn after {STEPS[when]} timesteps."]
    require_life(model, tmp_path)


@pytest.mark.parametrize("when", STEPS)
@pytest.mark.parametrize("fault", WRONG)
def test_a_misfit_of_a_single_environment_is_told_too(fault: str, when: str) -> None:
    for env in (FaultyEnv(fault=fault, when=when), functools.partial(FaultyEnv, 1, fault, when)):
        with pytest.raises(SpaceError, match=f"an observation of environment 0 {WRONG[fault]}"):
            model_in(env).learn(60)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("when", ["reset", "step"])
def test_misfits_are_told_in_every_autoreset_mode(mode: AutoresetMode, when: str) -> None:
    env = SyncVectorEnv(makers(fault="shape", when=when), autoreset_mode=mode)
    with pytest.raises(SpaceError, match=f"an observation of environment 1 {SHAPE}"):
        model_in(env).learn(60)


@pytest.mark.parametrize("when", STEPS)
@pytest.mark.parametrize("fault", [*WRONG, "raise", "kill"])
def test_a_fault_in_a_worker_names_its_environment_and_leaves_no_process(
    fault: str, when: str, tmp_path: Path
) -> None:
    model = model_in(start_workers(makers(fault=fault, when=when)))
    said = {
        "raise": "environment 1 raised ArithmeticError: the pole is broken",
        "kill": rf"exit codes by environment index: \{{1: -{signal.SIGKILL.value}\}}",
    }
    wrong = said.get(fault) or f"environment 1 raised SpaceError: the observation {WRONG[fault]}"
    with pytest.raises(WorkerError, match=wrong) as caught:
        model.learn(60)
    assert caught.value.__notes__ == [f"It ended learn after {STEPS[when]} timesteps."]
    assert multiprocessing.active_children() == []
    require_life(model, tmp_path)


def test_workers_of_the_users_own_say_what_gymnasium_finds() -> None:
    env = AsyncVectorEnv(makers(fault="shape", when="step"))
    with pytest.raises(WorkerError, match="environment 1 raised ValueError: could not broadcast"):
        model_in(env).learn(60)


@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("fault", ["shape", "raise", "kill"])
def test_a_fault_while_evaluating_ends_learn_and_not_the_model(
    fault: str, when: str, tmp_path: Path
) -> None:
    made = [start_workers(makers(fault=fault, when=when))]
    if fault != "kill":
        made.append(SyncVectorEnv(makers(fault=fault, when=when)))
    for env in made:
        model = model_in(SyncVectorEnv(makers()))
        with pytest.raises((SpaceError, WorkerError, ArithmeticError)) as caught:
            model.learn(60, callback=EvalCallback(env, eval_freq=20, verbose=0))
        *places, evaluation, learn = caught.value.__notes__
        text = "\n".join([str(caught.value), *places])
        assert "environment 1" in text or "environment index: {1: " in text
        assert evaluation == f"It ended an evaluation after {4 if when == 'reset' else 6} steps."
        assert learn == "It ended learn after 21 timesteps."
        assert multiprocessing.active_children() == []
        require_life(model, tmp_path)


def test_a_fault_at_the_first_reset_of_an_evaluation_is_placed() -> None:
    with pytest.raises(SpaceError, match="environment 1") as caught:
        evaluate_policy(
            model_in(SyncVectorEnv(makers())), SyncVectorEnv(makers(fault="dtype", when="first"))
        )
    assert caught.value.__notes__ == ["It ended an evaluation after 0 steps."]


def test_an_exception_of_something_else_stays_as_it_is() -> None:
    class Odd(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            raise ArithmeticError("not an environment's")

    with pytest.raises(ArithmeticError) as caught:
        model_in(Odd(makers())).learn(60)
    assert caught.value.__notes__ == ["It ended learn after 0 timesteps."]


def test_ctrl_c_gets_no_note() -> None:
    class Interrupted(FaultyEnv):
        def step(self, action: Any) -> Any:
            raise KeyboardInterrupt

    model = model_in(SyncVectorEnv([Interrupted]))
    model.learn(20)
    assert model.num_timesteps == 0
