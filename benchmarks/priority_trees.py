"""Microseconds that priorities cost an update, side by side with other sum trees.

An update draws a batch and gives each place of it a new priority; between two
updates new transitions come in, one place each. All trees live in one process
with one thread, take turns at every update, and hold the same priorities. In
training they find the cache full of other things, so 4 MiB are written between
the turns, unless a row says otherwise.

    pip install -e . cpprb torchrl
    python benchmarks/priority_trees.py

What is not installed, or does not fit the installed torch, is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import numpy as np

from sbdqn.replay.sum_tree import SumTree
from sbdqn.types import Array, IntArray

WARM_UP_UPDATES = 20
CACHE = np.zeros(4 * 2**20 // 8)


class Tree(Protocol):
    """What is measured of each tree."""

    def set(self, place: IntArray, priority: float | Array) -> None: ...

    def draw(self, count: int, rng: np.random.Generator) -> IntArray: ...


class BinaryTree:
    """The textbook's tree: NumPy for the whole batch, a level at a time."""

    def __init__(self, capacity: int) -> None:
        self.depth = max(1, (capacity - 1).bit_length())
        self.leaves = 1 << self.depth
        self.sums = np.zeros(2 * self.leaves)

    def set(self, place: IntArray, priority: float | Array) -> None:
        node = place + self.leaves
        self.sums[node] = priority
        self._sum_up(node)

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        mass = strata(count, self.sums[1], rng)
        node = np.ones(count, dtype=np.int64)
        for _ in range(self.depth):
            node = 2 * node
            left = self.sums.take(node)
            goes_right = mass >= left
            mass -= left * goes_right
            node += goes_right
        return node - self.leaves

    def _sum_up(self, node: IntArray) -> None:
        for _ in range(self.depth):
            node = node >> 1
            self.sums[node] = self.sums.take(2 * node) + self.sums.take(2 * node + 1)


class LazyBinaryTree(BinaryTree):
    """The same with sums that wait for the next draw."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.changed: list[IntArray] = []

    def set(self, place: IntArray, priority: float | Array) -> None:
        node = place + self.leaves
        self.sums[node] = priority
        self.changed.append(node)

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        self._sum_up(np.concatenate(self.changed))
        self.changed.clear()
        return super().draw(count, rng)


class TorchRLTree:
    """torchrl's tree in C++, without the sampler around it."""

    def __init__(self, capacity: int) -> None:
        from torchrl._torchrl import SumSegmentTreeFp64

        self.capacity = capacity
        self.tree = SumSegmentTreeFp64(capacity)

    def set(self, place: IntArray, priority: float | Array) -> None:
        self.tree[place] = priority

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        total = self.tree.query(0, self.capacity)
        places: IntArray = self.tree.scan_lower_bound(strata(count, total, rng))
        return places


class CpprbBuffer:
    """cpprb's replay: it does not give its C++ tree away.

    So its time has more in it: a second tree of minima, importance weights, and
    one number of each transition stored and read.
    """

    def __init__(self, capacity: int) -> None:
        from cpprb import PrioritizedReplayBuffer

        self.replay = PrioritizedReplayBuffer(capacity, {"obs": {}}, alpha=1.0)
        self.replay.add(obs=np.zeros(capacity), priorities=np.ones(capacity))

    def set(self, place: IntArray, priority: float | Array) -> None:
        if isinstance(priority, float):
            self.replay.add(obs=0.0, priorities=priority)
        else:
            self.replay.update_priorities(place, priority)

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        places: IntArray = self.replay.sample(count)["indexes"]
        return places


TREES: dict[str, Callable[[int], Tree]] = {
    "sbdqn": SumTree,
    "binary, NumPy": BinaryTree,
    "binary, NumPy, lazy sums": LazyBinaryTree,
    "torchrl, tree alone": TorchRLTree,
    "cpprb, whole replay": CpprbBuffer,
}


@dataclass(frozen=True)
class Work:
    """An update and the steps before it."""

    batch_size: int
    new_places: int = 4
    capacity: int = 1_000_000
    cold: bool = True

    def __str__(self) -> str:
        cache = "" if self.cold else ", cache warm"
        return f"{self.batch_size} of {self.capacity:,}, {self.new_places} new{cache}"


WORKS = (
    Work(32),
    Work(32, cold=False),
    Work(32, new_places=0),
    Work(64),
    Work(256),
    Work(32, capacity=50_000),
    Work(32, capacity=4_000_000),
)


def strata(count: int, total: float, rng: np.random.Generator) -> Array:
    """One uniform draw from each of `count` equal parts of the total."""
    return (np.arange(count) + rng.random(count)) * (total / count)


def measure(work: Work, names: list[str], updates: int) -> dict[str, list[float]]:
    """Microseconds of each update, of each tree."""
    rng = np.random.default_rng(0)
    priority = rng.exponential(size=work.capacity)
    trees = {name: TREES[name](work.capacity) for name in names}
    for tree in trees.values():
        tree.set(np.arange(work.capacity), priority)
    micros: dict[str, list[float]] = {name: [] for name in names}
    for update in range(WARM_UP_UPDATES + updates):
        new = [
            np.array([(update * work.new_places + k) % work.capacity])
            for k in range(work.new_places)
        ]
        surprise = rng.exponential(size=work.batch_size)
        for name, tree in trees.items():
            if work.cold:
                np.add(CACHE, 1.0, out=CACHE)
            started = time.perf_counter()
            for place in new:
                tree.set(place, 1.0)
            drawn = tree.draw(work.batch_size, rng)
            tree.set(drawn, surprise)
            micros[name].append(1e6 * (time.perf_counter() - started))
    return {name: times[WARM_UP_UPDATES:] for name, times in micros.items()}


def available() -> list[str]:
    """The trees that can be measured here; says why the others cannot."""
    names = []
    for name, build in TREES.items():
        try:
            build(2)
        except ImportError as error:
            print(f"{name} is left out: {str(error).splitlines()[0][:80]}")
        else:
            names.append(name)
    return names


def versions() -> str:
    """The machine and the packages, on one line."""
    found = []
    for package in ("numpy", "torch", "sbdqn", "torchrl", "cpprb"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{', '.join(found)}"
    )


def _spread(values: list[float]) -> str:
    tenths = statistics.quantiles(values, n=10)
    return f"{statistics.median(values):.0f} ({tenths[0]:.0f} to {tenths[-1]:.0f})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=1000, help="timed updates of each tree")
    options = parser.parse_args()
    names = available()
    print(versions())
    print(f"microseconds: median (lowest to highest tenth) of {options.updates} updates\n")
    print(f"| batch | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for work in WORKS:
        micros = measure(work, names, options.updates)
        print(f"| {work} | {' | '.join(map(_spread, micros.values()))} |", flush=True)


if __name__ == "__main__":
    main()
