"""Prioritized draws: their frequencies, their weights, and that nothing false is drawn."""

from __future__ import annotations

import copy
import io
import itertools
import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from sbdqn import DQN, MlpPolicy
from sbdqn.collector import Stepper
from sbdqn.errors import ConfigurationError, NonFiniteError, NotReadyError
from sbdqn.protocols import ObservationPart, Replay, ReplayLayout, ReplaySpec
from sbdqn.replay import Prioritized, RingReplay, Uniform
from sbdqn.schedules import Linear
from sbdqn.types import Batch, Clock, Row
from tests.environments import CountingEnv
from tests.replay.test_oracle import assert_is_true

NOW = Clock(0)
LAYOUT = ReplayLayout(
    obs=ObservationPart((), np.dtype(np.int64)),
    n_envs=1,
    capacity=50,
    n_steps=1,
    gamma=0.5,
    device=torch.device("cpu"),
    seed=np.random.SeedSequence(7),
)
# Priorities are `surprise + 0.5`: numbers without rounding.
PLAIN = Prioritized(alpha=1.0, beta=0.5, epsilon=0.5)


def add(replay: Replay, obs: Any, first: Any = False, ends: Any = False, valid: Any = True) -> None:
    """One step of each environment; an observation is a number, its successor the next one."""
    obs = np.atleast_1d(np.asarray(obs))
    first, ends, valid = (np.broadcast_to(each, obs.shape).copy() for each in (first, ends, valid))
    no = np.zeros(obs.shape, np.bool_)
    replay.add(Row(obs, obs % 3, obs / 1.0, obs + 1, ends, no, first, valid))


def filled(
    spec: Prioritized = PLAIN, transitions: int = 3, layout: ReplayLayout = LAYOUT
) -> RingReplay:
    """Transitions of one episode in each environment, one after the other."""
    replay = spec.build(layout)
    for t in range(transitions):
        add(replay, 1_000 * np.arange(layout.n_envs) + t, first=t == 0)
    return replay


def surprise(replay: Replay, surprises: dict[int, float]) -> None:
    index, size = list(surprises), list(surprises.values())
    replay.feedback(torch.tensor(index), torch.tensor(size))


def priorities(replay: RingReplay) -> dict[int, float]:
    """Of all places that can be drawn."""
    values = replay.state_dict()["rule"]["priority"].tolist()
    return {place: value for place, value in enumerate(values) if value}


def one_two_four(spec: Prioritized = PLAIN, seed: int = 7) -> RingReplay:
    """Three transitions with the priorities 1, 2 and 4."""
    replay = filled(spec, layout=replace(LAYOUT, seed=np.random.SeedSequence(seed)))
    surprise(replay, {0: 0.5, 1: 1.5, 2: 3.5})
    assert priorities(replay) == {0: 1.0, 1: 2.0, 2: 4.0}
    return replay


def assert_equal_batches(first: Batch, second: Batch) -> None:
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine, theirs)


# -- draws and weights, by hand ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_share_of_the_batch_is_a_share_of_the_priorities(seed: int) -> None:
    batch = one_two_four(seed=seed).sample(7, NOW)  # a stratum for every unit of priority
    assert sorted(batch.index.tolist()) == [0, 1, 1, 2, 2, 2, 2]
    assert torch.equal(batch.obs, batch.index)
    batch = one_two_four(seed=seed).sample(14, NOW)
    assert torch.bincount(batch.index).tolist() == [2, 4, 8]


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_weights_make_up_for_the_draws_by_the_power_of_beta(beta: float) -> None:
    batch = one_two_four(replace(PLAIN, beta=beta)).sample(7, NOW)
    by_hand = {0: 1.0, 1: 2.0**-beta, 2: 4.0**-beta}
    assert batch.weight.dtype == torch.float32
    assert batch.weight.tolist() == pytest.approx(
        [by_hand[place] for place in batch.index.tolist()]
    )


