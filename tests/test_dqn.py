"""The estimator from end to end: learning, predicting, continuing, stopping."""

from __future__ import annotations

import copy
import functools
import io
import os
import pickle
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import DiscretizeAction

from sbdqn import DQN, MlpPolicy, assembly, backups, evaluate_policy, heads, memory, replay, specs
from sbdqn.callbacks import BaseCallback
from sbdqn.errors import (
    ConfigurationError,
    NonFiniteError,
    NotReadyError,
    ReplayMemoryError,
    SpaceError,
)
from sbdqn.exploration import Boltzmann, EpsilonGreedy
from sbdqn.logger import KVWriter, Logger
from sbdqn.schedules import Linear
from sbdqn.types import Purpose
from tests.environments import ChainEnv, CountingEnv
from tests.warnings_of_workers import FORK

ENDLESS: dict[str, Any] = {"env_kwargs": {"lengths": (1000,)}}


class AnyObsEnv(gym.Env[Any, Any]):
    """Random observations of any space; refuses actions that are not of its space."""

    def __init__(self, space: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = space, actions
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.actions.append(action)
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 7, False, {}


def small(env: Any = CountingEnv, **parameters: Any) -> DQN:
    """A model that learns from every step but the first ten, whatever the defaults are."""
    settings: dict[str, Any] = {
        "buffer_size": 400,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": 1,
        "gradient_steps": 1,
        "target_update_interval": 5,
        "seed": 0,
    }
    policy = MlpPolicy(net_arch=(8,), layer_norm=False)
    return DQN(policy, env, **{**settings, **parameters})


def weights(model: DQN) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.policy.parameters()]).clone()


# Predicting -------------------------------------------------------------------------------


def test_one_observation_gives_one_action_that_can_be_a_key() -> None:
    action, state = small("CartPole-v1").predict([0.0, 0.1, 0.2, 0.3], state="as it was")
    assert type(action) is np.int64
    assert {0: "left", 1: "right"}[action] in ("left", "right")
    assert state == "as it was"


def test_a_batch_gives_an_action_for_each() -> None:
    model = small("CartPole-v1")
    actions, state = model.predict(np.zeros((7, 4)))
    assert (actions.shape, actions.dtype, state) == ((7,), np.int64, None)
    assert model.predict(np.zeros((1, 4)))[0].shape == (1,)
    assert model.predict(np.zeros((0, 4)))[0].shape == (0,)


def test_values_have_an_axis_of_actions() -> None:
    model = small("CartPole-v1")
    obs = np.random.default_rng(0).normal(size=(7, 4))
    values = model.q_values(obs)
    assert (values.shape, values.dtype) == ((7, 2), np.float32)
    assert model.q_values(obs[0]).shape == (2,)
    np.testing.assert_allclose(model.q_values(obs[0]), values[0], rtol=1e-5)
    np.testing.assert_array_equal(model.predict(obs)[0], values.argmax(axis=1))


def test_the_network_gives_the_same_values() -> None:
    model = small("CartPole-v1")
    obs = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    with torch.no_grad():
        values = model.q_net(torch.from_numpy(obs))
    np.testing.assert_allclose(values.numpy(), model.q_values(obs), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.policy(torch.from_numpy(obs)), model.predict(obs)[0])


@pytest.mark.parametrize(
    "given",
    [
        [[0.5, 1.0, -2.0, 0.25], [1.0, 2.0, 3.0, 4.0]],
        np.array([[0.5, 1.0, -2.0, 0.25], [1.0, 2.0, 3.0, 4.0]], np.float64),
        torch.tensor([[0.5, 1.0, -2.0, 0.25], [1.0, 2.0, 3.0, 4.0]], requires_grad=True),
        np.asfortranarray([[0.5, 1.0, -2.0, 0.25], [1.0, 2.0, 3.0, 4.0]], np.float32),
        np.array([[1.0, 2.0, 3.0, 4.0], [0.5, 1.0, -2.0, 0.25]], np.float32)[::-1],
        np.broadcast_to(np.float32([[0.5, 1, -2, 0.25], [1, 2, 3, 4]]), (2, 4)),
        np.array([[0.5, 1.0, -2.0, 0.25], [1.0, 2.0, 3.0, 4.0]], ">f4"),
    ],
    ids=["list", "float64", "tensor", "fortran", "reversed", "readonly", "bigendian"],
)
def test_however_numbers_are_laid_out_the_values_are_the_same(given: Any) -> None:
    model = small("CartPole-v1")
    plain = np.array([[0.5, 1.0, -2.0, 0.25], [1.0, 2.0, 3.0, 4.0]], np.float32)
    np.testing.assert_array_equal(model.q_values(given), model.q_values(plain))
    np.testing.assert_array_equal(model.predict(given)[0], model.predict(plain)[0])
    for deterministic in (True, False):
        assert model.predict(given, deterministic=deterministic)[0].shape == (2,)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([0.0, 1.0], r"expected one observation of shape \(4,\) or a batch .*got shape \(2,\)"),
        (([0.0] * 4, {}), r"a tuple \(observation, info\), as env\.reset\(\) returns; pass its fi"),
        ({"obs": [0.0] * 4}, r"a dict with the keys \['obs'\], expected an observation of Box"),
        ("left", "of dtype <U4, which cannot become float32"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "q_values", "exploring", "act"])
def test_what_is_no_observation_is_refused(method: str, given: Any, complaint: str) -> None:
    model = small("CartPole-v1", exploration="greedy")
    ask = {
        "predict": model.predict,
        "q_values": model.q_values,
        "exploring": functools.partial(model.predict, deterministic=False),
        "act": model.act,
    }[method]
    with pytest.raises(SpaceError, match=complaint):
        ask(given)


def test_exploring_predictions_explore_as_data_collection_does() -> None:
    model = small(exploration=EpsilonGreedy(0.5))
    obs = np.zeros((3_000, 3))
    greedy = model.predict(obs)[0]
    chosen = model.predict(obs, deterministic=False)[0]
    assert set(greedy) == {greedy[0]}
    # A random action is the greedy one in a third of the cases.
    assert np.mean(chosen == greedy) == pytest.approx(2 / 3, abs=0.03)
    assert {type(model.predict([0, 0, 0], deterministic=False)[0]) for _ in range(9)} == {np.int64}


def test_exploring_predictions_follow_the_clock() -> None:
    model = small(exploration=EpsilonGreedy(Linear(1.0, 0.0, 20)), **ENDLESS)
    assert len(set(model.predict(np.zeros((99, 3)), deterministic=False)[0])) == 3
    model.learn(20)
    assert len(set(model.predict(np.zeros((99, 3)), deterministic=False)[0])) == 1


def test_exploring_predictions_are_repeatable_and_leave_training_alone() -> None:
    one, other = small(), small()
    draws = [one.predict(np.zeros((50, 3)), deterministic=False)[0] for _ in range(2)]
    again = [other.predict(np.zeros((50, 3)), deterministic=False)[0] for _ in range(2)]
    np.testing.assert_array_equal(draws, again)
    assert not np.array_equal(*draws)
    assert torch.equal(weights(one.learn(40)), weights(small().learn(40)))


# Spaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float64),
        spaces.Box(-1, 1, (2, 2), np.float32),
        spaces.Box(-1, 1, (), np.float32),
        spaces.Box(0, 255, (3, 6, 5), np.uint8),
        spaces.Box(-9, 9, (2,), np.int32),
        spaces.Box(0, 9, (2,), np.uint16),
        spaces.Discrete(5),
        spaces.Discrete(5, start=-3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 5], [-1, 0]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_observations_of_every_kind_train(space: spaces.Space[Any], n_envs: int) -> None:
    def make() -> AnyObsEnv:
        return AnyObsEnv(copy.deepcopy(space), spaces.Discrete(3, start=4))

    model = small(make, n_envs=n_envs).learn(60)
    assert model.observation_space == space
    assert model._n_updates == model.num_timesteps - 10
    assert np.isfinite(model.q_values(space.sample())).all()
    batch = model.replay_buffer.sample(50, model.trainer.clock)
    for obs in batch.obs:
        discrete = isinstance(space, spaces.Discrete)
        assert space.contains(obs.item() if discrete else obs.numpy().astype(space.dtype))
    assert set(batch.action.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("start", [0, 7, -2])
def test_actions_are_the_spaces_own_outside_and_counted_from_zero_inside(start: int) -> None:
    env = AnyObsEnv(spaces.Discrete(5), spaces.Discrete(3, start=start))
    model = small(env).learn(60)
    own = {start, start + 1, start + 2}
    assert set(map(int, env.actions)) == own
    assert set(model.replay_buffer.sample(200, model.trainer.clock).action.tolist()) == {0, 1, 2}
    assert model.predict(0)[0] == model.q_values(0).argmax() + start
    assert set(model.predict([0] * 200, deterministic=False)[0]) <= own
    assert model.act(0) in own
    model.observe(0, start + 2, 1.0, 1, True, False)
    with pytest.raises(SpaceError, match="outside of Discrete"):
        model.observe(0, start + 3, 1.0, 1, True, False)


def test_actions_other_than_discrete_ones_are_refused_with_the_way_out() -> None:
    with pytest.raises(SpaceError, match=r"not Box.*gymnasium\.wrappers\.DiscretizeAction"):
        small("Pendulum-v1").learn(10)
    with pytest.raises(SpaceError, match=r"not MultiDiscrete.*TransformAction"):
        _ = small(AnyObsEnv(spaces.Discrete(2), spaces.MultiDiscrete([2, 2]))).q_net


def test_the_way_out_of_continuous_actions_leads_out() -> None:
    env = DiscretizeAction(gym.make("Pendulum-v1"), bins=3)
    model = small(env).learn(30)
    assert model.action_space == spaces.Discrete(3)
    assert model.predict([1.0, 0.0, 0.0])[0] in range(3)


@pytest.mark.parametrize(
    ("space", "way_out"),
    [
        (spaces.Text(3), r"Box.*flatten others with gymnasium\.wrappers\.Flatten"),
        (spaces.Tuple([spaces.Discrete(2)] * 2), "use MultiInputPolicy"),
    ],
)
def test_observations_that_the_policy_cannot_read_are_refused(
    space: spaces.Space[Any], way_out: str
) -> None:
    env = AnyObsEnv(space, spaces.Discrete(2))
    with pytest.raises(SpaceError, match=way_out):
        small(env).learn(10)


# What exists when ---------------------------------------------------------------------------


def test_the_constructor_makes_nothing() -> None:
    calls = []

    def make() -> CountingEnv:
        calls.append(1)
        return CountingEnv()

    model = small(make, buffer_size=10**15)
    state = torch.get_rng_state()
    model.get_params()
    model.set_params(gamma=0.5)
    assert repr(model)
    assert (model.num_timesteps, model._n_updates) == (0, 0)
    assert model.logger.get_dir() is None
    assert calls == []
    assert torch.equal(torch.get_rng_state(), state)
    assert model.n_envs == 1
    assert calls == [1]


def test_predicting_needs_no_replay() -> None:
    model = small(buffer_size=10**15)
    model.predict([0, 0, 0])
    model.save(io.BytesIO())
    assert not model.trainer.has_replay


def test_attributes_are_those_of_sb3() -> None:
    model = small(n_envs=2, exploration_fraction=0.5, exploration_final_eps=0.25)
    assert (model.num_timesteps, model._n_updates, model.n_envs) == (0, 0, 2)
    assert model.exploration_rate == 1.0
    assert len(model.ep_info_buffer) == len(model.ep_success_buffer) == 0
    assert model.device == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert isinstance(model.env, SyncVectorEnv)
    assert model.observation_space == CountingEnv().observation_space
    assert model.action_space == CountingEnv().action_space
    assert model.policy.q_net is model.q_net
    assert model.policy.q_net_target is model.q_net_target is not model.q_net
    assert torch.equal(model.q_net.output.linear.bias, model.q_net_target.output.linear.bias)
    model.learn(80)
    assert model.num_timesteps >= 80
    assert model.exploration_rate == 0.25
    env = CountingEnv()
    total = sum(env.reward(0, 0, t) for t in range(env.length(0)))
    assert model.ep_info_buffer[0] == {"r": total, "l": env.length(0)}
    assert set(model.ep_success_buffer) == {0.0, 1.0}
    assert model.replay_buffer.stored == model.num_timesteps


def test_get_params_is_what_was_passed_whatever_is_built() -> None:
    env = CountingEnv()
    model = small(env, device="cpu")
    before = model.get_params(deep=False)
    model.learn(20)
    assert model.get_params(deep=False) == before
    assert model.get_params()["env"] is env
    assert model.get_params()["device"] == "cpu"
    assert model.get_params()["policy"] == MlpPolicy(net_arch=(8,), layer_norm=False)


def test_a_model_without_environment_says_so() -> None:
    model = small(None)
    assert model.env is None
    assert model.get_env() is None
    for ask in (lambda: model.learn(1), lambda: model.predict([0]), lambda: model.n_envs):
        with pytest.raises(NotReadyError, match="set_env"):
            ask()
    model.set_env(CountingEnv)
    assert model.learn(10).num_timesteps == 10


# Learning -----------------------------------------------------------------------------------


def test_learn_returns_the_model_after_so_many_transitions() -> None:
    model = small()
    assert model.learn(25) is model
    assert model.num_timesteps == 25
    assert model.learn(25.0).num_timesteps == 50  # type: ignore[arg-type]
    assert model.learn(np.int64(5)).num_timesteps == 55


@pytest.mark.parametrize("steps", [0, -5, 1.5, float("nan"), float("inf"), True, "100", [1], 1j])
def test_a_number_of_steps_is_a_whole_number_above_zero(steps: Any) -> None:
    model = small()
    with pytest.raises(ConfigurationError, match="a number of steps must be"):
        model.learn(steps)
    with pytest.raises(ConfigurationError, match="a number of steps must be"):
        model.train(steps)
    assert model.num_timesteps == 0


def test_a_number_of_steps_may_be_left_out_where_some_are_left() -> None:
    model = small()
    with pytest.raises(NotReadyError, match="total_timesteps must say how long"):
        model.learn()
    with pytest.raises(ConfigurationError, match="a number of steps must be"):
        model.train(None)  # type: ignore[arg-type]


def test_a_second_learn_continues_the_episode_the_clock_and_the_weights() -> None:
    env, whole = CountingEnv(lengths=(50,)), CountingEnv(lengths=(50,))
    model = small(env).learn(30)
    between = weights(model)
    assert model.learn(30).num_timesteps == 60
    assert env.episode == 1
    assert [info["l"] for info in model.ep_info_buffer] == [50]
    assert not torch.equal(weights(model), between)
    # Cut in two or not, it is the same run, for a schedule that does not ask for the length.
    other = small(whole, exploration=EpsilonGreedy(0.3)).learn(60)
    model = small(CountingEnv(lengths=(50,)), exploration=EpsilonGreedy(0.3)).learn(30).learn(30)
    assert torch.equal(weights(model), weights(other))
    assert whole.actions == model.env.envs[0].actions  # type: ignore[union-attr]


def test_epsilon_neither_restarts_nor_jumps_in_a_second_learn() -> None:
    rates: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            rates.append(self.model.exploration_rate)
            return True

    model = small(
        exploration_fraction=0.5, exploration_initial_eps=1.0, exploration_final_eps=0.0, **ENDLESS
    )
    model.learn(20, callback=Watch()).learn(40, callback=Watch())
    np.testing.assert_allclose(rates[:10], np.linspace(0.9, 0.0, 10), atol=1e-9)
    assert set(rates[10:]) == {0.0}


def test_epsilon_goes_on_falling_where_the_first_learn_was_interrupted() -> None:
    model = small(exploration_fraction=1.0, exploration_final_eps=0.0, **ENDLESS)
    model.learn(100, callback=lambda locals_, globals_: locals_["self"].num_timesteps < 25)
    assert model.exploration_rate == pytest.approx(0.75)
    model.learn(50)
    assert model.exploration_rate == pytest.approx(0.25)


def test_resetting_the_clock_begins_schedules_and_statistics_again_and_keeps_the_rest() -> None:
    env = CountingEnv(lengths=(7,))
    model = small(env, exploration_fraction=1.0, exploration_final_eps=0.0).learn(50)
    stored, n_updates, episode = model.replay_buffer.stored, model._n_updates, env.episode
    before = weights(model)
    rates = []

    def watch(locals_: Any, globals_: Any) -> None:
        rates.append(model.exploration_rate)
        if len(rates) == 1:
            assert torch.equal(weights(model), before)
            assert len(model.ep_info_buffer) == 0
            assert model.num_timesteps == 1

    model.learn(10, callback=watch, reset_num_timesteps=True)
    assert model.num_timesteps == 10
    np.testing.assert_allclose(list(dict.fromkeys(rates)), np.linspace(0.9, 0.0, 10), atol=1e-9)
    assert model.replay_buffer.stored == stored + 10
    assert model._n_updates == n_updates + 10
    assert env.episode == episode + 2  # reset once by us and once by itself


def test_actions_are_random_until_learning_starts() -> None:
    env = CountingEnv(lengths=(1000,))
    model = small(env, exploration="greedy", learning_starts=60, n_steps=1)
    model.learn(60)
    assert model._n_updates == 0
    assert {env.actions.count(action) >= 10 for action in range(3)} == {True}
    model.learn(1)
    assert model._n_updates == 1


@pytest.mark.parametrize("n_envs", [1, 3, 8])
def test_the_replay_ratio_does_not_depend_on_the_number_of_environments(n_envs: int) -> None:
    model = small(n_envs=n_envs, train_freq=2, gradient_steps=3, n_steps=1, **ENDLESS).learn(120)
    assert model.num_timesteps == 120
    # Updates wait until a transition more than `learning_starts` is there.
    assert abs(model._n_updates - 3 * (120 - 10) / 2) <= 3
    assert model._n_updates == 165


# Randomness ---------------------------------------------------------------------------------


def disturb(locals_: Any = None, globals_: Any = None) -> None:
    """What a user's script may do between two steps."""
    np.random.seed(0)  # noqa: NPY002, the user's global generator is the point
    np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    torch.rand(3)
    random.random()


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_same_seed_gives_the_same_weights_whatever_global_generators_do(n_envs: int) -> None:
    quiet = small("CartPole-v1", n_envs=n_envs).learn(120)
    torch.manual_seed(99)
    loud = small("CartPole-v1", n_envs=n_envs)
    disturb()
    loud.learn(60, callback=disturb)
    disturb()
    loud.learn(60, callback=disturb)
    # The slope of epsilon takes the length of the first learn, so compare like with like.
    torch.manual_seed(1)
    cut = small("CartPole-v1", n_envs=n_envs).learn(60).learn(60)
    assert torch.equal(weights(loud), weights(cut))
    again = small("CartPole-v1", n_envs=n_envs).learn(120, callback=disturb)
    assert torch.equal(weights(quiet), weights(again))
    assert quiet._n_updates > 100


def dropping_out(space: Any) -> torch.nn.Module:
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))
    layers.features = 4
    return layers


