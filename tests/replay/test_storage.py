"""The ring in numbers worked out by hand, and against a list that never forgets."""

from __future__ import annotations

import copy
import tracemalloc
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings, strategies as st

from sbdqn.envs import ObservationAdapter
from sbdqn.errors import ConfigurationError, SpaceError
from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay import RingReplay, Storage, Uniform
from sbdqn.types import Clock, Row
from tests.environments import CountingEnv
from tests.replay.test_oracle import assert_is_true, collected

LAYOUT = ReplayLayout(
    obs=ObservationPart((1,), np.dtype(np.float32)),
    n_envs=1,
    capacity=20,
    n_steps=3,
    gamma=0.5,
    device=torch.device("cpu"),
    seed=np.random.SeedSequence(0),
)
NOW = Clock(0)
BEGIN, GO, TERMINATE, TRUNCATE, NOTHING = "begin", "go", "terminate", "truncate", "nothing"


class Entry(NamedTuple):
    """What is read of a transition: its return, what it bootstraps from, and how much."""

    reward: float
    next_obs: float
    discount: float


def storage_of(**changes: Any) -> Storage:
    return Storage(replace(LAYOUT, **changes))


def row_of(obs: Any, reward: Any, next_obs: Any, first: Any, event: Any) -> Row:
    """A row of one or several environments whose observations are single numbers."""
    events = np.atleast_1d(event)
    return Row(
        obs=np.array(obs, np.float32).reshape(-1, 1),
        action=np.array(obs, np.int64).reshape(-1) % 3,
        reward=np.array(reward, np.float64).reshape(-1),
        next_obs=np.array(next_obs, np.float32).reshape(-1, 1),
        terminated=events == TERMINATE,
        truncated=events == TRUNCATE,
        first=np.atleast_1d(np.array(first, np.bool_)),
        valid=events != NOTHING,
    )


def add_episode(storage: Storage, first_obs: int, rewards: list[float], end: str = GO) -> None:
    """One environment's episode: observations count up from `first_obs`."""
    for t, reward in enumerate(rewards):
        obs = first_obs + t
        event = end if t == len(rewards) - 1 else GO
        storage.add(row_of(obs, reward, obs + 1, t == 0, event))


def contents(storage: Storage) -> dict[float, Entry]:
    """All that can be sampled, by its observation."""
    batch = storage.read(np.flatnonzero(storage.span.reshape(-1) > 0))
    assert (batch.weight == 1.0).all()
    assert torch.equal(batch.action, batch.obs[:, 0].long() % 3)
    columns = (batch.reward, batch.next_obs[:, 0], batch.discount)
    entries = map(Entry, *(column.tolist() for column in columns))
    found = dict(zip(batch.obs[:, 0].tolist(), entries, strict=True))
    assert len(found) == len(batch.obs) == storage.sampleable
    return found


# -- n-step returns ----------------------------------------------------------------


def test_at_a_termination_all_shorter_tails_stop_bootstrapping() -> None:
    storage = storage_of()
    add_episode(storage, 10, [1.0, 2.0, 4.0, 8.0], TERMINATE)
    assert contents(storage) == {
        10: Entry(1.0 + 0.5 * 2.0 + 0.25 * 4.0, 13, 0.125),
        11: Entry(2.0 + 0.5 * 4.0 + 0.25 * 8.0, 14, 0.0),
        12: Entry(4.0 + 0.5 * 8.0, 14, 0.0),
        13: Entry(8.0, 14, 0.0),
    }


def test_at_a_truncation_each_tail_bootstraps_by_the_steps_it_spans() -> None:
    storage = storage_of()
    add_episode(storage, 10, [1.0, 2.0, 4.0, 8.0], TRUNCATE)
    assert contents(storage) == {
        10: Entry(3.0, 13, 0.125),
        11: Entry(6.0, 14, 0.125),
        12: Entry(8.0, 14, 0.25),
        13: Entry(8.0, 14, 0.5),
    }


