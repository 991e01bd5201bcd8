"""Places drawn in proportion to their priorities, and cheap changes of these.

A sum tree, made for NumPy: wide instead of binary. A draw goes down a level in a
few calls for the whole batch. A block of 32 places has one sum, so that two
levels and a row of sums hold a million places; a binary tree has twenty levels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sbdqn.types import Array, IntArray

_SHIFT = np.array(5)  # of a number, NumPy would make an array each time
_WIDTH = 1 << 5  # places, or sums, of a block: the fastest for batches of 32 to 64
_MOST_AT_TOP = 4096  # to cumulate more of them takes longer than to go down a level
_MOST_WAITING = 512  # places whose sums wait for the next draw


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
        self._use(1)
        self._is_cumulative = True
        self._waiting = np.zeros(_MOST_WAITING, dtype=np.int64)  # places whose sums wait
        self._n_waiting = 0
        self._descent = _Descent(0)

    @staticmethod
    def nbytes(capacity: int) -> int:
        """Bytes that a tree of this capacity allocates, but for some KB."""
        blocks = _blocks(capacity)
        return 8 * (_WIDTH * sum(blocks) + 2 * blocks[-1] + 1)

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        if self._n_waiting:
            self._sum_up(self._waiting[: self._n_waiting])
            self._n_waiting = 0
        if not self._is_cumulative:
            sums, through = self._top
            torch.cumsum(sums, 0, out=through)
            self._is_cumulative = True
        return float(self._through[-1])

    def get(self, place: IntArray) -> Array:
        """Priorities (B,) of places, float64."""
        return self._priority.take(place)

    def set(self, place: IntArray, priority: float | Array) -> None:
        """Give places (B,) finite priorities of at least 0; the last of duplicates counts."""
        self._priority[place] = priority
        begin, end = self._n_waiting, self._n_waiting + len(place)
        if end <= _MOST_WAITING:
            self._waiting[begin:end] = place
            self._n_waiting = end
        else:
            self._sum_up(np.concatenate((self._waiting[:begin], place)))
            self._n_waiting = 0

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Places (count,), one from each of as many equal strata of the total, in order.

        A place of priority 0 is never drawn. The total must be above 0.
        """
        total = self.total
        assert total > 0, "no place has a priority above 0"
        if self._descent.count != count:
            self._descent = _Descent(count)
        mass = self._descent.mass
        np.add(self._descent.row, rng.random(count), out=mass)
        mass *= total / count
        if mass[-1] >= total:  # by rounding
            mass[-1] = math.nextafter(total, 0.0)
        index = self._through.searchsorted(mass, side="right")
        mass -= self._cumulative.take(index)
        for level in self._levels[:0:-1]:
            index = self._descent.into(level, index)
            self._descent.leave_behind()
        return self._descent.into(self._levels[0], index)

    def _sum_up(self, place: IntArray) -> None:
        """Sum the blocks of these places, from below, all but the cumulative sums."""
        block = place >> _SHIFT
        if block.size > len(self._levels[0]):
            block = np.arange(len(self._levels[0]))
        for level, sums in zip(self._levels, self._sums, strict=True):
            sums[block] = np.add.reduce(level.take(block, axis=0), axis=1)
            if sums is not self._sums[-1]:
                block = block >> _SHIFT
        if len(self._through) < len(self._sums[-1]):
            last = int(block[block.argmax()])
            if last >= len(self._through):
                self._use(last + 1)
        self._is_cumulative = False

    def _use(self, count: int) -> None:
        """Let the first of the top be all: the others have always been 0."""
        self._through = self._cumulative[1 : 1 + count]
        self._top = _tensors(self._sums[-1][:count], self._through)


class _Descent:
    """The way of a batch down the tree, in memory that is used again.

    Args:
        count: B.

    Attributes:
        row: (B,) numbers from 0.
        mass: (B,) what is left, within the block that was reached.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.row = np.arange(count)
        self.mass = np.zeros(count)
        self._column = self.mass[:, None]
        self._blocks = np.zeros((count, _WIDTH))
        self._through = np.zeros((count, _WIDTH))  # sums up to each child, with it
        self._tensors = _tensors(self._blocks, self._through)
        self._is_beyond = np.zeros((count, _WIDTH), dtype=np.bool_)
        self._ends_beyond = self._is_beyond[:, -1]

    def into(self, level: Array, index: IntArray) -> IntArray:
        """Children (B,) that the mass falls on; overwrites their blocks (B,) of a level."""
        level.take(index, axis=0, out=self._blocks, mode="clip")
        blocks, through = self._tensors
        torch.cumsum(blocks, 1, out=through)
        beyond = np.greater(self._through, self._column, out=self._is_beyond)
        if 0 in self._ends_beyond.tobytes():
            # Rounding has put a mass at the end of its block, or after it.
            np.minimum(self.mass, np.nextafter(self._through[:, -1], 0.0), out=self.mass)
            np.greater(self._through, self._column, out=beyond)
        self._child: IntArray = beyond.argmax(axis=1)
        index <<= _SHIFT
        index += self._child
        return index

    def leave_behind(self) -> None:
        """Take what lies before the child off the mass."""
        before = self._through[self.row, self._child - 1]
        self.mass -= np.where(self._child > 0, before, 0.0)


def _tensors(values: Array, through: Array) -> tuple[Tensor, Tensor]:
    """The same memory, for torch: it cumulates in a quarter of the time that NumPy takes."""
    with torch.inference_mode(False):  # or they could be written to there alone
        return torch.from_numpy(values), torch.from_numpy(through)


def _blocks(capacity: int) -> list[int]:
    """Number of blocks of each level, from below."""
    blocks = [-(-capacity // _WIDTH)]
    while blocks[-1] > _MOST_AT_TOP:
        blocks.append(-(-blocks[-1] // _WIDTH))
    return blocks
