"""Figures of runs, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from learning_statistics import (
    Curve,
    Estimate,
    difference,
    estimate,
    interquartile_mean,
    mean,
    stability,
    stability_difference,
    worst_tenth,
)


def curve(*means: float, final: float = 0.0) -> Curve:
    """Evaluations every 10 timesteps, with 3 episodes between them."""
    places = np.arange(1, len(means) + 1)
    return Curve(10 * places, 3 * places, np.array(means), final, cpu_seconds=1.0, seconds=1.0)


def row(kind: str, timesteps: str, episodes: str, mean: str) -> dict[str, str]:
    of_evaluation = {"kind": kind, "timesteps": timesteps, "episodes": episodes, "mean": mean}
    return {**of_evaluation, "cpu_seconds": "2.5", "seconds": "3.5"}


def test_a_curve_has_what_the_rows_say():
    rows = [
        row("evaluation", "100", "7", "9.5"),
        row("evaluation", "200", "12", "475.0"),
        row("solved_after", "90", "6", "195.2"),
        row("final", "210", "13", "480.0"),
    ]
    found = Curve.of(rows)
    assert found.timesteps.tolist() == [100, 200]
    assert found.episodes.tolist() == [7, 12]
    assert found.means.tolist() == [9.5, 475.0]
    assert (found.final, found.cpu_seconds, found.seconds) == (480.0, 2.5, 3.5)
    assert found.solved_after == 6.0
    assert Curve.of([rows[0], rows[3]]).solved_after is None
    assert Curve.of([row("solved_after", "", "", ""), rows[3]]).solved_after == math.inf


def test_a_threshold_is_reached_with_the_first_evaluation_at_it():
    found = curve(9.0, 475.0, 20.0, 500.0)
    assert (found.timesteps_to(475.0), found.episodes_to(475.0)) == (20.0, 6.0)
    assert found.held(475.0) == (1, 2)


def test_what_was_never_reached_was_never_held():
    found = curve(9.0, 474.9)
    assert (found.timesteps_to(475.0), found.episodes_to(475.0)) == (math.inf, math.inf)
    assert found.held(475.0) == (0, 0)


def test_the_last_evaluation_has_none_after_it():
    assert curve(9.0, 475.0).held(475.0) == (0, 0)


def test_stability_is_of_all_evaluations_of_the_seeds_that_got_there():
    curves = [
        curve(500, 500, 500, 500, 500),  # 4 of 4
        curve(9, 9, 9, 500, 9),  # 0 of 1
        curve(9, 9, 9, 9, 500),  # none after it
        curve(9, 9, 9, 9, 9),  # never
    ]
    found = stability(curves, 475.0)
    assert found == Estimate(4 / 5, None, None)
    assert math.isnan(stability(curves[2:], 475.0).value)
    assert stability(curves[:2], 475.0) == found
    many = stability([*curves, *4 * curves[:2]], 475.0)
    assert many.value == 4 / 5
    assert 0.0 < many.low < 4 / 5 < many.high <= 1.0


def test_stability_differs_by_the_shares_of_all_evaluations():
    steady = [curve(500, 500, 500, 500), curve(9, 9, 500, 500)]  # 4 of 4
    unsteady = [curve(500, 9, 9, 500), curve(9, 9, 500, 9)]  # 1 of 4
    found = stability_difference(3 * steady, 3 * unsteady, 475.0)
    assert found.value == 3 / 4
    assert 2 / 3 <= found.low < 3 / 4 < found.high <= 1.0  # all are of one kind or the other
    assert math.isnan(stability_difference(steady, [curve(9, 9)], 475.0).value)


def test_the_interquartile_mean_drops_a_quarter_on_each_side():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, -50.0])) == 1.5


@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (10, 0.0), (11, 0.5), (20, 0.5)])
def test_the_worst_tenth_is_one_value_at_least(count, expected):
    assert worst_tenth(np.arange(count)[::-1]) == expected


def test_an_interval_contains_the_figure_and_narrows_with_more_seeds():
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=10), rng.normal(size=1_000)
    for sample in (few, many):
        found = estimate(mean, sample)
        assert found.low < found.value < found.high
    # 1.96 standard errors on each side, about.
    assert found.high - found.low == pytest.approx(2 * 1.96 * many.std() / 1_000**0.5, rel=0.05)
    assert estimate(mean, few) == estimate(mean, few)


def test_equal_values_have_an_interval_without_width():
    assert estimate(interquartile_mean, [500.0] * 5) == Estimate(500.0, 500.0, 500.0)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_few_seeds_have_no_interval(seeds):
    few = [3.0] * seeds
    assert estimate(mean, few) == Estimate(3.0, None, None)
    assert estimate(difference(mean), few, 6 * [1.0]) == Estimate(2.0, None, None)
    assert estimate(difference(mean), 6 * [1.0], few) == Estimate(-2.0, None, None)


def test_two_libraries_are_resampled_apart():
    moving = [10.0, 12.0, 10.0, 12.0, 11.0]
    alone = estimate(mean, moving)
    found = estimate(difference(mean), moving, 6 * [1.0])
    assert found == pytest.approx([alone.value - 1.0, alone.low - 1.0, alone.high - 1.0], abs=0.1)
