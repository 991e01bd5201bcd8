"""Target rules: which next action a target believes in.

A backup returns a policy, a bonus and a penalty instead of a value, so every
head can use every backup in its own algebra.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbdqn.protocols import QFunction
from sbdqn.types import Batch, Bootstrap


@dataclass(frozen=True)
class Greedy:
    """The action that the target network itself finds best.

    Mnih et al. 2015, "Human-level control through deep reinforcement
    learning".
    """

    def __call__(
        self, batch: Batch, following_q: Tensor, online: QFunction, target: QFunction
    ) -> Bootstrap:
        """The target network's greedy policy."""
        return _believe_best(following_q)


@dataclass(frozen=True)
class Double:
    """The online network chooses the action, the target network values it.

    van Hasselt et al. 2016, "Deep Reinforcement Learning with Double
    Q-learning", Eq. 4.
    """

    def __call__(
        self, batch: Batch, following_q: Tensor, online: QFunction, target: QFunction
    ) -> Bootstrap:
        """The online network's greedy policy."""
        return _believe_best(online(batch.next_obs))


def _believe_best(q: Tensor) -> Bootstrap:
    policy = torch.zeros_like(q).scatter_(1, q.argmax(dim=1, keepdim=True), 1.0)
    nothing = torch.zeros_like(q)
    return Bootstrap(policy, bonus=nothing.select(1, 0), penalty=nothing)
