"""Places drawn in proportion to their priorities, and cheap changes of these.

A sum tree, made for NumPy: wide instead of binary. A draw goes down a level in a
few calls for the whole batch. A block of 32 places has one sum, so that two
levels and a row of sums hold a million places; a binary tree has twenty levels.
"""

from __future__ import annotations

import numpy as np

from sbdqn.types import Array, IntArray

_SHIFT = 5
_WIDTH = 1 << _SHIFT  # places, or sums, of a block: the fastest for batches of 32 to 64
_MOST_AT_TOP = 4096  # to cumulate more of them takes longer than to go down a level
_MOST_WAITING = 256  # calls of `set` whose sums wait for the next draw


class SumTree:
    """Priorities of places, drawn from in proportion to them.

    The places lie in blocks, and the level above holds the sum of each block. It
    lies in blocks again, until few sums are left. A sum is always taken afresh of
    the whole block, so no rounding error outlives the priorities it came from.
    The sums wait for the next draw: to change a priority is only to write it.

    Args:
        capacity: number of places. Each has priority 0 at first.
    """

    def __init__(self, capacity: int) -> None:
        # NumPy's zeros take no memory until they are written.
        self._levels = [np.zeros((blocks, _WIDTH)) for blocks in _blocks(capacity)]
        self._priority = self._levels[0].reshape(-1)[:capacity]
        top = np.zeros(len(self._levels[-1]))
        self._sums = [*(level.reshape(-1) for level in self._levels[1:]), top]  # of each level
        self._cumulative = np.zeros(1 + top.size)  # sums up to each of the top, then all
        self._changed: list[IntArray] = []  # blocks whose sums wait

    @staticmethod
    def nbytes(capacity: int) -> int:
        """Bytes that a tree of this capacity allocates."""
        blocks = _blocks(capacity)
        return 8 * (_WIDTH * sum(blocks) + 2 * blocks[-1] + 1)

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        self._sum_up()
        return float(self._cumulative[-1])

    def get(self, place: IntArray) -> Array:
        """Priorities (B,) of places, float64."""
        return self._priority.take(place)

    def set(self, place: IntArray, priority: float | Array) -> None:
        """Give places (B,) finite priorities of at least 0; the last of duplicates counts."""
        self._priority[place] = priority
        self._changed.append(place >> _SHIFT)
        if len(self._changed) > _MOST_WAITING:
            self._sum_up()

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Places (count,), one from each of as many equal strata of the total, in order.

        A place of priority 0 is never drawn. The total must be above 0.
        """
        total = self.total
        assert total > 0, "no place has a priority above 0"
        row = np.arange(count)
        mass = _below(total, (row + rng.random(count)) * (total / count))
        index = self._cumulative.searchsorted(mass, side="right") - 1
        mass -= self._cumulative[index]
        before = np.zeros((count, _WIDTH + 1))  # each child, then all of them
        through = before[:, 1:]
        for level in reversed(self._levels):
            np.add.accumulate(level.take(index, axis=0), axis=1, out=through)
            mass = _below(through[:, -1], mass)
            child = (through > mass[:, None]).argmax(axis=1)
            mass -= before[row, child]
            index = (index << _SHIFT) + child
        return index

    def _sum_up(self) -> None:
        """Sum the blocks with changes, from below."""
        if not self._changed:
            return
        block = np.concatenate(self._changed)
        self._changed.clear()
        if block.size > len(self._levels[0]):
            block = np.arange(len(self._levels[0]))
        for level, sums in zip(self._levels, self._sums, strict=True):
            sums[block] = level.take(block, axis=0).sum(axis=1)
            block = block >> _SHIFT
        np.add.accumulate(self._sums[-1], out=self._cumulative[1:])


def _below(total: float | Array, mass: Array) -> Array:
    """The mass (B,), less where rounding has put it at the total or above."""
    return np.minimum(mass, np.nextafter(total, 0.0))


def _blocks(capacity: int) -> list[int]:
    """Number of blocks of each level, from below."""
    blocks = [-(-capacity // _WIDTH)]
    while blocks[-1] > _MOST_AT_TOP:
        blocks.append(-(-blocks[-1] // _WIDTH))
    return blocks
