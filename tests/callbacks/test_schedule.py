"""Parameters that change while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sbdqn import DQN, exploration, heads
from sbdqn.callbacks import BaseCallback, ScheduleCallback
from sbdqn.errors import ConfigurationError
from sbdqn.schedules import Constant, Linear, Multiplicative, OfProgress
from tests.callbacks.models import small

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


def seen_while(model: DQN, schedule: Any, look: Callable[[DQN], Any], steps: int) -> list[Any]:
    """What is in effect at the updates."""
    seen = []

    class Look(BaseCallback):
        def _on_update(self) -> None:
            seen.append(look(self.model))

    model.learn(steps, callback=[schedule, Look()])
    return seen


def test_a_float_follows_its_schedule() -> None:
    model = small(learning_starts=0, gamma=0.5, **ENDLESS)
    seen = seen_while(
        model,
        ScheduleCallback("gamma", Linear(0.5, 1.0, 4)),
        lambda model: model.replay_buffer.gamma,
        6,
    )
    assert seen == [0.625, 0.75, 0.875, 1.0, 1.0, 1.0]
    assert model.get_params()["gamma"] == 1.0


def test_a_float_that_was_given_as_an_integer_is_not_rounded() -> None:
    model = small(gamma=1, **ENDLESS)
    model.learn(10, callback=ScheduleCallback("gamma", Linear(1.0, 0.9, 20)))
    assert model.gamma == pytest.approx(0.95)


def test_an_integer_is_rounded() -> None:
    model = small(learning_starts=0, batch_size=4, **ENDLESS)
    seen = seen_while(
        model,
        ScheduleCallback("batch_size", Linear(4, 8, 8)),
        lambda model: len(model.learner.last.q),
        8,
    )
    assert seen == [4, 5, 6, 6, 6, 7, 8, 8]  # 4.5 and 6.5 go to the even side
    assert type(model.batch_size) is int


@pytest.mark.parametrize("given", [1, 1.0])
def test_a_float_of_a_spec_that_was_given_as_an_integer_is_not_rounded(given: float) -> None:
    model = small(exploration=exploration.EpsilonGreedy(given), **ENDLESS)
    model.learn(10, callback=ScheduleCallback("exploration__epsilon", Linear(1.0, 0.8, 20)))
    assert model.exploration_rate == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("name", "schedule", "look"),
    [
        ("learning_rate", Constant(0.25), lambda model: model.learner.learning_rate),
        ("tau", Constant(0.25), lambda model: model.tau),
        ("max_grad_norm", Constant(0.25), lambda model: model.learner.max_gradient_norm),
    ],
)
def test_any_parameter_can_be_driven(
    name: str, schedule: Any, look: Callable[[DQN], float]
) -> None:
    seen = seen_while(small(**ENDLESS), ScheduleCallback(name, schedule), look, 12)
    assert seen == [0.25, 0.25]


def test_the_first_value_is_in_effect_from_the_start() -> None:
    model = small(train_freq=1, learning_starts=0, **ENDLESS)
    model.learn(8, callback=ScheduleCallback("train_freq", Constant(4)))
    assert model._n_updates == 2


def test_a_nested_name_drives_the_field_of_a_spec() -> None:
    model = small(exploration=exploration.EpsilonGreedy(1.0), **ENDLESS)
    model.learn(10, callback=ScheduleCallback("exploration__epsilon", Linear(1.0, 0.0, 20)))
    assert model.exploration_rate == 0.5


def test_episodes_and_progress_are_clocks_too() -> None:
    model = small(env_kwargs={"lengths": (5,)})
    model.learn(20, callback=ScheduleCallback("gamma", Multiplicative(1, 0.1, 0.5, per="episode")))
    assert model.gamma == 0.5**4 or model.gamma == 0.1
    model.learn(10, callback=ScheduleCallback("gamma", OfProgress(lambda remaining: remaining)))
    assert model.gamma == 0.0


def test_what_does_not_change_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sets: list[dict[str, Any]] = []

    class Counting(DQN):
        def set_params(self, **parameters: Any) -> Any:
            sets.append(parameters)
            return super().set_params(**parameters)

    model = Counting(**small(gamma=0.5, **ENDLESS).get_params(deep=False))
    model.learn(10, callback=ScheduleCallback("gamma", Constant(0.5)))
    assert sets == []


def test_an_unknown_name_is_refused_before_training() -> None:
    model = small()
    with pytest.raises(ConfigurationError, match="unknown parameter 'gama'; accepted are policy"):
        model.learn(10, callback=ScheduleCallback("gama", Constant(0.5)))
    with pytest.raises(ConfigurationError, match="unknown parameter 'head__eror'"):
        small(head=heads.Scalar()).learn(10, callback=ScheduleCallback("head__eror", Constant(1)))
    assert model.num_timesteps == 0


def test_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"gamma must be a number from 0 to 1, not 1\.5"):
        small().learn(10, callback=ScheduleCallback("gamma", Constant(1.5)))


def test_what_cannot_change_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="n_envs cannot change from 1 to 2"):
        small().learn(10, callback=ScheduleCallback("n_envs", Constant(2)))
