"""A brute-force oracle agrees with every batch, whatever happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn.collector import Stepper
from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay import RingReplay, Uniform
from sbdqn.types import Batch, Clock
from tests.environments import CountingEnv

GAMMA = 0.9
MakeEnv = Callable[[int], CountingEnv]


def collected(
    mode: AutoresetMode,
    n_steps: int,
    n_envs: int,
    capacity: int,
    vector_steps: int,
    check: Any,
    make: MakeEnv = CountingEnv,
) -> RingReplay:
    env = SyncVectorEnv(
        [lambda index=index: make(index) for index in range(n_envs)],
        copy=False,
        autoreset_mode=mode,
    )
    layout = ReplayLayout(
        obs=ObservationPart((3,), np.dtype(np.float32)),
        n_envs=n_envs,
        capacity=capacity,
        n_steps=n_steps,
        gamma=GAMMA,
        device=torch.device("cpu"),
        seed=np.random.SeedSequence(0),
    )
    replay = Uniform().build(layout)
    stepper = Stepper(env, lambda obs: np.array(obs, dtype=np.float32))
    stepper.reset(seed=0)
    rng = np.random.default_rng(0)
    for step in range(vector_steps):
        row, _ = stepper.step(rng.integers(0, 3, n_envs))
        replay.add(row)
        check(step, replay)
    return replay


def expected(
    obs: Any, n_steps: int, make: MakeEnv = CountingEnv
) -> tuple[float, float, list[float]]:
    """The return, the discount and the successor of the transition at `obs`."""
    index, episode, t = map(int, obs)
    env = make(index)
    length, kind = env.length(episode), env.kind(episode)
    span = min(n_steps, length - t)
    total = sum(GAMMA**k * env.reward(index, episode, t + k) for k in range(span))
    terminal = t + span == length and kind in "TB"
    return total, 0.0 if terminal else GAMMA**span, [index, episode, t + span]


def assert_is_true(batch: Batch, n_steps: int, make: MakeEnv = CountingEnv) -> None:
    for place in range(len(batch.reward)):
        total, discount, successor = expected(batch.obs[place], n_steps, make)
        assert batch.reward[place].item() == pytest.approx(total, rel=1e-5)
        assert batch.discount[place].item() == pytest.approx(discount, rel=1e-5)
        assert batch.next_obs[place].tolist() == successor
        assert batch.weight[place].item() == 1.0


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize("n_envs", [1, 3, 8])
def test_every_batch_is_what_the_environment_did(
    mode: AutoresetMode, n_steps: int, n_envs: int
) -> None:
    def check(step: int, replay: RingReplay) -> None:
        if step > n_steps and step % 7 == 0:
            assert_is_true(replay.sample(32, Clock(step)), n_steps)

    replay = collected(mode, n_steps, n_envs, 24 * n_envs, 150, check)

    assert_is_true(replay.sample(512, Clock(0)), n_steps)
