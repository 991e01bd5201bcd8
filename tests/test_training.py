"""The loop: what is due when, counted in transitions whatever the number of environments."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn import DQN
from sbdqn.backups import Double
from sbdqn.callbacks import TargetSync
from sbdqn.callbacks.target_sync import TargetUpdate
from sbdqn.collector import Collector, Stepper
from sbdqn.envs import ObservationAdapter
from sbdqn.errors import NotReadyError
from sbdqn.exploration import EpsilonGreedy
from sbdqn.heads import Scalar
from sbdqn.learner import Learner
from sbdqn.networks import MlpPolicy
from sbdqn.protocols import Background, Exploration, Replay, ReplayLayout, Schedule
from sbdqn.replay import Uniform
from sbdqn.schedules import Linear
from sbdqn.training import Cadence, StepResult, Trainer
from sbdqn.types import Batch, Clock, Loss
from tests.environments import CountingEnv

EVERY_STEP = Cadence(learning_starts=16, batch_size=4, period=1, unit="step", updates=1)


class Recorder:
    """Hooks that remember the order in which they are called."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[str] = []
        self.stop_after = stop_after
        self.on_every_update: Callable[[], None] = lambda: None
        self.steps: list[StepResult] = []

    def on_rollout_start(self) -> None:
        self.events.append("start")

    def on_step(self, step: StepResult) -> bool:
        self.events.append("step")
        self.steps.append(step)
        return len(self.steps) != self.stop_after

    def shares(self, moments: Sequence[int]) -> None:
        """Nothing: `on_update` is to be called."""

    def on_update(self) -> None:
        self.events.append("update")
        self.on_every_update()

    def on_rollout_end(self) -> None:
        self.events.append("end")

    @property
    def updates(self) -> int:
        return self.events.count("update")


