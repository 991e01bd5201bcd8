"""Exceptions of worker processes, with what is needed to find their cause."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.async_vector_env import AsyncState

from sbdqn.errors import WorkerError

Result = TypeVar("Result")
Fault: TypeAlias = tuple[int, type[BaseException], BaseException, str]
"""Index of the environment, type and message of its exception, traceback."""


class _RecordingQueue:
    """Keeps the last error that gymnasium takes from the workers' queue.

    gymnasium raises the exception itself but only logs its traceback and the
    index of its environment.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.last: Fault | None = None

    def get(self) -> Any:
        self.last = self._queue.get()
        return self.last


if TYPE_CHECKING:
    Wrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, Any]
else:
    Wrapper = VectorWrapper  # not generic before gymnasium 1.3


class FaultReporting(Wrapper):
    """Reports a worker's exception with its traceback and environment index.

    Environments that run in this process raise as they always do.

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
        return self._watch(lambda: self.env.reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, reporting faults."""
        if self._workers is None:
            return self.env.step(actions)
        return self._watch(lambda: self.env.step(actions))

    def __del__(self) -> None:
        """Leave the environment open; gymnasium before 1.3 would close it here."""

    def _watch(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except (Exception, KeyboardInterrupt) as error:
            if self._workers is None or self._workers.closed:
                raise
            errors: Any = self._workers.error_queue
            if errors.last is None and isinstance(error, KeyboardInterrupt):
                _terminate(self._workers)  # their answer would be taken for a later one
                raise
            raise _report(self._workers, errors.last, error) from error


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
        index, kind, value, trace = last
        if kind is KeyboardInterrupt:
            return KeyboardInterrupt()
        return WorkerError(
            f"environment {index} raised {kind.__name__}: {value}\n\n"
            f"Traceback in the worker process of environment {index}:\n{trace}"
        )
    if isinstance(error, (EOFError, ConnectionError)):
        codes = {index: workers.processes[index].exitcode for index in dead}
        return WorkerError(
            f"worker processes ended without a word, exit codes by environment index: {codes}"
        )
    return error


def _terminate(workers: AsyncVectorEnv[Any, Any]) -> None:
    for process in workers.processes:
        process.kill()
        process.join()
    workers._state = AsyncState.DEFAULT
    workers.close(terminate=True)
