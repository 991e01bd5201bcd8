"""Exceptions of environments, with what is needed to find their cause."""

from __future__ import annotations

import gc
import re
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import numpy as np
from gymnasium import Env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from sbdqn.envs.misfits import misfit
from sbdqn.errors import ConfigurationError, SpaceError, WorkerError, add_note
from sbdqn.protocols import Background

Result = TypeVar("Result")
Fault: TypeAlias = tuple[int, type[BaseException], Any, str]
"""Index of the environment, type and message of its exception, traceback."""
_OF_CALLS = re.compile(r"to unpack|unexpected keyword argument|positional argument")
"""How Python says that a function takes, or returns, something else."""
FAULT_SECONDS = 10.0  # that a fault may take from one process to another


def start_workers(makers: Sequence[Callable[[], Env[Any, Any]]]) -> AsyncVectorEnv[Any, Any]:
    """Make environments in processes of their own, out of Ctrl-C's reach.

    Raises:
        WorkerError: if a worker cannot make its environment; none is left then.
    """
    # What __init__ leaves behind when it raises can be closed.
    workers: AsyncVectorEnv[Any, Any] = AsyncVectorEnv.__new__(AsyncVectorEnv)
    try:
        AsyncVectorEnv.__init__(workers, makers, worker=_work)
    except BaseException as error:
        if "processes" not in vars(workers):  # it makes one environment in this process first
            raise
        workers.processes = [each for each in workers.processes if each.pid is not None]
        _close_and_raise(workers, None, error)
    return workers


def _work(
    index: int,
    make: Callable[[], Env[Any, Any]],
    pipe: Connection,
    parent_pipe: Connection,
    shared_memory: Any,
    errors: Any,
    *others: Any,
) -> None:
    """What a worker process does: gymnasium's loop, with faults that can travel."""
    # The terminal interrupts the whole process group; only the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What was garbage in the parent is not collected here: threads, as those of ALE, do not
    # come along with what they belong to, and to wait for them would end this process.
    gc.freeze()
    faults: Any = _TextQueue(errors)
    try:
        env = make()
    except BaseException as error:
        faults.put((index, type(error), error, traceback.format_exc()))
        parent_pipe.close()
        pipe.recv()
        pipe.send((None, False))
        return
    checked: Any = _Checked(env)
    _async_worker(index, lambda: checked, pipe, parent_pipe, shared_memory, faults, *others)


class _Checked:
    """An environment whose observations fit its space.

    gymnasium would write what does not fit into shared memory as well as it can: it drops
    fractions, and repeats a number where there should be several.
    """

    def __init__(self, env: Env[Any, Any]) -> None:
        self._env = env
        self._space = env.observation_space

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, **kwargs: Any) -> Any:
        outcome = self._env.reset(**kwargs)
        self._require_fit(outcome[0])
        return outcome

    def step(self, action: Any) -> Any:
        outcome = self._env.step(action)
        self._require_fit(outcome[0])
        return outcome

    def _require_fit(self, observation: Any) -> None:
        space = self._space
        is_array = type(observation) is np.ndarray  # of which `misfit` says the same, but later
        if is_array and observation.shape == space.shape and observation.dtype == space.dtype:
            return
        wrong = misfit(observation, space)
        if wrong:
            raise SpaceError(f"the observation {wrong}; the space is {space}")


class _TextQueue:
    """Puts faults as text, because not every exception can be pickled."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, fault: Fault) -> None:
        self._queue.put((fault[0], WorkerError, _described(fault), fault[3]))


class _LostFaultError(Exception):
    """A worker's exception cannot be pickled, or not be made again."""


class _RecordingQueue:
    """Keeps the last error that gymnasium takes from the workers' queue.

    gymnasium raises the exception itself but only logs its traceback and the
    index of its environment.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.last: Fault | None = None

    def get(self) -> Any:
        try:
            self.last = self._queue.get(timeout=FAULT_SECONDS)
        except Exception as error:  # its class raises what it likes, or nothing comes
            raise _LostFaultError(repr(error)) from error
        return self.last


if TYPE_CHECKING:
    Wrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, Any]
else:
    Wrapper = VectorWrapper  # not generic before gymnasium 1.3


class FaultReporting(Wrapper):
    """Reports an exception with the index of its environment.

    A worker's comes as a `WorkerError` with its traceback. Environments in this process raise
    as they always do, with a note; an observation that does not fit is a `SpaceError`.

    Args:
        env: the vector environment.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        inner = env.unwrapped
        self._workers = inner if isinstance(inner, AsyncVectorEnv) else None
        if self._workers is not None and not isinstance(self._workers.error_queue, _RecordingQueue):
            recording: Any = _RecordingQueue(self._workers.error_queue)
            self._workers.error_queue = recording

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, reporting faults."""
        return self.watch(lambda: self.env.reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, reporting faults."""
        if self._workers is None:
            try:
                return self.env.step(actions)
            except Exception as error:
                _raise(_placed(self.env.unwrapped, error), error)
        return self.watch(lambda: self.env.step(actions))

    @property
    def background(self) -> Background | None:
        """The halves of a step, of environments that step in the background.

        None for all others, and where a wrapper stands around them or a subclass
        has a `step` of its own, which has a part in the whole step.
        """
        env: Any = self.env
        if self.env is self._workers:
            if type(env).step is not AsyncVectorEnv.step:
                return None
            return Background(
                lambda actions: self.watch(lambda: env.step_async(actions)),
                lambda: self.watch(env.step_wait),
            )
        # As ALE's vector environment has it. A wrapper passes on what it does not have itself.
        makers = [_maker(type(env), name) for name in ("step", "send", "recv")]
        if makers[0] is makers[1] is makers[2]:
            return Background(env.send, env.recv)
        return None

    def __del__(self) -> None:
        """Leave the environment open; gymnasium before 1.3 would close it here."""

    def watch(self, call: Callable[[], Result]) -> Result:
        """Call something of the environment, reporting faults."""
        try:
            return call()
        except (Exception, KeyboardInterrupt) as error:
            if self._workers is None and isinstance(error, Exception):
                _raise(_placed(self.env.unwrapped, error), error)
            if self._workers is None or self._workers.closed:
                raise
            errors: Any = self._workers.error_queue
            if errors.last is None and isinstance(error, KeyboardInterrupt):
                _terminate(self._workers)  # their answer would be taken for a later one
                raise
            _close_and_raise(self._workers, errors.last, error)