class Setup:
    """A loop over counting environments, with everything in it real."""

    def __init__(
        self,
        cadence: Cadence = EVERY_STEP,
        n_envs: int = 1,
        n_steps: int = 1,
        exploration: Exploration | None = None,
        learning_rate: float | Schedule = 1e-3,
        lengths: tuple[int, ...] = (1, 4, 7, 2),
        mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        env = SyncVectorEnv(
            [lambda index=index: CountingEnv(index, lengths) for index in range(n_envs)],
            autoreset_mode=mode,
        )
        adapter = ObservationAdapter(env.single_observation_space)
        policy, cpu = MlpPolicy(net_arch=()), torch.device("cpu")
        networks = [policy.build(env.single_observation_space, 3, Scalar()) for _ in range(2)]
        self.learner = Learner(*networks, Scalar(), Double())
        self.learner.set_optimizer(policy.build_optimizer(self.learner.flat, 1e-3))
        seed = np.random.SeedSequence(0)
        layout = ReplayLayout(adapter.layout, n_envs, 5_000, n_steps, 0.9, cpu, seed)
        self.replays_made = 0

        def make_replay() -> Replay:
            self.replays_made += 1
            return Uniform().build(layout)

        self.trainer = Trainer(
            make_replay,
            self.learner,
            cadence,
            EpsilonGreedy(0.5) if exploration is None else exploration,
            learning_rate,
            np.random.SeedSequence(0),
        )
        self.stepper = Stepper(env, adapter.stored)
        self.collector = Collector(self.stepper, networks[0], 3)
        self.hooks = Recorder()

    def run(self, total_timesteps: int) -> Trainer:
        if not self.stepper.is_reset:
            self.stepper.reset(seed=0)
        self.trainer.run(lambda: self.collector, total_timesteps, self.hooks)
        return self.trainer


# -- how many updates ----------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 8])
@pytest.mark.parametrize(
    ("learning_starts", "period", "updates", "n_steps"),
    [
        (0, 1, 1, 1),
        (64, 1, 1, 3),
        (16, 4, 1, 1),
        (16, 4, 3, 1),
        (40, 3, 2, 5),
        (0, 4, 2, 5),
        (0, 10, 1, 3),  # a period longer than a vector step
        (7, 4, -1, 1),
        (0, 1, -1, 3),
    ],
)
def test_the_updates_for_each_transition_are_the_same_for_1_and_8_environments(
    learning_starts: int, period: int, updates: int, n_steps: int, n_envs: int
) -> None:
    cadence = Cadence(learning_starts, 4, period, "step", updates)
    setup = Setup(cadence, n_envs, n_steps)
    trainer = setup.run(240)
    each = period if updates == -1 else updates
    assert 240 <= trainer.num_timesteps < 240 + n_envs
    assert setup.hooks.updates == (trainer.num_timesteps - learning_starts) // period * each
    assert setup.learner.n_updates == setup.hooks.updates


@pytest.mark.parametrize("n_envs", [1, 8])
@pytest.mark.parametrize("lengths", [(5,), (1, 4, 7, 2)])
@pytest.mark.parametrize(("period", "updates"), [(1, 2), (3, 4)])
def test_rounds_by_episode_are_as_many_for_1_and_8_environments(
    period: int, updates: int, lengths: tuple[int, ...], n_envs: int
) -> None:
    setup = Setup(Cadence(0, 4, period, "episode", updates), n_envs, lengths=lengths)
    trainer = setup.run(240)
    assert trainer.episodes > 40  # where all lengths are 5, eight episodes end at once
    assert setup.hooks.updates == trainer.episodes // period * updates


def test_changing_to_rounds_by_episode_does_not_make_up_for_earlier_episodes() -> None:
    setup = Setup(replace(EVERY_STEP, learning_starts=0), lengths=(5,))
    setup.run(52)
    assert setup.trainer.episodes == 10
    setup.trainer.cadence = Cadence(0, 4, 1, "episode", 2)
    before = setup.hooks.updates
    setup.run(54)
    assert setup.hooks.updates == before
    setup.run(55)
    assert setup.hooks.updates == before + 2


@pytest.mark.parametrize("n_envs", [1, 8])
@pytest.mark.parametrize("period", [1, 3])
def test_a_round_by_episode_can_make_one_update_for_each_transition(
    period: int, n_envs: int
) -> None:
    setup = Setup(Cadence(0, 4, period, "episode", -1), n_envs)
    seen: list[tuple[int, int]] = []
    setup.hooks.on_every_update = lambda: seen.append(
        (setup.trainer.num_timesteps, setup.learner.n_updates)
    )
    setup.run(240)
    last_of_each_round = dict(seen)
    assert len(last_of_each_round) > 5
    for transitions, n_updates in last_of_each_round.items():
        assert n_updates == transitions


def test_the_first_update_comes_one_period_after_learning_starts() -> None:
    for learning_starts, period, first in ((16, 1, 17), (16, 4, 20), (0, 4, 4), (0, 1, 1)):
        setup = Setup(Cadence(learning_starts, 4, period, "step", 1))
        seen: list[int] = []
        setup.hooks.on_every_update = lambda seen=seen, setup=setup: seen.append(
            setup.trainer.num_timesteps
        )
        setup.run(32)
        assert seen == list(range(first, 33, period))


def test_updates_wait_for_the_first_complete_window_and_then_catch_up() -> None:
    setup = Setup(Cadence(0, 4, 1, "step", 1), n_steps=3, lengths=(50,))
    seen: list[int] = []
    setup.hooks.on_every_update = lambda: seen.append(setup.trainer.num_timesteps)
    setup.run(6)
    assert seen == [3, 3, 3, 4, 5, 6]


def test_a_step_that_only_resets_is_on_no_clock() -> None:
    setup = Setup(Cadence(0, 4, 1, "step", 1), lengths=(1,))
    trainer = setup.run(10)
    assert len(setup.hooks.steps) == 19  # nine of them reset
    assert (trainer.num_timesteps, trainer.episodes) == (10, 10)
    assert setup.hooks.updates == 10
    assert trainer.replay.stored == 10


def test_the_loop_stops_at_the_first_vector_step_that_reaches_the_total() -> None:
    setup = Setup(n_envs=8, lengths=(100,))
    assert setup.run(20).num_timesteps == 24
    assert setup.run(24).num_timesteps == 24
    assert setup.run(25).num_timesteps == 32


# -- in which order ------------------------------------------------------------------


def test_hooks_are_called_around_each_round_of_updates() -> None:
    setup = Setup(Cadence(2, 4, 2, "step", 2), lengths=(100,))
    setup.run(7)
    steps_first = ["start", "step", "step", "step", "step"]
    a_round = ["end", "update", "update", "start"]
    assert setup.hooks.events == [*steps_first, *a_round, "step", "step", *a_round, "step", "end"]


def test_a_hook_ends_training_after_the_updates_that_are_due() -> None:
    setup = Setup(Cadence(0, 4, 1, "step", 1), lengths=(100,))
    setup.hooks.stop_after = 3
    assert setup.run(100).num_timesteps == 3
    assert setup.hooks.updates == 3
    assert setup.hooks.events[-5:] == ["step", "end", "update", "start", "end"]
    assert not setup.trainer.interrupted


def test_a_hook_may_change_the_environment_between_two_steps() -> None:
    setup, other = Setup(lengths=(100,)), Setup(lengths=(100,))
    other.stepper.reset(seed=0)
    setup.stepper.reset(seed=0)
    asked: list[int] = []

    def ready_collector() -> Collector:
        asked.append(setup.trainer.num_timesteps)
        return setup.collector if setup.trainer.num_timesteps < 4 else other.collector

    setup.trainer.run(ready_collector, 7, setup.hooks)
    assert asked == list(range(7))
    assert [float(step.row.obs[0, 2]) for step in setup.hooks.steps] == [0, 1, 2, 3, 0, 1, 2]


def test_an_interrupt_ends_training_after_the_current_step_and_its_updates() -> None:
    setup = Setup(Cadence(0, 4, 1, "step", 1), lengths=(100,))
    setup.hooks.on_every_update = lambda: (
        setup.trainer.interrupt() if setup.hooks.updates == 3 else None
    )
    setup.run(100)
    assert setup.trainer.interrupted
    assert setup.trainer.num_timesteps == 3
    assert setup.hooks.events[-1] == "end"
    setup.run(5)
    assert not setup.trainer.interrupted
    assert setup.trainer.num_timesteps == 5


class Recording(TargetUpdate):
    """Writes down updates and syncs, each with the transition that it belongs to."""

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = interval
        self.events: list[tuple[str, int]] = []

    def _on_step(self) -> bool:
        self._note_syncs()
        return True

    def _on_update(self) -> None:
        self.events.append(("update", self.model.trainer.settled[0] + 1))
        self._note_syncs()

    def _note_syncs(self) -> None:
        before, now = self.model.trainer.settled
        for transition in range(before + 1, now + 1):
            if transition % self.interval == 0:
                self.events.append(("sync", transition))


def dqn(
    n_envs: int,
    mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    lengths: tuple[int, ...] = (1, 4, 7, 2),
    **parameters: Any,
) -> DQN:
    env = SyncVectorEnv(
        [lambda index=index: CountingEnv(index, lengths) for index in range(n_envs)],
        autoreset_mode=mode,
    )
    settings: dict[str, Any] = {
        "policy_kwargs": {"net_arch": ()},
        "n_steps": 1,
        "learning_starts": 8,
        "batch_size": 4,
        "buffer_size": 2_000,
        "train_freq": 4,
        "gradient_steps": 1,
        "target_update_interval": 1,
        "tau": 0.01,
        "seed": 0,
        "device": "cpu",
        **parameters,
    }
    return DQN("MlpPolicy", env, **settings)


@pytest.mark.parametrize("n_envs", [1, 8])
def test_updates_and_syncs_follow_each_other_by_transition(n_envs: int) -> None:
    recording = Recording(interval=6)
    dqn(n_envs, gradient_steps=2).learn(24, recording)
    events = [event for event in recording.events if event[1] <= 24]
    assert events == [
        ("sync", 6),
        ("update", 12),
        ("update", 12),
        ("sync", 12),
        ("update", 16),
        ("update", 16),
        ("sync", 18),
        ("update", 20),
        ("update", 20),
        ("update", 24),
        ("update", 24),
        ("sync", 24),
    ]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    ("parameters", "interval"),
    [
        ({"train_freq": 1}, 1),
        ({"train_freq": 1}, 5),
        ({"train_freq": 4}, 1),
        ({"train_freq": 3, "gradient_steps": -1}, 7),
        ({"train_freq": 11, "gradient_steps": 2}, 4),
        ({"train_freq": 1, "learning_starts": 32, "n_steps": 3}, 2),
    ],
)
def test_1_and_8_environments_make_the_same_sequence_of_updates_and_syncs(
    parameters: dict[str, Any], interval: int, mode: AutoresetMode
) -> None:
    sequences = []
    for n_envs in (1, 8):
        recording = Recording(interval)
        dqn(n_envs, mode, **parameters).learn(120, recording)
        sequences.append([event for event in recording.events if event[1] <= 120])
    assert sequences[0] == sequences[1]
    assert len(sequences[0]) > 20