def test_an_episode_that_is_both_terminated_and_truncated_is_terminated() -> None:
    storage = storage_of()
    row = row_of(1, 3.0, 2, True, TERMINATE)
    storage.add(row._replace(truncated=row.terminated))
    assert contents(storage) == {1: Entry(3.0, 2, 0.0)}


@pytest.mark.parametrize(("end", "discounts"), [(TERMINATE, (0, 0)), (TRUNCATE, (0.25, 0.5))])
def test_an_episode_shorter_than_the_window_is_all_tails(
    end: str, discounts: tuple[float, float]
) -> None:
    storage = storage_of()
    add_episode(storage, 10, [1.0, 2.0], end)
    assert contents(storage) == {10: Entry(2.0, 12, discounts[0]), 11: Entry(2.0, 12, discounts[1])}


def test_no_window_crosses_into_the_next_episode() -> None:
    storage = storage_of()
    add_episode(storage, 10, [1.0], TRUNCATE)
    add_episode(storage, 20, [1000.0] * 3)
    assert contents(storage)[10] == Entry(1.0, 11, 0.5)
    assert contents(storage)[20] == Entry(1750.0, 23, 0.125)


def test_a_window_that_is_open_cannot_be_sampled() -> None:
    storage = storage_of()
    for t in range(5):
        storage.add(row_of(10 + t, 1.0, 11 + t, t == 0, GO))
        assert sorted(contents(storage)) == [10 + k for k in range(t - 1)][:3]


def test_the_newest_transition_can_be_sampled_at_once_where_a_return_has_one_reward() -> None:
    storage = storage_of(n_steps=1)
    rng = np.random.default_rng(0)
    for t in range(40):
        storage.add(row_of(t, 2.0 * t, t + 1, t == 0, GO))
        assert contents(storage)[t] == Entry(2.0 * t, t + 1, 0.5)
        assert t in storage.read(storage.draw(256, rng)).obs


def test_an_interrupted_episode_is_usable_as_a_truncated_one() -> None:
    storage = storage_of()
    add_episode(storage, 10, [1.0, 2.0], GO)
    assert contents(storage) == {}
    add_episode(storage, 20, [64.0], GO)  # `first`, while the last episode is open
    assert contents(storage) == {10: Entry(2.0, 12, 0.25), 11: Entry(2.0, 12, 0.5)}
    assert (storage.stored, storage.sampleable) == (3, 2)
    storage.add(row_of(21, 32.0, 22, False, TERMINATE))
    assert contents(storage)[20] == Entry(80.0, 22, 0.0)


def test_an_interruption_concerns_its_own_environment_alone() -> None:
    storage = storage_of(n_envs=2, n_steps=2)
    storage.add(row_of([10, 50], [1, 1], [11, 51], [True, True], [GO, GO]))
    storage.add(row_of([20, 51], [4, 4], [21, 52], [True, False], [GO, GO]))
    assert contents(storage) == {10: Entry(1.0, 11, 0.5), 50: Entry(3.0, 52, 0.25)}


# -- what is no transition -----------------------------------------------------------


def test_a_step_on_which_an_environment_reset_itself_leaves_nothing() -> None:
    storage = storage_of(n_envs=2, n_steps=1)
    storage.add(row_of([10, 50], [1, 1], [11, 51], [True, True], [TERMINATE, GO]))
    storage.add(row_of([11, 51], [99, 2], [20, 52], [False, False], [NOTHING, GO]))
    storage.add(row_of([20, 52], [3, 3], [21, 53], [True, False], [GO, GO]))
    assert contents(storage) == {
        10: Entry(1.0, 11, 0.0),
        50: Entry(1.0, 51, 0.5),
        51: Entry(2.0, 52, 0.5),
        20: Entry(3.0, 21, 0.5),
        52: Entry(3.0, 53, 0.5),
    }


