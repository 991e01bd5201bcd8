"""NaN and infinite numbers: where they came from, and what is done about them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal, TypeAlias

import numpy as np

from sbdqn.errors import NonFiniteError
from sbdqn.types import Array

OnNonFinite: TypeAlias = Literal["raise", "warn", "ignore"]
ON_NONFINITE = ("raise", "warn", "ignore")

_log = logging.getLogger(__name__)
_LARGEST = float(np.finfo(np.float32).max)
_FEW = 100  # numbers that Python adds up sooner than NumPy looks at each


class NonFinite:
    """What is done about numbers that are not finite.

    Args:
        policy: `"raise"` an error, `"warn"` in the log, or `"ignore"` them; may be
            assigned at any time.

    Example:
        >>> NonFinite("ignore").tolerate("reward", NonFiniteError("nan"))
    """

    def __init__(self, policy: OnNonFinite = "raise") -> None:
        self.policy = policy
        self._times: Counter[str] = Counter()

    def tolerate(self, kind: str, error: NonFiniteError) -> None:
        """Raise an error, log it, or do neither.

        Of each kind the first is logged, the tenth, the hundredth, and so on.
        """
        if self.policy == "raise":
            raise error
        if self.policy == "warn":
            times = self._times[kind] = self._times[kind] + 1
            if times == 10 ** (len(str(times)) - 1):
                _log.warning("%s (time %d that a %s is not finite)", error, times, kind)


def require_finite_rewards(reward: Array, step: int) -> None:
    """Refuse rewards (E,) that would ruin the weights.

    Args:
        reward: of each environment.
        step: in which they came, from 1.

    Raises:
        NonFiniteError: if one is NaN, or infinite as a float32.
    """
    # Numbers of Python's are summed without a warning, and for a few environments sooner.
    if sum(map(abs, reward.tolist())) <= _LARGEST:  # not so for NaN
        return
    # As an array's float64, since NumPy would round a number of Python's to float16.
    fits = np.abs(reward) <= np.float64(_LARGEST)
    if np.count_nonzero(fits) < len(reward):
        wrong = {int(env): float(reward[env]) for env in np.flatnonzero(~fits)}
        raise NonFiniteError(
            f"the reward is not finite as a float32 in step {step}, by environment index: {wrong}; "
            f"it would ruin the weights; look for a division by zero or an overflow in the "
            f"environment's reward, or say with on_nonfinite what is done about it"
        )


def require_finite_observations(obs: Any, step: int) -> None:
    """Refuse observations (E, ...) that would ruin the weights.

    Args:
        obs: of each environment: an array, or arrays in dicts and tuples.
        step: in which they came, from 1; 0 for a reset.

    Raises:
        NonFiniteError: if a number is NaN or infinite.
    """
    if type(obs) is np.ndarray:
        if obs.dtype.kind == "f" and not _are_finite(obs):
            raise NonFiniteError(_described(obs, step))
    elif isinstance(obs, (Mapping, tuple)):
        for part in obs.values() if isinstance(obs, Mapping) else obs:
            require_finite_observations(part, step)


def _are_finite(numbers: Array) -> bool:
    if numbers.size <= _FEW and isfinite(sum(numbers.ravel().tolist())):
        return True
    return bool(np.isfinite(numbers).all())


def _described(obs: Array, step: int) -> str:
    wrong: dict[int, str] = {}
    for env, *place in np.argwhere(~np.isfinite(obs)).tolist():
        wrong.setdefault(env, f"{obs[env][tuple(place)]} at {place}")
    when = f"in step {step}" if step else "after a reset"
    return (
        f"the observation is not finite {when}, the first number of each by environment index: "
        f"{wrong}; it would ruin the weights; look for a division by zero or an overflow in the "
        f"environment's observation, or say with on_nonfinite what is done about it"
    )