# -- the target network --------------------------------------------------------------


def test_four_blends_of_a_hundredth_are_one_of_what_they_amount_to() -> None:
    first, second = Setup().learner, Setup().learner
    second.online.load_state_dict(first.online.state_dict())
    for learner in (first, second):
        with torch.no_grad():
            learner.target.output.linear.weight.fill_(5.0)
            learner.target.output.linear.bias.fill_(-3.0)
    for _ in range(4):
        first.sync(0.01)
    second.sync(1 - 0.99**4)
    for mine, theirs in zip(first.target.parameters(), second.target.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def blends(n_envs: int) -> list[float | str]:
    """The taus of 16 transitions' syncs, and the updates between them."""
    model = dqn(n_envs, lengths=(100,))
    seen: list[float | str] = []
    sync, update = model.learner.sync, model.learner.update_several

    def noting_sync(tau: float) -> None:
        seen.append(round(tau, 6))
        sync(tau)

    def noting_update(batches: Sequence[Batch], shares: Sequence[float]) -> list[Loss]:
        losses = []
        for batch, share in zip(batches, shares, strict=True):
            seen.append("update")
            losses += update([batch], [share])
        return losses

    model.learner.sync = noting_sync  # type: ignore[method-assign]
    model.learner.update_several = noting_update  # type: ignore[method-assign]
    model.learn(16)
    return seen


def test_there_is_one_blend_for_each_transition() -> None:
    # Updates are due at 12 and 16; what falls between two of them is one operation.
    assert blends(1) == [0.01] * 11 + ["update"] + [0.01] * 4 + ["update", 0.01]
    eight, three, four = (round(1 - 0.99**count, 6) for count in (8, 3, 4))
    assert blends(8) == [eight, three, "update", four, "update", 0.01]


def test_updates_that_had_to_wait_blend_nothing_that_was_blended_meanwhile() -> None:
    model = dqn(1, lengths=(100,), n_steps=20, train_freq=1, target_update_interval=3, tau=0.5)
    seen: list[float] = []
    update = model.learner.update_several

    def noting(batches: Sequence[Batch], shares: Sequence[float]) -> list[Loss]:
        seen.extend(shares)
        return update(batches, shares)

    model.learner.update_several = noting  # type: ignore[method-assign]
    model.learn(22)
    # The rounds of transitions 9 to 20 are made at 20, when 18 has been seen to.
    assert seen == [0.0] * 12 + [0.5, 0.0]


@pytest.mark.parametrize("n_envs", [1, 8])
def test_the_target_network_is_what_single_blends_would_make_of_it(n_envs: int) -> None:
    class Shadow(TargetSync):
        """Blends a copy of the weights once for every transition, one after the other."""

        def _init_callback(self) -> None:
            super()._init_callback()
            self.weights = self.model.learner.flat.values.detach().clone()

        def _sync_if_due(self) -> None:
            before, now = self.model.trainer.settled
            for _ in range(before, now):
                self.weights = 0.01 * self.model.learner.flat.values.detach() + 0.99 * self.weights
            super()._sync_if_due()

    shadow = Shadow()
    model = dqn(n_envs, learning_rate=0.05).learn(160, shadow)
    target = torch.cat([each.detach().reshape(-1) for each in model.q_net_target.parameters()])
    torch.testing.assert_close(target, shadow.weights, rtol=0, atol=1e-5)
    assert not torch.allclose(target, model.learner.flat.values.detach(), atol=1e-3)


# -- exploration and schedules -------------------------------------------------------


class Chosen:
    """An exploration that notes when it is asked."""

    def __init__(self) -> None:
        self.clocks: list[Clock] = []

    def select(self, q_values: Any, n_envs: int, n_actions: int, clock: Clock, rng: Any) -> Any:
        self.clocks.append(clock)
        return np.zeros(n_envs, np.int64)

    def rate(self, clock: Clock) -> float:
        return 0.0


@pytest.mark.parametrize(("n_envs", "first"), [(1, 16), (8, 16)])
def test_until_learning_starts_actions_are_random(n_envs: int, first: int) -> None:
    exploration = Chosen()
    setup = Setup(n_envs=n_envs, exploration=exploration, mode=AutoresetMode.SAME_STEP)
    assert setup.trainer.is_warming_up
    setup.run(64)
    assert exploration.clocks[0].steps == first
    assert not setup.trainer.is_warming_up
    actions = [int(action) for step in setup.hooks.steps for action in step.row.action]
    assert set(actions[:16]) == {0, 1, 2}
    assert set(actions[16:]) == {0}


def test_a_model_that_has_learned_does_not_warm_up_again() -> None:
    setup = Setup()
    setup.learner.n_updates = 1
    assert not setup.trainer.is_warming_up


def test_random_actions_come_from_the_trainers_own_generator() -> None:
    def actions(seed: int) -> list[int]:
        setup = Setup(Cadence(100, 4, 1, "step", 1))
        setup.trainer.seed(np.random.SeedSequence(seed))
        setup.run(40)
        return [int(step.row.action[0]) for step in setup.hooks.steps]

    assert actions(1) == actions(1) != actions(2)


@pytest.mark.parametrize("n_envs", [1, 8])
def test_exploration_reads_absolute_steps_and_episodes(n_envs: int) -> None:
    exploration = Chosen()
    setup = Setup(
        replace(EVERY_STEP, learning_starts=0), n_envs, exploration=exploration, lengths=(5,)
    )
    setup.run(40)
    setup.run(80)
    steps = [clock.steps for clock in exploration.clocks if clock.steps % 40]
    assert sorted(set(steps)) == [step for step in range(n_envs, 80, n_envs) if step % 40]
    assert all(
        clock.episodes == clock.steps // (5 * n_envs) * n_envs for clock in exploration.clocks
    )
    assert {clock.total_steps for clock in exploration.clocks if clock.steps < 40} == {40}
    assert {clock.total_steps for clock in exploration.clocks if clock.steps >= 40} == {80}


@pytest.mark.parametrize("n_envs", [1, 8])
def test_the_learning_rate_follows_its_schedule(n_envs: int) -> None:
    schedule = Linear(1.0, 0.0, 100)
    setup = Setup(n_envs=n_envs, learning_rate=schedule, lengths=(100,))
    seen: list[tuple[int, float]] = []
    setup.hooks.on_every_update = lambda: seen.append(
        (setup.trainer.num_timesteps, setup.learner.optimizer.param_groups[0]["lr"])
    )
    setup.run(64)
    assert len(seen) == 48
    assert [rate for _, rate in seen] == pytest.approx([1.0 - step / 100 for step, _ in seen])


def test_what_may_be_assigned_takes_effect_at_once() -> None:
    setup = Setup(lengths=(100,))
    setup.run(20)
    assert setup.hooks.updates == 4
    exploration = Chosen()
    setup.trainer.cadence = replace(EVERY_STEP, updates=3, batch_size=7)
    setup.trainer.learning_rate = 0.125
    setup.trainer.exploration = exploration
    setup.run(22)
    assert setup.hooks.updates == 4 + 2 * 3
    assert setup.learner.learning_rate == 0.125
    assert setup.learner.last is not None
    assert len(setup.learner.last.q) == 7
    assert [clock.steps for clock in exploration.clocks] == [20, 21]


def test_a_shorter_period_does_not_make_up_for_the_time_of_a_longer_one() -> None:
    setup = Setup(Cadence(0, 4, 50, "step", 1), lengths=(200,))
    setup.run(45)
    setup.trainer.cadence = Cadence(0, 4, 4, "step", 1)
    assert setup.run(46).learner.n_updates == 1
    assert setup.run(49).learner.n_updates == 1
    assert setup.run(50).learner.n_updates == 2


def test_a_change_of_anything_but_the_period_keeps_what_has_been_collected_for_a_round() -> None:
    setup = Setup(Cadence(0, 4, 10, "step", 1), lengths=(200,))
    setup.run(9)
    setup.trainer.cadence = replace(setup.trainer.cadence, updates=3)
    assert setup.run(10).learner.n_updates == 3


# -- the replay ----------------------------------------------------------------------


def test_the_replay_is_made_when_it_is_needed_and_once() -> None:
    setup = Setup()
    assert not setup.trainer.has_replay
    assert setup.replays_made == 0
    setup.run(20)
    assert setup.trainer.has_replay
    assert setup.trainer.replay is setup.trainer.replay
    assert setup.replays_made == 1


def test_the_replay_hears_how_surprising_its_batch_was() -> None:
    setup = Setup(lengths=(100,))
    heard: list[Any] = []
    replay, update = setup.trainer.replay, setup.learner.update_several
    replay.feedback = lambda index, surprise: heard.append((index, surprise))  # type: ignore[method-assign]
    made: list[Any] = []

    def noting(batches: Sequence[Batch], shares: Sequence[float]) -> list[Loss]:
        losses = update(batches, shares)
        made.extend((batches[i].index, losses[i].surprise) for i in range(len(losses)))
        return losses

    setup.learner.update_several = noting  # type: ignore[method-assign]
    setup.run(18)
    assert len(heard) == 2
    for (index, surprise), (expected_index, expected_surprise) in zip(heard, made, strict=True):
        assert index is expected_index
        assert surprise is expected_surprise


@pytest.mark.parametrize("transitions", [0, 2])
def test_an_update_without_a_complete_window_is_refused(transitions: int) -> None:
    setup = Setup(Cadence(100, 4, 1, "step", 1), n_steps=3, lengths=(50,))
    setup.run(transitions)
    with pytest.raises(NotReadyError, match="no transition that can be sampled; collect n_steps"):
        setup.trainer.update(1, setup.hooks)
    assert setup.hooks.updates == 0


def test_a_loaded_replay_counts_towards_learning_starts() -> None:
    filled = Setup(replace(EVERY_STEP, learning_starts=1_000), lengths=(100,))
    state = filled.run(30).replay.state_dict()
    setup = Setup(replace(EVERY_STEP, learning_starts=40), lengths=(100,))
    setup.trainer.load_replay(state)
    assert setup.trainer.is_warming_up
    seen: list[int] = []
    setup.hooks.on_every_update = lambda: seen.append(setup.trainer.num_timesteps)
    setup.run(13)
    assert seen == [11, 12, 13]


def test_a_replay_loaded_in_the_middle_of_an_episode_begins_a_new_one() -> None:
    model = DQN(
        "MlpPolicy",
        lambda: CountingEnv(0, (20,), "T"),
        n_steps=1,
        learning_starts=1_000,
        buffer_size=100,
        seed=0,
        device="cpu",
    )
    file = io.BytesIO()
    model.learn(10)
    model.save_replay_buffer(file)
    model.learn(5)
    file.seek(0)
    model.load_replay_buffer(file)
    model.learn(5)

    batch = model.replay_buffer.sample(500, Clock(0))

    (index, episode, t), after = batch.obs.T, batch.next_obs
    assert torch.equal(after, torch.stack([index, episode, t + 1], dim=1))
    assert set(t[episode == 0].tolist()) == set(range(10))
    assert set(t[episode == 1].tolist()) == set(range(5))


def test_a_loaded_replay_does_not_continue_the_episode_of_ones_own_loop_either() -> None:
    env = CountingEnv(0, (20,), "T")
    model = DQN(
        "MlpPolicy", env, n_steps=1, buffer_size=100, learning_starts=0, seed=0, device="cpu"
    )
    file = io.BytesIO()
    obs, _ = env.reset()

    def observe(count: int) -> None:
        nonlocal obs
        for _ in range(count):
            next_obs, reward, terminated, truncated, _ = env.step(0)
            model.observe(obs, 0, reward, next_obs, terminated, truncated)
            obs = next_obs

    observe(4)
    model.save_replay_buffer(file)
    observe(3)
    file.seek(0)
    model.load_replay_buffer(file)
    observe(3)

    batch = model.replay_buffer.sample(500, Clock(0))
    t, after = batch.obs[:, 2], batch.next_obs[:, 2]
    assert set(t.tolist()) == {0, 1, 2, 3, 7, 8, 9}
    assert torch.equal(after, t + 1)


# -- clocks and state ----------------------------------------------------------------


def test_restarting_the_clock_keeps_the_replay_and_the_weights() -> None:
    setup = Setup()
    trainer = setup.run(40)
    stored, updates = trainer.replay.stored, setup.learner.n_updates
    trainer.restart_clock()
    assert trainer.clock == Clock(0, 0, 40)
    assert trainer.settled == (0, 0)
    assert (trainer.replay.stored, setup.learner.n_updates) == (stored, updates)
    setup.run(10)
    assert setup.learner.n_updates == updates + 10  # no new warm-up


def test_the_settled_clock_never_runs_backwards() -> None:
    trainer = Setup().trainer
    trainer.num_timesteps = 10
    trainer.settle()
    assert trainer.settled == (0, 10)
    trainer.settle(7)
    assert trainer.settled == (10, 10)
    trainer.settle(12)
    assert trainer.settled == (10, 12)


def test_updates_of_ones_own_making_settle_the_clock() -> None:
    setup = Setup(Cadence(1_000, 4, 1, "step", 1), lengths=(100,))
    setup.run(10)
    setup.trainer.num_timesteps = 12  # two more, in a loop of one's own
    seen: list[tuple[int, int]] = []
    setup.hooks.on_every_update = lambda: seen.append(setup.trainer.settled)
    setup.trainer.update(3, setup.hooks)
    assert seen == [(10, 10), (10, 10), (10, 12)]


@pytest.mark.parametrize(
    "cadence", [Cadence(10, 4, 7, "step", 1), Cadence(10, 4, 3, "episode", -1)]
)
def test_the_state_dict_continues_as_if_nothing_had_happened(cadence: Cadence) -> None:
    first, second = Setup(cadence), Setup(cadence)
    first.run(39)
    second.stepper.reset(seed=0)
    while second.trainer.num_timesteps < 39:  # the same experience, another history
        row, episodes = second.collector.stepper.step(np.zeros(1, np.int64))
        second.trainer.store(row, len(episodes))
    second.trainer.replay.load_state_dict(copy.deepcopy(first.trainer.replay.state_dict()))
    second.learner.load_state_dict(copy.deepcopy(first.learner.state_dict()))
    second.trainer.load_state_dict(copy.deepcopy(first.trainer.state_dict()))
    for setup in (first, second):
        setup.hooks.events.clear()
        setup.run(80)
    assert first.hooks.events == second.hooks.events
    assert first.hooks.updates > 4
    for mine, theirs in zip(first.hooks.steps[-20:], second.hooks.steps[-20:], strict=True):
        assert mine.row.action.tolist() == theirs.row.action.tolist()
    assert torch.equal(first.learner.flat.values, second.learner.flat.values)
    assert first.trainer.settled == second.trainer.settled


# -- updates while environments step -------------------------------------------------------


def overlapping(setup: Setup) -> list[str]:
    """Let the environments of a loop step in the background; what happens, in order."""
    inner, pending = setup.stepper.env, []
    events = setup.hooks.events

    def send(actions: Any) -> None:
        assert not pending
        pending.append(actions)
        events.append("send")

    def receive() -> Any:
        events.append("receive")
        return inner.step(pending.pop())

    setup.stepper.background = Background(send, receive)
    setup.collector = Collector(setup.stepper, setup.learner.online, 3)
    return events


def test_updates_are_made_between_the_halves_of_the_next_step() -> None:
    setup = Setup(Cadence(2, 4, 2, "step", 2), lengths=(100,))
    events = overlapping(setup)
    setup.run(7)
    a_step, a_round = ["send", "receive", "step"], ["end", "send", "update", "update", "receive"]
    then = [*a_round, "start", "step"]
    assert events == ["start", *a_step * 4, *then, *a_step, *then, "end"]


def test_the_last_round_is_made_without_another_step() -> None:
    setup = Setup(Cadence(2, 4, 2, "step", 2), lengths=(100,))
    events = overlapping(setup)
    setup.run(6)
    assert events[-6:] == ["step", "end", "update", "update", "start", "end"]
    assert setup.hooks.updates == 4


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("updates", [2, -1])
def test_overlap_changes_neither_the_number_of_updates_nor_their_clocks(
    updates: int, n_envs: int
) -> None:
    clocks: list[list[tuple[int, ...]]] = []
    for overlaps in (False, True):
        setup = Setup(Cadence(10, 4, 3, "step", updates), n_envs, n_steps=3)
        if overlaps:
            overlapping(setup)
        seen: list[tuple[int, ...]] = []
        setup.hooks.on_every_update = lambda seen=seen, setup=setup: seen.append(
            (setup.trainer.num_timesteps, *setup.trainer.settled)
        )
        setup.run(100)
        clocks.append(seen)
    assert clocks[0] == clocks[1]
    assert len(clocks[0]) > 40


def test_actions_are_chosen_before_the_updates() -> None:
    setup = Setup(replace(EVERY_STEP, learning_starts=0), lengths=(100,))
    overlapping(setup)
    chosen: list[tuple[int, int]] = []

    class Noting(EpsilonGreedy):
        def select(self, *arguments: Any) -> Any:
            chosen.append((setup.trainer.num_timesteps, setup.learner.n_updates))
            return super().select(*arguments)

    setup.trainer.exploration = Noting(0.5)
    setup.run(5)
    assert chosen == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3)]


def test_a_step_that_a_hook_abandons_is_no_transition() -> None:
    setup = Setup(replace(EVERY_STEP, learning_starts=0), lengths=(100,))
    events = overlapping(setup)

    def ready_collector() -> Collector:
        if not setup.stepper.is_reset:
            setup.stepper.reset(seed=0)
        return setup.collector

    setup.hooks.on_every_update = lambda: (
        setup.stepper.forget() if setup.hooks.updates == 2 else None
    )
    setup.trainer.run(ready_collector, 6, setup.hooks)
    assert setup.trainer.num_timesteps == 6
    assert events.count("send") == events.count("receive") == 7
    assert events.count("step") == 6
    assert setup.hooks.updates == 6
    assert [float(step.row.obs[0, 2]) for step in setup.hooks.steps] == [0, 1, 0, 1, 2, 3]
    assert [bool(step.row.first[0]) for step in setup.hooks.steps] == [
        number in (0, 2) for number in range(6)
    ]
