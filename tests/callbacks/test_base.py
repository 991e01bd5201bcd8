"""Hooks: which are called, when, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sbdqn.callbacks import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    EventCallback,
    EveryNTimesteps,
    TargetSync,
    as_callbacks,
)
from sbdqn.errors import ConfigurationError, NotReadyError
from tests.callbacks.models import Recorder, small
from tests.environments import CountingEnv

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


def test_hooks_are_called_in_the_order_of_training() -> None:
    recorder = Recorder()
    small(learning_starts=2, **ENDLESS).learn(4, callback=recorder)
    assert recorder.log == [
        "init",
        "training_start",
        "rollout_start",
        *["step"] * 3,
        "rollout_end",
        "update",
        "rollout_start",
        "step",
        "rollout_end",
        "update",
        "rollout_start",
        "rollout_end",
        "training_end",
    ]


def test_every_gradient_step_is_an_update() -> None:
    recorder = Recorder()
    model = small(learning_starts=0, train_freq=4, gradient_steps=3, **ENDLESS)
    model.learn(12, callback=recorder)
    assert recorder.log.count("update") == model._n_updates == 9
    assert recorder.log.count("rollout_end") == recorder.log.count("rollout_start") == 4
    assert recorder.log.count("step") == 12


@pytest.mark.parametrize("n_envs", [1, 4])
def test_a_step_is_one_call_and_n_envs_timesteps(n_envs: int) -> None:
    seen: list[tuple[int, int]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append((self.n_calls, self.num_timesteps))
            return True

    small(n_envs=n_envs, **ENDLESS).learn(20, callback=Watch())
    assert seen == [(call, call * n_envs) for call in range(1, 20 // n_envs + 1)]


def test_a_callback_knows_its_model() -> None:
    class Watch(Recorder):
        def _on_training_start(self) -> None:
            assert self.locals["self"] is self.model is model
            assert self.locals["total_timesteps"] == 15
            assert self.globals == {}
            assert self.training_env is model.env
            assert self.logger is model.logger
            assert self.num_timesteps == model.num_timesteps == 10

    model = small().learn(10)
    watch = Watch()
    model.learn(5, callback=watch)
    assert watch.parent is not None
    assert watch.log.count("step") >= 5


def test_before_learn_a_callback_has_no_model() -> None:
    with pytest.raises(NotReadyError, match="BaseCallback has not been passed to learn yet"):
        _ = BaseCallback().model


def test_a_callback_that_overrides_nothing_changes_nothing() -> None:
    assert small().learn(15, callback=BaseCallback()).num_timesteps == 15


def test_returning_false_ends_training_after_that_step() -> None:
    recorder = Recorder(stop_at=7)
    model = small(**ENDLESS).learn(100, callback=recorder)
    assert model.num_timesteps == 7
    assert recorder.log.count("step") == 7
    assert recorder.log[-1] == "training_end"


def test_a_stopped_model_can_go_on() -> None:
    model = small(**ENDLESS).learn(100, callback=Recorder(stop_at=7))
    assert model.learn(20).num_timesteps == 27


def test_all_callbacks_of_a_list_are_called_in_order_whoever_stops() -> None:
    log: list[str] = []
    first, second = Recorder(log, "1.", stop_at=2), Recorder(log, "2.")
    small(**ENDLESS).learn(50, callback=[first, second])
    assert [entry for entry in log if entry.endswith("step")] == ["1.step", "2.step"] * 2
    assert log[:2] == ["1.init", "2.init"]
    assert log[-2:] == ["1.training_end", "2.training_end"]


def test_lists_may_be_nested_and_hold_functions() -> None:
    log: list[str] = []
    calls: list[int] = []

    def function(locals_: Mapping[str, Any], globals_: Mapping[str, Any]) -> None:
        calls.append(locals_["self"].num_timesteps)

    nested = [
        Recorder(log, "1."),
        (Recorder(log, "2."), function),
        CallbackList([Recorder(log, "3."), CallbackList([Recorder(log, "4.")])]),
    ]
    small(**ENDLESS).learn(2, callback=nested)  # type: ignore[arg-type]
    assert [entry for entry in log if entry.endswith("step")] == [
        f"{number}.step" for number in (1, 2, 3, 4)
    ] * 2
    assert calls == [1, 2]


def test_a_hook_is_called_however_it_was_replaced() -> None:
    calls: list[str] = []

    class Public(BaseCallback):
        def on_rollout_start(self) -> None:
            calls.append("public")

    assigned = BaseCallback()
    assigned._on_rollout_start = lambda: calls.append("assigned")  # type: ignore[method-assign]

    class OwnList(CallbackList):
        def _on_rollout_start(self) -> None:
            calls.append("list")

    given = [Public(), BaseCallback(), CallbackList([assigned]), OwnList([])]
    small(learning_starts=100).learn(4, callback=given)
    assert calls == ["public", "assigned", "list"]


def test_hooks_may_be_assigned_until_training_starts() -> None:
    updates: list[int] = []

    class Late(BaseCallback):
        def _on_training_start(self) -> None:
            self._on_update = lambda: updates.append(self.num_timesteps)  # type: ignore[method-assign]

    small(learning_starts=2, **ENDLESS).learn(4, callback=Late())
    assert len(updates) == 2


def test_a_target_sync_whose_hook_was_exchanged_does_what_that_says() -> None:
    updates: list[int] = []
    sync = TargetSync()
    sync._on_update = lambda: updates.append(sync.num_timesteps)  # type: ignore[method-assign]
    small(learning_starts=2, **ENDLESS).learn(4, callback=sync)
    assert len(updates) == 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(BaseCallback, False), (EventCallback, False), (Recorder, True), (TargetSync, True)],
)
def test_a_callback_says_whether_it_listens_to_updates(
    kind: type[BaseCallback], expected: bool
) -> None:
    assert kind().listens_to_updates is expected


def test_a_list_opens_nested_lists_when_it_is_iterated() -> None:
    one, two, three = Recorder(), Recorder(), Recorder()
    assert list(CallbackList([one, CallbackList([two, CallbackList([three])])])) == [
        one,
        two,
        three,
    ]


@pytest.mark.parametrize(("answer", "timesteps"), [(None, 30), (True, 30), (0, 30), (False, 5)])
def test_only_false_from_a_function_ends_training(answer: Any, timesteps: int) -> None:
    def function(locals_: Mapping[str, Any], globals_: Mapping[str, Any]) -> Any:
        return answer if locals_["self"].num_timesteps >= 5 else True

    assert small(**ENDLESS).learn(30, callback=function).num_timesteps == timesteps


def test_a_function_gets_the_locals_of_the_step() -> None:
    rewards: list[float] = []

    def function(locals_: Mapping[str, Any], globals_: Mapping[str, Any]) -> None:
        rewards.extend(locals_["rewards"])
        assert globals_ == {}

    small(**ENDLESS).learn(4, callback=ConvertCallback(function))
    assert rewards == [CountingEnv.reward(0, 0, t) for t in range(4)]


@pytest.mark.parametrize("wrong", [5, "callback", Recorder, [Recorder(), 5], {"a": Recorder()}])
def test_what_is_no_callback_is_refused_before_anything_happens(wrong: Any) -> None:
    model = small(exploration_fraction=1.0, exploration_final_eps=0.0)
    with pytest.raises(ConfigurationError, match=r"callback must be a BaseCallback, a list"):
        model.learn(10, callback=wrong)
    assert model.num_timesteps == 0
    # The length of the failed call is forgotten: epsilon falls over the next one.
    model.learn(40)
    fresh = small(exploration_fraction=1.0, exploration_final_eps=0.0).learn(40)
    assert model.trainer.exploration == fresh.trainer.exploration


def test_no_callback_is_no_callback() -> None:
    assert as_callbacks(None) == []
    assert as_callbacks([]) == []


def test_an_exception_in_a_callback_propagates_and_training_ends_for_all() -> None:
    class Failing(BaseCallback):
        def _on_step(self) -> bool:
            raise ArithmeticError("mine")

    recorder = Recorder()
    model = small()
    with pytest.raises(ArithmeticError, match="mine"):
        model.learn(10, callback=[recorder, Failing()])
    assert recorder.log[-1] == "training_end"
    assert model.learn(10).num_timesteps == 11


def test_all_that_were_started_are_ended_whichever_fails() -> None:
    class FailingAtTheEnd(Recorder):
        def _on_training_end(self) -> None:
            super()._on_training_end()
            raise ArithmeticError("at the end")

    class FailingAtTheStart(Recorder):
        def _on_training_start(self) -> None:
            raise ArithmeticError("at the start")

    log: list[str] = []
    with pytest.raises(ArithmeticError, match="at the end"):
        small().learn(2, callback=[FailingAtTheEnd(log, "1."), Recorder(log, "2.")])
    assert log[-2:] == ["1.training_end", "2.training_end"]

    log.clear()
    callbacks = [Recorder(log, "1."), FailingAtTheStart(log, "2."), Recorder(log, "3.")]
    with pytest.raises(ArithmeticError, match="at the start"):
        small().learn(2, callback=callbacks)
    assert log == ["1.init", "2.init", "3.init", "1.training_start", "1.training_end"]


def test_an_event_callback_passes_everything_to_its_child() -> None:
    class EveryThird(EventCallback):
        def _on_step(self) -> bool:
            return self._on_event() if self.n_calls % 3 == 0 else True

    child = Recorder(stop_at=2)
    parent = EveryThird(child)
    model = small(**ENDLESS).learn(100, callback=parent)
    assert child.parent is parent
    assert child.log == ["init", "training_start", "step", "step", "training_end"]
    assert model.num_timesteps == child.num_timesteps == 6
    assert child.locals["new_obs"].tolist() == [[0, 0, 6]]


def test_an_event_callback_needs_no_child() -> None:
    class Always(EventCallback):
        def _on_step(self) -> bool:
            return self._on_event()

    assert small().learn(5, callback=Always()).num_timesteps == 5


def test_a_child_may_be_whatever_learn_takes() -> None:
    calls: list[str] = []
    one = EveryNTimesteps(10, lambda local, _: calls.append("one"))
    both = EveryNTimesteps(20, [lambda local, _: calls.append("both"), BaseCallback()])
    assert [child.callback.parent for child in (one, both)] == [one, both]
    small(env_kwargs={"lengths": (1000,)}).learn(20, callback=[one, both])
    assert calls == ["one", "one", "both"]
    with pytest.raises(ConfigurationError, match="callback must be a BaseCallback"):
        EveryNTimesteps(10, 3)


def test_a_callback_can_be_used_again() -> None:
    recorder = Recorder()
    model = small(**ENDLESS)
    model.learn(3, callback=recorder).learn(3, callback=recorder)
    assert (recorder.n_calls, recorder.num_timesteps) == (6, 6)
    assert recorder.log.count("training_start") == 2