def with_dropout(**parameters: Any) -> DQN:
    return DQN(
        MlpPolicy(net_arch=(8,), features_extractor=dropping_out),
        "CartPole-v1",
        **{"seed": 0, "learning_starts": 10, "batch_size": 8, "train_freq": 1, **parameters},
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, on import
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dropout_draws_from_the_models_own_generator(compile: bool) -> None:
    before = torch.get_rng_state()
    quiet = with_dropout(compile=compile).learn(60)
    assert torch.equal(torch.get_rng_state(), before)
    loud = with_dropout(compile=compile).learn(60, callback=disturb)
    assert torch.equal(weights(quiet), weights(loud))


def test_dropout_is_drawn_anew_in_each_update_and_goes_on_after_a_load() -> None:
    model = with_dropout(learning_rate=1e-12, buffer_size=100).learn(60)
    batch = model.replay_buffer.sample(32, model.trainer.clock)
    file = io.BytesIO()
    model.save(file)
    loaded = DQN.load(file, trusted=True)
    first, second = (model.learner.update(batch).value for _ in range(2))
    assert not torch.equal(first, second)
    disturb()
    assert torch.equal(loaded.learner.update(batch).value, first)
    reseeded = DQN.load(file, trusted=True)
    reseeded.set_random_seed(7)
    assert not torch.equal(reseeded.learner.update(batch).value, first)


def test_another_seed_gives_other_weights() -> None:
    seeds: tuple[int | None, ...] = (0, 1, None, None)
    fresh = [weights(small("CartPole-v1", seed=seed)) for seed in seeds]
    trained = [weights(small("CartPole-v1", seed=seed).learn(40)) for seed in seeds]
    for group in (fresh, trained):
        assert len({tuple(each.tolist()) for each in group}) == 4


def test_global_generators_are_left_as_they_were() -> None:
    def state() -> tuple[Any, ...]:
        numpy_state = np.random.get_state()  # noqa: NPY002
        return (
            numpy_state[1].tolist(),  # type: ignore[index,call-overload,union-attr]
            numpy_state[2],  # type: ignore[index]
            torch.get_rng_state().tolist(),
            random.getstate(),
        )

    before = state()
    model = small("CartPole-v1", n_envs=2).learn(40)
    model.predict(np.zeros((5, 4)), deterministic=False)
    model.save(io.BytesIO())
    model.set_random_seed(3)
    assert state() == before


@pytest.mark.parametrize("between", ["close", "set_env"])
def test_a_new_environment_is_seeded_too(between: str) -> None:
    def run() -> torch.Tensor:
        model = small("CartPole-v1").learn(40)
        if between == "close":
            model.close()
        else:
            model.set_env("CartPole-v1")
        return weights(model.learn(40))

    assert torch.equal(run(), run())


def test_set_random_seed_begins_again_with_the_weights_as_they_are() -> None:
    def run(model: DQN) -> list[int]:
        env = CountingEnv(lengths=(1000,))
        model.set_env(env)
        model.set_random_seed(7)
        model.learn(30)
        return env.actions

    one = small(learning_starts=10**6, seed=0).learn(13)
    other = small(learning_starts=10**6, seed=1).learn(4)
    no_replay_yet = small(learning_starts=10**6, seed=2)
    before = weights(one)
    assert weights(no_replay_yet).shape == before.shape
    assert run(one) == run(other) == run(no_replay_yet)
    assert torch.equal(weights(one), before)
    assert one.seed == 7


# Memory -------------------------------------------------------------------------------------


def test_a_replay_that_cannot_fit_is_refused_with_the_numbers_and_the_ways_out() -> None:
    model = small(buffer_size=10**12)
    with pytest.raises(ReplayMemoryError) as caught:
        model.learn(10)
    message = str(caught.value)
    assert f"buffer_size=1000000000000 observations of {model.observation_space} takes" in message
    assert " GB, and " in message
    assert " GB are free on cpu; choose a buffer_size of at most " in message
    assert "make observations smaller" in message
    assert "replay_memory=Memory(device='cpu')" in message
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, ConfigurationError)
    advised = int(message.partition("at most ")[2].partition(",")[0])
    assert 10**5 < advised < 10**12
    model.set_params(buffer_size=100).learn(10)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta"])
