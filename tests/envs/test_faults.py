"""What goes wrong in an environment reaches the user with its cause and place."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.callbacks import EvalCallback
from sbdqn.envs import FaultReporting, faults
from sbdqn.errors import ConfigurationError, NotReadyError, SbdqnError, WorkerError
from tests.environments import CountingEnv
from tests.warnings_of_workers import FAULT, FORK

pytestmark = [FORK, FAULT]


class BrokenEnv(CountingEnv):
    """Raises at one step of one environment, or of all."""

    def __init__(self, index: int = 0, at_step: int = 6, only: int | None = None) -> None:
        super().__init__(index, lengths=(50,))
        self.at_step, self.only = at_step, only

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if len(self.actions) == self.at_step and self.only in (None, self.index):
            raise ArithmeticError("the pole is 100% broken")
        return super().step(action)


class BrokenResetEnv(CountingEnv):
    """Raises at its second episode."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if self.episode == 0:
            raise ArithmeticError("no second episode")
        return super().reset(seed=seed, options=options)


class UnmakableEnv(CountingEnv):
    """Can be made in the main process, and by those that come to the folder in time."""

    def __init__(self, folder: Path, places: int = 0, ending: str = "raise") -> None:
        if multiprocessing.parent_process() is not None and not self.found_place(folder, places):
            if ending == "raise":
                raise ArithmeticError("no display here")
            sys.exit(7) if ending == "exit" else os._exit(7)
        super().__init__()

    @staticmethod
    def found_place(folder: Path, places: int) -> bool:
        for place in range(places):
            with contextlib.suppress(FileExistsError):
                (folder / str(place)).touch(exist_ok=False)
                return True
        return False


class SimulatorError(Exception):
    """Cannot be made again from its message alone, as unpickling would."""

    def __init__(self, code: int, hint: str) -> None:
        super().__init__(f"code {code}")
        self.hint = hint


class ChattyEnv(CountingEnv):
    """Raises what no other process can read."""

    def __init__(self, index: int = 0, local: bool = False) -> None:
        super().__init__(index, lengths=(50,))
        self.local = local

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        class LocalError(Exception):
            pass

        if len(self.actions) == 6 and self.index == 1:
            raise LocalError("code 7") if self.local else SimulatorError(7, "oil it")
        return super().step(action)


class CountedChattyEnv(ChattyEnv):
    """The same, whatever its index."""

    def __init__(self, local: bool) -> None:
        super().__init__(1, local)


