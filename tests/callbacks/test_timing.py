"""Intervals are timesteps, whatever the number of environments."""

from __future__ import annotations

from typing import Any

import pytest

from sbdqn.callbacks import BaseCallback, EveryNTimesteps
from sbdqn.callbacks.timing import Every
from sbdqn.errors import ConfigurationError
from tests.callbacks.models import Recorder, small

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


class Moments(BaseCallback):
    """The timesteps at which it is called."""

    def __init__(self, stop_at: int = 10**9) -> None:
        super().__init__()
        self.at: list[int] = []
        self.stop_at = stop_at

    def _on_step(self) -> bool:
        self.at.append(self.num_timesteps)
        return self.num_timesteps < self.stop_at


@pytest.mark.parametrize(
    ("counts", "due"),
    [
        ([1, 2, 3, 4, 5, 6, 7], [3, 6]),
        ([2, 4, 6, 8, 10, 12], [4, 6, 10, 12]),  # 3, 6, 9 and 12 are over then
        ([10, 11, 12, 13], [10, 12]),  # three intervals at once are one event
        ([3, 3, 3], [3]),
    ],
)
def test_an_interval_is_due_once_as_soon_as_it_is_over(counts: list[int], due: list[int]) -> None:
    every = Every(3)
    every.start(0)
    assert [count for count in counts if every.is_due(count)] == due


def test_intervals_begin_where_they_are_started() -> None:
    every = Every(10)
    every.start(7)
    assert [count for count in range(8, 40) if every.is_due(count)] == [17, 27, 37]


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_is_at_least_one(interval: int) -> None:
    with pytest.raises(ConfigurationError, match=f"must be at least 1, not {interval}"):
        Every(interval)
    with pytest.raises(ConfigurationError, match=f"must be at least 1, not {interval}"):
        EveryNTimesteps(interval, BaseCallback())


@pytest.mark.parametrize(
    ("n_envs", "moments"), [(1, [10, 20, 30, 40]), (4, [12, 20, 32, 40]), (16, [16, 32, 48])]
)
def test_the_child_is_called_every_n_timesteps(n_envs: int, moments: list[int]) -> None:
    child = Moments()
    small(n_envs=n_envs, **ENDLESS).learn(40, callback=EveryNTimesteps(10, child))
    assert child.at == moments


def test_starting_again_changes_nothing_unless_the_counter_went_back() -> None:
    every = Every(10)
    every.start(7)
    assert every.is_due(17)
    every.start(25)
    assert every.is_due(27)
    every.start(3)
    assert [count for count in range(4, 30) if every.is_due(count)] == [13, 23]


def test_intervals_go_on_over_two_learns() -> None:
    child = Moments()
    every = EveryNTimesteps(10, child)
    model = small(**ENDLESS).learn(25, callback=every).learn(20, callback=every)
    assert child.at == [10, 20, 30, 40]
    model.learn(15, callback=every, reset_num_timesteps=True)
    assert child.at == [10, 20, 30, 40, 10]


def test_intervals_of_a_later_learn_begin_with_it() -> None:
    child = Moments()
    small(**ENDLESS).learn(25).learn(25, callback=EveryNTimesteps(10, child))
    assert child.at == [35, 45]


def test_the_child_can_end_training() -> None:
    model = small(**ENDLESS).learn(100, callback=EveryNTimesteps(10, Moments(stop_at=20)))
    assert model.num_timesteps == 20


def test_the_child_sees_the_step() -> None:
    seen: list[Any] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self.locals["new_obs"].tolist())
            return True

    small(**ENDLESS).learn(20, callback=EveryNTimesteps(10, Look()))
    assert seen == [[[0, 0, 10]], [[0, 0, 20]]]


def test_the_child_is_told_of_beginning_and_end() -> None:
    child = Recorder()
    small(**ENDLESS).learn(20, callback=EveryNTimesteps(10, child))
    assert child.log == ["init", "training_start", "step", "step", "training_end"]
