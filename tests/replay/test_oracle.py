"""A brute-force oracle agrees with every batch, whatever happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn.collector import Stepper
from sbdqn.envs import ObservationAdapter
from sbdqn.protocols import ReplayLayout, ReplaySpec
from sbdqn.replay import Prioritized, RingReplay, Uniform
from sbdqn.types import Batch, Clock
from tests.environments import CountingEnv, DictCountingEnv, TupleCountingEnv

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
    spec: ReplaySpec = Uniform(),  # noqa: B008  # frozen
) -> RingReplay:
    env = SyncVectorEnv(
        [lambda index=index: make(index) for index in range(n_envs)],
        copy=False,
        autoreset_mode=mode,
    )
    adapter = ObservationAdapter(env.single_observation_space)
    layout = ReplayLayout(
        obs=adapter.layout,
        n_envs=n_envs,
        capacity=capacity,
        n_steps=n_steps,
        gamma=GAMMA,
        device=torch.device("cpu"),
        seed=np.random.SeedSequence(0),
    )
    replay: Any = spec.build(layout)
    stepper = Stepper(env, adapter.stored)
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


@pytest.mark.parametrize("spec", [Uniform(), Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("kind", [DictCountingEnv, TupleCountingEnv])
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("n_envs", "n_steps"), [(1, 1), (1, 5), (3, 1), (8, 3)])
def test_so_it_is_of_observations_of_several_parts(
    n_envs: int, n_steps: int, mode: AutoresetMode, kind: Any, spec: ReplaySpec
) -> None:
    def named(batch: Batch) -> Batch:
        obs, next_obs = (torch.from_numpy(kind.plain(each)) for each in (batch.obs, batch.next_obs))
        return batch._replace(obs=obs, next_obs=next_obs, weight=torch.ones(len(batch.reward)))

    def check(step: int, replay: RingReplay) -> None:
        if step > n_steps and step % 7 == 0:
            batch = replay.sample(32, Clock(step))
            assert_is_true(named(batch), n_steps, kind)
            replay.feedback(batch.index, torch.rand(32))

    replay = collected(mode, n_steps, n_envs, 24 * n_envs, 100, check, kind, spec)

    assert_is_true(named(replay.sample(200, Clock(0))), n_steps, kind)
