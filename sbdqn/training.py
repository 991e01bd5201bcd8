"""The loop: when to step, when to update, and by which clock.

All intervals count transitions summed over environments. One vector step of E
environments is E ticks of that clock, and the updates due between the ticks are
made one after the other, so 1 and 64 environments run the same algorithm at the
same replay ratio.

Environments that step in the background do so while those updates are made: their
actions were chosen just before. That order is the same however long each takes, so
a run does not depend on how busy the machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from sbdqn.collector import Collector
from sbdqn.errors import NonFiniteError, NotReadyError, require, require_count
from sbdqn.learner import Learner
from sbdqn.nonfinite import NonFinite
from sbdqn.protocols import AheadReplay, Exploration, Replay, Schedule, ahead, value_at
from sbdqn.types import Batch, Clock, Episode, IntArray, Row

_FEWEST_AT_ONCE = 4  # batches that are drawn together; it takes longer to share out fewer
_MOST_AT_ONCE = 8


class Hooks(Protocol):
    """What the loop calls; callbacks are behind it."""

    def on_rollout_start(self) -> None:
        """Before the first step after updates, or of all."""

    def on_step(self, step: StepResult) -> bool:
        """After each vector step; False ends training."""

    def shares(self, moments: Sequence[int]) -> list[float] | None:
        """What the target network takes on after each of these updates, if that is all.

        Args:
            moments: of the clock `Trainer.settled`, after each update.

        Returns:
            Shares of the online network, 0 for none; None if `on_update` is to be
            called after each update instead.
        """

    def on_update(self) -> None:
        """After each gradient step, if `shares` said None."""

    def on_rollout_end(self) -> None:
        """Before the updates that have become due."""


class StepResult(NamedTuple):
    """One vector step.

    Attributes:
        row: what happened.
        episodes: those that ended.
    """

    row: Row
    episodes: list[Episode]


class Round(NamedTuple):
    """Updates that are due together.

    Attributes:
        tick: the transition that made them due.
        updates: gradient steps.
    """

    tick: int
    updates: int


@dataclass(frozen=True)
class Cadence:
    """How much is learned from how much experience.

    Attributes:
        learning_starts: transitions in the replay before the first update.
        batch_size: transitions in an update.
        period: transitions or episodes from one round of updates to the next.
        unit: what `period` counts.
        updates: gradient steps in a round; -1 for one per transition collected
            since the last round.
    """

    learning_starts: int
    batch_size: int
    period: int
    unit: Literal["step", "episode"]
    updates: int


class Trainer:
    """Collects, stores, updates.

    Args:
        make_replay: allocates what transitions go to and batches come from; called
            when it is first needed.
        learner: makes the updates.
        cadence: how many of them, and when; may be assigned at any time.
        exploration: how actions are chosen; may be assigned at any time.
        learning_rate: may be assigned at any time.
        seed: of the generator that exploration draws from.

    Attributes:
        num_timesteps: transitions collected, all environments together.
        episodes: episodes ended.
        total_timesteps: where the current `run` ends.
        settled: two moments of the clock, before and after the latest hook: up
            to this transition all updates that were due have been made. What
            belongs between updates, like the target network's sync, falls due
            by this clock and so never depends on the number of environments.
        interrupted: whether the last `run` was ended by `interrupt`.
        nonfinite: what is done about numbers that are not finite.
    """

    def __init__(
        self,
        make_replay: Callable[[], Replay],
        learner: Learner,
        cadence: Cadence,
        exploration: Exploration,
        learning_rate: float | Schedule,
        seed: np.random.SeedSequence,
    ) -> None:
        self._make_replay = make_replay
        self._replay: Replay | None = None
        self._ahead: AheadReplay | None = None  # the same, if it draws several batches at once
        self.learner = learner
        self._cadence = cadence
        self.exploration = exploration
        self.learning_rate = learning_rate
        self.num_timesteps = 0
        self.episodes = 0
        self.total_timesteps = 0
        self.settled = (0, 0)
        self.interrupted = False
        self.nonfinite = NonFinite()
        self._experience = 0  # transitions that the replay was given
        self._due: list[Round] = []  # updates that the next step makes
        self._since_round = 0  # transitions that count towards the next round
        self._episodes_since_round = 0
        self.seed(seed)

    @property
    def cadence(self) -> Cadence:
        """How many updates are made, and when."""
        return self._cadence

    @cadence.setter
    def cadence(self, cadence: Cadence) -> None:
        if (cadence.period, cadence.unit) != (self._cadence.period, self._cadence.unit):
            # What was collected for a long period is no debt of a short one.
            self._since_round = min(self._since_round, cadence.period - 1)
            self._episodes_since_round = 0
        self._cadence = cadence

    @property
    def clock(self) -> Clock:
        """The counters that schedules read."""
        return Clock(self.num_timesteps, self.episodes, self.total_timesteps)

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Restart the generator that exploration draws from."""
        self.rng = np.random.default_rng(seed)

    def interrupt(self) -> None:
        """End `run` after the current step."""
        self.interrupted = True

    def restart_clock(self) -> None:
        """Count transitions and episodes from 0 again; weights and replay stay."""
        self.num_timesteps = 0
        self.episodes = 0
        self.settled = (0, 0)

    @property
    def replay(self) -> Replay:
        """Where transitions go and batches come from."""
        if self._replay is None:
            self._replay = self._make_replay()
            self._ahead = ahead(self._replay)
        return self._replay

    @property
    def has_replay(self) -> bool:
        """Whether the replay has been allocated."""
        return self._replay is not None

    def load_replay(self, state: Mapping[str, Any]) -> None:
        """Fill the replay with what its `state_dict` held."""
        self.replay.load_state_dict(state)
        self._experience = self.replay.stored

    def run(
        self, ready_collector: Callable[[], Collector], total_timesteps: int, hooks: Hooks
    ) -> None:
        """Train until `total_timesteps` on the clock, or until a hook says stop.

        Args:
            ready_collector: gives the collector for each step, ready to make it; a
                hook may have changed the environment.
            total_timesteps: where to stop.
            hooks: told of everything.
        """
        self.total_timesteps = total_timesteps
        self.interrupted = False
        try:
            self._run(ready_collector, hooks)
        finally:
            self._due = []

    def store(self, row: Row, n_episodes: int) -> list[Round]:
        """Put a row into the replay and advance the clock by what it holds.

        Returns:
            The updates that have become due.
        """
        self.replay.add(row)
        transitions = int(np.count_nonzero(row.valid))
        self.num_timesteps += transitions
        self.episodes += n_episodes
        self._experience += transitions
        return self._rounds_due(transitions, n_episodes)

    def update(self, count: int, hooks: Hooks) -> None:
        """Make `count` updates now.

        Args:
            count: gradient steps.
            hooks: told of them.

        Raises:
            NotReadyError: if no transition can be sampled yet.
        """
        if not self.replay.sampleable:
            raise NotReadyError(
                "the replay holds no transition that can be sampled; collect n_steps "
                "transitions of an episode, or a whole episode, before training"
            )
        self._make([Round(self.num_timesteps, count)], hooks)

    def require_finite(self) -> None:
        """Check the last update; this waits for the device.

        Raises:
            NonFiniteError: if its loss or its gradient was NaN or infinite, unless
                `nonfinite` tolerates it.
        """
        try:
            self.learner.require_finite()
        except NonFiniteError as error:
            self.nonfinite.tolerate("loss", error)

    def state_dict(self) -> dict[str, Any]:
        """The clocks and the generator."""
        return {
            "num_timesteps": self.num_timesteps,
            "episodes": self.episodes,
            "total_timesteps": self.total_timesteps,
            "settled": list(self.settled),
            "period": self._cadence.period,
            "unit": self._cadence.unit,
            "since_round": self._since_round,
            "episodes_since_round": self._episodes_since_round,
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self.num_timesteps = int(state["num_timesteps"])
        self.episodes = int(state["episodes"])
        self.total_timesteps = int(state["total_timesteps"])
        before, after = state["settled"]
        self.settled = (int(before), int(after))
        self._since_round = int(state["since_round"])
        self._episodes_since_round = int(state["episodes_since_round"])
        mine = self._cadence
        period, unit = state.get("period", mine.period), state.get("unit", mine.unit)
        require_count("period", period)
        require(unit in ("step", "episode"), "unit", unit, "'step' or 'episode'")
        self._cadence = replace(mine, period=period, unit=unit)
        self.cadence = mine  # which may be another than that of the saved model
        self.rng.bit_generator.state = state["rng"]

    def data_state_dict(self) -> dict[str, Any]:
        """The replay, what it was given, and the updates that are due to be made from it."""
        return {
            "replay": self.replay.state_dict() if self.has_replay else None,
            "experience": self._experience,
            "due": [list(each) for each in self._due],
        }

    def load_data_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `data_state_dict` described, beside `load_state_dict`."""
        if state["replay"] is not None:
            self.load_replay(state["replay"])
        self._experience = int(state["experience"])
        self._due = [Round(int(tick), int(updates)) for tick, updates in state["due"]]

    @property
    def is_warming_up(self) -> bool:
        """Whether actions are random because nothing has been learned yet."""
        return not self.learner.n_updates and self.missing > 0

    @property
    def missing(self) -> int:
        """Transitions still to be collected before the first update, at most 0 after it."""
        return self.cadence.learning_starts - self._experience

    def settle(self, moment: int | None = None) -> None:
        """All updates due up to this transition, by default all, have been made."""
        before = self.settled[1]
        now = self.num_timesteps if moment is None else moment
        self.settled = (before, max(before, now))

    def _run(self, ready_collector: Callable[[], Collector], hooks: Hooks) -> None:
        goes_on = True
        hooks.on_rollout_start()
        while goes_on and self.num_timesteps < self.total_timesteps and not self.interrupted:
            collector = ready_collector()
            collector.send(self._choose(collector))
            due = self._due
            if due:
                self._make(due, hooks)  # while the environments step
                self._due = []
            is_abandoned = not collector.stepper.is_reset  # by a hook
            outcome = None if is_abandoned else collector.receive()
            if due:
                hooks.on_rollout_start()
            if outcome is None:
                continue
            row, episodes = outcome
            due = self._due = self.store(row, len(episodes))
            self.settle(due[0].tick - 1 if due else None)
            goes_on = hooks.on_step(StepResult(row, episodes))
            if due:
                hooks.on_rollout_end()
                if not collector.overlaps:
                    self._make(due, hooks)
                    self._due = []
                    hooks.on_rollout_start()
        if self._due:
            self._make(self._due, hooks)
            hooks.on_rollout_start()
        hooks.on_rollout_end()

    def _choose(self, collector: Collector) -> IntArray:
        if self.is_warming_up:
            return collector.choose_at_random(self.rng)
        return collector.choose(self.exploration, self.clock, self.rng)

    def _make(self, rounds: Sequence[Round], hooks: Hooks) -> None:
        """Make the updates of these rounds."""
        clock = self.clock
        self.learner.learning_rate = value_at(self.learning_rate, clock)
        moments = list(self._moments(rounds))
        for first in range(0, len(moments), _MOST_AT_ONCE):
            some = moments[first : first + _MOST_AT_ONCE]
            shares = hooks.shares(some)
            if shares is None:
                self._make_one_by_one(some, clock, hooks)
            else:
                self._make_together(some, clock, shares)

    def _make_one_by_one(self, moments: Sequence[int], clock: Clock, hooks: Hooks) -> None:
        for moment in moments:
            self._learn_from([self._draw(clock)], [0.0])
            self.settle(moment)
            hooks.on_update()

    def _make_together(self, moments: Sequence[int], clock: Clock, shares: Sequence[float]) -> None:
        if self._ahead is None:
            for share in shares:
                self._learn_from([self._draw(clock)], [share])
        else:
            self._learn_from(self._draw_ahead(self._ahead, len(moments), clock), shares)
        self.settle(moments[-1])

    def _draw(self, clock: Clock) -> Batch:
        return self.replay.sample(self.cadence.batch_size, clock)

    def _draw_ahead(self, replay: AheadReplay, count: int, clock: Clock) -> list[Batch]:
        if count < _FEWEST_AT_ONCE:
            return [self._draw(clock) for _ in range(count)]
        return replay.sample_several(self.cadence.batch_size, count, clock)

    def _learn_from(self, batches: Sequence[Batch], shares: Sequence[float]) -> None:
        losses = self.learner.update_several(batches, shares)
        for batch, loss in zip(batches, losses, strict=True):
            try:
                self.replay.feedback(batch.index, loss.surprise)
            except NonFiniteError as error:
                self.nonfinite.tolerate("surprise", error)

    def _moments(self, rounds: Sequence[Round]) -> Iterator[int]:
        """Up to which transition all updates have been made, after each update."""
        before = self.settled[1]
        ends = [following.tick - 1 for following in rounds[1:]]
        for due, end in zip(rounds, [*ends, self.num_timesteps], strict=True):
            yield from [before] * (due.updates - 1)
            # Rounds that had to wait for something to learn from are of moments long gone.
            before = max(before, end)
            yield before

    def _rounds_due(self, transitions: int, episodes: int) -> list[Round]:
        """The rounds of updates that `transitions` more have made due."""
        counting = min(transitions, max(0, -self.missing))
        if not counting:
            return []
        self._since_round += counting
        if not self.replay.sampleable:
            return []
        cadence = self._cadence
        if cadence.unit == "episode":
            return self._episode_rounds_due(episodes)
        period = cadence.period
        if self._since_round < period:
            return []
        n_rounds, self._since_round = divmod(self._since_round, period)
        updates = period if cadence.updates < 0 else cadence.updates
        last = self.num_timesteps - self._since_round
        return [Round(last - period * ago, updates) for ago in reversed(range(n_rounds))]

    def _episode_rounds_due(self, episodes: int) -> list[Round]:
        """All rounds that are due as one: episodes may end on the same vector step."""
        ended = self._episodes_since_round + episodes
        n_rounds, self._episodes_since_round = divmod(ended, self.cadence.period)
        if not n_rounds:
            return []
        updates = self.cadence.updates * n_rounds if self.cadence.updates > 0 else self._since_round
        self._since_round = 0
        return [Round(self.num_timesteps, updates)]
