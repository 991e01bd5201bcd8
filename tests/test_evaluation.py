"""evaluate_policy: whole episodes, their true returns, and nothing else disturbed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.errors import ConfigurationError, SpaceError
from tests.environments import ChainEnv, CountingEnv


class Always:
    """Predicts one action for all, and counts in its state."""

    def __init__(self, action: int = 0) -> None:
        self.action = action
        self.starts: list[list[bool]] = []
        self.states: list[Any] = []
        self.deterministic: set[bool] = set()

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        self.starts.append(episode_start.tolist())
        self.states.append(state)
        self.deterministic.add(deterministic)
        return np.full(len(observation), self.action), len(self.states)


def counting(count: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> SyncVectorEnv:
    makers = [lambda index=index: CountingEnv(index) for index in range(count)]
    return SyncVectorEnv(makers, autoreset_mode=mode)


def played(index: int, episode: int) -> tuple[float, int]:
    """The return and the length that the counting environment has."""
    env = CountingEnv(index)
    length = env.length(episode)
    return sum(env.reward(index, episode, t) for t in range(length)), length


def small(env: Any, **parameters: Any) -> DQN:
    settings: dict[str, Any] = {"buffer_size": 300, "n_steps": 1, "learning_starts": 10**6}
    return DQN(MlpPolicy(net_arch=(8,)), env, seed=0, **{**settings, **parameters})


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    ("n_envs", "n_episodes", "shares"),
    [(1, 6, [6]), (3, 9, [3, 3, 3]), (3, 7, [2, 2, 3]), (3, 2, [0, 1, 1]), (1, 1, [1])],
)
def test_returns_and_lengths_are_those_of_each_environments_first_episodes(
    mode: AutoresetMode, n_envs: int, n_episodes: int, shares: list[int]
) -> None:
    returns, lengths = evaluate_policy(
        Always(), counting(n_envs, mode), n_episodes, return_episode_rewards=True
    )
    expected = [
        played(index, episode) for index, share in enumerate(shares) for episode in range(share)
    ]
    assert len(returns) == n_episodes
    assert sorted(lengths) == sorted(length for _, length in expected)
    assert sorted(returns) == pytest.approx(sorted(total for total, _ in expected))
    assert all(type(total) is float for total in returns)
    assert all(type(length) is int for length in lengths)


def test_returns_and_lengths_are_in_the_order_in_which_episodes_ended() -> None:
    returns, lengths = evaluate_policy(Always(), CountingEnv(), 4, return_episode_rewards=True)
    assert lengths == [1, 4, 7, 2]
    assert returns == pytest.approx([played(0, episode)[0] for episode in range(4)])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_mean_and_the_deviation_are_over_episodes(mode: AutoresetMode) -> None:
    mean, std = evaluate_policy(Always(), counting(3, mode), 7)
    returns, _ = evaluate_policy(Always(), counting(3, mode), 7, return_episode_rewards=True)
    assert (mean, std) == (pytest.approx(np.mean(returns)), pytest.approx(np.std(returns)))


@pytest.mark.parametrize(
    "env", [CountingEnv, CountingEnv(), counting(1), small(CountingEnv).get_env()]
)
def test_whatever_a_model_trains_in_can_be_evaluated_in(env: Any) -> None:
    mean, _ = evaluate_policy(Always(), env, 1)
    assert mean == pytest.approx(played(0, 0)[0])


def test_an_id_is_made_and_closed() -> None:
    mean, std = evaluate_policy(Always(1), "CartPole-v1", 5, seed=0)
    assert 8 <= mean <= 11  # always pushing to one side topples the pole at once
    assert std < 1.5


def test_what_was_made_is_closed_and_what_was_given_is_not() -> None:
    class Closing(ChainEnv):
        closed = 0

        def close(self) -> None:
            type(self).closed += 1

    evaluate_policy(Always(1), Closing, 1)
    assert Closing.closed == 1
    evaluate_policy(Always(1), Closing(), 1)
    theirs = SyncVectorEnv([Closing])
    evaluate_policy(Always(1), theirs, 1)
    assert Closing.closed == 1
    theirs.close()


def test_the_seed_is_that_of_the_first_reset() -> None:
    def lengths(seed: int) -> list[int]:
        return evaluate_policy(Always(1), ChainEnv, 12, return_episode_rewards=True, seed=seed)[1]

    assert lengths(0) == lengths(0)
    assert lengths(0) != lengths(1)


@pytest.mark.parametrize("start", [0, 5, -2])
def test_actions_are_the_spaces_own(start: int) -> None:
    env = CountingEnv(start=start)
    evaluate_policy(Always(start + 2), env, 2)
    assert env.actions == [start + 2] * 5
    with pytest.raises(SpaceError, match="outside of"):
        evaluate_policy(Always(start + 3), env, 1)


def test_the_predictor_gets_its_state_and_the_starts_of_episodes_back() -> None:
    model = Always()
    evaluate_policy(model, CountingEnv(), 2, deterministic=False)
    # An episode of one step, the step that resets, an episode of four.
    assert model.starts == [[True], [False], [True], [False], [False], [False]]
    assert model.states == [None, 1, 2, 3, 4, 5]
    assert model.deterministic == {False}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_an_episode_starts_where_the_one_before_ends_without_a_step_between(mode: Any) -> None:
    model = Always()
    evaluate_policy(model, counting(1, mode), 2)
    assert model.starts == [[True], [True], [False], [False], [False]]


def test_a_greedy_and_an_exploring_evaluation_differ() -> None:
    model = small(ChainEnv)

    def actions(deterministic: bool) -> set[int]:
        env = CountingEnv(lengths=(30,))
        env.observation_space, env.action_space = model.observation_space, model.action_space
        env._obs = lambda: 0  # type: ignore[method-assign]
        evaluate_policy(model, env, 1, deterministic=deterministic)
        return set(env.actions)

    assert actions(deterministic=True) == {int(model.predict(0)[0])}
    assert actions(deterministic=False) == {0, 1}


def test_the_callback_sees_every_step() -> None:
    seen: list[Mapping[str, Any]] = []

    def watch(locals_: Mapping[str, Any], globals_: Mapping[str, Any]) -> None:
        seen.append(locals_)

    evaluate_policy(Always(2), counting(2, AutoresetMode.DISABLED), 2, callback=watch)
    assert len(seen) == 4  # environment 1 plays four steps, environment 0 plays on meanwhile
    first = seen[0]
    assert set(first) == {
        "rewards",
        "dones",
        "infos",
        "actions",
        "observations",
        "new_observations",
    }
    assert first["rewards"].tolist() == [CountingEnv.reward(index, 0, 0) for index in range(2)]
    assert first["dones"].tolist() == [True, False]
    assert first["actions"].tolist() == [2, 2]
    assert first["observations"].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert first["new_observations"].tolist() == [[0, 0, 1], [1, 0, 1]]
    assert first["infos"] == [{"is_success": True}, {}]


def test_a_mean_below_the_threshold_is_an_assertion_error() -> None:
    mean = played(0, 0)[0]
    assert evaluate_policy(Always(), CountingEnv(), 1, reward_threshold=mean)[0] == mean
    with pytest.raises(AssertionError, match=rf"{mean:.2f} is below the threshold {mean + 1}"):
        evaluate_policy(Always(), CountingEnv(), 1, reward_threshold=mean + 1)


@pytest.mark.parametrize("n_episodes", [0, -3])
def test_fewer_than_one_episode_is_refused(n_episodes: int) -> None:
    with pytest.raises(ConfigurationError, match=f"at least 1, not {n_episodes}"):
        evaluate_policy(Always(), CountingEnv(), n_episodes)


def test_render_is_called_after_each_step() -> None:
    class Painting(CountingEnv):
        rendered = 0

        def render(self) -> None:
            self.rendered += 1

    env = Painting(lengths=(4,))
    evaluate_policy(Always(), env, 1)
    assert env.rendered == 0
    evaluate_policy(Always(), env, 1, render=True)
    assert env.rendered == 4


def test_an_action_space_that_is_not_discrete_is_refused() -> None:
    with pytest.raises(SpaceError, match="DiscretizeAction"):
        evaluate_policy(Always(), "Pendulum-v1", 1)


# Evaluating in the training environment -------------------------------------------------


def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return TimeLimit(env, 3)


@pytest.mark.parametrize("how", ["get_env", "env", "object", "wrapped"])
def test_evaluating_in_the_training_environment_abandons_its_open_episode(how: str) -> None:
    env = CountingEnv(lengths=(50,))
    model = small(env).learn(10)
    evaluated: Any = {
        "get_env": model.get_env(),
        "env": model.env,
        "object": env,
        "wrapped": wrapped(env),
    }[how]
    evaluate_policy(model, evaluated, 1)
    episode = env.episode
    model.learn(10)
    assert env.episode == episode + 1
    batch = model.replay_buffer.sample(500, model.trainer.clock)
    steps = (batch.next_obs - batch.obs).unique(dim=0)
    assert steps.tolist() == [[0, 0, 1]]  # none leads from before the evaluation to after it
    assert {int(each) for each in batch.obs[:, 1]} == {0, episode + 1}


def test_evaluating_elsewhere_leaves_the_open_episode_alone() -> None:
    env = CountingEnv(lengths=(50,))
    model = small(env).learn(10)
    evaluate_policy(model, CountingEnv(lengths=(50,)), 1)
    evaluate_policy(model, CountingEnv, 1)
    model.learn(10)
    assert env.episode == 0


def test_evaluating_does_not_change_what_is_learned() -> None:
    learned = []
    for evaluates in (False, True):
        model = small(ChainEnv, learning_starts=10).learn(30)
        if evaluates:
            evaluate_policy(model, ChainEnv, 3, deterministic=False)
        learned.append(model.learn(30).q_values(np.arange(5)))
    np.testing.assert_array_equal(*learned)
