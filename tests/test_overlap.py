"""Updates while environments step: the same run however long each takes, and no loose ends."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.callbacks import BaseCallback
from sbdqn.envs import FaultReporting
from sbdqn.errors import NotReadyError, WorkerError
from sbdqn.exploration import EpsilonGreedy
from tests.environments import CountingEnv
from tests.warnings_of_workers import FAULT, FORK

pytestmark = [FORK, FAULT]


class Sleepy(CountingEnv):
    """Takes a time of its own for every step, which no seed determines."""

    def __init__(self, index: int = 0, longest: float = 0.0) -> None:
        super().__init__(index)
        self.longest = longest

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.longest * os.urandom(1)[0] / 255)
        return super().step(action)


class Broken(CountingEnv):
    """The second one fails at its tenth step: by an exception, or with its process."""

    def __init__(self, index: int = 0, ending: str = "raise") -> None:
        super().__init__(index, lengths=(50,))
        self.ending = ending

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.index == 1 and len(self.actions) == 9:
            if self.ending == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("the pole is broken")
        return super().step(action)


def workers(kind: Any = CountingEnv, n_envs: int = 2, **options: Any) -> Any:
    return AsyncVectorEnv([functools.partial(kind, index, **options) for index in range(n_envs)])


def small(env: Any, **parameters: Any) -> DQN:
    settings: dict[str, Any] = {
        "buffer_size": 400,
        "learning_starts": 8,
        "batch_size": 8,
        "n_steps": 2,
        "train_freq": 2,
        "target_update_interval": 5,
        "exploration": EpsilonGreedy(0.3),
        "seed": 0,
        "device": "cpu",
    }
    return DQN(MlpPolicy(net_arch=(8,)), env, **{**settings, **parameters})


def weights(model: DQN) -> torch.Tensor:
    return torch.cat([each.detach().reshape(-1) for each in model.policy.parameters()]).clone()


@pytest.fixture
def made() -> Iterator[list[Any]]:
    """Environments to close."""
    envs: list[Any] = []
    yield envs
    for env in envs:
        if not env.closed:
            env.close(terminate=True)  # some have lost a worker


# -- the same run ------------------------------------------------------------------------


def test_a_run_does_not_depend_on_how_long_anything_takes(made: list[Any]) -> None:
    found = []
    for longest in (0.0, 0.004):
        made.append(workers(Sleepy, 3, longest=longest))
        model = small(made[-1]).learn(200)
        found.append((weights(model), model.num_timesteps, model._n_updates))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_without_it_a_run_is_that_of_environments_in_this_process(made: list[Any]) -> None:
    made.append(workers())
    one = small(made[-1], overlap=False).learn(200)
    other = small(SyncVectorEnv([CountingEnv, lambda: CountingEnv(1)])).learn(200)
    assert torch.equal(weights(one), weights(other))


class Moments(BaseCallback):
    """Notes the clocks of each update and step."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[int, int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.flying: list[bool] = []

    def _on_step(self) -> bool:
        self.steps.append((self.num_timesteps, self.model.trainer.episodes))
        return True

    def _on_update(self) -> None:
        trainer = self.model.trainer
        self.updates.append((trainer.num_timesteps, trainer.settled[1], trainer.episodes))
        self.flying.append(self.model._collector.stepper.is_stepping)


@pytest.mark.parametrize("train_freq", [1, 3, (2, "episode")])
def test_every_transition_has_the_same_updates_at_the_same_clocks(
    train_freq: Any, made: list[Any]
) -> None:
    seen = []
    for overlap in (True, False):
        made.append(workers(n_envs=3))
        moments = Moments()
        model = small(made[-1], overlap=overlap, train_freq=train_freq, gradient_steps=2)
        model.learn(90, moments).learn(50, moments)
        seen.append(moments)
    assert seen[0].updates == seen[1].updates
    assert seen[0].steps == seen[1].steps
    assert len(seen[0].updates) > 20
    assert not any(seen[1].flying)
    assert sum(seen[0].flying) > 0.7 * len(seen[0].flying)  # the last of each `learn` are not


