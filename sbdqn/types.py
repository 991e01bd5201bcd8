"""The records that cross module borders.

Shape letters: B batch, E environments, A actions, N atoms or quantiles.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

Arrays: TypeAlias = Array | dict[str, Array]
"""Observations: one array, or one for each part of a Dict or Tuple space, by name."""
Tensors: TypeAlias = Tensor | dict[str, Tensor]
"""Observations as `Arrays`, for a network."""


class Purpose(Enum):
    """What a prediction of a network is for."""

    LEARN = "learn"  # the online prediction that the loss differentiates
    TARGET = "target"  # everything the target is made of
    ACT = "act"  # choosing actions while data is collected
    EVALUATE = "evaluate"  # choosing actions afterwards: nothing random


class Clock(NamedTuple):
    """The counters that schedules read.

    Attributes:
        steps: transitions collected so far, summed over environments.
        episodes: episodes ended so far, summed over environments.
        total_steps: the value of `steps` at which the latest `learn` ends; 0
            before the first.
    """

    steps: int
    episodes: int = 0
    total_steps: int = 0


class Row(NamedTuple):
    """One step of a vector environment, the same in every autoreset mode.

    Attributes:
        obs: (E, ...) observations acted upon.
        action: (E,) actions counted from 0.
        reward: (E,) rewards.
        next_obs: (E, ...) true successors, taken before any reset.
        terminated: (E,) whether the episode ended in a terminal state.
        truncated: (E,) whether the episode was cut short.
        first: (E,) whether `obs` begins an episode.
        valid: (E,) whether this is a transition at all; False where the
            environment spent the step on resetting itself.
    """

    obs: Arrays
    action: IntArray
    reward: Array
    next_obs: Arrays
    terminated: BoolArray
    truncated: BoolArray
    first: BoolArray
    valid: BoolArray


class Episode(NamedTuple):
    """An episode that has ended.

    Attributes:
        reward: sum of the rewards.
        length: number of transitions.
        env: index of the environment.
        success: the environment's `info["is_success"]`, None where not given.
    """

    reward: float
    length: int
    env: int
    success: bool | None


class Batch(NamedTuple):
    """Transitions to learn from.

    Attributes:
        obs: (B, ...) observations.
        action: (B,) int64 actions counted from 0.
        reward: (B,) float32 discounted sums of the m rewards spanned.
        next_obs: (B, ...) observations m steps later.
        discount: (B,) float32 `gamma**m * (1 - terminated)`.
        weight: (B,) float32 importance weights.
        index: (B,) int64 places in the replay, for `Replay.feedback`.
    """

    obs: Tensors
    action: Tensor
    reward: Tensor
    next_obs: Tensors
    discount: Tensor
    weight: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Prediction(NamedTuple):
    """What a network says of a batch of observations.

    Attributes:
        values: (B, A, N); what N means is the head's business.
        fractions: (B, N) quantile fractions, None where N is not sampled.
    """

    values: Tensor
    fractions: Tensor | None = None


class Bootstrap(NamedTuple):
    """What a target believes of the future, as a backup returns it.

    Attributes:
        policy: (B, A) probabilities of the next actions.
        bonus: (B,) added to the reward.
        penalty: (B, A) subtracted from the next values.
    """

    policy: Tensor
    bonus: Tensor
    penalty: Tensor


class Loss(NamedTuple):
    """The outcome of comparing a prediction with its target.

    Attributes:
        value: (B,) what is minimised, before importance weights.
        surprise: (B,) non-negative size of the error: the replay's priority.
    """

    value: Tensor
    surprise: Tensor