def test_a_replay_on_another_accelerator_than_the_networks_is_refused(device: str) -> None:
    model = small(device="cpu", replay_memory=memory.Memory(device=device))
    with pytest.raises(ConfigurationError, match=r"cannot feed networks on cpu.*or on 'cpu'"):
        model.learn(10)


def test_the_estimate_is_what_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = small(n_envs=3).replay_buffer.storage  # type: ignore[attr-defined]
    arrays = [value for value in vars(storage).values() if isinstance(value, np.ndarray)]
    arrays += [part._block._values for part in storage._parts.values()]
    needed = sum(
        array.nbytes for array in arrays if array.base is None and array.size >= storage.rows * 3
    )
    monkeypatch.setattr(assembly, "available_memory", lambda device: needed)
    assert small(n_envs=3).replay_buffer.stored == 0
    monkeypatch.setattr(assembly, "available_memory", lambda device: needed - 1)
    with pytest.raises(ReplayMemoryError, match=r"takes 0\.02 MB, and 0\.02 MB are free"):
        small(n_envs=3).learn(1)
    monkeypatch.setattr(assembly, "available_memory", lambda device: None)
    assert small(n_envs=3).replay_buffer.stored == 0


def test_free_memory_is_the_least_of_the_machines_and_the_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = {"/proc/meminfo": "MemTotal:  9000 kB\nMemAvailable:    5000 kB\nCached: 1 kB\n"}
    container = {"/sys/fs/cgroup/memory.max": "4000000\n", "/sys/fs/cgroup/memory.current": "5"}
    unlimited = {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5"}
    for files, free in (
        ({}, None),
        (machine, 5_120_000),
        ({**machine, **unlimited}, 5_120_000),
        ({**machine, **container}, 3_999_995),
    ):
        monkeypatch.setattr(Path, "exists", lambda path, files=files: str(path) in files)
        monkeypatch.setattr(Path, "read_text", lambda path, files=files: files[str(path)])
        assert assembly.available_memory(torch.device("cpu")) == free


def test_free_memory_is_asked_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    free = assembly.available_memory(torch.device("cpu"))
    if free is not None:  # where there is /proc
        assert 10**7 < free < 10**15
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert assembly.available_memory(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert assembly.available_memory(torch.device("cuda")) == 123


def test_a_replay_smaller_than_its_windows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"buffer_size=8 gives each of 4 .*at least 16"):
        small(n_envs=4, buffer_size=8, n_steps=3).learn(1)


# A loop of one's own ------------------------------------------------------------------------


def test_a_loop_of_ones_own_learns_the_chain() -> None:
    env = ChainEnv(limit=4)
    model = DQN(
        MlpPolicy(net_arch=()),
        env,
        exploration=EpsilonGreedy(1.0),
        learning_rate=0.05,
        gamma=0.9,
        n_steps=1,
        batch_size=32,
        learning_starts=50,
        target_update_interval=1,
        tau=0.1,
        seed=0,
    )
    obs, _ = env.reset(seed=0)
    for step in range(1_000):
        action = model.act(obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        model.observe(obs, action, reward, next_obs, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs
        if step >= 50:
            model.train(1)
    assert (model.num_timesteps, model._n_updates) == (1_000, 950)
    np.testing.assert_allclose(model.q_values(np.arange(5)), ChainEnv.optimal_q(), atol=0.03)
    assert model.trainer.episodes > 200


def test_acting_before_the_length_of_the_slope_is_known_is_refused() -> None:
    model = small("CartPole-v1")
    with pytest.raises(NotReadyError, match=r"learn\(total_timesteps\).*EpsilonGreedy\(Linear\("):
        model.act([0.0] * 4)
    model.learn(20)
    assert model.act([0.0] * 4) in (0, 1)
    file = io.BytesIO()
    model.save(file)
    assert DQN.load(file).act([0.0] * 4) in (0, 1)


def test_acting_gives_an_action_for_each_observation() -> None:
    model = small(exploration="greedy", learning_starts=0)
    assert type(model.act([0, 0, 0])) is np.int64
    actions = model.act(np.zeros((5, 3)))
    assert (actions.shape, actions.dtype) == ((5,), np.int64)
    assert set(actions) == {model.predict([0, 0, 0])[0]}


def test_acting_is_random_until_learning_starts() -> None:
    model = small(exploration="greedy", learning_starts=5, n_steps=1)
    assert set(model.act(np.zeros((100, 3)))) == {0, 1, 2}
    for t in range(5):
        model.observe([0, 0, t], 0, 0.0, [0, 0, t + 1], False, False)
    assert len(set(model.act(np.zeros((100, 3))))) == 1


def test_acting_follows_the_clock_of_observations() -> None:
    model = small(exploration=EpsilonGreedy(Linear(1.0, 0.0, 4)), n_steps=1)
    for t, rate in enumerate([1.0, 0.75, 0.5, 0.25, 0.0]):
        assert model.exploration_rate == rate
        model.observe([0, 0, t], 0, 0.0, [0, 0, t + 1], False, False)


def everything(model: DQN) -> set[tuple[float, ...]]:
    """(obs, reward, next_obs, discount) of all transitions that can be drawn, by last axis."""
    batch = model.replay_buffer.sample(400, model.trainer.clock)
    columns = (batch.obs[:, 2], batch.reward, batch.next_obs[:, 2], batch.discount)
    return {tuple(map(float, row)) for row in torch.stack(columns, dim=1)}


def test_what_is_observed_is_stored() -> None:
    model = small(exploration="greedy", n_steps=1, gamma=0.5)
    model.observe([0, 0, 0], 0, 1.0, [0, 0, 1], False, False)
    model.observe([0, 0, 1], 1, 2.0, [0, 0, 2], True, False)
    model.observe([0, 0, 10], 2, 4.0, [0, 0, 11], False, True)
    model.observe([0, 0, 20], 2, 8.0, [0, 0, 21], False, False)
    assert everything(model) == {
        (0, 1, 1, 0.5),
        (1, 2, 2, 0.0),
        (10, 4, 11, 0.5),
        (20, 8, 21, 0.5),
    }
    assert (model.num_timesteps, model.trainer.episodes) == (4, 2)


def test_an_observation_that_does_not_continue_begins_another_episode() -> None:
    model = small(exploration="greedy", n_steps=3, gamma=0.5)
    model.observe([0, 0, 0], 0, 1.0, [0, 0, 1], False, False)
    model.observe([0, 0, 1], 0, 2.0, [0, 0, 2], False, False)
    model.observe([0, 0, 50], 0, 64.0, [0, 0, 51], True, False)
    assert everything(model) == {(0, 2, 2, 0.25), (1, 2, 2, 0.5), (50, 64, 51, 0.0)}


def test_several_environments_are_observed_at_once() -> None:
    model = small(exploration="greedy", n_envs=2, n_steps=2, gamma=0.5)
    obs, after = np.zeros((2, 3)), np.array([[0, 0, 1], [0, 0, 7]])
    model.observe(obs, [0, 1], [1.0, 2.0], after, [False, True], [False, False])
    model.observe(
        [[0, 0, 1], [0, 0, 9]], [0, 1], [4.0, 8.0], [[0, 0, 2], [0, 0, 10]], [False] * 2, [True] * 2
    )
    assert everything(model) == {
        (0, 3, 2, 0.25),
        (0, 2, 7, 0.0),
        (1, 4, 2, 0.5),
        (9, 8, 10, 0.5),
    }
    assert model.num_timesteps == 4


def test_arrays_that_are_used_again_do_no_harm() -> None:
    model = small(exploration="greedy", n_steps=1, gamma=0.5)
    obs, after = np.zeros(3, np.float32), np.array([0, 0, 1], np.float32)
    model.observe(obs, 0, 1.0, after, False, False)
    obs[:], after[:] = after, [0, 0, 2]
    model.observe(obs, 0, 2.0, after, True, False)
    assert everything(model) == {(0, 1, 1, 0.5), (1, 2, 2, 0.0)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"reward": [1.0, 2.0]}, r"reward has shape \(2,\), but with n_envs=1 it must be \(1,\)"),
        ({"reward": [[1.0]]}, r"reward has shape \(1, 1\), but with n_envs=1 it must be \(1,\)"),
        ({"terminated": [True, False]}, r"terminated has shape \(2,\)"),
        ({"truncated": [True, False]}, r"truncated has shape \(2,\)"),
        ({"terminated": 0.5}, r"must be True or False, not 0\.5"),
        ({"truncated": None}, "must be True or False, not None"),
        ({"action": [0, 1]}, r"action has shape \(2,\)"),
        ({"obs": np.zeros((2, 3))}, r"obs has shape \(2, 3\).* must be \(1, 3\)"),
        ({"next_obs": np.zeros((2, 3))}, r"next_obs has shape \(2, 3\)"),
        ({"obs": [1, 2]}, r"expected one observation of shape \(3,\)"),
        ({"action": 0.5}, "actions must be integers"),
    ],
)
def test_observations_of_another_size_are_refused(change: dict[str, Any], complaint: str) -> None:
    model = small(exploration="greedy")
    step: dict[str, Any] = {
        "obs": [0, 0, 0],
        "action": 0,
        "reward": 0.0,
        "next_obs": [0, 0, 1],
        "terminated": False,
        "truncated": False,
    }
    with pytest.raises(SpaceError, match=complaint):
        model.observe(**{**step, **change})
    assert model.num_timesteps == 0


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), 1e39])
def test_a_reward_that_is_not_finite_is_not_observed(reward: float) -> None:
    model = small(exploration="greedy")
    with pytest.raises(NonFiniteError, match="the reward is not finite"):
        model.observe([0, 0, 0], 0, reward, [0, 0, 1], False, False)
    assert model.num_timesteps == 0


