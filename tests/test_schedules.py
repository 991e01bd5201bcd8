"""Schedules map absolute counters to values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from sbdqn.errors import ConfigurationError
from sbdqn.schedules import Constant, Exponential, Linear, Multiplicative, OfProgress
from sbdqn.types import Clock


@pytest.mark.parametrize("count", [0, 1, 10**9])
def test_constant_never_changes(count: int) -> None:
    assert Constant(0.1)(count) == 0.1


@pytest.mark.parametrize(
    ("count", "value"), [(0, 1.0), (25, 0.8), (50, 0.6), (99, 0.208), (100, 0.2), (10**9, 0.2)]
)
def test_linear_is_a_straight_line_and_then_its_end(count: int, value: float) -> None:
    assert Linear(1.0, 0.2, 100)(count) == pytest.approx(value, abs=1e-12)


def test_linear_may_rise() -> None:
    assert [Linear(0.4, 1.0, 3)(count) for count in range(5)] == pytest.approx(
        [0.4, 0.6, 0.8, 1.0, 1.0]
    )


def test_linear_of_no_duration_is_at_its_end_from_the_start() -> None:
    assert Linear(1.0, 0.05, 0)(0) == 0.05


def test_linear_ends_exactly_at_its_end() -> None:
    assert Linear(1.0, 0.1, 3)(3) == 0.1  # 1.0 + (0.1 - 1.0) is 0.09999999999999998


def test_exponential_decays_towards_its_end() -> None:
    schedule = Exponential(1.0, 0.5, rate=0.1)
    assert schedule(0) == 1.0
    assert schedule(10) == pytest.approx(0.5 + 0.5 / math.e)
    assert schedule(10_000) == pytest.approx(0.5)


def test_exponential_of_rate_zero_stands_still() -> None:
    assert Exponential(0.7, 0.1, rate=0.0)(10**6) == pytest.approx(0.7)


def test_multiplicative_halves_until_it_meets_its_end() -> None:
    schedule = Multiplicative(1.0, 0.1, factor=0.5)
    assert [schedule(count) for count in range(6)] == [1.0, 0.5, 0.25, 0.125, 0.1, 0.1]


def test_multiplicative_of_factor_one_stands_still() -> None:
    assert Multiplicative(0.7, 0.1, factor=1.0)(10**6) == 0.7


@pytest.mark.parametrize(
    "make",
    [
        lambda per: Linear(1.0, 0.0, 100, per=per),
        lambda per: Exponential(1.0, 0.0, 0.01, per=per),
        lambda per: Multiplicative(1.0, 0.0, 0.99, per=per),
    ],
)
def test_each_schedule_reads_the_counter_it_was_told_to(make: Callable[[str], Any]) -> None:
    clock = Clock(steps=90, episodes=3)
    assert make("step").at(clock) == make("step")(90)
    assert make("episode").at(clock) == make("episode")(3)
    assert make("step").at(clock) != make("episode").at(clock)


def test_constant_reads_no_counter() -> None:
    assert Constant(2.5, per="episode").at(Clock(90, 3)) == 2.5


def test_a_schedule_does_not_care_how_long_the_current_learn_is() -> None:
    schedule = Linear(1.0, 0.0, 100)
    assert schedule.at(Clock(50, 0, 60)) == schedule.at(Clock(50, 0, 10**6)) == 0.5


@pytest.mark.parametrize(
    ("clock", "remaining"),
    [
        (Clock(0, 0, 100), 1.0),
        (Clock(25, 9, 100), 0.75),
        (Clock(100, 9, 100), 0.0),
        (Clock(107, 9, 100), 0.0),  # eight environments go past the end
        (Clock(40, 9, 0), 1.0),  # outside of learn
    ],
)
def test_of_progress_passes_the_share_that_remains(clock: Clock, remaining: float) -> None:
    assert OfProgress(lambda share: 10 * share).at(clock) == pytest.approx(10 * remaining)


def test_of_progress_returns_a_float_whatever_the_function_returns() -> None:
    assert type(OfProgress(lambda share: 1).at(Clock(0))) is float


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(1.0, per="minute"), "per must be 'step' or 'episode', not 'minute'"),
        (lambda: Linear(1.0, 0.0, 9, per="steps"), "per must be 'step' or 'episode', not 'steps'"),
        (lambda: Exponential(1.0, 0.0, 0.1, per=2), "per must be 'step' or 'episode', not 2"),
        (lambda: Multiplicative(1.0, 0.0, 0.1, per=2), "per must be 'step' or 'episode', not 2"),
        (lambda: Linear(1.0, 0.0, -1), "duration must be at least 0, not -1"),
        (lambda: Exponential(1.0, 0.0, -0.1), "rate must be at least 0, not -0.1"),
        (lambda: Exponential(1.0, 0.0, math.nan), "rate must be a finite number, not nan"),
        (lambda: Multiplicative(1.0, 0.0, 0.0), "factor must be above 0 and at most 1, not 0.0"),
        (lambda: Multiplicative(1.0, 0.0, 1.5), "factor must be above 0 and at most 1, not 1.5"),
        (lambda: Constant(math.nan), "value must be a finite number, not nan"),
        (lambda: Linear([0.5], 0.0, 10), "start must be a finite number, not [0.5]"),  # type: ignore[arg-type]
        (lambda: Linear(1.0, 10**400, 10), f"end must be a finite number, not {10**400}"),
        (lambda: Exponential(1.0, "0", rate=0.1), "end must be a finite number, not '0'"),  # type: ignore[arg-type]
        (lambda: Multiplicative(math.inf, 0.1, 0.5), "start must be a finite number, not inf"),
    ],
)
def test_what_has_no_meaning_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make()
    assert str(raised.value) == message


def test_schedules_are_values_that_compare_and_cannot_change() -> None:
    schedule = Linear(1.0, 0.1, 100)
    assert schedule == Linear(1.0, 0.1, 100) != Linear(1.0, 0.1, 100, per="episode")
    with pytest.raises(FrozenInstanceError):
        schedule.end = 0.5  # type: ignore[misc]