def test_a_row_without_a_single_transition_changes_nothing() -> None:
    storage = storage_of(n_envs=2, n_steps=1)
    storage.add(row_of([10, 50], [1, 1], [11, 51], [True, True], [TERMINATE, TRUNCATE]))
    before = contents(storage)
    storage.add(row_of([11, 51], [99, 99], [20, 60], [False, False], [NOTHING, NOTHING]))
    assert contents(storage) == before
    assert storage.stored == 2


# -- the ring ------------------------------------------------------------------------


def test_the_oldest_transitions_give_way_to_the_newest() -> None:
    storage = storage_of(capacity=4, n_steps=1)
    add_episode(storage, 0, [1.0] * 10)
    assert sorted(contents(storage)) == [6, 7, 8, 9]
    assert (storage.stored, storage.sampleable) == (4, 4)


def test_no_window_crosses_the_write_head() -> None:
    storage = storage_of(capacity=4, n_steps=3)
    for t in range(50):
        storage.add(row_of(t, float(t), t + 1, t == 0, GO))
        alive = {
            float(k): Entry(k + 0.5 * (k + 1) + 0.25 * (k + 2), k + 3, 0.125)
            for k in range(max(0, t - 3), t - 1)
        }
        assert contents(storage) == alive


def test_a_true_last_observation_takes_a_row_and_is_not_sampled() -> None:
    storage = storage_of(capacity=4, n_steps=1)  # five rows
    add_episode(storage, 10, [1.0], TERMINATE)
    add_episode(storage, 20, [1.0], TERMINATE)
    assert sorted(contents(storage)) == [10, 20]
    add_episode(storage, 30, [1.0], TERMINATE)  # its last observation takes the place of 10
    assert sorted(contents(storage)) == [20, 30]
    assert storage.span.tolist() == [[0], [0], [1], [0], [1]]


def test_environments_move_through_the_ring_on_their_own() -> None:
    storage = storage_of(n_envs=2, capacity=8, n_steps=1)  # five rows
    storage.add(row_of([0, 100], [0, 0], [1, 101], [True, True], [GO, GO]))
    for t in range(1, 9):
        storage.add(row_of([t, 999], [t, 999], [t + 1, 999], [False, False], [GO, NOTHING]))
    assert sorted(contents(storage)) == [5, 6, 7, 8, 100]
    assert contents(storage)[100] == Entry(0.0, 101, 0.5)


def test_the_counts_of_stored_and_sampleable_transitions() -> None:
    storage = storage_of(capacity=5, n_steps=2)  # six rows
    counts = []
    events = [GO, GO, TERMINATE, GO, TRUNCATE, GO, GO, GO, GO, GO, GO]
    first, obs = True, 0
    for event in events:
        storage.add(row_of(obs, 1.0, obs + 1, first, event))
        first, obs = event != GO, obs + (1 if event == GO else 10)
        counts.append((storage.stored, storage.sampleable))
    assert counts == [
        (1, 0),  # t
        (2, 1),  # t t
        (3, 3),  # t t t end: four rows
        (4, 3),  # t t t end t .: six rows
        (4, 4),  # t t end t t end: the first is overwritten
        (3, 2),  # end t t end t .
        (4, 3),  # t t end t t .
        (4, 3),  # t end t t t .
        (4, 3),  # end t t t t .
        (5, 4),  # t t t t t .
        (5, 4),
    ]


