"""How many threads torch and NumPy use while a model learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Literal

import torch

from sbdqn.learner import Learner
from sbdqn.protocols import SampledHead

LARGEST_ON_ONE_THREAD = 5_000_000
"""Parameters times rows of an update, up to which a second thread brings nothing.

Measured on two cores with MLPs of 64 to 1,024 units and batches of 16 to 1,024. Two
threads took as long as one from 4 to 9 million on; at a tenth of that they took up
to 1.5 times as long, and much longer where another program wanted the second core.
"""


def threads_to_learn_with(
    chosen: int | Literal["auto"] | None, learner: Learner, batch_size: int
) -> int | None:
    """How many threads are to be used, None for as many as there are.

    Args:
        chosen: the model's parameter `threads`.
        learner: what will learn.
        batch_size: rows of an update.
    """
    if chosen != "auto":
        return None if chosen is None else int(chosen)
    is_small = learner.flat.values.numel() * batch_size <= LARGEST_ON_ONE_THREAD
    return 1 if is_small and _uses_each_weight_once(learner) else None


@contextmanager
def threads_within(count: int | None) -> Iterator[None]:
    """Within the block torch and NumPy use `count` threads, unless others are chosen there.

    Args:
        count: how many; None to change nothing.
    """
    with ExitStack() as stack:
        if count is not None:
            for get, choose in [(torch.get_num_threads, torch.set_num_threads), *_blas()]:
                stack.enter_context(_chosen(count, get, choose))
        yield


@contextmanager
def _chosen(count: int, get: Callable[[], int], choose: Callable[[int], Any]) -> Iterator[None]:
    before = get()
    if count == before:
        yield
        return
    try:
        choose(count)
        yield
    finally:
        if get() == count:
            choose(before)


@cache
def _blas() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """How the libraries that NumPy multiplies with tell their threads, and how to choose them.

    Their threads wait for each other busily: where another program wants a core, updates of
    small networks took 20 to 60 times as long on two threads as on one.
    """
    from threadpoolctl import ThreadpoolController  # needed by what learns alone

    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return [(library.get_num_threads, library.set_num_threads) for library in found]


def _uses_each_weight_once(learner: Learner) -> bool:
    """Whether parameters times rows say how much an update calculates, on a CPU.

    Convolutions use a weight at every place of an image, and heads that sample
    fractions at every fraction: there more threads help small networks too.
    """
    if learner.flat.values.device.type != "cpu" or isinstance(learner.head, SampledHead):
        return False
    return all(parameter.ndim <= 2 for parameter in learner.online.parameters())
