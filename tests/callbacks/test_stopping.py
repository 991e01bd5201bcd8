"""Ending training early, at the right moment."""

from __future__ import annotations

from typing import Any

import pytest
from gymnasium.vector import SyncVectorEnv

from sbdqn.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
    StopTrainingWhenSolved,
)
from sbdqn.errors import ConfigurationError
from tests.callbacks.models import small
from tests.environments import CountingEnv

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


class Scored(CountingEnv):
    """Episodes of two steps whose returns are told beforehand."""

    def __init__(self, *returns: float) -> None:
        super().__init__(lengths=(2,))
        self.returns = returns

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, self.returns[self.episode] / 2, terminated, truncated, info


def evaluating(*returns: float, **children: Any) -> EvalCallback:
    """One episode every ten timesteps, with these returns."""
    return EvalCallback(Scored(*returns), n_eval_episodes=1, eval_freq=10, verbose=0, **children)


# By an evaluation -------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "timesteps"), [(5, 20), (5.01, 30), (1, 10), (50, 45)])
def test_a_mean_reward_at_the_threshold_ends_training(threshold: float, timesteps: int) -> None:
    stop = StopTrainingOnRewardThreshold(threshold)
    callback = evaluating(1, 5, 6, 7, callback_on_new_best=stop)
    assert small(**ENDLESS).learn(45, callback=callback).num_timesteps == timesteps


def test_it_says_so_if_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (0, 1):
        stop = StopTrainingOnRewardThreshold(5, verbose=verbose)
        small(**ENDLESS).learn(45, callback=evaluating(7, callback_on_new_best=stop))
        expected = "Stopping: mean reward 7.00 is at least 5\n" if verbose else ""
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("returns", "patience", "min_evals", "timesteps"),
    [
        # The first evaluation is an improvement; patience counts those after it.
        ([3, 3, 3, 3, 3, 3], 2, 0, 40),
        ([3, 2, 1, 0, 0, 0], 2, 0, 40),
        ([3, 2, 4, 2, 2, 2], 2, 0, 60),
        ([1, 2, 3, 4, 5, 6], 2, 0, 65),
        ([3, 3, 3, 3, 3, 3], 0, 0, 20),
        ([3, 3, 3, 3, 3, 3], 2, 2, 50),
    ],
)
def test_evaluations_in_a_row_without_improvement_end_training(
    returns: list[float], patience: int, min_evals: int, timesteps: int
) -> None:
    stop = StopTrainingOnNoModelImprovement(patience, min_evals=min_evals)
    callback = evaluating(*returns, callback_after_eval=stop)
    assert small(**ENDLESS).learn(65, callback=callback).num_timesteps == timesteps


def test_no_improvement_says_so_if_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (0, 1):
        stop = StopTrainingOnNoModelImprovement(0, verbose=verbose)
        small(**ENDLESS).learn(45, callback=evaluating(3, 3, callback_after_eval=stop))
        expected = "Stopping: no new best mean reward in 1 evaluations\n" if verbose else ""
        assert capsys.readouterr().out == expected


def test_they_find_the_evaluation_through_a_list() -> None:
    stop = StopTrainingOnRewardThreshold(5)
    callback = evaluating(1, 5, callback_on_new_best=CallbackList([BaseCallback(), stop]))
    assert small(**ENDLESS).learn(45, callback=callback).num_timesteps == 20


@pytest.mark.parametrize(
    "stop", [StopTrainingOnRewardThreshold(5), StopTrainingOnNoModelImprovement(5)]
)
def test_without_an_evaluation_they_say_where_they_belong(stop: BaseCallback) -> None:
    with pytest.raises(ConfigurationError, match="reads an evaluation; pass it to EvalCallback"):
        small(**ENDLESS).learn(10, callback=stop)


# By episodes --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_envs", "episodes"), [(1, 3), (3, 9)])
def test_episodes_are_counted_for_each_environment(n_envs: int, episodes: int) -> None:
    model = small(n_envs=n_envs, env_kwargs={"lengths": (4,)})
    model.learn(500, callback=StopTrainingOnMaxEpisodes(3))
    assert model.trainer.episodes == episodes
    assert model.num_timesteps == 4 * episodes


def test_environments_that_end_at_different_times_count_on_average() -> None:
    makers = [lambda length=length: CountingEnv(lengths=(length,)) for length in (2, 1000)]
    stop = StopTrainingOnMaxEpisodes(2)
    model = small(SyncVectorEnv(makers)).learn(500, callback=stop)
    assert stop.n_episodes == model.trainer.episodes == 4


def test_the_episode_limit_says_so_if_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (0, 1):
        stop = StopTrainingOnMaxEpisodes(2, verbose=verbose)
        small(env_kwargs={"lengths": (4,)}).learn(50, callback=stop)
        assert capsys.readouterr().out == ("Stopping after 2 episodes\n" if verbose else "")


# When solved --------------------------------------------------------------------------------

RETURNS = [0, 4, 8, 6, 9, 9, 9, 9, 9, 9]


@pytest.mark.parametrize(
    ("threshold", "window", "solved_after"),
    [
        (6, 3, 1),  # (4 + 8 + 6) / 3
        (7, 3, 2),  # (8 + 6 + 9) / 3
        (9, 3, 4),
        (8, 1, 2),
        (0, 4, 0),  # not before four have been played
    ],
)
def test_solved_is_a_mean_over_a_whole_window(
    threshold: float, window: int, solved_after: int
) -> None:
    stop = StopTrainingWhenSolved(threshold, window)
    model = small(Scored(*RETURNS)).learn(500, callback=stop)
    assert stop.solved_after == solved_after
    assert stop.returns == RETURNS[: solved_after + window]
    assert model.trainer.episodes == solved_after + window


def test_a_window_is_all_that_is_kept_of_the_returns() -> None:
    whole = StopTrainingWhenSolved(1e9, window=3)
    small(Scored(*RETURNS)).learn(20, callback=whole)
    assert len(whole.returns) > 4
    again = StopTrainingWhenSolved(1e9, window=3)
    again.load_state_dict(whole.state_dict())
    assert again.returns == whole.returns[-3:]
    assert again.state_dict() == whole.state_dict()
    for stop in (whole, again):
        stop.reward_threshold = 0
        small(Scored(*RETURNS)).learn(20, callback=stop)
    assert again.solved_after == whole.solved_after


def test_what_is_not_solved_goes_on() -> None:
    stop = StopTrainingWhenSolved(9.5, window=3)
    model = small(Scored(*RETURNS)).learn(20, callback=stop)
    assert (stop.solved_after, model.num_timesteps) == (None, 20)


def test_the_threshold_is_the_environments_own() -> None:
    stop = StopTrainingWhenSolved(window=5)
    small("CartPole-v1").learn(5, callback=stop)
    assert stop.reward_threshold == 475


def test_an_environment_without_threshold_needs_one() -> None:
    with pytest.raises(ConfigurationError, match="registers no reward_threshold; pass one"):
        small().learn(5, callback=StopTrainingWhenSolved())


def test_solving_says_so_if_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (0, 1):
        stop = StopTrainingWhenSolved(7, 3, verbose)
        small(Scored(*RETURNS)).learn(50, callback=stop)
        expected = "Solved: mean return 7.67 over 3 episodes\n" if verbose else ""
        assert capsys.readouterr().out == expected


def test_episodes_of_two_learns_are_one_history() -> None:
    stop = StopTrainingWhenSolved(7, 3)
    model = small(Scored(*RETURNS)).learn(6, callback=stop)
    assert len(stop.returns) == 3
    model.learn(50, callback=stop)
    assert stop.solved_after == 2