def test_the_largest_weight_of_the_batch_is_one_whatever_else_is_stored() -> None:
    replay = one_two_four()
    replay.feedback(torch.tensor([0]), torch.tensor([0.0]))  # 0.5: hardly ever drawn
    drawn = set()
    for _ in range(30):
        batch = replay.sample(2, NOW)
        places = batch.index.tolist()
        priority = [{0: 0.5, 1: 2.0, 2: 4.0}[place] for place in places]
        expected = [(each / min(priority)) ** -0.5 for each in priority]
        assert batch.weight.tolist() == pytest.approx(expected)
        drawn.add(tuple(sorted(places)))
    assert (1, 2) in drawn
    assert (2, 2) in drawn
    assert {replay.sample(1, NOW).weight.item() for _ in range(30)} == {1.0}


@pytest.mark.parametrize(
    ("alpha", "expected"), [(1.0, [1.0, 4.0, 16.0]), (0.5, [1.0, 2.0, 4.0]), (0.0, [1.0] * 3)]
)
def test_a_priority_is_the_power_of_surprise_and_epsilon(
    alpha: float, expected: list[float]
) -> None:
    replay = filled(Prioritized(alpha=alpha, epsilon=0.25))
    surprise(replay, {0: 0.75, 1: 3.75, 2: 15.75})
    assert priorities(replay) == dict(enumerate(expected))


def test_what_is_no_surprise_is_drawn_now_and_then() -> None:
    replay = filled(replace(PLAIN, epsilon=1.0), transitions=2)
    surprise(replay, {0: 0.0, 1: 3.0})
    assert torch.bincount(replay.sample(100, NOW).index).tolist() == [20, 80]


def test_the_last_surprise_of_a_transition_counts() -> None:
    replay = one_two_four()
    surprise(replay, {2: 0.5})
    assert priorities(replay) == {0: 1.0, 1: 2.0, 2: 1.0}
    replay.feedback(torch.tensor([1, 1]), torch.tensor([5.5, 5.5]))  # drawn twice
    assert priorities(replay) == {0: 1.0, 1: 6.0, 2: 1.0}


def test_feedback_leaves_the_surprise_as_it_was() -> None:
    replay = filled()
    index, given = torch.tensor([0, 1]), torch.tensor([1.0, 2.0])
    replay.feedback(index, given)
    assert (index.tolist(), given.tolist()) == ([0, 1], [1.0, 2.0])
    replay.feedback(index, torch.tensor([3.5, 4.5], requires_grad=True))
    assert priorities(replay)[1] == 5.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_surprise_may_be_of_any_floating_dtype(dtype: torch.dtype) -> None:
    replay = filled()
    replay.feedback(torch.tensor([0, 1]), torch.tensor([0.5, 3.5], dtype=dtype))
    assert priorities(replay) == {0: 1.0, 1: 4.0, 2: 1.0}


# -- new transitions ---------------------------------------------------------------------


def test_all_are_alike_before_there_is_any_surprise() -> None:
    batch = filled(transitions=4).sample(8, NOW)
    assert torch.bincount(batch.index).tolist() == [2, 2, 2, 2]
    assert batch.weight.tolist() == [1.0] * 8


def test_new_transitions_come_in_at_the_highest_priority_there_ever_was() -> None:
    replay = one_two_four()
    add(replay, 3)
    assert priorities(replay) == {0: 1.0, 1: 2.0, 2: 4.0, 3: 4.0}
    surprise(replay, {2: 0.0, 3: 0.0})  # the highest is that of all times, not that of now
    add(replay, 4)
    assert priorities(replay) == {0: 1.0, 1: 2.0, 2: 0.5, 3: 0.5, 4: 4.0}
    surprise(replay, {0: 8.5, 1: 7.5})
    add(replay, 5)
    assert priorities(replay) == {0: 9.0, 1: 8.0, 2: 0.5, 3: 0.5, 4: 4.0, 5: 9.0}


def test_the_highest_priority_is_at_least_one() -> None:
    replay = filled()
    surprise(replay, {0: 0.0, 1: 0.25, 2: 0.125})
    add(replay, 3)
    assert priorities(replay)[3] == 1.0


def test_the_highest_priority_is_a_power_too() -> None:
    replay = filled(Prioritized(alpha=0.5, epsilon=0.25))
    surprise(replay, {0: 15.75})
    add(replay, 3)
    assert priorities(replay)[3] == 4.0