@pytest.mark.parametrize(
    ("n_envs", "n_steps", "capacity", "each", "needed"),
    [(1, 3, 3, 3, 4), (8, 1, 8, 1, 16), (4, 5, 19, 5, 24)],
)
def test_a_capacity_that_is_too_small_is_refused_with_the_numbers(
    n_envs: int, n_steps: int, capacity: int, each: int, needed: int
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        storage_of(n_envs=n_envs, n_steps=n_steps, capacity=capacity)
    assert str(raised.value) == (
        f"buffer_size={capacity} gives each of {n_envs} environments {each} transitions, fewer "
        f"than n_steps + 1 = {n_steps + 1}; make buffer_size at least {needed}"
    )
    storage_of(n_envs=n_envs, n_steps=n_steps, capacity=needed)


@pytest.mark.parametrize(("capacity", "rows"), [(24, 9), (25, 10), (27, 10), (28, 11)])
def test_the_capacity_is_shared_evenly_and_rounded_up(capacity: int, rows: int) -> None:
    assert storage_of(n_envs=3, capacity=capacity).span.shape == (rows, 3)


# -- reading -------------------------------------------------------------------------


def test_gamma_may_change_between_batches() -> None:
    storage = storage_of()
    add_episode(storage, 10, [1.0, 2.0, 4.0, 8.0], TRUNCATE)
    storage.gamma = 1.0
    assert storage.gamma == 1.0
    assert contents(storage) == {
        10: Entry(7.0, 13, 1.0),
        11: Entry(14.0, 14, 1.0),
        12: Entry(12.0, 14, 1.0),
        13: Entry(8.0, 14, 1.0),
    }
    storage.gamma = 0.0
    assert [entry.reward for entry in contents(storage).values()] == [1.0, 2.0, 4.0, 8.0]
    assert [entry.discount for entry in contents(storage).values()] == [0.0] * 4


def test_a_batch_has_the_dtypes_and_shapes_that_the_record_promises() -> None:
    storage = storage_of(obs=ObservationPart((2, 3), np.dtype(np.uint8)), n_steps=1)
    obs = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    row = row_of(0, 1.5, 1, True, GO)._replace(obs=obs, next_obs=obs + 250)
    storage.add(row)
    batch = storage.read(np.zeros(4, np.int64))
    described = {
        name: (tuple(column.shape), column.dtype) for name, column in batch._asdict().items()
    }
    assert described == {
        "obs": ((4, 2, 3), torch.uint8),
        "action": ((4,), torch.int64),
        "reward": ((4,), torch.float32),
        "next_obs": ((4, 2, 3), torch.uint8),
        "discount": ((4,), torch.float32),
        "weight": ((4,), torch.float32),
        "index": ((4,), torch.int64),
    }
    assert batch.obs[0].tolist() == obs[0].tolist()
    assert batch.next_obs[0].tolist() == (obs[0] + 250).tolist()
    assert batch.index.tolist() == [0] * 4


def test_float64_observations_are_kept_as_float32() -> None:
    adapter = ObservationAdapter(spaces.Box(-1, 1, (1,), np.float64))
    storage = storage_of(obs=adapter.layout, n_steps=1)
    obs = adapter.stored(np.array([[0.1]], np.float64))
    storage.add(row_of(0, 0.1, 0, True, GO)._replace(obs=obs, next_obs=obs))
    batch = storage.read(np.zeros(1, np.int64))
    assert batch.obs.dtype == batch.next_obs.dtype == batch.reward.dtype == torch.float32
    assert batch.obs.item() == batch.next_obs.item() == batch.reward.item() == np.float32(0.1)


def test_what_is_kept_is_copied() -> None:
    storage = storage_of(n_steps=1)
    row = row_of(1, 2.0, 2, True, GO)
    storage.add(row)
    for column in row:
        column.fill(0)
    assert contents(storage) == {1: Entry(2.0, 2, 0.5)}


def test_a_batch_is_no_view_of_the_ring() -> None:
    storage = storage_of(n_steps=1)
    storage.add(row_of(1, 2.0, 2, True, GO))
    batch = storage.read(np.zeros(1, np.int64))
    for column in batch:
        column.zero_()
    assert contents(storage) == {1: Entry(2.0, 2, 0.5)}


# -- drawing -------------------------------------------------------------------------


def test_draws_are_uniform_over_what_can_be_sampled() -> None:
    rng = np.random.default_rng(0)
    storage = storage_of(n_envs=3, capacity=60, n_steps=3)
    obs, first = np.zeros(3, np.int64), np.ones(3, np.bool_)
    for _ in range(200):  # wraps several times, episodes of different lengths everywhere
        events = rng.choice([GO, GO, GO, TERMINATE, TRUNCATE, NOTHING], 3)
        storage.add(row_of(obs, np.zeros(3), obs + 1, first, events))
        valid = events != NOTHING
        first = np.where(valid, events != GO, first)
        obs = obs + valid
    possible = np.flatnonzero(storage.span.reshape(-1) > 0)
    assert 20 < len(possible) == storage.sampleable < storage.stored < 60

    draws = 200_000
    counts = np.bincount(storage.draw(draws, rng), minlength=storage.span.size)

    assert counts.sum() == counts[possible].sum() == draws
    mean, freedom = draws / len(possible), len(possible) - 1
    chi_square = ((counts[possible] - mean) ** 2 / mean).sum()
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_draws_before_the_ring_is_full_reach_every_transition() -> None:
    storage = storage_of(n_steps=1, capacity=10_000)
    add_episode(storage, 0, [0.0] * 5)
    drawn = storage.draw(500, np.random.default_rng(0))
    assert sorted(set(drawn.tolist())) == [0, 1, 2, 3, 4]


# -- state ---------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", [0, 17])
@pytest.mark.parametrize("vector_steps", [0, 3, 50])
def test_a_state_dict_continues_as_if_nothing_had_happened(
    vector_steps: int, forgotten: int
) -> None:
    first, second = (Uniform().build(replace(LAYOUT, n_envs=2)) for _ in range(2))
    add_both_until(first, 0, vector_steps)
    add_both_until(second, 0, forgotten)

    second.load_state_dict(copy.deepcopy(first.state_dict()))

    if first.sampleable:
        drawn = [replay.sample(64, NOW).index for replay in (first, second)]
        assert torch.equal(*drawn)
    for begin in (vector_steps, vector_steps + 9):
        assert (second.stored, second.sampleable) == (first.stored, first.sampleable)
        assert contents(second.storage) == contents(first.storage)
        for replay in (first, second):
            add_both_until(replay, begin, begin + 9)
        for mine, theirs in zip(first.sample(64, NOW), second.sample(64, NOW), strict=True):
            assert torch.equal(mine, theirs)


def add_both_until(replay: RingReplay, begin: int, end: int) -> None:
    """Two environments with episodes of 4 and 7 steps."""
    for step in range(begin, end):
        t = np.array([step % 4, step % 7])
        ends = np.where(t == (3, 6), (TERMINATE, TRUNCATE), GO)
        obs = np.array([step, 10_000 + step])
        replay.add(row_of(obs, obs / 7, obs + 1, t == 0, ends))


def test_records_are_written_again_only_where_gamma_has_changed() -> None:
    def planted(replay: RingReplay) -> bool:
        """Whether a batch holds what was planted instead of its true return."""
        replay.storage._return[:] = 77.0
        return bool((replay.sample(8, NOW).reward == 77.0).all())

    first, second = (Uniform().build(replace(LAYOUT, n_envs=2)) for _ in range(2))
    add_both_until(first, 0, 9)
    assert planted(first)
    first.gamma = first.gamma
    assert planted(first)
    first.gamma = 0.25
    assert not planted(first)
    first.gamma = 0.25
    assert not planted(first)
    second.load_state_dict(first.state_dict())
    assert planted(second)


def test_a_device_of_its_own_is_written_and_read_as_the_cpu_is() -> None:
    here, there = (Uniform().build(replace(LAYOUT, n_envs=2)) for _ in range(2))
    there.storage._on_cpu = False  # goes the way of a GPU
    for replay in (here, there):
        add_both_until(replay, 0, 50)
    for mine, theirs in zip(here.sample(64, NOW), there.sample(64, NOW), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("obs", [np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float64)])
@pytest.mark.parametrize("column", ["obs", "next_obs"])
def test_observations_of_another_kind_are_refused_before_anything_is_stored(
    obs: Any, column: str
) -> None:
    storage = storage_of()
    row = row_of([0], [0], [1], [True], [GO])._replace(**{column: obs})
    with pytest.raises(SpaceError, match=r"holds observations of shape \(1,\) and dtype float32"):
        storage.add(row)
    assert storage.stored == 0


@pytest.mark.parametrize(
    ("obs", "complaint"),
    [
        (np.zeros((1, 1), np.float32), r"parts \['a', 'b'\], and was given \[''\]"),
        ({"a": np.zeros((1, 1), np.float32)}, r"parts \['a', 'b'\], and was given \['a'\]"),
        (
            {"a": np.zeros((1, 1), np.float32), "b": np.zeros((1, 3), np.int64)},
            r"shape \(2,\) and dtype int64 as the part 'b', and was given shape \(3,\)",
        ),
    ],
)
@pytest.mark.parametrize("column", ["obs", "next_obs"])
def test_parts_of_another_kind_are_refused_before_anything_is_stored(
    obs: Any, complaint: str, column: str
) -> None:
    parts = {"a": LAYOUT.obs, "b": ObservationPart((2,), np.dtype(np.int64))}
    storage = storage_of(obs=parts)
    fitting = {"a": np.zeros((1, 1), np.float32), "b": np.zeros((1, 2), np.int64)}
    row = row_of([0], [0], [1], [True], [GO])._replace(obs=fitting, next_obs=fitting)
    with pytest.raises(SpaceError, match=complaint):
        storage.add(row._replace(**{column: obs}))
    assert storage.stored == 0


@pytest.mark.parametrize(
    ("changes", "what", "mine", "theirs", "advice"),
    [
        ({"capacity": 21}, "rows", 21, 22, "make the model with buffer_size=21"),
        ({"n_envs": 2}, "environments", 1, 2, "make the model with n_envs=2"),
        ({"n_steps": 2}, "n_steps", 3, 2, "make the model with n_steps=2"),
        *(
            (
                {"obs": obs},
                "observations",
                {"": ["float32", 1]},
                observations,
                "use the environment, and the frame_stack",
            )
            for obs, observations in (
                (ObservationPart((2,), np.dtype(np.float32)), {"": ["float32", 2]}),
                (ObservationPart((1,), np.dtype(np.uint8)), {"": ["uint8", 1]}),
                ({"a": LAYOUT.obs}, {"a": ["float32", 1]}),
            )
        ),
    ],
)
def test_the_state_of_another_replay_is_refused_with_what_would_help(
    changes: dict[str, Any], what: str, mine: Any, theirs: Any, advice: str
) -> None:
    state = storage_of(**changes).state_dict()
    with pytest.raises(ConfigurationError) as raised:
        storage_of().load_state_dict(state)
    assert str(raised.value).startswith(
        f"the {what} of the stored replay are {theirs}, and of this one {mine}; they must be "
        f"equal: {advice}"
    )


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4,), np.float32), ((), np.int64), ((3, 16, 16), np.uint8)]
)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_nbytes_is_what_is_allocated(shape: tuple[int, ...], dtype: Any, n_steps: int) -> None:
    part = ObservationPart(shape, np.dtype(dtype))
    layout = replace(LAYOUT, obs=part, capacity=20_000, n_envs=3, n_steps=n_steps)
    tracemalloc.start()
    try:
        replay = Uniform().build(layout)
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    needed = Uniform().nbytes(layout)
    reward = 0 if n_steps == 1 else 4  # which is the return, where that has one
    each = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize + 3 * 8 + reward + 1 + 4
    assert needed == 3 * (6_667 + 1) * each
    assert needed <= allocated < needed + 10_000  # a few numbers for each environment
    assert replay.sampleable == 0


