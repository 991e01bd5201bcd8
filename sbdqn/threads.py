"""How many threads torch uses while a model learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

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
    """How many threads torch is to use, None for as many as it does.

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
def torch_threads(count: int | None) -> Iterator[None]:
    """Within the block torch uses `count` threads, unless somebody chooses others there.

    Args:
        count: how many; None to change nothing.
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    try:
        torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() == count:
            torch.set_num_threads(before)


def _uses_each_weight_once(learner: Learner) -> bool:
    """Whether parameters times rows say how much an update calculates, on a CPU.

    Convolutions use a weight at every place of an image, and heads that sample
    fractions at every fraction: there more threads help small networks too.
    """
    if learner.flat.values.device.type != "cpu" or isinstance(learner.head, SampledHead):
        return False
    return all(parameter.ndim <= 2 for parameter in learner.online.parameters())