def test_a_transition_comes_in_when_its_window_is_complete() -> None:
    replay = filled(transitions=3, layout=replace(LAYOUT, n_steps=3))
    assert priorities(replay) == {0: 1.0}
    surprise(replay, {0: 1.5})
    add(replay, 3)
    assert priorities(replay) == {0: 2.0, 1: 2.0}
    surprise(replay, {0: 4.5})
    add(replay, 4, ends=True)  # its shorter tails too
    assert priorities(replay) == {0: 5.0, 1: 2.0, 2: 5.0, 3: 5.0, 4: 5.0}


# -- places that are overwritten ---------------------------------------------------------


def test_what_is_overwritten_is_drawn_no_more_and_its_place_starts_afresh() -> None:
    replay = filled(transitions=4, layout=replace(LAYOUT, capacity=4))  # five rows
    surprise(replay, {0: 3.5, 1: 0.5, 2: 0.0, 3: 0.0})
    add(replay, 4)  # the observation after it takes the place of transition 0
    assert priorities(replay) == {1: 1.0, 2: 0.5, 3: 0.5, 4: 4.0}
    add(replay, 5)
    assert priorities(replay) == {0: 4.0, 2: 0.5, 3: 0.5, 4: 4.0}
    assert set(replay.sample(90, NOW).obs.tolist()) == {2, 3, 4, 5}


def test_feedback_for_a_transition_that_is_gone_is_ignored() -> None:
    replay = filled(transitions=6, layout=replace(LAYOUT, capacity=6, n_steps=3))  # seven rows
    assert priorities(replay) == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    add(replay, 6)  # the observation after it lies where transition 0 was
    add(replay, 7)  # at place 0, and its window is open
    assert priorities(replay) == {2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}
    surprise(replay, {0: 1.5, 1: 0.5, 3: 0.25})
    assert priorities(replay) == {2: 1.0, 3: 0.75, 4: 1.0, 5: 1.0}
    assert set(replay.sample(90, NOW).obs.tolist()) == {2, 3, 4, 5}


# -- beta --------------------------------------------------------------------------------


@pytest.mark.parametrize("episodes", [0, 7])
@pytest.mark.parametrize("total", [0, 10, 10**6])
@pytest.mark.parametrize(("steps", "beta"), [(0, 0.5), (50, 0.75), (100, 1.0), (10**9, 1.0)])
def test_beta_rises_by_absolute_steps(steps: int, beta: float, total: int, episodes: int) -> None:
    replay = one_two_four(replace(PLAIN, beta=Linear(0.5, 1.0, 100)))
    weight = replay.sample(7, Clock(steps, episodes, total)).weight
    assert sorted(weight.tolist()) == pytest.approx(
        sorted([1.0] + [2.0**-beta] * 2 + [4.0**-beta] * 4)
    )


def test_a_beta_that_leaves_its_range_is_refused_when_it_does() -> None:
    replay = one_two_four(replace(PLAIN, beta=Linear(0.5, 1.5, 10)))
    replay.sample(4, Clock(5))
    with pytest.raises(ConfigurationError, match=r"beta must be a number from 0 to 1, not 1\.1"):
        replay.sample(4, Clock(6))


