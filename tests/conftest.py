"""What all tests share."""

from __future__ import annotations

import importlib.util
import signal
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

# Workers of pytest-xdist share the cores; small networks are fastest on one thread anyway.
torch.set_num_threads(1)

# A shell's background job ignores Ctrl-C, and all that it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _games() -> Iterator[Any]:
    """ALE's vector environments that are alive."""
    alive: Any = weakref.WeakSet()
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("ale_py") is not None:
            from ale_py.vector_env import AtariVectorEnv

            begin = AtariVectorEnv.__init__

            def begin_and_note(env: Any, *args: Any, **kwargs: Any) -> None:
                begin(env, *args, **kwargs)
                alive.add(env)

            patch.setattr(AtariVectorEnv, "__init__", begin_and_note)
        yield alive


@pytest.fixture(autouse=True, scope="module")
def _no_game_outlives_its_module(_games: Any) -> Iterator[None]:
    yield from _ending(_games)


@pytest.fixture(autouse=True)
def _no_game_outlives_its_test(_games: Any) -> Iterator[None]:
    yield from _ending(_games)


def _ending(games: Any) -> Iterator[None]:
    """End the threads of games here, not when some later test collects garbage or forks."""
    older = set(games)
    yield
    for env in set(games) - older:
        env.ale = None