def test_training_on_nothing_is_refused() -> None:
    model = small(exploration="greedy", n_steps=3)
    with pytest.raises(NotReadyError, match="no transition that can be sampled"):
        model.train(1)
    model.observe([0, 0, 0], 0, 1.0, [0, 0, 1], False, False)
    with pytest.raises(NotReadyError, match="collect n_steps"):
        model.train(1)
    model.observe([0, 0, 1], 0, 1.0, [0, 0, 2], True, False)
    model.train(2)
    assert model._n_updates == 2


def test_the_target_follows_in_a_loop_of_ones_own() -> None:
    model = small(exploration="greedy", n_steps=1, target_update_interval=3, tau=1.0)

    def is_synced() -> bool:
        return torch.equal(
            model.q_net.output.linear.weight, model.q_net_target.output.linear.weight
        )

    synced = []
    for t in range(7):
        model.observe([0, 0, t], 0, float(t), [0, 0, t + 1], False, False)
        at_once = is_synced()
        model.train(1)
        synced.append((at_once, is_synced()))
    # Every third observation syncs; the update after it moves the online network on.
    assert synced == [
        (True, False),
        (False, False),
        (True, False),
        (False, False),
        (False, False),
        (True, False),
        (False, False),
    ]


def test_learn_and_a_loop_of_ones_own_share_clock_and_replay_but_no_episode() -> None:
    env = CountingEnv(lengths=(1000,))
    model = small(env, n_steps=1).learn(20)
    model.observe([9, 9, 0], 0, 1.0, [9, 9, 1], False, False)
    model.train(3)
    model.learn(10)
    assert env.episode == 1
    model.observe([9, 9, 1], 0, 1.0, [9, 9, 2], False, False)  # as if nothing had been between
    assert model.num_timesteps == 32
    assert model.replay_buffer.stored == 32
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]


def test_a_loaded_replay_does_not_continue_open_episodes(tmp_path: Path) -> None:
    other = small(CountingEnv(1, lengths=(1000,)), n_steps=1).learn(17)
    other.save_replay_buffer(tmp_path / "replay")
    model = small(CountingEnv(lengths=(1000,)), n_steps=1).learn(20)
    model.load_replay_buffer(tmp_path / "replay")
    model.learn(10)
    assert model.replay_buffer.stored == 27
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]


# Ctrl-C -------------------------------------------------------------------------------------


class Memory(KVWriter):
    """An output that keeps the steps of its dumps."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
        self.steps.append(step)


@pytest.fixture(autouse=True)
def _ctrl_c_works_as_ever() -> Iterator[None]:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert handler is signal.default_int_handler


def ctrl_c_at(timesteps: int, times: int = 1) -> Any:
    def callback(locals_: Any, globals_: Any) -> None:
        if locals_["self"].num_timesteps == timesteps:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return callback


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_learning_with_the_model_in_order(
    times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = Memory()
    model = small(verbose=1, **ENDLESS)
    model.set_logger(Logger(None, [memory]))
    assert model.learn(1000, callback=ctrl_c_at(25, times)) is model
    assert model.num_timesteps == 25
    assert memory.steps == [25]
    assert "Interrupted after 25 timesteps\n" in capsys.readouterr().out
    assert model.predict([0, 0, 0])[0] in range(3)
    # It can be continued, and only real transitions are kept.
    assert model.learn(25).num_timesteps == 50
    assert memory.steps == [25, 50]
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    steps = (batch.next_obs[:, 2] - batch.obs[:, 2]).unique()
    assert set(steps.tolist()) <= {1.0, 2.0, 3.0}


def test_the_first_ctrl_c_finishes_the_step_and_the_episode_goes_on() -> None:
    env = CountingEnv(lengths=(1000,))
    model = small(env).learn(1000, callback=ctrl_c_at(25))
    assert model._n_updates == 15
    model.learn(10)
    assert env.episode == 0


def test_ctrl_c_at_any_moment_ends_learning() -> None:
    model = small(**ENDLESS)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))

    def begin(locals_: Any, globals_: Any) -> None:
        if model.num_timesteps == 1:
            timer.start()

    assert model.learn(10**7, callback=begin) is model
    timer.join()
    assert 1 < model.num_timesteps < 10**6


@FORK
def test_ctrl_c_ends_learning_in_worker_processes_too() -> None:
    model = small(CountingEnv, n_envs=2, vectorization="async", **ENDLESS)
    assert model.learn(1000, callback=ctrl_c_at(24)) is model
    assert model.num_timesteps == 24
    assert model.learn(24).num_timesteps == 48
    model.close()


def test_a_keyboard_interrupt_within_the_environment_ends_learning_too() -> None:
    class Interrupted(CountingEnv):
        """Has moved on when it is struck."""

        struck = False

        def step(self, action: Any) -> Any:
            result = super().step(action)
            if len(self.actions) == 20 and not self.struck:
                self.struck = True
                raise KeyboardInterrupt
            return result

    env = Interrupted(lengths=(1000,))
    model = small(env, n_steps=1)
    assert model.learn(1000) is model
    assert model.num_timesteps == 19
    model.learn(10)
    assert env.episode == 1  # the open episode cannot be trusted
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]


def test_a_handler_of_ones_own_stays_in_charge() -> None:
    caught = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        model = small(**ENDLESS).learn(40, callback=ctrl_c_at(25))
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert caught == [signal.SIGINT]
    assert model.num_timesteps == 40


def test_learning_works_in_another_thread() -> None:
    model = small(**ENDLESS)
    thread = threading.Thread(target=lambda: model.learn(30))
    thread.start()
    thread.join()
    assert model.num_timesteps == 30


# Closing ------------------------------------------------------------------------------------


def test_close_closes_environment_and_logger_and_the_model_stays_usable(tmp_path: Path) -> None:
    model = small("CartPole-v1", tensorboard_log=tmp_path).learn(20)
    env, logger = model.env, model.logger
    assert env is not None
    model.close()
    model.close()
    assert env.closed
    with pytest.raises(NotReadyError, match="closed"):
        logger.dump(0)
    assert model.predict([0.0] * 4)[0] in (0, 1)
    assert model.learn(20).num_timesteps == 40
    assert model.env is not env
    model.close()


def test_nothing_is_there_to_close_before_anything_is_made() -> None:
    model = small()
    model.close()
    assert model.learn(10).num_timesteps == 10


class NoticingEnv(CountingEnv):
    """Knows whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("vector", [True, False])
