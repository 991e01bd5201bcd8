"""A replay: the ring, and a rule that draws from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from sbdqn.errors import NotReadyError
from sbdqn.replay.storage import Storage
from sbdqn.types import Array, Batch, BoolArray, Clock, IntArray, Row, Tensors


class DrawRule(Protocol):
    """Which transitions are drawn, and with what weight."""

    def draw(
        self, count: int, clock: Clock, rng: np.random.Generator
    ) -> tuple[IntArray, Array | None]:
        """Sampleable places (B,), and their importance weights (B,); None for 1."""

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        """As `Replay.feedback`."""

    def state_dict(self) -> dict[str, Any]:
        """All that later draws depend on, but for the storage and the generator."""

    def require_fit(self, state: Mapping[str, Any], sampleable: BoolArray) -> None:
        """Refuse a state that `load_state_dict` could not become.

        Args:
            state: what another rule said of itself.
            sampleable: which of the places in use of that rule's storage are so.

        Raises:
            ConfigurationError: if it is not of such a rule.
            CheckpointError: if it is damaged.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described; the storage has done so before."""


@runtime_checkable
class AheadRule(DrawRule, Protocol):
    """A rule whose draws do not depend on feedback to those before them."""

    def draw_several(
        self, size: int, count: int, clock: Clock, rng: np.random.Generator
    ) -> tuple[IntArray, Array | None]:
        """What `count` calls of `draw` give, one after the other (count * size,)."""


class RingReplay:
    """Draws batches from a `Storage` by a rule.

    Args:
        storage: what is drawn from.
        rule: says what is drawn.
        seed: of the generator.
    """

    def __init__(self, storage: Storage, rule: DrawRule, seed: np.random.SeedSequence) -> None:
        self.storage = storage
        self._rule = rule
        self._ahead = rule if isinstance(rule, AheadRule) else None
        self.seed(seed)

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

    @property
    def draws_ahead(self) -> bool:
        """Whether no feedback changes what is drawn after it."""
        return self._ahead is not None

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Restart the generator."""
        self._rng = np.random.default_rng(seed)

    def add(self, row: Row) -> None:
        """Store one step of all environments."""
        self.storage.add(row)

    def sample(self, batch_size: int, clock: Clock) -> Batch:
        """Draw a batch, with replacement.

        Raises:
            NotReadyError: if there is nothing to draw.
        """
        if not self.storage.sampleable:
            raise _nothing_to_draw()
        index, weight = self._rule.draw(batch_size, clock, self._rng)
        return self.storage.read(index, weight)

    def sample_several(self, batch_size: int, count: int, clock: Clock) -> list[Batch]:
        """The batches of as many calls of `sample`, all in memory at once.

        Raises:
            NotReadyError: if there is nothing to draw.
        """
        if self._ahead is None:
            return [self.sample(batch_size, clock) for _ in range(count)]
        if not self.storage.sampleable:
            raise _nothing_to_draw()
        index, weight = self._ahead.draw_several(batch_size, count, clock, self._rng)
        batch = self.storage.read(index, weight)
        columns = (_split(column, batch_size) for column in batch)
        return list(map(Batch._make, zip(*columns, strict=True)))

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        """Tell the rule how surprising the transitions at `index` (B,) were."""
        self._rule.feedback(index, surprise)

    def state_dict(self) -> dict[str, Any]:
        """The storage, the rule and the generator."""
        return {
            "storage": self.storage.state_dict(),
            "rule": self._rule.state_dict(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described, or, if that does not fit, stay as it is.

        Raises:
            ConfigurationError: if it is of a replay of another shape or rule.
            CheckpointError: if it is damaged.
        """
        self.storage.require_fit(state["storage"])
        self._rule.require_fit(state["rule"], np.asarray(state["storage"]["span"]) > 0)
        type(self._rng.bit_generator)().state = state["rng"]  # which refuses many
        self.storage.load_state_dict(state["storage"])
        self._rule.load_state_dict(state["rule"])
        self._rng.bit_generator.state = state["rng"]


def _nothing_to_draw() -> NotReadyError:
    return NotReadyError("the replay holds no transition that can be sampled yet")


def _split(column: Tensors, size: int) -> Sequence[Tensors]:
    """Views of the parts, of so many rows each."""
    if isinstance(column, dict):
        parts = [_split(part, size) for part in column.values()]
        return [dict(zip(column, each, strict=True)) for each in zip(*parts, strict=True)]
    # `Tensor.split` takes longer.
    return column.view(-1, size, *column.shape[1:]).unbind()