def test_all_that_was_due_is_done_when_learn_returns(made: list[Any]) -> None:
    made.append(workers())
    model = small(made[-1], n_steps=1).learn(30)
    assert model._n_updates == (model.num_timesteps - 8) // 2
    assert model._collector is not None
    assert not model._collector.stepper.is_stepping


# -- which environments can --------------------------------------------------------------


def test_only_a_whole_step_without_a_part_of_others_goes_in_halves(made: list[Any]) -> None:
    class Own(AsyncVectorEnv):  # type: ignore[type-arg]
        def step(self, actions: Any) -> Any:
            obs, rewards, *rest = super().step(actions)
            return obs, rewards + 100, *rest

    class Sending(SyncVectorEnv):
        def send(self, message: str) -> None:
            raise AssertionError

        def recv(self) -> str:
            raise AssertionError

    made += [workers(), Own([CountingEnv])]
    assert FaultReporting(made[0]).background is not None
    assert FaultReporting(made[1]).background is None
    assert FaultReporting(RecordEpisodeStatistics(made[0])).background is None
    assert FaultReporting(SyncVectorEnv([CountingEnv])).background is None
    assert FaultReporting(Sending([CountingEnv])).background is None
    model = small(made[1], n_steps=1).learn(40)
    assert model.replay_buffer.sample(50, model.trainer.clock).reward.min() >= 100


def test_ales_environment_steps_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    ale = pytest.importorskip("ale_py")
    # It writes its mode into the metadata of all vector environments.
    monkeypatch.setattr(VectorEnv, "metadata", dict(VectorEnv.metadata))
    env = ale.vector_env.AtariVectorEnv("pong", num_envs=2, img_height=36, img_width=36)
    assert FaultReporting(env).background is not None
    moments = Moments()
    parameters = {"learning_starts": 20, "train_freq": 10, "n_steps": 1}
    model = DQN("MlpPolicy", env, seed=0, device="cpu", buffer_size=200, **parameters)
    model.learn(60, moments)
    assert (model.num_timesteps, model._n_updates) == (60, 4)
    assert any(moments.flying)
    env.close()


# -- what may happen meanwhile -----------------------------------------------------------


class Doing(BaseCallback):
    """Does something once, after the fifth update, while a step is in flight."""

    def __init__(self, action: Callable[[DQN], Any]) -> None:
        super().__init__()
        self.action, self.flew, self.count = action, False, 0

    def _on_step(self) -> bool:
        return True

    def _on_update(self) -> None:
        self.count += 1
        if self.count == 5:
            self.flew = self.model._collector.stepper.is_stepping
            self.action(self.model)


def goes_on(model: DQN) -> bool:
    before = model.num_timesteps
    model.learn(40)
    batch: Any = model.replay_buffer.sample(300, model.trainer.clock)
    moved = batch.next_obs - batch.obs
    steps = [tuple(each) for each in moved.tolist()]
    return model.num_timesteps >= before + 40 and set(steps) <= {(0, 0, 1), (0, 0, 2)}


def evaluate(model: DQN) -> None:
    evaluate_policy(model, model.env, 2)  # type: ignore[arg-type]


def look(model: DQN) -> None:
    view: Any = model.get_env()
    view.reset()
    view.step([0, 0])


@pytest.mark.parametrize(
    "action",
    [
        evaluate,
        look,
        lambda model: model.abandon_episodes(),
        lambda model: model.set_random_seed(3),
        lambda model: model.set_env(SyncVectorEnv([CountingEnv, lambda: CountingEnv(1)])),
    ],
    ids=["evaluate", "look", "abandon", "seed", "set_env"],
)
def test_a_hook_may_use_the_environment(action: Any, made: list[Any]) -> None:
    made.append(workers())
    doing = Doing(action)
    model = small(made[0]).learn(60, doing)
    assert doing.flew
    assert model.num_timesteps >= 60
    made[0].reset()  # no step is pending
    model.abandon_episodes()
    assert goes_on(model)


