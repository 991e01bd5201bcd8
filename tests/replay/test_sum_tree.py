"""Priorities: values by hand, what is drawn of them, and that sums stay what they should."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import chisquare

from sbdqn.replay.sum_tree import SumTree
from sbdqn.types import Array

TWO_LEVELS = 200_000  # 32 * 4096 places and more do not fit in one
CAPACITIES = (1, 2, 31, 32, 33, 1023, 1024, 1025, 131_072, 131_073, TWO_LEVELS)


class Everywhere:
    """A generator that says where in its stratum each draw is."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    def random(self, count: int) -> Array:
        return np.full(count, self.fraction)


def at(fraction: float) -> np.random.Generator:
    return cast(np.random.Generator, Everywhere(fraction))


ALMOST_ONE = float(np.nextafter(1.0, 0.0))


def tree_of(priority: Any, capacity: int | None = None) -> SumTree:
    tree = SumTree(capacity or len(priority))
    tree.set(np.arange(len(priority)), np.asarray(priority, dtype=np.float64))
    return tree


def test_each_stratum_is_drawn_from_once() -> None:
    tree = tree_of([1, 2, 0, 5])
    assert tree.total == 8
    assert tree.draw(8, at(0.0)).tolist() == [0, 1, 1, 3, 3, 3, 3, 3]
    assert tree.draw(8, at(0.5)).tolist() == [0, 1, 1, 3, 3, 3, 3, 3]
    assert tree.draw(4, at(0.25)).tolist() == [0, 1, 3, 3]  # 0.5, 2.5, 4.5, 6.5
    assert tree.draw(1, at(0.375)).tolist() == [3]  # exactly where 0, 1 and 2 end