# -- laws ----------------------------------------------------------------------------


class EndlessList:
    """A column of each environment as a list; brute force, and nothing is overwritten."""

    def __init__(self, layout: ReplayLayout) -> None:
        self.layout = layout
        self.columns: list[list[Any]] = [[] for _ in range(layout.n_envs)]  # [obs, transition]
        self.is_open = [False] * layout.n_envs

    def add(self, row: Row) -> None:
        for env in np.flatnonzero(row.valid):
            column = self.columns[env]
            if row.first[env]:
                column.append([float(row.obs[env, 0]), None])
            column[-1][1] = (float(row.reward[env]), bool(row.terminated[env]))
            column.append([float(row.next_obs[env, 0]), None])
            self.is_open[env] = not (row.terminated[env] or row.truncated[env])

    def contents(self, rows: int) -> tuple[int, dict[float, Entry]]:
        """The number of transitions in the last `rows`, and all that is complete."""
        stored, found = 0, {}
        for column, is_open in zip(self.columns, self.is_open, strict=True):
            for begin in range(max(0, len(column) - rows), len(column)):
                if column[begin][1] is None:
                    continue
                stored += 1
                end, total = begin, 0.0
                while end < begin + self.layout.n_steps and column[end][1] is not None:
                    total += self.layout.gamma ** (end - begin) * column[end][1][0]
                    end += 1
                reaches_newest = is_open and end == len(column) - 1
                if end - begin < self.layout.n_steps and reaches_newest:
                    continue
                discount = 0.0 if column[end - 1][1][1] else self.layout.gamma ** (end - begin)
                found[column[begin][0]] = Entry(total, column[end][0], discount)
        return stored, found


