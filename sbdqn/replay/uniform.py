"""Every transition with the same probability and the same weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sbdqn.errors import ConfigurationError
from sbdqn.protocols import ReplayLayout
from sbdqn.replay.ring_replay import RingReplay
from sbdqn.replay.storage import Storage
from sbdqn.types import BoolArray, Clock, IntArray


@dataclass(frozen=True)
class Uniform:
    """Uniform draws with replacement."""

    def nbytes(self, layout: ReplayLayout) -> int:
        """Bytes that `build(layout)` allocates."""
        return Storage.nbytes(layout)

    def build(self, layout: ReplayLayout) -> RingReplay:
        """Allocate the replay."""
        storage = Storage(layout)
        return RingReplay(storage, _UniformRule(storage), layout.seed)


class _UniformRule:
    """Draws every sampleable place with the same probability."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def draw(self, count: int, clock: Clock, rng: np.random.Generator) -> tuple[IntArray, None]:
        """Places (B,), all with a weight of 1."""
        return self._storage.draw(count, rng), None

    def draw_several(
        self, size: int, count: int, clock: Clock, rng: np.random.Generator
    ) -> tuple[IntArray, None]:
        """Places (count * B,), all with a weight of 1."""
        return self._storage.draw_several(size, count, rng), None

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        """Nothing to learn: surprise does not change a uniform draw."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a uniform draw depends on the storage alone."""
        return {}

    def require_fit(self, state: Mapping[str, Any], sampleable: BoolArray) -> None:
        """Refuse the state of a rule that has some."""
        if state:
            raise ConfigurationError(
                f"this replay draws uniformly, and the stored one has {', '.join(state)} besides "
                f"its transitions; use the replay that was stored"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to become."""