@pytest.mark.parametrize(
    ("name", "given", "accepted"),
    [
        *(("alpha", value, "a number from 0 to 1") for value in (-0.1, 1.1, math.nan)),
        *(("beta", value, "a number from 0 to 1") for value in (-0.1, 1.1, math.nan)),
        *(("epsilon", value, "a finite number above 0") for value in (0.0, -1.0, math.inf)),
        *((name, value, "a .*") for name in ("alpha", "beta", "epsilon") for value in ("x", True)),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, given: Any, accepted: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be {accepted}, not {given!r}"):
        Prioritized(**{name: given})


def test_the_spec_is_a_value() -> None:
    assert Prioritized() == Prioritized(alpha=0.6, beta=0.4, epsilon=1e-6)
    assert repr(Prioritized()) == "Prioritized(alpha=0.6, beta=0.4, epsilon=1e-06)"
    assert Prioritized(beta=Linear(0.4, 1.0, 9)) != Prioritized()
    assert isinstance(Prioritized(), ReplaySpec)


# -- what is not finite ------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])  # NaN ** 0 would be 1
@pytest.mark.parametrize("given", [math.nan, math.inf, -1.0, -math.inf])
def test_a_surprise_that_is_not_finite_or_negative_is_refused_and_changes_nothing(
    given: float, alpha: float
) -> None:
    replay = filled(replace(PLAIN, alpha=alpha))
    surprise(replay, {0: 0.5, 1: 1.5, 2: 3.5})
    before = copy.deepcopy(replay.state_dict()["rule"])
    with pytest.raises(NonFiniteError, match="surprises must be finite and at least 0"):
        surprise(replay, {0: 1.0, 1: given, 2: 9.0})
    after = replay.state_dict()["rule"]
    assert torch.equal(after["priority"], before["priority"])
    assert after["highest"] == before["highest"]
    add(replay, 3)
    assert priorities(replay)[3] == before["highest"]


# -- the tree is one, over all environments ----------------------------------------------


def test_a_batch_is_drawn_from_all_environments() -> None:
    layout = replace(LAYOUT, n_envs=3, capacity=60)
    replay = filled(transitions=10, layout=layout)
    batch = replay.sample(30, NOW)  # of as many transitions that are alike: each of them once
    assert sorted(batch.obs.tolist()) == [1_000 * env + t for env in range(3) for t in range(10)]
    assert batch.index.tolist() == sorted(batch.index.tolist())
    # Place t * E + e: let all of environment 1 be ten times as surprising as the others.
    surprise(replay, {t * 3 + env: 9.5 if env == 1 else 0.5 for t in range(10) for env in range(3)})
    environments = torch.bincount(replay.sample(1_200, NOW).obs // 1_000)
    assert environments.tolist() == pytest.approx([100, 1_000, 100], abs=20)


class Ledger:
    """What each transition's priority should be, by its observation, and nothing of the ring."""

    def __init__(self, replay: RingReplay, spec: Prioritized) -> None:
        self.replay, self.spec = replay, spec
        self.highest = 1.0
        self.priority: dict[int, float] = {}

    def possible(self) -> list[int]:
        storage = self.replay.storage
        places = np.flatnonzero(storage.span.reshape(-1) > 0)
        observations: list[int] = storage.read(places).obs.tolist()
        return observations

    def added(self) -> None:
        self.priority = {obs: self.priority.get(obs, self.highest) for obs in self.possible()}

    def learned(self, batch: Batch, surprises: Tensor) -> None:
        for obs, size in zip(batch.obs.tolist(), surprises.tolist(), strict=True):
            priority = (size + self.spec.epsilon) ** self.spec.alpha
            self.priority[obs] = priority
            self.highest = max(self.highest, priority)

    def weights(self, batch: Batch) -> Any:
        priority = np.array([self.priority[obs] for obs in batch.obs.tolist()])
        assert isinstance(self.spec.beta, float)
        return (priority / priority.min()) ** -self.spec.beta


def wander(
    replay: RingReplay, steps: int, rng: Any, after_add: Any = None, after_sample: Any = None
) -> None:
    """Three environments with episodes and pauses at random, and learning in between."""
    obs, first = 10_000 * np.arange(3), np.ones(3, np.bool_)
    for step in range(steps):
        ends, valid = rng.random(3) < 0.2, rng.random(3) < 0.85
        add(replay, obs, first, ends & valid, valid)
        first = np.where(valid, ends, first)
        obs = obs + np.where(valid, 1 + ends, 0)  # no observation comes twice
        if after_add:
            after_add()
        if replay.sampleable and step % 3 == 0:
            batch = replay.sample(8, NOW)
            surprises = torch.from_numpy(rng.exponential(size=8)).float()
            # A transition that is drawn twice surprises twice alike.
            surprises = surprises[torch.unique(batch.index, return_inverse=True)[1]]
            if after_sample:
                after_sample(batch, surprises)
            replay.feedback(batch.index, surprises)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("alpha", [0.7, 0.0])
def test_frequencies_and_weights_are_those_of_the_priorities_after_many_wraps(
    alpha: float, n_steps: int
) -> None:
    spec = Prioritized(alpha=alpha, beta=0.6, epsilon=0.01)
    replay = spec.build(replace(LAYOUT, n_envs=3, capacity=90, n_steps=n_steps))
    ledger = Ledger(replay, spec)

    def check(batch: Batch, surprises: Tensor) -> None:
        np.testing.assert_allclose(batch.weight, ledger.weights(batch), rtol=1e-5)
        ledger.learned(batch, surprises)

    wander(replay, 400, np.random.default_rng(0), ledger.added, check)

    possible = ledger.possible()
    assert 30 < len(possible) == replay.sampleable <= replay.stored < 90
    mass = np.array([ledger.priority[obs] for obs in possible])
    assert (len(set(mass.round(9))) > 20) is (alpha > 0)
    share = mass / mass.sum()

    drawn = np.concatenate([replay.sample(2, NOW).obs for _ in range(5_000)])
    expected, freedom = len(drawn) * share, len(possible) - 1
    chi_square = ((counts_of(drawn, possible) - expected) ** 2 / expected).sum()
    assert chi_square - freedom < 4 * (2 * freedom) ** 0.5
    assert not set(drawn.tolist()) - set(possible)

    batch = replay.sample(20_000, NOW)  # its strata leave almost nothing to chance
    np.testing.assert_allclose(counts_of(batch.obs, possible), 20_000 * share, atol=2)
    np.testing.assert_allclose(batch.weight, ledger.weights(batch), rtol=1e-5)


def counts_of(drawn: Any, possible: list[int]) -> Any:
    """How often each of them was drawn."""
    values, counts = np.unique(np.asarray(drawn), return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return np.array([found.get(each, 0) for each in possible])


def test_alpha_zero_is_uniform_with_weights_of_one() -> None:
    replay = Prioritized(alpha=0.0, beta=1.0).build(replace(LAYOUT, n_envs=3, capacity=60))
    wander(replay, 200, np.random.default_rng(1))
    batch = replay.sample(100 * replay.sampleable, NOW)
    counts = batch.index.unique(return_counts=True)[1]
    assert len(counts) == replay.sampleable
    assert counts.min() >= 98
    assert counts.max() <= 102
    assert (batch.weight == 1.0).all()


# -- nothing false is drawn --------------------------------------------------------------


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("n_steps", "n_envs"), [(1, 3), (3, 1), (3, 3), (5, 8)])
def test_every_batch_is_what_the_environment_did(
    mode: AutoresetMode, n_steps: int, n_envs: int
) -> None:
    env = SyncVectorEnv(
        [lambda index=index: CountingEnv(index) for index in range(n_envs)],
        copy=False,
        autoreset_mode=mode,
    )
    layout = replace(
        LAYOUT,
        obs=ObservationPart((3,), np.dtype(np.float32)),
        n_envs=n_envs,
        capacity=24 * n_envs,
        n_steps=n_steps,
        gamma=0.9,
    )
    replay = Prioritized(alpha=1.0, beta=1.0).build(layout)
    stepper = Stepper(env, lambda obs: np.array(obs, dtype=np.float32))
    stepper.reset(seed=0)
    rng = np.random.default_rng(0)
    seen = set()
    for step in range(150):
        row, _ = stepper.step(rng.integers(0, 3, n_envs))
        replay.add(row)
        if not replay.sampleable:
            continue
        batch = replay.sample(16, Clock(step))
        span = replay.storage.span.reshape(-1)
        assert (span[batch.index.numpy()] > 0).all()
        assert len(priorities(replay)) == replay.sampleable
        seen |= set(batch.obs[:, 0].tolist())
        if step % 7 == 0 or step > 145:
            assert_is_true(batch._replace(weight=torch.ones(16)), n_steps)
        replay.feedback(batch.index, torch.from_numpy(rng.exponential(size=16)))
    assert seen == set(range(n_envs))
    assert replay.stored < 24 * n_envs < 150 * n_envs / 2  # it has wrapped


@pytest.mark.parametrize("transitions", [0, 2])
def test_nothing_to_draw_is_an_error(transitions: int) -> None:
    replay = filled(transitions=transitions, layout=replace(LAYOUT, n_steps=3))
    with pytest.raises(NotReadyError, match="no transition that can be sampled"):
        replay.sample(1, NOW)


def test_a_batch_may_be_larger_than_what_is_stored() -> None:
    batch = filled(transitions=3).sample(300, NOW)
    assert torch.bincount(batch.index).tolist() == [100] * 3


# -- seeds and state ---------------------------------------------------------------------


def draws(replay: RingReplay) -> list[list[int]]:
    return [replay.sample(5, NOW).index.tolist() for _ in range(5)]


def test_the_same_seed_draws_the_same_batches() -> None:
    first, second = (filled(transitions=40) for _ in range(2))
    other = filled(transitions=40, layout=replace(LAYOUT, seed=np.random.SeedSequence(8)))
    mine = draws(first)
    np.random.random()  # noqa: NPY002 - the user's own draw
    torch.rand(3)
    assert mine == draws(second) != draws(other)


def test_seeding_restarts_the_generator() -> None:
    replay = filled(transitions=40)
    before = draws(replay)
    assert draws(replay) != before
    replay.seed(np.random.SeedSequence(7))
    assert draws(replay) == before


@pytest.mark.parametrize("steps", [0, 2, 8, 100])
@pytest.mark.parametrize("forgotten", [0, 50])
def test_a_state_dict_continues_as_if_nothing_had_happened(steps: int, forgotten: int) -> None:
    spec = Prioritized(alpha=0.7, beta=0.6, epsilon=0.01)
    layout = replace(LAYOUT, n_envs=3, capacity=60, n_steps=3)
    first = spec.build(layout)
    second = spec.build(replace(layout, seed=np.random.SeedSequence(99)))
    wander(first, steps, np.random.default_rng(0))
    wander(second, forgotten, np.random.default_rng(1))
    if forgotten:
        second.feedback(torch.arange(60), torch.full((60,), 1e6))

    second.load_state_dict(copy.deepcopy(first.state_dict()))

    assert priorities(second) == priorities(first)
    batches: list[list[Batch]] = []
    for replay in (first, second):
        batches.append([])
        if replay.sampleable:
            batches[-1].append(replay.sample(64, NOW))
        wander(
            replay,
            60,
            np.random.default_rng(2),
            after_sample=lambda batch, surprises: batches[-1].append(batch),
        )
        batches[-1].append(replay.sample(64, NOW))
    assert len(batches[0]) == len(batches[1]) > 15
    for mine, theirs in zip(*batches, strict=True):
        assert_equal_batches(mine, theirs)
    assert priorities(second) == priorities(first)


def test_the_highest_priority_is_part_of_the_state() -> None:
    first, second = one_two_four(), filled(transitions=1)
    surprise(first, {2: 0.0})
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    add(second, 3)
    assert priorities(second) == {0: 1.0, 1: 2.0, 2: 0.5, 3: 4.0}


@pytest.mark.parametrize(
    "spec", [Uniform(), replace(PLAIN, alpha=0.0), replace(PLAIN, epsilon=0.25)]
)
def test_priorities_that_were_made_otherwise_are_refused_and_change_nothing(spec: Any) -> None:
    replay, other = filled(PLAIN), spec.build(LAYOUT)
    for mine, given in ((replay, other), (other, replay)):
        before = mine.stored
        with pytest.raises(ConfigurationError, match="the stored one"):
            mine.load_state_dict(given.state_dict())
        assert mine.stored == before
    replay.sample(8, NOW)


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="they must be equal"):
        filled().load_state_dict(filled(layout=replace(LAYOUT, capacity=51)).state_dict())


# -- memory ------------------------------------------------------------------------------


def test_a_layout_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"buffer_size=8 gives each of 4 .*at least 16"):
        Prioritized().build(replace(LAYOUT, n_envs=4, capacity=8, n_steps=3))


@pytest.mark.parametrize("capacity", [20_000, 300_000])
def test_nbytes_is_what_is_allocated(capacity: int) -> None:
    layout = replace(
        LAYOUT, obs=ObservationPart((2,), np.dtype(np.float32)), capacity=capacity, n_envs=3
    )
    tracemalloc.start()
    try:
        replay = Prioritized().build(layout)
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    needed = Prioritized().nbytes(layout)
    assert needed <= allocated < needed + 20_000
    assert needed >= Uniform().nbytes(layout) + 8 * capacity  # a float64 for each place
    assert replay.sampleable == 0


# -- through the estimator ---------------------------------------------------------------


def model_with(spec: Any, **parameters: Any) -> DQN:
    settings: dict[str, Any] = {
        "n_envs": 3,
        "buffer_size": 300,
        "learning_starts": 12,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": 3,
        "gradient_steps": 1,
        "learning_rate": 1e-2,
        "seed": 0,
    }
    policy, index = MlpPolicy(net_arch=(8,), layer_norm=False), itertools.count()
    return DQN(policy, lambda: CountingEnv(next(index)), replay=spec, **{**settings, **parameters})


def watched(model: DQN, watch: Callable[[Batch, Clock, dict[int, float]], None]) -> DQN:
    """Shows every batch, the clock that it was drawn by, and the priorities of that moment."""
    replay: Any = model.replay_buffer
    sample = replay.sample

    def sample_and_show(batch_size: int, clock: Clock) -> Batch:
        before = priorities(replay)
        batch = sample(batch_size, clock)
        watch(batch, clock, before)
        return batch

    replay.sample = sample_and_show
    return model


def test_what_was_learned_becomes_the_priority() -> None:
    spec = Prioritized(alpha=0.5, epsilon=0.125)
    drawn: list[Batch] = []
    model = watched(model_with(spec), lambda batch, *_: drawn.append(batch)).learn(60)
    assert model._n_updates == len(drawn) == 16
    assert {int(env) for batch in drawn for env in batch.obs[:, 0]} == {0, 1, 2}
    assert model.learner.last is not None
    found = priorities(model.replay_buffer)  # type: ignore[arg-type]
    size = model.learner.last.loss.surprise.double()
    expected = ((size + 0.125) ** 0.5).tolist()
    places = drawn[-1].index.tolist()
    assert [found[place] for place in places] == pytest.approx(expected, rel=1e-6)
    assert len(set(found.values())) > 10
    assert torch.equal(model.learner.last.weight, drawn[-1].weight)


def test_the_weights_of_a_run_follow_its_clock_over_several_calls_of_learn() -> None:
    spec = Prioritized(alpha=1.0, beta=Linear(0.0, 1.0, 80), epsilon=0.01)
    steps = []

    def check(batch: Batch, clock: Clock, before: dict[int, float]) -> None:
        steps.append(clock.steps)
        priority = [before[place] for place in batch.index.tolist()]
        beta = min(1.0, clock.steps / 80)
        expected = [(each / min(priority)) ** -beta for each in priority]
        assert batch.weight.tolist() == pytest.approx(expected, rel=1e-5)

    watched(model_with(spec), check).learn(45).learn(55)
    assert steps == sorted(steps)
    assert steps[0] < 20
    assert steps[-1] > 95


def test_a_saved_replay_goes_on_in_another_model() -> None:
    spec = Prioritized(alpha=0.5, beta=0.5)
    first, second = model_with(spec).learn(60), model_with(spec, seed=1)
    file = io.BytesIO()
    first.save_replay_buffer(file)
    second.load_replay_buffer(file)
    for _ in range(5):
        batches = [model.replay_buffer.sample(32, NOW) for model in (first, second)]
        assert_equal_batches(*batches)
        for model, batch in zip((first, second), batches, strict=True):
            model.replay_buffer.feedback(batch.index, batch.reward.abs())


def test_a_loss_that_is_not_finite_ends_learning() -> None:
    model = model_with("prioritized", learning_rate=1e-3).learn(30)
    with torch.no_grad():
        model.q_net.output.linear.bias.fill_(math.nan)
    with pytest.raises(NonFiniteError):
        model.learn(30)
