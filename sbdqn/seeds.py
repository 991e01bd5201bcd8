"""One seed for a model, and one for each of its parts that draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np


class Seeds(NamedTuple):
    """One independent seed for each user of randomness."""

    env: np.random.SeedSequence
    network: np.random.SeedSequence
    exploration: np.random.SeedSequence
    replay: np.random.SeedSequence
    prediction: np.random.SeedSequence
    learner: np.random.SeedSequence

    @classmethod
    def of(cls, seed: int | None) -> Seeds:
        """The seeds that one number stands for; unpredictable ones for None."""
        return cls(*np.random.SeedSequence(seed).spawn(len(cls._fields)))

    @property
    def entropy(self) -> int:
        """The number that they stand for, where none was given too."""
        entropy: Any = self.env.entropy  # which may be an integer of NumPy's, as it was given
        return int(entropy)

    @property
    def env_key(self) -> tuple[int, ...]:
        """What tells the environments' seed from others of the same entropy."""
        return tuple(map(int, self.env.spawn_key))

    def with_env_key(self, key: Iterable[int]) -> Seeds:
        """The same, but for environments whose `env_key` is this one."""
        return self._replace(env=np.random.SeedSequence(self.env.entropy, spawn_key=tuple(key)))

    def after(self, num_timesteps: int) -> Seeds:
        """The same, but for environments that begin anew, and not as at first."""
        return self.with_env_key((*self.env_key, num_timesteps))


def as_integer(seed: np.random.SeedSequence) -> int:
    """A seed for an interface that takes 31 bits."""
    return int(seed.generate_state(1)[0] >> 1)