@pytest.mark.parametrize("action", ["close", "set_env"])
def test_workers_that_the_model_made_may_be_closed_or_exchanged(action: str) -> None:
    model = small(CountingEnv, n_envs=2, vectorization="async")
    first = model.env
    assert first is not None

    def exchange(model: DQN) -> Any:
        return model.close() if action == "close" else model.set_env(CountingEnv)

    doing = Doing(exchange)
    model.learn(60, doing)
    assert doing.flew
    assert first.closed
    assert model.num_timesteps >= 60
    assert goes_on(model)
    model.close()


def test_after_an_exception_in_an_update_the_environment_is_usable(made: list[Any]) -> None:
    def fail(model: DQN) -> None:
        raise ZeroDivisionError("in the update")

    made.append(workers())
    doing = Doing(fail)
    model = small(made[0])
    with pytest.raises(ZeroDivisionError, match="in the update"):
        model.learn(60, doing)
    assert doing.flew
    made[0].reset()
    model.abandon_episodes()
    assert goes_on(model)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_an_update_leaves_all_usable(presses: int, made: list[Any]) -> None:
    def press(model: DQN) -> None:
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    made.append(workers())
    doing = Doing(press)
    model = small(made[0]).learn(1_000, doing)
    assert doing.flew
    assert model.num_timesteps < 100
    assert model.trainer.interrupted
    made[0].reset()
    model.abandon_episodes()
    assert goes_on(model)


def test_a_callback_that_ends_training_leaves_no_step_and_no_update_behind(made: list[Any]) -> None:
    made.append(workers())
    model = small(made[0], n_steps=1)
    model.learn(1_000, lambda locals_, _: model.num_timesteps < 30)
    assert model.num_timesteps == 30
    assert model._n_updates == 11
    made[0].reset()
    model.abandon_episodes()
    assert goes_on(small(made[0]))


@pytest.mark.parametrize(
    ("ending", "complaint"),
    [
        (
            "raise",
            r"(?s)environment 1 raised ArithmeticError: the pole is broken.*Traceback.*in step",
        ),
        ("die", rf"exit codes by environment index: \{{1: -{signal.SIGKILL.value}\}}"),
    ],
)
def test_a_worker_that_fails_meanwhile_is_reported(
    ending: str, complaint: str, made: list[Any]
) -> None:
    made.append(workers(Broken, ending=ending))
    moments = Moments()
    model = small(made[0])
    with pytest.raises(WorkerError, match=complaint):
        model.learn(200, moments)
    assert any(moments.flying)
    assert made[0].closed
    with pytest.raises(NotReadyError, match="set_env"):
        model.learn(10)


def test_a_worker_that_died_before_the_step_is_reported_as_such(made: list[Any]) -> None:
    made.append(workers())

    def kill(locals_: Any, globals_: Any) -> None:
        if locals_["self"].num_timesteps >= 20:
            made[0].processes[1].kill()
            made[0].processes[1].join()

    with pytest.raises(WorkerError, match=r"exit codes by environment index: \{1: -9\}"):
        small(made[0]).learn(100, callback=kill)
    assert made[0].closed


def test_a_worker_that_fails_after_an_exception_does_not_hide_it(
    made: list[Any], tmp_path: Path
) -> None:
    made.append(workers())

    def fail(model: DQN) -> None:
        made[0].processes[1].kill()
        made[0].processes[1].join()
        raise ZeroDivisionError("in the update")

    with pytest.raises((ZeroDivisionError, WorkerError)) as caught:
        small(made[0]).learn(60, Doing(fail))
    chain: BaseException | None = caught.value
    found = []
    while chain is not None:
        found.append(type(chain))
        chain = chain.__context__
    assert ZeroDivisionError in found
