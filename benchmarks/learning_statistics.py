"""What the rows of `learning.py` say: figures of one run, and of many seeds with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 9_999
FEWEST_SEEDS = 5  # of an interval; the percentiles of fewer lie too close
SEED = 0  # of the resampling, so that the same rows give the same intervals

Array = np.ndarray[Any, Any]
Statistic = Callable[..., Any]  # of samples, along `axis`


@dataclass(frozen=True)
class Curve:
    """One seed.

    Args:
        timesteps: of each evaluation on the way.
        episodes: training episodes that had ended by then.
        means: mean returns of the evaluations.
        final: mean return of the final policy.
        cpu_seconds: of training.
        seconds: of training, by the clock.
        solved_after: training episodes, math.inf for never, None where it was not asked.
    """

    timesteps: Array
    episodes: Array
    means: Array
    final: float
    cpu_seconds: float
    seconds: float
    solved_after: float | None = None

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]]) -> Curve:
        """The rows of one run."""
        way = [row for row in rows if row["kind"] == "evaluation"]
        (final,) = (row for row in rows if row["kind"] == "final")
        solved = [float(row["episodes"] or "inf") for row in rows if row["kind"] == "solved_after"]
        return cls(
            timesteps=np.array([int(row["timesteps"]) for row in way]),
            episodes=np.array([int(row["episodes"]) for row in way]),
            means=np.array([float(row["mean"]) for row in way]),
            final=float(final["mean"]),
            cpu_seconds=float(final["cpu_seconds"]),
            seconds=float(final["seconds"]),
            solved_after=solved[0] if solved else None,
        )

    def first_at(self, threshold: float) -> int | None:
        """The place of the first evaluation that reached it."""
        reached = np.flatnonzero(self.means >= threshold)
        return int(reached[0]) if len(reached) else None

    def timesteps_to(self, threshold: float) -> float:
        """Timesteps at the first evaluation that reached it; math.inf for never."""
        place = self.first_at(threshold)
        return math.inf if place is None else float(self.timesteps[place])

    def episodes_to(self, threshold: float) -> float:
        """Training episodes at the first evaluation that reached it; math.inf for never."""
        place = self.first_at(threshold)
        return math.inf if place is None else float(self.episodes[place])

    def held(self, threshold: float) -> tuple[int, int]:
        """How many evaluations after the first that reached it did so too, and of how many."""
        place = self.first_at(threshold)
        later = self.means[len(self.means) if place is None else place + 1 :]
        return int((later >= threshold).sum()), len(later)


class Estimate(NamedTuple):
    """A figure with its 95 % interval; None where there is none."""

    value: float
    low: float | None
    high: float | None


def mean(sample: Array, axis: int = -1) -> Any:
    return np.mean(sample, axis=axis)


def interquartile_mean(sample: Array, axis: int = -1) -> Any:
    """The mean without the lowest and the highest quarter, as `rliable` has it."""
    return stats.trim_mean(sample, 0.25, axis=axis)


def worst_tenth(sample: Array, axis: int = -1) -> Any:
    """The mean of the lowest tenth, of one value at least."""
    count = math.ceil(sample.shape[axis] / 10)
    return np.mean(np.sort(sample, axis=axis).take(range(count), axis=axis), axis=axis)


def difference(statistic: Statistic) -> Statistic:
    """Of a statistic of two samples."""
    return lambda first, second, axis=-1: statistic(first, axis=axis) - statistic(second, axis=axis)


def estimate(statistic: Statistic, *samples: Any) -> Estimate:
    """A statistic with its bootstrap percentile interval; each sample is a stratum.

    There is no interval with fewer than `FEWEST_SEEDS` in a sample, and no figure with none.

    Args:
        statistic: of the samples.
        samples: a value for each seed.
    """
    arrays = [np.asarray(sample) for sample in samples]
    fewest = min(map(len, arrays))
    if fewest == 0:
        return Estimate(math.nan, None, None)
    value = float(statistic(*arrays))
    if fewest < FEWEST_SEEDS:
        return Estimate(value, None, None)
    low, high = interval(statistic, *arrays)
    return Estimate(value, float(low), float(high))


def interval(statistic: Statistic, *samples: Array) -> tuple[Any, Any]:
    """The bootstrap percentile interval of 95 %, along the first axis of the samples."""
    found = stats.bootstrap(
        samples,
        statistic,
        axis=0,
        n_resamples=RESAMPLES,
        batch=1_000,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return found.low, found.high


class Held(NamedTuple):
    """Of each seed that has evaluations after the first at the threshold."""

    held: Array  # how many of them are at the threshold
    later: Array  # how many there are

    @classmethod
    def of(cls, curves: Sequence[Curve], threshold: float) -> Held:
        """Seeds that never got there, or only with their last evaluation, have none."""
        counts = [curve.held(threshold) for curve in curves]
        pairs = np.array([pair for pair in counts if pair[1]], dtype=int).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1])

    def seeds(self) -> Array:
        """What is resampled: the places of the seeds."""
        return np.arange(len(self.later))

    def share(self, seeds: Array, axis: int = -1) -> Any:
        """Of the later evaluations of these seeds, those at the threshold."""
        return self.held[seeds].sum(axis=axis) / self.later[seeds].sum(axis=axis)


def stability(curves: Sequence[Curve], threshold: float) -> Estimate:
    """The share of later evaluations that hold the threshold, over all seeds that reached it."""
    held = Held.of(curves, threshold)
    return estimate(held.share, held.seeds())


def stability_difference(
    first: Sequence[Curve], second: Sequence[Curve], threshold: float
) -> Estimate:
    """How much more of the first's later evaluations hold it than of the second's."""
    one, other = Held.of(first, threshold), Held.of(second, threshold)

    def less(ours: Array, theirs: Array, axis: int = -1) -> Any:
        return one.share(ours, axis=axis) - other.share(theirs, axis=axis)

    return estimate(less, one.seeds(), other.seeds())
