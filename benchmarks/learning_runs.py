"""One training with its evaluations, and many of them in processes of their own.

Each process has one torch thread. Greedy policies of both libraries are evaluated by the same
code, in environments of their own, which have the same seeds each time.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import SyncVectorEnv
from learning_settings import EVALUATION_EPISODES, FINAL_EPISODES, Setting

SOLVED_WINDOW = 100  # episodes whose mean counts
EVALUATION_SEED, FINAL_SEED = 1_000_000, 2_000_000  # of the first of the environments

Row = dict[str, Any]


class Run(NamedTuple):
    """One training."""

    setting: Setting
    seed: int


class Solved(NamedTuple):
    """How soon the training episodes counted as solved; None for never."""

    episodes: int | None  # before the window
    timesteps: int | None  # at the end of the last of them
    returns: list[float]  # of the window


def solved_after(returns: list[float], ends: list[int], mean: float, window: int) -> Solved | None:
    """The fewest episodes after which the next ones have this mean; None for never.

    Args:
        returns: of all training episodes.
        ends: timesteps at the end of each.
        mean: to reach.
        window: episodes that it goes over.
    """
    sums = np.cumsum([0.0, *returns])
    means = (sums[window:] - sums[:-window]) / window
    enough = np.flatnonzero(means >= mean)
    if not len(enough):
        return None
    first = int(enough[0])
    return Solved(first, ends[first - 1] if first else 0, returns[first : first + window])


class RandomAgent:
    """Chooses actions without looking."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._n_actions = int(setting.task.make().action_space.n)  # type: ignore[attr-defined]
        self._rng = np.random.default_rng(seed)

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return self._rng.integers(self._n_actions, size=len(observation)), None


class Evaluations:
    """Evaluates a model while it trains and afterwards, and keeps the rows.

    The clocks of training begin with it, and stand still while it evaluates.

    Args:
        setting: what is trained.
        seed: of the training.

    Attributes:
        model: has `predict`; to be set before the first evaluation.
        rows: of the evaluations so far.
    """

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting = setting
        self._envs = SyncVectorEnv([setting.task.make] * EVALUATION_EPISODES)
        self._due = setting.eval_every
        self._common = {"setting": setting.name, "library": setting.library}
        self._common |= {"env": setting.task.env_id, "seed": seed}
        self._returns: list[float] = []  # of training episodes
        self._ends: list[int] = []  # timesteps at the end of each
        self.model: Any = None
        self.rows: list[Row] = []
        self._evaluating = np.zeros(2)  # seconds, as `clocks` has them
        self._began = clocks()

    def after_step(self, timesteps: int, returns: Iterable[float]) -> None:
        """The environments have made a step, with which these episodes ended."""
        for each in returns:
            self._returns.append(float(each))
            self._ends.append(timesteps)
        if timesteps >= self._due:
            self._evaluate("evaluation", timesteps, EVALUATION_EPISODES, EVALUATION_SEED)
            self._due = (timesteps // self._setting.eval_every + 1) * self._setting.eval_every

    def finish(self, timesteps: int) -> None:
        """Training has ended; the row of the final policy is the last one of a run."""
        if timesteps < self._setting.timesteps:
            raise RuntimeError(f"training ended after {timesteps} timesteps")
        if self._setting.solved_at is not None:
            solved = solved_after(self._returns, self._ends, self._setting.solved_at, SOLVED_WINDOW)
            self._keep("solved_after", *(solved or Solved(None, None, [])))
        self._evaluate("final", timesteps, FINAL_EPISODES, FINAL_SEED)
        self._envs.close()

    def _evaluate(self, kind: str, timesteps: int, episodes: int, seed: int) -> None:
        from sbdqn import evaluate_policy

        now = clocks()
        seconds, cpu_seconds = (now - self._began - self._evaluating).round(2).tolist()
        returns, _ = evaluate_policy(
            self.model, self._envs, episodes, seed=seed, return_episode_rewards=True
        )
        self._keep(kind, len(self._returns), timesteps, returns)
        self.rows[-1] |= {"seconds": seconds, "cpu_seconds": cpu_seconds}
        self._evaluating += clocks() - now

    def _keep(
        self, kind: str, episodes: int | None, timesteps: int | None, returns: list[float]
    ) -> None:
        row = {**self._common, "kind": kind, "timesteps": timesteps, "episodes": episodes}
        row["evaluation_episodes"] = len(returns)
        if returns:
            statistics = {"mean": np.mean(returns), "std": np.std(returns), "min": np.min(returns)}
            row |= {name: round(float(value), 4) for name, value in statistics.items()}
        self.rows.append(row)


def clocks() -> np.ndarray[Any, Any]:
    """Seconds by the clock on the wall, and those for which this process had a core."""
    return np.array([time.perf_counter(), time.process_time()])


def train(run: Run) -> list[Row]:
    """Train, and return the rows of all evaluations."""
    import torch

    torch.set_num_threads(1)
    setting, seed = run
    if setting.library == "sb3":
        import_module("stable_baselines3")  # before the clocks, as our library has been
    evaluations = Evaluations(setting, seed)
    if setting.library == "random":
        evaluations.model = RandomAgent(setting, seed)
        evaluations.finish(0)
        return evaluations.rows
    model = evaluations.model = setting.model(seed)
    follow = _following_ours if setting.library == "sbdqn" else _following_sb3
    model.learn(setting.timesteps, callback=follow(evaluations, model))
    evaluations.finish(model.num_timesteps)
    return evaluations.rows


def _following_ours(evaluations: Evaluations, model: Any) -> Any:
    def follow(step: Any, _: Any) -> None:
        evaluations.after_step(model.num_timesteps, (each.reward for each in step["episodes"]))

    return follow


def _following_sb3(evaluations: Evaluations, model: Any) -> Any:
    def follow(step: Any, _: Any) -> bool:
        ended = (info["episode"]["r"] for info in step["infos"] if "episode" in info)
        evaluations.after_step(model.num_timesteps, ended)
        return True

    return follow


def versions(library: str) -> Row:
    """Of the packages that decide what comes out."""
    package = {"sb3": "stable_baselines3"}.get(library, "sbdqn")
    of_library = f"{package} {version(package)}"
    return {"version": of_library, "torch": version("torch"), "gymnasium": version("gymnasium")}


def _work(run: Run, sender: Connection) -> None:
    """What a process does; the parent alone hears Ctrl-C, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sender.send([{**row, **versions(run.setting.library)} for row in train(run)])


def _end_with_parent() -> None:
    """A parent that was killed could not end it."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def finished(runs: Iterable[Run], workers: int) -> Iterator[tuple[Run, list[Row] | None]]:
    """Runs with their rows, as they end, each in a process of its own; None if one failed."""
    context = get_context("spawn")
    waiting = list(reversed(list(runs)))
    going: dict[Any, tuple[Run, Any]] = {}
    try:
        while waiting or going:
            while waiting and len(going) < workers:
                run = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(run, sender), daemon=True)
                process.start()
                sender.close()  # the process has its own, so that its end is noticed
                going[receiver] = run, process
            for receiver in wait(list(going)):
                run, process = going.pop(receiver)
                try:
                    rows = receiver.recv()
                except EOFError:  # it has printed why
                    rows = None
                process.join()
                yield run, rows
    finally:
        for _, process in going.values():
            process.terminate()