EVENTS = st.sampled_from([BEGIN, GO, GO, GO, TERMINATE, TRUNCATE, NOTHING])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n_envs=st.integers(1, 3), n_steps=st.integers(1, 4), spare=st.integers(0, 6))
def test_the_ring_holds_what_a_list_would_whatever_happens(
    data: st.DataObject, n_envs: int, n_steps: int, spare: int
) -> None:
    layout = replace(
        LAYOUT, n_envs=n_envs, n_steps=n_steps, capacity=n_envs * (n_steps + 1) + spare
    )
    storage, endless = Storage(layout), EndlessList(layout)
    first, obs = np.ones(n_envs, np.bool_), np.arange(n_envs) * 10_000
    for _ in range(data.draw(st.integers(1, 30))):
        events = np.array([data.draw(EVENTS) for _ in range(n_envs)])
        obs = np.where(events == BEGIN, obs + 10, obs)  # a jump: an episode is interrupted
        row = row_of(obs, obs % 17, obs + 1, first | (events == BEGIN), events)
        storage.add(row)
        endless.add(row)
        ended = row.terminated | row.truncated
        obs = obs + row.valid + 10 * (ended & row.valid)
        first = np.where(row.valid, ended, first)

        stored, expected = endless.contents(storage.span.shape[0])
        found = contents(storage)
        assert (storage.stored, storage.sampleable) == (stored, len(expected))
        assert found.keys() == expected.keys()
        for key, entry in expected.items():
            assert found[key] == pytest.approx(entry, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple),
    kinds=st.text("TUB", min_size=1, max_size=4),
    mode=st.sampled_from(list(AutoresetMode)),
    n_envs=st.integers(1, 4),
    n_steps=st.integers(1, 5),
    spare=st.integers(0, 30),
    vector_steps=st.integers(1, 60),
)
def test_every_batch_is_true_whatever_the_episodes_are(
    lengths: tuple[int, ...],
    kinds: str,
    mode: AutoresetMode,
    n_envs: int,
    n_steps: int,
    spare: int,
    vector_steps: int,
) -> None:
    def make(index: int) -> CountingEnv:
        return CountingEnv(index, lengths, kinds)

    def check(step: int, replay: RingReplay) -> None:
        if step % 9 == 8 or step == vector_steps - 1:
            places = np.flatnonzero(replay.storage.span.reshape(-1) > 0)
            assert_is_true(replay.storage.read(places), n_steps, make)

    capacity = n_envs * (n_steps + 1) + spare
    collected(mode, n_steps, n_envs, capacity, vector_steps, check, make)
