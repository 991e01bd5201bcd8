"""The seams accept whatever has the methods, and nothing else."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from sbdqn import backups, exploration
from sbdqn.heads import Scalar
from sbdqn.networks import MlpPolicy
from sbdqn.protocols import (
    Backup,
    Exploration,
    Head,
    PolicySpec,
    ReplaySpec,
    Schedule,
    value_at,
)
from sbdqn.replay import Uniform
from sbdqn.schedules import Constant, Exponential, Linear, Multiplicative, OfProgress
from sbdqn.types import Clock


@pytest.mark.parametrize("number", [0, 3, 0.25])
def test_the_value_of_a_number_is_the_number_whatever_the_clock_shows(number: float) -> None:
    assert value_at(number, Clock(0)) == number
    assert value_at(number, Clock(10**9, 5, 10)) == number


def test_the_value_of_a_schedule_is_read_from_the_clock() -> None:
    assert value_at(Linear(1.0, 0.0, 100), Clock(25)) == 0.75


def test_an_object_with_the_method_is_a_schedule_without_a_base_class() -> None:
    class Halving:
        def at(self, clock: Clock) -> float:
            return 0.5**clock.episodes

    assert isinstance(Halving(), Schedule)
    assert value_at(Halving(), Clock(1_000, 3)) == 0.125


SPECS = [
    (Schedule, Constant(0.1)),
    (Schedule, Linear(1.0, 0.0, 1)),
    (Schedule, Exponential(1.0, 0.0, 0.1)),
    (Schedule, Multiplicative(1.0, 0.0, 0.1)),
    (Schedule, OfProgress(float)),
    (Head, Scalar()),
    (Backup, backups.Greedy()),
    (Backup, backups.Double()),
    (Exploration, exploration.EpsilonGreedy(0.1)),
    (Exploration, exploration.Greedy()),
    (Exploration, exploration.Boltzmann(1.0)),
    (ReplaySpec, Uniform()),
    (PolicySpec, MlpPolicy()),
]


@pytest.mark.parametrize(("protocol", "value"), SPECS)
def test_our_own_values_satisfy_their_protocol_and_others_do_not(protocol: Any, value: Any) -> None:
    assert isinstance(value, protocol)
    assert not isinstance("scalar", protocol)
    assert not isinstance(0.1, protocol)


@pytest.mark.parametrize("value", [value for _, value in SPECS])
def test_a_spec_is_a_value_that_compares_and_cannot_change(value: Any) -> None:
    assert value == replace(value)
    assert repr(value).startswith(f"{type(value).__name__}(")
    with pytest.raises(FrozenInstanceError):
        value.anything = 1
