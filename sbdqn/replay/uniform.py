"""Every transition with the same probability and the same weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sbdqn.protocols import ReplayLayout
from sbdqn.replay.storage import Storage, storage_nbytes
from sbdqn.types import Batch, Clock, Row


@dataclass(frozen=True)
class Uniform:
    """Uniform draws with replacement."""

    def nbytes(self, layout: ReplayLayout) -> int:
        """Bytes that `build(layout)` allocates."""
        return storage_nbytes(layout)

    def build(self, layout: ReplayLayout) -> UniformReplay:
        """Allocate the replay."""
        return UniformReplay(layout)


class UniformReplay:
    """Uniform draws from a `Storage`.

    Args:
        layout: what to hold.
    """

    def __init__(self, layout: ReplayLayout) -> None:
        self.storage = Storage(layout)
        self._rng = np.random.default_rng(layout.seed)

    @property
    def gamma(self) -> float:
        """Discount per step."""
        return self.storage.gamma

    @gamma.setter
    def gamma(self, gamma: float) -> None:
        self.storage.gamma = gamma

    @property
    def stored(self) -> int:
        """Transitions held."""
        return self.storage.stored

    @property
    def sampleable(self) -> int:
        """Transitions that can be drawn."""
        return self.storage.sampleable

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Restart the generator."""
        self._rng = np.random.default_rng(seed)

    def add(self, row: Row) -> None:
        """Store one step of all environments."""
        self.storage.add(row)

    def sample(self, batch_size: int, clock: Clock) -> Batch:
        """Draw a batch, with replacement."""
        return self.storage.read(self.storage.draw(batch_size, self._rng))

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        """Nothing to learn: surprise does not change a uniform draw."""

    def state_dict(self) -> dict[str, Any]:
        """The storage and the generator."""
        return {"storage": self.storage.state_dict(), "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self.storage.load_state_dict(state["storage"])
        self._rng.bit_generator.state = state["rng"]
