"""One call of `learn`: its callbacks, its log, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from sbdqn.callbacks import (
    BaseCallback,
    CallbackList,
    LogInterval,
    LogMetrics,
    MaybeCallback,
    ProgressBarCallback,
    StepLocals,
    TargetSync,
    TargetUpdate,
    as_callbacks,
)
from sbdqn.callbacks.base import described, overrides, restore, restore_all
from sbdqn.errors import add_note
from sbdqn.interrupts import on_interrupt
from sbdqn.training import StepResult

if TYPE_CHECKING:
    from sbdqn.collector import Collector
    from sbdqn.dqn import DQN


def with_target_update(model: DQN, callbacks: list[BaseCallback]) -> list[BaseCallback]:
    """The callbacks, with the default `TargetSync` first if none replaces it."""
    has_target = model.q_net_target is not model.q_net
    replaced = any(isinstance(callback, TargetUpdate) for callback in CallbackList(callbacks))
    return [TargetSync(), *callbacks] if has_target and not replaced else callbacks


Shares: TypeAlias = Callable[[int, Sequence[int]], list[float]]
"""What the target network takes on after updates, of the last moment and theirs."""


def shares_of(callbacks: CallbackList) -> Shares | None:
    """What the callbacks do after updates, if that is no more than one sync of the target."""
    syncs = [each for each in callbacks if _is_plain_sync(each)]
    others = [each for each in callbacks if not _is_plain_sync(each)]
    if len(syncs) > 1 or any(each.listens_to_updates for each in others):
        return None
    if not syncs:
        return lambda before, moments: [0.0] * len(moments)
    share = syncs[0].share
    return lambda before, moments: [share(*pair) for pair in pairwise((before, *moments))]


def _is_plain_sync(callback: BaseCallback) -> TypeGuard[TargetSync]:
    """Whether it is a `TargetSync` whose hook has not been exchanged."""
    return type(callback) is TargetSync and not overrides(callback, "update", TargetSync)


class LearnSession:
    """What the loop calls while `learn` runs.

    Args:
        model: the model that trains.
        callback: as `learn` takes it.
        log_interval: as `learn` takes it.
        progress_bar: whether one is shown.
    """

    def __init__(
        self,
        model: DQN,
        callback: MaybeCallback,
        log_interval: LogInterval,
        progress_bar: bool,
    ) -> None:
        self._model = model
        self._given = as_callbacks(callback)
        self._log_metrics = LogMetrics(log_interval)
        callbacks = with_target_update(model, self._given)
        if progress_bar:
            callbacks = [*callbacks, ProgressBarCallback()]
        self._callback = CallbackList([*callbacks, self._log_metrics])
        self._callback.init_callback(model)
        self._wanted: list[Callable[[], None]] = []
        self._locals: StepLocals | None = None
        self._shares: Shares | None = None

    def state_dict(self) -> dict[str, Any]:
        """What the callbacks keep."""
        return {
            "callbacks": [described(each) for each in self._given],
            "log": described(self._log_metrics),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the callbacks go on where `state_dict` was called."""
        restore_all(self._given, state["callbacks"])
        restore(self._log_metrics, state["log"])

    def between_steps(self, write: Callable[[], None]) -> None:
        """Call this when all callbacks have seen the step, and its updates have been made.

        Environments in the background make them while they step, so there they are
        still to be made.
        """
        self._wanted.append(write)

    def run(self, total_timesteps: int) -> None:
        """Train until the clock shows `total_timesteps`, or Ctrl-C."""
        model, trainer = self._model, self._model.trainer
        trainer.total_timesteps = total_timesteps
        try:
            start = {"self": model, "total_timesteps": total_timesteps}
            self._callback.on_training_start(start, {})
            self._shares = shares_of(self._callback)
            with on_interrupt(trainer.interrupt):
                trainer.run(self._ready_collector, total_timesteps, self)
                self._write()
        except BaseException as error:
            # It may have struck between the environment's step and its storing.
            model.abandon_episodes()
            if not isinstance(error, KeyboardInterrupt):
                add_note(error, f"It ended learn after {model.num_timesteps} timesteps.")
                raise
            trainer.interrupt()
        finally:
            self._callback.on_training_end()
        self._write()
        if trainer.interrupted and model.verbose:
            print(f"Interrupted after {model.num_timesteps} timesteps")

    def _write(self) -> None:
        wanted, self._wanted = self._wanted, []
        for write in wanted:
            write()

    def _ready_collector(self) -> Collector:
        if self._wanted:
            self._write()
        collector = self._model.ready_collector()
        self._stepper = collector.stepper
        return collector

    def on_rollout_start(self) -> None:
        """Tell the callbacks."""
        self._callback.on_rollout_start()

    def on_step(self, step: StepResult) -> bool:
        """Keep the episode statistics, and tell the callbacks."""
        if step.episodes:
            self._model.remember_episodes(step.episodes)
        infos = self._stepper.infos
        if self._locals is None:
            self._locals = StepLocals(self._model, step, infos)
            self._callback.update_locals(self._locals)
        else:
            self._locals.show(step, infos)
        return self._callback.on_step()

    def shares(self, moments: Sequence[int]) -> list[float] | None:
        """What the target network takes on after each update, if nobody listens to updates."""
        if self._shares is None:
            return None
        return self._shares(self._model.trainer.settled[1], moments)

    def on_update(self) -> None:
        """Tell the callbacks."""
        self._callback.on_update()

    def on_rollout_end(self) -> None:
        """Tell the callbacks."""
        self._callback.on_rollout_end()