class KilledEnv(CountingEnv):
    """Its process is killed at the eighth step, as by the kernel when memory is short."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if len(self.actions) == 7 and self.index == 1:
            assert multiprocessing.parent_process() is not None
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def indexed(kind: type[gym.Env[Any, Any]], count: int, **kwargs: Any) -> list[Any]:
    return [functools.partial(kind, index, **kwargs) for index in range(count)]


def small(env: Any, **parameters: Any) -> DQN:
    settings: dict[str, Any] = {
        "buffer_size": 300,
        "learning_starts": 10**6,
        "n_steps": 1,
        "seed": 0,
    }
    return DQN(MlpPolicy(net_arch=(8,)), env, **{**settings, **parameters})


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def test_a_workers_exception_arrives_with_its_traceback_and_index() -> None:
    env = AsyncVectorEnv(indexed(BrokenEnv, 3, only=2))
    with pytest.raises(WorkerError) as caught:
        small(env).learn(100)
    message = str(caught.value)
    assert message.startswith("environment 2 raised ArithmeticError: the pole is 100% broken")
    assert "Traceback in the worker process of environment 2:" in message
    assert "test_faults.py" in message
    assert 'raise ArithmeticError("the pole is 100% broken")' in message
    assert env.closed
    assert isinstance(caught.value, SbdqnError)
    assert isinstance(caught.value, RuntimeError)


def test_workers_that_the_model_made_are_reported_and_made_again() -> None:
    model = small(BrokenEnv, n_envs=2, vectorization="async")
    with pytest.raises(WorkerError, match=r"environment [01] raised ArithmeticError"):
        model.learn(100)
    assert multiprocessing.active_children() == []
    assert model.num_timesteps == 12
    # New ones get as far as the old ones.
    with pytest.raises(WorkerError, match="ArithmeticError"):
        model.learn(100)
    assert model.num_timesteps == 24


def test_a_users_broken_vector_environment_is_not_made_again() -> None:
    model = small(AsyncVectorEnv(indexed(BrokenEnv, 2)))
    with pytest.raises(WorkerError):
        model.learn(100)
    with pytest.raises(NotReadyError, match="set_env"):
        model.learn(100)
    model.set_env(SyncVectorEnv(indexed(CountingEnv, 2)))
    model.learn(10)


def test_an_exception_at_a_reset_is_reported() -> None:
    model = small(BrokenResetEnv, n_envs=2, vectorization="async")
    with pytest.raises(WorkerError, match=r"(?s)ArithmeticError: no second episode.*Traceback"):
        model.learn(100)


def test_an_exception_at_the_first_reset_is_reported() -> None:
    class NeverReady(CountingEnv):
        def reset(self, **kwargs: Any) -> Any:
            raise ArithmeticError("not today")

    with pytest.raises(WorkerError, match=r"environment [01] raised ArithmeticError: not today"):
        small(NeverReady, n_envs=2, vectorization="async").learn(10)


def test_a_wrapped_vector_environment_is_reported_too() -> None:
    env = RecordEpisodeStatistics(AsyncVectorEnv(indexed(BrokenEnv, 2, only=1)))
    with pytest.raises(WorkerError, match="environment 1 raised ArithmeticError"):
        small(env).learn(100)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_faults_are_reported_in_the_other_autoreset_modes(mode: AutoresetMode) -> None:
    env = AsyncVectorEnv(indexed(BrokenEnv, 2, only=0), autoreset_mode=mode)
    with pytest.raises(WorkerError, match="environment 0 raised ArithmeticError"):
        small(env).learn(100)


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(WorkerError, match=rf"exit codes .*: \{{1: -{signal.SIGKILL.value}\}}"):
        small(AsyncVectorEnv(indexed(KilledEnv, 3))).learn(100)


def test_a_worker_killed_between_two_steps_is_named() -> None:
    env = AsyncVectorEnv(indexed(CountingEnv, 3))

    def kill(locals_: Any, globals_: Any) -> None:
        if locals_["self"].num_timesteps > 20:
            os.kill(env.processes[2].pid, signal.SIGKILL)  # type: ignore[arg-type]

    with pytest.raises(WorkerError, match=rf"exit codes .*: \{{2: -{signal.SIGKILL.value}\}}"):
        small(env).learn(100, callback=kill)
    assert env.closed


@pytest.mark.parametrize("places", [0, 2])
@pytest.mark.parametrize(
    ("ending", "named"), [("raise", "ArithmeticError"), ("exit", "SystemExit")]
)
def test_a_worker_that_cannot_make_its_environment_is_reported(
    tmp_path: Path, places: int, ending: str, named: str
) -> None:
    kwargs = {"folder": tmp_path, "places": places, "ending": ending}
    with pytest.raises(WorkerError) as caught:
        small(UnmakableEnv, n_envs=3, vectorization="async", env_kwargs=kwargs).learn(10)
    message = str(caught.value)
    assert re.match(rf"environment [012] raised {named}: (no display here|7)\n", message)
    assert "Traceback in the worker process of environment" in message
    assert "in __init__" in message
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_while_it_makes_its_environment_is_named(tmp_path: Path) -> None:
    kwargs = {"folder": tmp_path, "places": 2, "ending": "die"}
    with pytest.raises(WorkerError, match=r"exit codes .*: \{[012]: 7\}") as caught:
        small(UnmakableEnv, n_envs=3, vectorization="async", env_kwargs=kwargs).learn(10)
    assert isinstance(caught.value.__cause__, (EOFError, ConnectionError))
    assert multiprocessing.active_children() == []


class OtherSpaceEnv(CountingEnv):
    """Has other actions in worker processes than in the main one."""

    def __init__(self) -> None:
        super().__init__(start=0 if multiprocessing.parent_process() is None else 1)


def test_workers_whose_spaces_differ_are_not_left_behind() -> None:
    with pytest.raises(RuntimeError, match="action space") as caught:
        small(OtherSpaceEnv, n_envs=2, vectorization="async").learn(10)
    assert multiprocessing.active_children() == []
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("local", [True, False])
def test_an_exception_that_no_other_process_can_read_arrives_as_text(local: bool) -> None:
    kwargs = {"local": local}
    model = small(CountedChattyEnv, n_envs=2, vectorization="async", env_kwargs=kwargs)
    name = "LocalError" if local else "SimulatorError"
    with pytest.raises(WorkerError, match=rf"environment [01] raised {name}: code 7\n") as caught:
        model.learn(100)
    assert str(caught.value).count("Traceback in the worker process") == 1
    assert "in step" in str(caught.value)


@pytest.mark.parametrize("local", [True, False])
def test_such_an_exception_of_a_users_own_workers_is_at_least_placed(
    local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "FAULT_SECONDS", 0.5)
    env = AsyncVectorEnv(indexed(ChattyEnv, 3, local=local))
    with pytest.raises(WorkerError, match=r"environments \[1\] .*exceptions that can be pickled"):
        small(env).learn(100)
    assert env.closed


@pytest.mark.parametrize("env", [BrokenEnv, BrokenEnv(), SyncVectorEnv([BrokenEnv])])
def test_an_exception_in_this_process_propagates_unchanged(env: Any) -> None:
    with pytest.raises(ArithmeticError, match="the pole is 100% broken") as caught:
        small(env).learn(100)
    assert not isinstance(caught.value, SbdqnError)
    assert caught.traceback[-1].name == "step"


def test_an_episode_is_not_continued_after_an_exception() -> None:
    class Hiccup(CountingEnv):
        """Moves on and raises, once."""

        raised = False

        def step(self, action: Any) -> Any:
            result = super().step(action)
            if len(self.actions) == 4 and not self.raised:
                self.raised = True
                raise ArithmeticError
            return result

    model = small(Hiccup(lengths=(50,)))
    with pytest.raises(ArithmeticError):
        model.learn(20)
    assert model.num_timesteps == 3
    model.learn(20)
    batch = model.replay_buffer.sample(500, model.trainer.clock)
    assert {tuple(obs.tolist()) for obs in batch.obs - batch.next_obs} == {(0.0, 0.0, -1.0)}
    assert {int(episode) for episode in batch.obs[:, 1]} == {0, 1}


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 1e39, -1e39])
def test_a_reward_that_is_not_finite_is_refused_where_it_arises(wrong: float) -> None:
    class Overflowing(CountingEnv):
        def step(self, action: Any) -> Any:
            obs, reward, *rest = super().step(action)
            return obs, wrong if len(self.actions) == 5 and self.index else reward, *rest

    model = small(SyncVectorEnv(indexed(Overflowing, 2)))
    with pytest.raises(
        FloatingPointError, match=rf"by environment index: \{{1: {re.escape(str(wrong))}\}}"
    ):
        model.learn(50)
    assert model.num_timesteps == 8


def test_faults_while_evaluating_are_reported() -> None:
    model = small(CountingEnv)
    env = AsyncVectorEnv(indexed(BrokenEnv, 2, only=1))
    with pytest.raises(WorkerError, match="environment 1 raised ArithmeticError"):
        evaluate_policy(model, env)
    assert env.closed


def test_faults_in_an_evaluation_callback_are_reported() -> None:
    env = AsyncVectorEnv(indexed(BrokenEnv, 2, only=1))
    with pytest.raises(WorkerError, match="environment 1 raised ArithmeticError"):
        small(CountingEnv).learn(50, callback=EvalCallback(env, eval_freq=10, verbose=0))


def interrupt_all(env: AsyncVectorEnv[Any, Any]) -> None:
    """What Ctrl-C in a terminal does: it reaches every process of the group."""
    for process in env.processes:
        os.kill(process.pid, signal.SIGINT)  # type: ignore[arg-type]
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_the_workers_that_the_model_made_alive() -> None:
    model = small(CountingEnv, n_envs=2, vectorization="async")

    def interrupt(locals_: Any, globals_: Any) -> None:
        if 20 <= model.num_timesteps < 22:
            interrupt_all(locals_["env"])

    assert model.learn(100, callback=interrupt) is model
    assert 20 <= model.num_timesteps <= 22
    env = model.env
    model.learn(50)
    assert model.env is env
    assert model.num_timesteps >= 70
    model.close()


def test_ctrl_c_ends_workers_of_the_users_own_cleanly() -> None:
    env = AsyncVectorEnv(indexed(CountingEnv, 2))
    model = small(env)

    def interrupt(locals_: Any, globals_: Any) -> None:
        if model.num_timesteps >= 20:
            interrupt_all(env)

    assert model.learn(100, callback=interrupt) is model
    assert model.num_timesteps < 30
    # The workers took the signal as their end.
    model.learn(100)
    assert model.num_timesteps < 30
    assert env.closed
    with pytest.raises((NotReadyError, ClosedEnvironmentError)):
        model.learn(100)


class Impatient(CountingEnv):
    """The user of the first that gets so far presses Ctrl-C twice while it steps."""

    def __init__(self, trainer_pid: int, pressed: Path) -> None:
        super().__init__()
        self.trainer_pid, self.pressed = trainer_pid, pressed

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if len(self.actions) == 5:
            with contextlib.suppress(FileExistsError):
                self.pressed.touch(exist_ok=False)
                for _ in range(2):
                    os.kill(self.trainer_pid, signal.SIGINT)
                    time.sleep(0.2)
        return super().step(action)


def test_a_second_ctrl_c_during_a_step_leaves_a_model_that_can_go_on(tmp_path: Path) -> None:
    kwargs = {"trainer_pid": os.getpid(), "pressed": tmp_path / "pressed"}
    model = small(Impatient, n_envs=2, vectorization="async", env_kwargs=kwargs)
    assert model.learn(100) is model
    assert model.num_timesteps < 12
    before = model.num_timesteps
    assert model.learn(20).num_timesteps >= before + 20
    model.close()


class Interrupting(VectorEnv[Any, Any, Any]):
    """Ctrl-C strikes within its step."""

    num_envs = 1
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012, so in gymnasium

    def step(self, actions: Any) -> Any:
        raise KeyboardInterrupt


def test_ctrl_c_in_this_process_stays_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        FaultReporting(Interrupting()).step([0])

    env = AsyncVectorEnv(indexed(CountingEnv, 2))
    watched = FaultReporting(env)
    watched.reset(seed=0)

    def interrupted(actions: Any) -> Any:
        raise KeyboardInterrupt

    env.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        watched.step([0, 0])
    assert env.closed  # what the workers were about to answer would answer a later question


def test_a_mistake_of_the_caller_is_raised_as_it_is() -> None:
    env = AsyncVectorEnv(indexed(CountingEnv, 2))
    watched = FaultReporting(env)
    FaultReporting(env)  # watching twice is watching once
    watched.reset(seed=0)
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        watched.step([0, 0])


def test_what_is_no_workers_fault_is_raised_as_it_is_after_closing() -> None:
    env = AsyncVectorEnv(indexed(CountingEnv, 2))
    watched = FaultReporting(env)
    watched.reset(seed=0)

    def wrong(actions: Any) -> Any:
        raise ConfigurationError("mine")

    env.step = wrong  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="mine"):
        watched.step([0, 0])
    assert env.closed


def test_what_could_not_be_sent_to_a_dead_worker_is_no_garbage() -> None:
    env = FaultReporting(AsyncVectorEnv([CountingEnv, CountingEnv]))
    env.reset(seed=0)
    for process in env.unwrapped.processes:  # type: ignore[attr-defined]
        process.kill()
        process.join()
    gc.collect()
    with pytest.raises(WorkerError) as caught:
        env.step(np.zeros(2, np.int64))
    frames, trace = [], caught.value.__cause__.__traceback__  # type: ignore[union-attr]
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    held = [value for frame in frames for value in frame.f_locals.values()]
    assert len(frames) > 3
    assert not any(isinstance(value, memoryview) for value in held)
