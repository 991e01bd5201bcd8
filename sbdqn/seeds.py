"""One seed for a model, and one for each of its parts that draw."""

from __future__ import annotations

from collections.abc import Sequence
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
    def of(cls, seed: int | None, restarts: Sequence[int] = ()) -> Seeds:
        """The seeds that one number stands for; unpredictable ones for None.

        Args:
            seed: the number.
            restarts: timesteps at which environments began anew, one `after` for each.
        """
        seeds = cls(*np.random.SeedSequence(seed).spawn(len(cls._fields)))
        for num_timesteps in restarts:
            seeds = seeds.after(num_timesteps)
        return seeds

    @property
    def entropy(self) -> int:
        """The number that they stand for, where none was given too."""
        entropy: Any = self.env.entropy  # which may be an integer of NumPy's, as it was given
        return int(entropy)

    @property
    def restarts(self) -> list[int]:
        """The timesteps of every `after` that led here."""
        return list(self.env.spawn_key[1:])

    def after(self, num_timesteps: int) -> Seeds:
        """The same, but for environments that begin anew, and not as at first."""
        own = np.random.SeedSequence(
            self.env.entropy, spawn_key=(*self.env.spawn_key, num_timesteps)
        )
        return self._replace(env=own)


def as_integer(seed: np.random.SeedSequence) -> int:
    """A seed for an interface that takes 31 bits."""
    return int(seed.generate_state(1)[0] >> 1)
