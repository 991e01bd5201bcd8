"""Uniform draws: their generator, and what the replay passes on to its storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sbdqn.errors import NotReadyError
from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay import RingReplay, Uniform
from sbdqn.types import Clock, Row

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