def test_priorities_in_many_blocks_share_one_mass() -> None:
    tree = SumTree(TWO_LEVELS)
    tree.set(np.array([0, 31, 32, 1023, 1024, 150_000, TWO_LEVELS - 1]), np.arange(1.0, 8.0))
    assert tree.total == 28
    expected = np.repeat([0, 31, 32, 1023, 1024, 150_000, TWO_LEVELS - 1], np.arange(1, 8))
    assert tree.draw(28, at(0.0)).tolist() == expected.tolist()
    assert tree.draw(28, at(0.999)).tolist() == expected.tolist()


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_equal_priorities_are_drawn_once_each(capacity: int) -> None:
    tree = SumTree(capacity)
    tree.set(np.arange(capacity), 1.0)
    assert tree.total == capacity
    assert (tree.draw(capacity, np.random.default_rng(0)) == np.arange(capacity)).all()


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_one_place_can_hold_all_the_mass(capacity: int) -> None:
    for place in {0, capacity // 2, capacity - 1}:
        tree = SumTree(capacity)
        tree.set(np.array([place]), 0.1)
        assert set(tree.draw(7, np.random.default_rng(0)).tolist()) == {place}
        tree.set(np.array([place]), 0.0)
        assert tree.total == 0


def test_a_tree_without_priorities_has_nothing_to_draw() -> None:
    with pytest.raises(AssertionError, match="no place has a priority"):
        SumTree(10).draw(1, np.random.default_rng(0))


def test_the_last_of_duplicates_counts() -> None:
    tree = SumTree(40)
    tree.set(np.array([3, 35, 3, 3]), np.array([1.0, 2.0, 4.0, 8.0]))
    assert tree.get(np.array([3, 35, 3, 0])).tolist() == [8, 2, 8, 0]
    assert tree.total == 10


def test_a_change_counts_for_the_next_draw() -> None:
    tree = tree_of([1, 1, 1, 1])
    assert tree.draw(4, at(0.5)).tolist() == [0, 1, 2, 3]
    tree.set(np.array([1]), 0.0)
    tree.set(np.array([2]), 2.0)
    assert tree.draw(4, at(0.5)).tolist() == [0, 2, 2, 3]


def test_the_places_that_were_given_may_change_afterwards() -> None:
    tree, place = SumTree(100), np.array([70])
    tree.set(place, 3.0)
    place[:] = 0
    assert tree.total == 3


def test_priorities_are_float64_and_as_many_as_places() -> None:
    tree = tree_of([0.1, 0.2], capacity=33)
    assert tree.get(np.array([1, 0])).tolist() == [0.2, 0.1]
    assert tree.get(np.array([0])).dtype == np.float64
    with pytest.raises(IndexError):
        tree.set(np.array([33]), 1.0)


def test_frequencies_follow_the_priorities() -> None:
    rng = np.random.default_rng(1)
    priority = rng.exponential(size=TWO_LEVELS // 1000) + 0.05
    tree = SumTree(TWO_LEVELS)
    place = rng.choice(TWO_LEVELS, priority.size, replace=False)
    tree.set(place, priority)
    # A draw of one has a single stratum: independent draws, as chi-square wants them.
    draws = np.concatenate([tree.draw(1, rng) for _ in range(20_000)])
    counts = np.bincount(draws, minlength=TWO_LEVELS)
    assert counts.sum() == counts[place].sum()
    expected = priority / priority.sum() * draws.size
    assert chisquare(counts[place], expected).pvalue > 0.01


def test_a_batch_misses_its_share_by_less_than_one_stratum_on_either_side() -> None:
    rng = np.random.default_rng(2)
    priority = rng.random(1000) ** 3
    counts = np.bincount(tree_of(priority).draw(5000, rng), minlength=1000)
    share = priority / priority.sum() * 5000
    assert (abs(counts - share) < 2).all()


@pytest.mark.parametrize("capacity", [5, 100, TWO_LEVELS])
@pytest.mark.parametrize("fraction", [0.0, ALMOST_ONE, 1.0])
def test_rounding_never_draws_a_place_without_priority(capacity: int, fraction: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        priority = np.zeros(capacity)
        some = rng.choice(capacity - 1, min(capacity - 1, 50), replace=False)
        priority[some] = rng.choice([0.1, 0.3, 1e-12, 1e12], some.size)
        tree = tree_of(priority)
        for count in (1, 3, 32):
            assert tree.get(tree.draw(count, at(fraction))).min() > 0


@pytest.mark.parametrize("capacity", [32, TWO_LEVELS])
def test_a_sum_above_what_its_block_cumulates_to_stays_in_the_block(capacity: int) -> None:
    priority = np.zeros(capacity)
    priority[-31:] = 2.0**-53  # lost when added to 1 one by one, but not in the sum
    priority[-31] = 1.0
    tree = tree_of(priority)
    assert tree.total > np.cumsum(priority)[-1] == 1
    assert tree.draw(1, at(1.0)).tolist() == [capacity - 31]


def test_the_end_of_the_mass_belongs_to_the_last_place_with_priority() -> None:
    priority = np.zeros(200)
    priority[:150] = 0.1  # not a binary fraction: every sum is rounded
    tree = tree_of(priority)
    assert tree.draw(1, at(1.0)).tolist() == [149]
    assert tree.draw(32, at(1.0))[-1] == 149


def test_tiny_priorities_outlive_huge_ones() -> None:
    tree = tree_of([1e-12, 1e12, 1e-12, 1e-12])
    assert tree.draw(4, at(0.5)).tolist() == [1, 1, 1, 1]
    assert tree.draw(1, at(0.0)).tolist() == [0]
    tree.set(np.array([1]), 0.0)
    assert tree.total == 3e-12
    assert tree.draw(3, at(0.5)).tolist() == [0, 2, 3]


@pytest.mark.parametrize("priority", [1e-300, 1.0, 1e300])
def test_the_scale_of_the_priorities_does_not_matter(priority: float) -> None:
    tree = SumTree(1000)
    tree.set(np.array([10, 500, 999]), priority)
    assert set(tree.draw(300, np.random.default_rng(4)).tolist()) == {10, 500, 999}


def test_a_million_changes_leave_no_error() -> None:
    rng = np.random.default_rng(5)
    tree = SumTree(5000)
    for _ in range(250):
        tree.set(rng.integers(0, 5000, 4000), 10 ** rng.uniform(-6, 6, 4000))
        tree.draw(1, rng)
    priorities = tree.get(np.arange(5000))
    fresh = tree_of(priorities)
    assert tree.total == fresh.total == pytest.approx(priorities.sum(), rel=1e-14)
    tree.set(np.arange(5000), 0.5)
    assert tree.total == 2500


def test_many_changes_without_a_draw_between_them_are_all_counted() -> None:
    tree = SumTree(10_000)
    for place in range(2000):
        tree.set(np.array([5 * place]), 1.0)
    assert (tree.draw(2000, at(0.5)) == 5 * np.arange(2000)).all()


def test_changes_wait_in_little_memory() -> None:
    one, every, tree = np.array([7]), np.arange(100_000), SumTree(100_000)
    tracemalloc.start()
    for _ in range(10_000):
        tree.set(one, 1.0)
    one_by_one = tracemalloc.get_traced_memory()[1]
    tree.set(every, 1.0)
    assert tree.total == 100_000
    all_at_once = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one_by_one < 500_000
    assert all_at_once < 5_000_000


def test_what_was_drawn_stays_while_more_is_drawn() -> None:
    tree = tree_of([1, 1, 1, 1])
    first = tree.draw(4, at(0.5))
    tree.set(np.arange(3), 0.0)
    assert tree.draw(4, at(0.5)).tolist() == [3, 3, 3, 3]
    assert first.tolist() == [0, 1, 2, 3]


def test_a_tree_that_was_first_used_in_inference_mode_goes_on_outside() -> None:
    with torch.inference_mode():
        tree = tree_of(np.ones(100))
        assert tree.draw(4, at(0.5)).tolist() == [12, 37, 62, 87]
    tree.set(np.arange(50), 0.0)
    assert tree.draw(2, at(0.0)).tolist() == [50, 75]
    assert tree.draw(4, at(0.0)).tolist() == [50, 62, 75, 87]
    with torch.inference_mode():
        tree.set(np.arange(50), 1.0)
        assert tree.draw(4, at(0.0)).tolist() == [0, 25, 50, 75]


def test_the_same_generator_draws_the_same_places() -> None:
    tree = tree_of(np.random.default_rng(6).random(300))
    first, second = (tree.draw(32, np.random.default_rng(7)).tolist() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_the_size_is_known_before(capacity: int) -> None:
    tree = SumTree(capacity)
    arrays = [*tree._levels, tree._sums[-1], tree._cumulative]
    assert SumTree.nbytes(capacity) == sum(array.nbytes for array in arrays)
    assert SumTree.nbytes(32) == 8 * (32 + 1 + 2)


CHANGE = st.tuples(st.integers(0, 10**6), st.integers(0, 8))


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.sampled_from(CAPACITIES),
    batches=st.lists(st.lists(CHANGE, min_size=1, max_size=20), min_size=1, max_size=6),
    count=st.integers(1, 64),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 0.875]),
)
def test_it_draws_what_a_plain_cumulative_sum_does(
    capacity: int, batches: list[list[tuple[int, int]]], count: int, fraction: float
) -> None:
    tree, priority = SumTree(capacity), np.zeros(capacity)
    for batch in batches:
        place, value = (np.array(column) for column in zip(*batch, strict=True))
        tree.set(place % capacity, value)
        priority[place % capacity] = value
        assert tree.total == priority.sum()  # of integers: exact
        if priority.any():
            mass = (np.arange(count) + fraction) * (priority.sum() / count)
            expected = np.searchsorted(np.cumsum(priority), mass, side="right")
            assert tree.draw(count, at(fraction)).tolist() == expected.tolist()
    assert (tree.get(np.arange(capacity)) == priority).all()
