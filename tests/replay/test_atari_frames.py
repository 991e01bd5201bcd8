"""On real Atari games too, frames give back the stacks that ALE returned."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from sbdqn.collector import Stepper
from sbdqn.envs import ObservationAdapter, make_vector_env, stacked_frames, with_frames
from sbdqn.memory import Memory
from sbdqn.protocols import ReplayLayout, ReplaySpec
from sbdqn.replay import Prioritized, Uniform
from sbdqn.types import Clock
from tests.replay.test_parts import CPU, GAMMA, Truth, stacked

pytest.importorskip("ale_py", reason="sbdqn[atari] is not installed")

GAMES = ("Breakout", "Pong", "Seaquest")
NOW = Clock(0)


def expect_equal(
    env: VectorEnv[Any, Any, Any], spec: ReplaySpec, n_steps: int, transitions: int
) -> Any:
    """Play at random, in a small ring that wraps often, and compare what is drawn."""
    adapter, n_envs = ObservationAdapter(env.single_observation_space), env.num_envs
    part = with_frames(adapter.layout, Memory(), stacked_frames(env))
    seed = np.random.SeedSequence(0)
    replay: Any = spec.build(ReplayLayout(part, n_envs, 60 * n_envs, n_steps, GAMMA, CPU, seed))
    truth, stepper, rng = Truth(n_steps), Stepper(env, adapter.stored), np.random.default_rng(0)
    stepper.reset(seed=0)
    n_actions = env.single_action_space.n  # type: ignore[attr-defined]
    number, ends = 0, 0
    while number < transitions:
        row, _ = stepper.step(rng.integers(0, n_actions, n_envs))
        ends += int((row.terminated | row.truncated).sum())
        row = row._replace(action=np.arange(n_envs) + number)
        truth.add(row)
        truth.forget(200)
        replay.add(row)
        number += n_envs
        if number > 200 and (number // n_envs) % 16 == 0:
            batch = replay.sample(16, NOW)
            truth.expect(batch)
            replay.feedback(batch.index, torch.rand(16))
    truth.expect(replay.storage.read(np.flatnonzero(replay.storage.span.reshape(-1) > 0)))
    assert ends >= transitions // 4_000
    env.close()
    return replay


def native(game: str, **env_kwargs: Any) -> VectorEnv[Any, Any, Any]:
    settings = {"repeat_action_probability": 0.25, "num_threads": 1, **env_kwargs}
    return make_vector_env(f"ALE/{game}-v5", 2, env_kwargs=settings)


def wrapped(game: str, mode: AutoresetMode, padding: str) -> VectorEnv[Any, Any, Any]:
    def make() -> gymnasium.Env[Any, Any]:
        raw = gymnasium.make(f"ALE/{game}-v5", frameskip=1, max_num_frames_per_episode=1_200)
        return FrameStackObservation(AtariPreprocessing(raw), 4, padding_type=padding)

    return SyncVectorEnv([make, make], copy=False, autoreset_mode=mode)


@pytest.mark.parametrize("game", GAMES)
def test_ales_own_vector_environment(game: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sbdqn"):
        env = native(game, terminal_on_life_loss=True, max_num_frames_per_episode=1_500)
        replay = expect_equal(env, Uniform(), 3, 1_600)
    assert stacked(replay).whole == 0
    assert caplog.messages == []  # nothing was kept whole


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_gymnasiums_stacks(mode: AutoresetMode, padding: str) -> None:
    replay = expect_equal(wrapped("Pong", mode, padding), Prioritized(), 2, 700)
    assert stacked(replay).whole == 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", [Uniform(), Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("game", GAMES)
def test_ales_own_vector_environment_for_twenty_thousand_steps(game: str, spec: ReplaySpec) -> None:
    expect_equal(native(game, terminal_on_life_loss=True), spec, 3, 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("game", GAMES)
def test_gymnasiums_stacks_for_twenty_thousand_steps(game: str, mode: AutoresetMode) -> None:
    expect_equal(wrapped(game, mode, "reset"), Uniform(), 3, 20_000)
