"""Uniform draws: their generator, and what the replay passes on to its storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sbdqn.errors import NotReadyError
from sbdqn.protocols import ObservationPart, ReplayLayout, ahead
from sbdqn.replay import Prioritized, RingReplay, Uniform
from sbdqn.types import Array, Batch, Clock, Row

LAYOUT = ReplayLayout(
    obs=ObservationPart((), np.dtype(np.int64)),
    n_envs=1,
    capacity=100,
    n_steps=2,
    gamma=0.5,
    device=torch.device("cpu"),
    seed=np.random.SeedSequence(7),
)
NOW = Clock(0)


def filled(layout: ReplayLayout = LAYOUT, transitions: int = 50) -> RingReplay:
    replay = Uniform().build(layout)
    no, yes = np.zeros(1, np.bool_), np.ones(1, np.bool_)
    for t in range(transitions):
        obs = np.array([t])
        first = yes if t == 0 else no
        replay.add(Row(obs, obs % 2, obs / 1.0, obs + 1, no, no, first, yes))
    return replay


def test_a_batch_has_the_size_that_was_asked_for_even_above_what_is_stored() -> None:
    batch = filled(transitions=3).sample(200, NOW)
    assert batch.obs.shape == (200,)
    assert set(batch.obs.tolist()) == {0, 1}  # the window of the third is open


def test_the_transitions_count_those_that_wait_for_their_window_too() -> None:
    replay = filled(transitions=3)
    assert (replay.stored, replay.sampleable) == (3, 2)


def test_the_same_seed_draws_the_same_batches() -> None:
    first, second = filled(), filled()
    other = filled(replace(LAYOUT, seed=np.random.SeedSequence(8)))
    np.random.random()  # noqa: NPY002 - the user's own draw
    draws = [replay.sample(32, NOW).index.tolist() for replay in (first, second, other)]
    assert draws[0] == draws[1] != draws[2]


def test_seeding_restarts_the_generator() -> None:
    replay = filled()
    before = replay.sample(32, NOW).index.tolist()
    assert replay.sample(32, NOW).index.tolist() != before
    replay.seed(np.random.SeedSequence(7))
    assert replay.sample(32, NOW).index.tolist() == before


def test_surprise_changes_nothing() -> None:
    first, second = filled(), filled()
    first.feedback(torch.tensor([0, 1]), torch.tensor([1e9, 0.0]))
    assert first.sample(32, NOW).index.tolist() == second.sample(32, NOW).index.tolist()


def test_gamma_reaches_the_returns() -> None:
    replay = filled()
    assert replay.gamma == 0.5
    batch = replay.sample(8, NOW)
    torch.testing.assert_close(batch.reward, 1.5 * batch.obs + 0.5)
    assert (batch.discount == 0.25).all()
    replay.gamma = 1.0
    assert replay.gamma == 1.0
    batch = replay.sample(8, NOW)
    torch.testing.assert_close(batch.reward, 2.0 * batch.obs + 1.0)
    assert (batch.discount == 1.0).all()


def test_the_generator_is_part_of_the_state() -> None:
    first = filled()
    first.sample(5, NOW)
    second = filled(replace(LAYOUT, seed=np.random.SeedSequence(99)))
    second.load_state_dict(first.state_dict())
    assert first.sample(32, NOW).index.tolist() == second.sample(32, NOW).index.tolist()


def test_the_spec_is_a_value() -> None:
    assert Uniform() == Uniform()
    assert repr(Uniform()) == "Uniform()"


@pytest.mark.parametrize("transitions", [0, 1])
def test_nothing_to_draw_is_an_error_and_no_endless_search(transitions: int) -> None:
    with pytest.raises(NotReadyError, match="no transition that can be sampled"):
        filled(transitions=transitions).sample(1, NOW)


# -- several batches at once -----------------------------------------------------------------


def of_episodes(length: int, transitions: int = 60) -> RingReplay:
    """Episodes of a few transitions, so that a share of the places cannot be sampled."""
    replay = Uniform().build(replace(LAYOUT, n_steps=1))
    no, yes = np.zeros(1, np.bool_), np.ones(1, np.bool_)
    for t in range(transitions):
        obs, begins, ends = np.array([t]), t % length == 0, t % length == length - 1
        flags = (yes if ends else no, no, yes if begins else no, yes)
        replay.add(Row(obs, obs % 2, obs / 1.0, obs + 1, *flags))
    return replay


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("length", [1, 3, 60])  # half of the places, a quarter, one
def test_several_batches_at_once_are_those_of_as_many_draws(length: int, count: int) -> None:
    together, single = of_episodes(length), of_episodes(length)
    for _ in range(5):
        batches = together.sample_several(16, count, NOW)
        assert len(batches) == count
        for batch in batches:
            for mine, theirs in zip(batch, single.sample(16, NOW), strict=True):
                assert torch.equal(mine, theirs)
                assert mine.dtype == theirs.dtype


def test_they_take_one_reading_and_no_draw_for_each() -> None:
    replay = of_episodes(60)
    read, lengths = replay.storage.read, []

    def counting(index: Array, weight: Array | None = None) -> Batch:
        lengths.append(len(index))
        return read(index, weight)

    replay.storage.read = counting  # type: ignore[method-assign]
    replay.sample_several(16, 10, NOW)
    assert lengths == [160]


def test_they_have_the_parts_of_observations_by_name() -> None:
    part = ObservationPart((2,), np.dtype(np.float32))
    replay = Uniform().build(replace(LAYOUT, obs={"a": part, "b": part}, n_steps=1))
    no, yes = np.zeros(1, np.bool_), np.ones(1, np.bool_)
    for t in range(9):
        now, then = (
            {"a": np.full((1, 2), n, np.float32), "b": np.full((1, 2), -n, np.float32)}
            for n in (t, t + 1)
        )
        zero = np.zeros(1, np.int64)
        replay.add(Row(now, zero, zero / 1.0, then, no, no, yes if t == 0 else no, yes))
    for batch in replay.sample_several(4, 3, NOW):
        assert isinstance(batch.obs, dict)
        assert isinstance(batch.next_obs, dict)
        assert list(batch.obs) == ["a", "b"]
        assert torch.equal(batch.obs["a"], -batch.obs["b"])
        assert torch.equal(batch.obs["a"][:, 0], batch.index)
        assert torch.equal(batch.next_obs["a"], batch.obs["a"] + 1)


def test_one_of_them_may_be_written_to() -> None:
    replay = of_episodes(60)
    first, second = replay.sample_several(16, 2, NOW)
    weight = second.weight.clone()
    for column in first:
        column.zero_()
    assert torch.equal(second.weight, weight)
    assert (replay.sample(16, NOW).weight == 1.0).all()


def test_nothing_to_draw_is_an_error_for_several_too() -> None:
    with pytest.raises(NotReadyError, match="no transition that can be sampled"):
        filled(transitions=1).sample_several(1, 2, NOW)


def test_batches_are_drawn_ahead_where_no_feedback_matters() -> None:
    replay = filled()
    assert ahead(replay) is replay
    assert ahead(Prioritized().build(LAYOUT)) is None


def test_a_rule_that_feedback_changes_draws_several_one_by_one() -> None:
    def prioritized() -> RingReplay:
        replay = Prioritized().build(replace(LAYOUT, n_steps=1))
        no, yes = np.zeros(1, np.bool_), np.ones(1, np.bool_)
        for t in range(20):
            obs = np.array([t])
            replay.add(Row(obs, obs % 2, obs / 1.0, obs + 1, no, no, yes if t == 0 else no, yes))
        return replay

    together, single = prioritized(), prioritized()
    for batch in together.sample_several(8, 3, NOW):
        assert torch.equal(batch.index, single.sample(8, NOW).index)


def test_a_subclass_with_draws_or_feedback_of_its_own_does_not_draw_ahead() -> None:
    class OtherSample(RingReplay):
        def sample(self, batch_size: int, clock: Clock) -> Batch:
            return super().sample(batch_size, clock)

    class OtherFeedback(RingReplay):
        def feedback(self, index: torch.Tensor, surprise: torch.Tensor) -> None:
            super().feedback(index, surprise)

    class OtherState(RingReplay):
        def seed(self, seed: np.random.SeedSequence) -> None:
            super().seed(seed)

    replay = filled()
    for kind, draws_ahead in ((OtherSample, False), (OtherFeedback, False), (OtherState, True)):
        other = kind(replay.storage, replay._rule, LAYOUT.seed)
        assert (ahead(other) is not None) == draws_ahead, kind