def test_close_leaves_a_users_environment_open_and_the_model_goes_on_in_it(vector: bool) -> None:
    mine = NoticingEnv()
    env = SyncVectorEnv([lambda: mine]) if vector else mine
    model = small(env, n_steps=1).learn(10)
    model.close()
    model.close()
    assert not mine.closed
    assert not env.closed
    assert model.learn(10).num_timesteps == 20
    assert model.trains_in(mine)
    # Nothing leads from before the closing to after it.
    batch = model.replay_buffer.sample(300, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]


def test_a_users_environment_that_is_closed_by_its_owner_is_asked_for() -> None:
    env = SyncVectorEnv([CountingEnv])
    model = small(env).learn(10)
    env.close()
    with pytest.raises(NotReadyError, match="set_env"):
        model.learn(10)
    model.close()
    with pytest.raises(NotReadyError, match="set_env"):
        model.learn(10)
    model.set_env(CountingEnv)
    assert model.learn(10).num_timesteps == 20
    model.close()


@pytest.mark.filterwarnings("ignore:.*Calling `close` while waiting")
def test_an_error_is_told_though_the_environment_was_closed_during_its_step() -> None:
    class Closing(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_update(self) -> None:
            assert self.model.env is not None
            self.model.env.close(terminate=True)
            raise KeyError("mine")

    model = small(CountingEnv, n_envs=2, vectorization="async")
    with pytest.raises(KeyError, match="mine"):
        model.learn(100, callback=Closing())
    assert model.learn(20).num_timesteps > 20
    model.close()


# Weights from elsewhere ---------------------------------------------------------------------


def test_parameters_of_one_model_make_another_equal() -> None:
    one, other = small().learn(40), small(seed=1)
    parameters = one.get_parameters()
    assert list(parameters) == ["policy", "policy.optimizer"]
    other.set_parameters(copy.deepcopy(parameters))
    assert torch.equal(weights(other), weights(one))
    np.testing.assert_array_equal(other.q_values([1, 2, 3]), one.q_values([1, 2, 3]))
    mine, theirs = (model.learner.optimizer.state_dict()["state"] for model in (other, one))
    assert torch.equal(mine[0]["exp_avg"], theirs[0]["exp_avg"])


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_parameters_of_a_file_make_a_model_equal(tmp_path: Path, suffix: str) -> None:
    one, other = small().learn(43), small(seed=1)
    one.save(tmp_path / "model")
    other.set_parameters(tmp_path / f"model{suffix}")
    assert torch.equal(weights(other), weights(one))
    assert not torch.equal(
        other.q_net.output.linear.weight, other.q_net_target.output.linear.weight
    )


def test_parameters_are_copies() -> None:
    model = small().learn(40)
    parameters = model.get_parameters()
    before = copy.deepcopy(parameters)
    model.learn(20)
    for name, tensor in before["policy"].items():
        assert torch.equal(parameters["policy"][name], tensor)


def test_parameters_that_do_not_fit_change_nothing() -> None:
    model = small().learn(40)
    before = weights(model)
    parameters = small(seed=1).get_parameters()
    parameters["policy"]["q_net.output.linear.bias"] = torch.zeros(9)
    with pytest.raises(ConfigurationError, match="size mismatch"):
        model.set_parameters(parameters)
    assert torch.equal(weights(model), before)


def test_parameters_without_a_target_network_come_from_any_file(tmp_path: Path) -> None:
    one, other = small().learn(43), small(target_update_interval=None)
    one.save(tmp_path / "model")
    other.set_parameters(tmp_path / "model")
    np.testing.assert_array_equal(other.q_values([1, 2, 3]), one.q_values([1, 2, 3]))


def test_what_is_set_is_trained_further() -> None:
    one, other = small().learn(40), small(seed=1)
    other.set_parameters(one.get_parameters())
    before, untouched = weights(other), weights(one)
    other.learn(40)
    assert not torch.equal(weights(other), before)
    assert torch.equal(weights(one), untouched)


def test_a_part_is_enough_if_it_is_asked_for() -> None:
    one, other = small().learn(40), small(seed=1).learn(20)
    bias = one.get_parameters()["policy"]["q_net.output.linear.bias"].clone()
    before = other.q_net.trunk[0].weight.detach().clone()
    other.set_parameters({"policy": {"q_net.output.linear.bias": bias}}, exact_match=False)
    assert torch.equal(other.q_net.output.linear.bias, bias)
    assert torch.equal(other.q_net.trunk[0].weight, before)
    other.set_parameters({}, exact_match=False)


@pytest.mark.parametrize(
    ("change", "exact", "complaint"),
    [
        ({"policy.optimizer": None}, True, r"must be \['policy', 'policy.optimizer'\], not \['pol"),
        ({"critic": {}}, True, r"not \['critic', 'policy', 'policy.optimizer'\]"),
        ({"critic": {}}, False, "critic"),
        ({"policy": {}}, True, "Missing key"),
        ({"policy": {"q_net.output.linear.bias": torch.zeros(9)}}, False, "size mismatch"),
        ({"policy.optimizer": {}}, True, "do not fit"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    change: dict[str, Any], exact: bool, complaint: str
) -> None:
    model = small()
    parameters = {**model.get_parameters(), **change}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    with pytest.raises(ConfigurationError, match=complaint):
        model.set_parameters(parameters, exact_match=exact)


# Other environments -------------------------------------------------------------------------


def test_set_env_checks_the_spaces() -> None:
    model = small()
    _ = model.q_net
    with pytest.raises(SpaceError, match=r"the observation space must be Box.*has Discrete\(5\)"):
        model.set_env(ChainEnv)
    other = AnyObsEnv(CountingEnv().observation_space, spaces.Discrete(4))
    with pytest.raises(SpaceError, match=r"the action space must be Discrete\(3\).*Discrete\(4\)"):
        model.set_env(other)
    assert model.get_params()["env"] is CountingEnv
    assert model.learn(10).num_timesteps == 10


def test_set_env_checks_the_number_of_environments_that_a_replay_was_made_for() -> None:
    two = functools.partial(SyncVectorEnv, [CountingEnv] * 2)
    model = small()
    _ = model.q_net
    model.set_env(two())
    assert model.n_envs == 2
    model.learn(10)
    with pytest.raises(SpaceError, match="the replay is of 2 environments, so they cannot become"):
        model.set_env(CountingEnv)
    model.set_env(two())
    assert model.learn(10).num_timesteps >= 20


def test_set_env_leaves_open_episodes_behind() -> None:
    model = small(CountingEnv(0, lengths=(1000,)), n_steps=1).learn(20)
    model.set_env(CountingEnv(1, lengths=(1000,)))
    model.learn(20)
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]
    assert model.get_params()["env"].index == 1


def test_how_others_were_made_says_nothing_about_an_environment_that_is_made() -> None:
    model = small(n_envs=2, vectorization="sync", **ENDLESS)
    _ = model.q_net
    model.set_env(CountingEnv())
    parameters = model.get_params()
    assert parameters["n_envs"] == model.n_envs == 1
    assert (parameters["vectorization"], parameters["env_kwargs"]) == ("auto", None)
    assert DQN(**model.get_params(deep=False)).learn(5).num_timesteps == 5


def test_the_environment_may_change_while_the_model_learns() -> None:
    first, second = CountingEnv(0, lengths=(1000,)), CountingEnv(1, lengths=(1000,))
    model = small(first, n_steps=1)

    def change(locals_: Any, globals_: Any) -> None:
        if model.num_timesteps == 20:
            model.set_env(second)

    model.learn(40, callback=change)
    assert (len(first.actions), len(second.actions)) == (20, 20)
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]


def test_evaluating_in_the_training_environment_while_learning_abandons_the_episode() -> None:
    env = CountingEnv(lengths=(50,))
    model = small(env, n_steps=1)

    def evaluate(locals_: Any, globals_: Any) -> None:
        if model.num_timesteps == 20:
            evaluate_policy(model, env, 1)

    model.learn(40, callback=evaluate)
    batch = model.replay_buffer.sample(600, model.trainer.clock)
    assert (batch.next_obs - batch.obs).unique(dim=0).tolist() == [[0, 0, 1]]
    assert {int(episode) for episode in batch.obs[:, 1]} == {0, 2}


def test_set_env_closes_what_the_model_made_and_nothing_else() -> None:
    model = small()
    first = model.env
    assert first is not None
    mine = SyncVectorEnv([CountingEnv])
    model.set_env(mine)
    assert first.closed
    model.set_env(CountingEnv)
    assert not mine.closed


def test_the_view_of_the_environment_is_of_the_environment() -> None:
    model = small("CartPole-v1", n_envs=2)
    view = model.get_env()
    assert view is not None
    assert view.vector_env is model.env
    assert view.reset().shape == (2, 4)


def test_a_model_that_is_not_built_is_pickled_and_another_says_why_not() -> None:
    model = DQN("MlpPolicy", "CartPole-v1", gamma=0.9)
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()
    model.predict(np.zeros(4))
    with pytest.raises(NotReadyError, match="cannot be pickled; use save and load"):
        pickle.dumps(model)


@pytest.mark.parametrize("verbose", [0, 1])
def test_learn_says_where_it_logs_if_it_may(
    verbose: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small("CartPole-v1", tensorboard_log=str(tmp_path), verbose=verbose).learn(20)
    assert (f"Logging to {tmp_path / 'DQN_1'}" in capsys.readouterr().out) == bool(verbose)


def test_a_model_is_not_deep_copied_by_accident() -> None:
    model = small()
    with pytest.raises(NotReadyError, match=r"save and load .*clone"):
        copy.deepcopy(model)
    assert copy.copy(model).get_params() == model.get_params()


# The defaults -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_defaults_solve_cartpole() -> None:
    # benchmarks/cartpole_defaults.py asks it of ten seeds.
    model = DQN("MlpPolicy", "CartPole-v1", seed=0).learn(50_000)
    mean, _ = evaluate_policy(model, "CartPole-v1", n_eval_episodes=20, seed=2)
    assert mean >= 475


# Compiling ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_model_learns_saves_and_loads_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without a C++ compiler the graph is still captured, and run as it is.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, compiled = (small(compile=flag).learn(40) for flag in (False, True))
    torch.testing.assert_close(weights(compiled), weights(plain))
    file = io.BytesIO()
    compiled.save(file)
    loaded = DQN.load(file, env=CountingEnv)
    assert loaded.compile is True
    assert torch.equal(weights(loaded), weights(compiled))
    assert loaded.learn(20).num_timesteps == 60
    assert torch.equal(weights(DQN.load(file, compile=False)), weights(compiled))


# A temperature, and other people's parts ----------------------------------------------------


def test_other_explorations_and_replays_can_be_passed() -> None:
    class Loud(replay.Uniform):
        built = 0

        def build(self, layout: Any) -> Any:
            type(self).built += 1
            return super().build(layout)

    model = small(exploration=Boltzmann(1.0), replay=Loud()).learn(30)
    assert Loud.built == 1
    assert model.exploration_rate == 1.0


# The other heads, noise, priorities ---------------------------------------------------------

SAMPLED = heads.ImplicitQuantile(samples=8, target_samples=6, acting_samples=4, cosines=8)
HEADS = [heads.Scalar("mse"), heads.Categorical(11, -3.0, 3.0), heads.Quantile(7), SAMPLED]
MANY_OBS = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
RAINBOW: dict[str, Any] = {
    "policy": MlpPolicy(net_arch=(16, 8), dueling=True, noisy=True, noisy_sigma=0.7),
    "replay": replay.Prioritized(0.5, Linear(0.4, 1.0, 100)),
    "exploration": "greedy",
}


def member(**parameters: Any) -> DQN:
    """A model of the family that learns from every step but the first ten."""
    settings: dict[str, Any] = {
        "policy": MlpPolicy(net_arch=(16, 8)),
        "env": "CartPole-v1",
        "buffer_size": 400,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": 1,
        "target_update_interval": 5,
        "seed": 0,
    }
    return DQN(**{**settings, **parameters})


def explored(model: DQN) -> Any:
    return model.predict(MANY_OBS, deterministic=False)[0]


def acting_values(model: DQN) -> Any:
    return model.policy.q_of(MANY_OBS, Purpose.ACT)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("noisy", [False, True])
def test_a_deterministic_prediction_repeats_whatever_is_random_in_learning(
    head: Any, noisy: bool
) -> None:
    model = member(head=head, **(RAINBOW if noisy else {})).learn(30)
    before = torch.get_rng_state()
    first, values = model.predict(MANY_OBS)[0], model.q_values(MANY_OBS)
    alone = model.predict(MANY_OBS[7])[0]
    explored(model)
    torch.rand(3)
    np.testing.assert_array_equal(model.predict(MANY_OBS)[0], first)
    np.testing.assert_array_equal(model.q_values(MANY_OBS), values)
    assert model.predict(MANY_OBS[7])[0] == alone == first[7]
    torch.set_rng_state(before)
    with torch.no_grad():
        np.testing.assert_allclose(model.q_net(torch.from_numpy(MANY_OBS)), values, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_a_noisy_model_explores_by_the_noise_of_its_last_update(head: Any) -> None:
    # With a learning rate next to nothing it is the noise alone that changes.
    model = member(head=head, **RAINBOW, learning_rate=1e-12).learn(30)
    greedy, first = model.predict(MANY_OBS)[0], explored(model)
    assert not np.array_equal(greedy, first)
    np.testing.assert_array_equal(explored(model), first)
    np.testing.assert_array_equal(model.act(MANY_OBS), first)
    obs = MANY_OBS[int((greedy != first).argmax())]
    assert model.act(obs) == model.predict(obs, deterministic=False)[0] != model.predict(obs)[0]

    seen = [first]
    for _ in range(3):
        model.train(1)
        seen.append(explored(model))
        np.testing.assert_array_equal(model.act(MANY_OBS), seen[-1])
        assert not np.array_equal(seen[-1], seen[-2])
    np.testing.assert_array_equal(model.predict(MANY_OBS)[0], greedy)


def test_data_is_collected_with_the_noise() -> None:
    model = member(**RAINBOW, learning_rate=1e-12).learn(150)
    batch = model.replay_buffer.sample(500, model.trainer.clock)
    obs, actions = batch.obs.numpy(), batch.action.numpy()
    same = (model.predict(obs)[0] == actions).mean()
    assert 0.05 < same < 0.95  # else it would be that of the means, always the same


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("backup", "rainbow"), [("double", False), (backups.Munchausen(alpha=0.5), True)]
)
def test_every_member_of_the_family_is_saved_and_loaded(
    head: Any, backup: Any, rainbow: bool
) -> None:
    model = member(head=head, backup=backup, **(RAINBOW if rainbow else {})).learn(30)
    file = io.BytesIO()
    model.save(file)
    loaded = DQN.load(file)
    assert repr(loaded) == repr(model)
    assert loaded.get_params() == model.get_params()
    assert loaded._n_updates == model._n_updates > 10
    np.testing.assert_array_equal(loaded.q_values(MANY_OBS), model.q_values(MANY_OBS))
    np.testing.assert_array_equal(acting_values(loaded), acting_values(model))
    assert torch.equal(weights(loaded), weights(model))
    assert loaded.learn(10).num_timesteps == 40


@pytest.mark.parametrize("head", HEADS)
def test_a_loaded_member_of_the_family_makes_the_same_updates(head: Any) -> None:
    model = member(head=head, backup="munchausen", **RAINBOW).learn(40)
    states, replays = io.BytesIO(), io.BytesIO()
    model.save(states)
    model.save_replay_buffer(replays)
    loaded = DQN.load(states)
    loaded.load_replay_buffer(replays)
    disturb()
    for each in (model, loaded):
        each.replay_buffer.seed(np.random.SeedSequence(5))
        each.train(5)
    assert torch.equal(weights(loaded), weights(model))
    np.testing.assert_array_equal(acting_values(loaded), acting_values(model))


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_same_seed_gives_the_same_weights_with_all_that_is_random(n_envs: int) -> None:
    settings = {**RAINBOW, "head": SAMPLED, "backup": "munchausen", "n_envs": n_envs}
    torch.manual_seed(1)
    quiet = member(**settings).learn(40)
    before = torch.get_rng_state()
    loud = member(**settings)
    disturb()
    loud.learn(40, callback=disturb)
    assert torch.equal(weights(quiet), weights(loud))
    np.testing.assert_array_equal(acting_values(quiet), acting_values(loud))
    assert not torch.equal(weights(quiet), weights(member(**settings, seed=1).learn(40)))
    torch.set_rng_state(before)
    member(**settings).learn(20)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_seed_begins_all_that_is_random_again() -> None:
    one, other = (member(**RAINBOW, head=SAMPLED, seed=seed) for seed in (0, 9))
    other.set_parameters(one.get_parameters())
    values = [acting_values(model) for model in (one, other)]
    assert not np.isclose(*values).all()
    for model in (one, other):
        model.set_random_seed(7)
    np.testing.assert_array_equal(acting_values(one), acting_values(other))
    assert not np.isclose(acting_values(one), values[0]).all()
    assert torch.equal(weights(one.learn(30)), weights(other.learn(30)))


@pytest.mark.parametrize(
    ("axis", "name", "expected"),
    [
        ("head", "scalar", heads.Scalar("huber")),
        ("head", "categorical", heads.Categorical()),
        ("head", "quantile", heads.Quantile()),
        ("head", "implicit_quantile", heads.ImplicitQuantile()),
        ("backup", "greedy", backups.Greedy()),
        ("backup", "double", backups.Double()),
        ("backup", "munchausen", backups.Munchausen()),
        ("replay", "uniform", replay.Uniform()),
        ("replay", "prioritized", replay.Prioritized()),
    ],
)
def test_a_name_stands_for_the_spec_with_its_defaults(axis: str, name: str, expected: Any) -> None:
    model = member(**{axis: name})
    resolve = getattr(specs, f"resolve_{axis}")
    assert resolve(model.get_params(deep=False)) == expected
    assert model.get_params()[axis] == name
    if axis != "replay":
        assert getattr(model.learner, axis) == expected
    assert model.learn(16)._n_updates > 0


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    for axis, names in (
        ("head", "'categorical', 'implicit_quantile', 'quantile', 'scalar'"),
        ("replay", "'prioritized', 'uniform'"),
    ):
        with pytest.raises(ConfigurationError, match=f"{axis} must be {names}, or an object"):
            member(**{axis: "rainbow"})


@pytest.mark.parametrize("head", ["categorical", "quantile", "implicit_quantile", *HEADS])
def test_the_loss_of_the_scalar_head_is_refused_with_another(head: Any) -> None:
    with pytest.raises(ConfigurationError, match="loss='mse' would have no effect with head="):
        member(head=head, loss="mse")
    model = member(head=head)
    with pytest.raises(ConfigurationError, match="loss='mse' would have no effect with head="):
        model.set_params(loss="mse")
    assert model.loss == "huber"


@pytest.mark.parametrize("head", [heads.Quantile(7), SAMPLED])
def test_what_the_network_does_not_depend_on_may_change_in_a_built_model(head: Any) -> None:
    model = member(head=head).learn(20)
    before = weights(model)
    model.set_params(head__kappa=0.25)
    assert model.head.kappa == 0.25
    built = (model.learner.head, model.q_net.head, model.q_net_target.head)
    assert all(each is model.head for each in built)
    assert torch.equal(weights(model), before)
    # A loss of other size at the same weights: kappa has come into effect.
    losses = []
    for kappa in (0.25, 4.0):
        model.set_params(head__kappa=kappa, learning_rate=1e-12)
        model.replay_buffer.seed(np.random.SeedSequence(1))
        model.learner.n_updates = 100
        model.train(1)
        assert model.learner.last is not None
        losses.append(model.learner.last.loss.value)
    assert (losses[0] > losses[1]).all()


def test_the_number_of_fractions_may_change_in_a_built_model() -> None:
    model = member(head=SAMPLED).learn(20)
    before = model.q_values(MANY_OBS)
    model.set_params(head__acting_samples=32, head__samples=3, head__target_samples=5)
    assert not np.array_equal(model.q_values(MANY_OBS), before)
    model.learn(10)
    obs = torch.from_numpy(MANY_OBS)
    counts = [model.q_net.predict(obs, purpose).values.shape[2] for purpose in Purpose]
    assert counts == [3, 5, 32, 32]


@pytest.mark.parametrize(
    ("head", "field", "value"),
    [
        (heads.Quantile(7), "quantiles", 8),
        (heads.Categorical(11), "atoms", 12),
        (SAMPLED, "cosines", 9),
        ("quantile", "quantiles", 8),
    ],
)
def test_what_the_network_is_made_for_is_refused_once_it_is_made(
    head: Any, field: str, value: int
) -> None:
    model = member(head=head)
    _ = model.q_net
    before = model.get_params()
    with pytest.raises(
        ConfigurationError, match=r"head cannot change from .* to .*built"
    ) as caught:
        model.set_params(**{f"head__{field}": value})
    assert f"{field}={value}" in str(caught.value)
    assert "make a new one: DQN(" in str(caught.value)
    assert model.get_params() == before
    fresh = member(head=head).set_params(**{f"head__{field}": value})
    assert getattr(fresh.head, field) == value
    assert fresh.learn(16)._n_updates > 0


def test_a_head_of_another_kind_is_refused_once_the_network_is_made() -> None:
    model = member(head=heads.Quantile(11))
    _ = model.q_net
    with pytest.raises(ConfigurationError, match="head cannot change from Quantile"):
        model.set_params(head=heads.Categorical(11))


def test_fields_of_the_other_specs_may_be_set_too() -> None:
    model = member(backup="munchausen", replay=replay.Prioritized()).learn(20)
    model.set_params(backup__alpha=0.25)
    assert model.learner.backup == backups.Munchausen(alpha=0.25)
    with pytest.raises(ConfigurationError, match="replay cannot change from Prioritized"):
        model.set_params(replay__alpha=0.9)
    assert member(replay="prioritized").set_params(replay__alpha=0.9).replay == (
        replay.Prioritized(alpha=0.9)
    )


@pytest.mark.parametrize("head", HEADS)
def test_batches_without_observations_have_no_actions(head: Any) -> None:
    assert member(head=head).predict(np.zeros((0, 4)))[0].shape == (0,)
