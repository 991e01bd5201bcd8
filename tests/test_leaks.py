"""Models that are made, trained and closed in one process leave nothing behind."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from sbdqn import DQN, MlpPolicy
from tests.warnings_of_workers import FORK

pytestmark = FORK

MEGABYTE = 10**6


class Held(NamedTuple):
    """What this process holds."""

    memory: int
    files: int
    threads: int
    children: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        process = psutil.Process()
        children = len(process.children(recursive=True))
        memory: int = process.memory_info().rss
        return cls(memory, process.num_fds(), process.num_threads(), children)


def live(closes: bool = True, **parameters: Any) -> None:
    """The whole life of a model."""
    model = DQN(
        MlpPolicy(net_arch=(8,)),
        "CartPole-v1",
        buffer_size=1_000,
        learning_starts=8,
        batch_size=8,
        n_steps=1,
        **parameters,
    )
    model.learn(24)
    assert model._n_updates > 0
    if closes:
        model.close()


def growth(warm_up: int, lives: int, **life: Any) -> Held:
    """What `lives` models more leave behind."""
    for _ in range(warm_up):
        live(**life)
    before = Held.now()
    for _ in range(lives):
        live(**life)
    return Held(*(after - held for after, held in zip(Held.now(), before, strict=True)))


@pytest.mark.parametrize("lives", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("logs", [False, True])
def test_models_leave_no_memory_file_thread_or_process(
    logs: bool, lives: int, tmp_path: Path
) -> None:
    grown = growth(20, lives, tensorboard_log=tmp_path if logs else None)
    assert grown.memory < 10 * MEGABYTE
    assert (grown.files, grown.threads, grown.children) == (0, 0, 0)


@pytest.mark.parametrize("lives", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_models_with_worker_processes_leave_none(lives: int) -> None:
    grown = growth(5, lives, n_envs=2, vectorization="async")
    assert grown.memory < 10 * MEGABYTE
    assert (grown.files, grown.threads, grown.children) == (0, 0, 0)


def test_models_that_are_dropped_without_being_closed_leave_nothing(tmp_path: Path) -> None:
    grown = growth(5, 20, closes=False, tensorboard_log=tmp_path)
    assert grown.memory < 10 * MEGABYTE
    assert (grown.files, grown.threads, grown.children) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_models_leave_no_file_thread_or_process() -> None:
    # The memory grows by what torch compiles: it keeps machine code until the process ends.
    grown = growth(2, 4, compile=True)
    assert (grown.files, grown.threads, grown.children) == (0, 0, 0)