def _placed(env: VectorEnv[Any, Any, Any], error: Exception) -> Exception:
    """An exception with the index of the environment in this process that it came from."""
    if not isinstance(env, SyncVectorEnv):
        return error
    index = _index_in_traceback(env, error)
    if index is not None:
        add_note(error, f"It came from environment {index} of {env.num_envs}.")
        return error
    is_of_types = isinstance(error, (AttributeError, TypeError, ValueError))
    if is_of_types and _OF_CALLS.search(str(error)):
        return ConfigurationError(
            f"an environment has not gymnasium's reset(*, seed=None, options=None) -> "
            f"(observation, info), or step(action) -> (observation, reward, terminated, "
            f"truncated, info): {error}"
        )
    for index, observation in enumerate(env._env_obs):
        wrong = misfit(observation, env.single_observation_space)
        if wrong:
            return SpaceError(
                f"an observation of environment {index} {wrong}; the space is "
                f"{env.single_observation_space}"
            )
    if is_of_types:
        add_note(error, "sbdqn.check_env(env) looks for mistakes in an environment.")
    return error


def _index_in_traceback(env: SyncVectorEnv, error: Exception) -> int | None:
    """The first of the environments whose methods an exception passed through."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Their first argument is the environment, whatever it is called.
    owners = [each.f_locals.get(name) for each in frames for name in each.f_code.co_varnames[:1]]
    return next((i for i, inner in enumerate(env.envs) if any(o is inner for o in owners)), None)


def _maker(kind: type, name: str) -> type | None:
    """The class that a method comes from."""
    return next((each for each in kind.__mro__ if name in vars(each)), None)


def _close_and_raise(
    workers: AsyncVectorEnv[Any, Any], last: Fault | None, error: BaseException
) -> NoReturn:
    report = _report(workers, last, error)
    # The frames hold a view of what could not be sent. Python crashes when it collects such a view
    # and its buffer as garbage (3.12.1), or raises in whatever runs just then (3.13.0).
    traceback.clear_frames(error.__traceback__)
    _raise(report, error)


def _raise(report: BaseException, error: BaseException) -> NoReturn:
    if report is error:
        raise error
    raise report from error


def _report(
    workers: AsyncVectorEnv[Any, Any], last: Fault | None, error: BaseException
) -> BaseException:
    # A pipe closes a moment before its process can be seen to have ended.
    closed = wait([process.sentinel for process in workers.processes], timeout=0.1)
    dead = [index for index, process in enumerate(workers.processes) if process.sentinel in closed]
    for index in dead:
        workers.processes[index].join()
    _terminate(workers)
    if last is not None:
        kind, value = last[1:3]
        if kind is KeyboardInterrupt:
            return KeyboardInterrupt()
        return WorkerError(value if kind is WorkerError else _described(last))
    if isinstance(error, _LostFaultError):
        return WorkerError(
            f"environments {dead} raised exceptions that could not be passed from their "
            f"processes to this one: {error}; let them raise exceptions that can be pickled, or "
            f"let the model make the environments: env=a function that makes one, n_envs=..., "
            f"vectorization='async'"
        )
    if isinstance(error, (EOFError, ConnectionError)):
        codes = {index: workers.processes[index].exitcode for index in dead}
        return WorkerError(
            f"worker processes ended without a word, exit codes by environment index: {codes}"
        )
    return error


def _described(fault: Fault) -> str:
    index, kind, value, trace = fault
    return (
        f"environment {index} raised {kind.__name__}: {value}\n\n"
        f"Traceback in the worker process of environment {index}:\n{trace}"
    )


def _terminate(workers: AsyncVectorEnv[Any, Any]) -> None:
    for process in workers.processes:
        process.kill()
        process.join()
    workers._state = AsyncState.DEFAULT
    workers.close(terminate=True)
