"""Evaluating while training, and what can be done with the outcome."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from sbdqn import DQN
from sbdqn.callbacks import BaseCallback, CallbackList, EvalCallback
from sbdqn.errors import ConfigurationError
from tests.callbacks.models import Recorder, small, watched
from tests.environments import ChainEnv, CountingEnv

ENDLESS = {"env_kwargs": {"lengths": (1000,)}}


class Scored(CountingEnv):
    """Episodes of two steps whose returns are told beforehand."""

    def __init__(self, *returns: float) -> None:
        super().__init__(lengths=(2,))
        self.returns = returns

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, self.returns[self.episode] / 2, terminated, truncated, info


def evaluating(*returns: float, **arguments: Any) -> EvalCallback:
    """One episode every ten timesteps, with these returns."""
    settings: dict[str, Any] = {"n_eval_episodes": 1, "eval_freq": 10, "verbose": 0}
    return EvalCallback(Scored(*returns), **{**settings, **arguments})


@pytest.mark.parametrize(("n_envs", "moments"), [(1, [10, 20, 30]), (4, [12, 20, 32])])
def test_evaluations_happen_every_so_many_timesteps(n_envs: int, moments: list[int]) -> None:
    callback = evaluating(1, 2, 3)
    small(n_envs=n_envs, **ENDLESS).learn(35, callback=callback)
    assert callback.evaluations_timesteps == moments


def test_returns_and_lengths_of_every_evaluation_are_kept(tmp_path: Path) -> None:
    callback = evaluating(1, 2, 4, 8, 16, 32, n_eval_episodes=2, log_path=tmp_path / "logs")
    small(**ENDLESS).learn(30, callback=callback)
    assert callback.evaluations_results == [[1, 2], [4, 8], [16, 32]]
    assert callback.evaluations_length == [[2, 2]] * 3
    assert callback.last_mean_reward == 24
    written = np.load(tmp_path / "logs" / "evaluations.npz")
    assert set(written) == {"timesteps", "results", "ep_lengths"}
    assert written["timesteps"].tolist() == [10, 20, 30]
    assert written["results"].tolist() == [[1, 2], [4, 8], [16, 32]]
    assert written["ep_lengths"].tolist() == [[2, 2]] * 3


def test_the_figures_are_logged_at_their_timestep() -> None:
    model, memory = watched(**ENDLESS)
    model.learn(30, callback=evaluating(1, 2, 4, 8, 16, 32, n_eval_episodes=2))
    assert memory.values("eval/mean_reward") == [(10, 1.5), (20, 6.0), (30, 24.0)]
    assert memory.values("eval/mean_ep_length") == [(10, 2.0), (20, 2.0), (30, 2.0)]
    with_eval = [values for _, values in memory.dumps if "eval/mean_reward" in values]
    assert [values["time/total_timesteps"] for values in with_eval] == [10, 20, 30]


def test_the_best_model_is_the_one_that_scored_best(tmp_path: Path) -> None:
    callback = evaluating(3, 9, 5, 9, best_model_save_path=tmp_path / "best")
    model = small(**ENDLESS).learn(45, callback=callback)
    assert callback.best_mean_reward == 9
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["best_model.zip"]
    best = DQN.load(tmp_path / "best" / "best_model")
    assert best.num_timesteps == 20  # not the equal one at 40
    assert not np.array_equal(best.q_values([0, 0, 1]), model.q_values([0, 0, 1]))


def test_children_are_called_after_a_new_best_and_after_each_evaluation() -> None:
    log: list[str] = []
    new_best, after_eval = Recorder(log, "best."), Recorder(log, "after.")
    callback = evaluating(3, 1, 5, callback_on_new_best=new_best, callback_after_eval=after_eval)
    small(**ENDLESS).learn(35, callback=callback)
    assert [entry for entry in log if entry.endswith("step")] == [
        "best.step",
        "after.step",
        "after.step",
        "best.step",
        "after.step",
    ]
    for hook in ("init", "training_start", "training_end"):
        assert sorted(entry for entry in log if entry.endswith(hook)) == [
            f"after.{hook}",
            f"best.{hook}",
        ]
    assert new_best.parent is after_eval.parent is callback
    assert new_best.locals["new_obs"].tolist() == [[0, 0, 35]]


@pytest.mark.parametrize("role", ["callback_on_new_best", "callback_after_eval"])
def test_each_child_can_end_training(role: str) -> None:
    callback = evaluating(1, 2, 3, **{role: Recorder(stop_at=2)})
    assert small(**ENDLESS).learn(100, callback=callback).num_timesteps == 20


def test_a_new_best_that_stops_does_not_hide_the_evaluation_from_the_other_child() -> None:
    after_eval = Recorder()
    callback = evaluating(
        1, callback_on_new_best=Recorder(stop_at=1), callback_after_eval=after_eval
    )
    small(**ENDLESS).learn(100, callback=callback)
    assert after_eval.log.count("step") == 1


def test_the_model_is_evaluated_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[bool] = set()

    class Watched(DQN):
        def predict(self, *args: Any, **kwargs: Any) -> Any:
            asked.add(args[3])
            return super().predict(*args, **kwargs)

    for deterministic in (True, False):
        model = Watched(**small(**ENDLESS).get_params(deep=False))
        model.learn(10, callback=evaluating(1, deterministic=deterministic))
        assert asked == {deterministic}
        asked.clear()


def test_a_seed_makes_every_evaluation_begin_alike() -> None:
    def lengths(seed: int | None) -> list[list[int]]:
        callback = EvalCallback(
            functools.partial(ChainEnv, limit=9),
            n_eval_episodes=8,
            eval_freq=10,
            deterministic=True,
            verbose=0,
            seed=seed,
        )
        model = small(ChainEnv, learning_starts=10**6)
        # To the right, whatever happens: an episode is as long as its start is far.
        model.q_net.output.linear.weight.data.zero_()
        model.q_net.output.linear.bias.data[:] = model.q_net.output.linear.bias.new([0.0, 1.0])
        model.learn(30, callback=callback)
        return callback.evaluations_length

    one, two, three = lengths(seed=5)
    assert one == two == three
    assert len(set(one)) > 2
    assert lengths(seed=5) == [one] * 3
    assert lengths(seed=6) != [one] * 3


def test_verbosity_prints_one_line_for_each_evaluation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small(**ENDLESS).learn(20, callback=evaluating(1, 3, 2, 4, n_eval_episodes=2, verbose=1))
    assert capsys.readouterr().out.splitlines() == [
        "Eval num_timesteps=10, episode_reward=2.00 +/- 1.00, episode_length=2.0",
        "Eval num_timesteps=20, episode_reward=3.00 +/- 1.00, episode_length=2.0",
    ]
    small(**ENDLESS).learn(20, callback=evaluating(1, 2, verbose=0))
    assert capsys.readouterr().out == ""


def test_the_environment_is_rendered_if_asked_for() -> None:
    class Painting(Scored):
        rendered = 0

        def render(self) -> None:
            self.rendered += 1

    env = Painting(1)
    callback = EvalCallback(env, n_eval_episodes=1, eval_freq=10, render=True, verbose=0)
    small(**ENDLESS).learn(10, callback=callback)
    assert env.rendered == 2


def object_itself() -> tuple[Any, Any]:
    env = CountingEnv()
    return env, env


def wrapped_object() -> tuple[Any, Any]:
    env = CountingEnv()
    return env, TimeLimit(env, 5)


def vector_env() -> tuple[Any, Any]:
    env = SyncVectorEnv([CountingEnv])
    return env, env


@pytest.mark.parametrize("make", [object_itself, wrapped_object, vector_env])
def test_the_training_environment_is_refused(make: Any) -> None:
    train_env, eval_env = make()
    with pytest.raises(ConfigurationError, match=r"eval_env is the training environment.*second"):
        small(train_env).learn(20, callback=EvalCallback(eval_env))


def test_a_callback_that_refuses_leaves_the_model_as_it_was() -> None:
    env = CountingEnv()
    model, fresh = (small(each, exploration_fraction=1.0) for each in (env, CountingEnv))
    with pytest.raises(ConfigurationError):
        model.learn(10, callback=EvalCallback(env))
    assert model.num_timesteps == 0
    # Epsilon falls over the first call that trains.
    assert model.learn(40).trainer.exploration == fresh.learn(40).trainer.exploration


@pytest.mark.parametrize("env", ["CartPole-v1", CountingEnv])
def test_two_environments_of_one_description_are_two(env: Any) -> None:
    callback = EvalCallback(env, n_eval_episodes=1, eval_freq=10, verbose=0)
    small(env).learn(20, callback=callback)
    assert callback.evaluations_timesteps == [10, 20]


def test_evaluating_does_not_change_what_is_learned() -> None:
    learned = []
    for callback in (None, EvalCallback(ChainEnv, eval_freq=10, deterministic=False, verbose=0)):
        model = small(ChainEnv).learn(60, callback=callback)
        learned.append(model.q_values(np.arange(5)))
    np.testing.assert_array_equal(*learned)


def test_it_can_be_used_again_and_keeps_its_best() -> None:
    callback = EvalCallback(
        functools.partial(Scored, 5, 7), n_eval_episodes=2, eval_freq=10, verbose=0
    )
    model = small(**ENDLESS)
    model.learn(10, callback=callback).learn(10, callback=callback)
    assert callback.evaluations_results == [[5, 7], [5, 7]]
    assert callback.best_mean_reward == 6


def test_an_environment_that_it_made_is_closed_at_the_end() -> None:
    class Closing(Scored):
        closed = 0

        def close(self) -> None:
            type(self).closed += 1

    made = functools.partial(Closing, 1, 2, 3)
    small(**ENDLESS).learn(20, callback=EvalCallback(made, eval_freq=50))
    assert Closing.closed == 1
    small(**ENDLESS).learn(20, callback=EvalCallback(Closing(1, 2, 3), eval_freq=50))
    assert Closing.closed == 1


def test_several_evaluations_do_not_disturb_each_other() -> None:
    one, other = evaluating(1, 2, 3), evaluating(4, 8, eval_freq=15)
    small(**ENDLESS).learn(30, callback=CallbackList([one, other]))
    assert (one.evaluations_timesteps, other.evaluations_timesteps) == ([10, 20, 30], [15, 30])
    assert (one.evaluations_results, other.evaluations_results) == ([[1], [2], [3]], [[4], [8]])


def test_it_evaluates_in_several_environments() -> None:
    env = SyncVectorEnv([lambda index=index: CountingEnv(index) for index in range(3)])
    callback = EvalCallback(env, n_eval_episodes=6, eval_freq=10, verbose=0)
    small(**ENDLESS).learn(10, callback=callback)
    assert sorted(callback.evaluations_length[0]) == sorted([1, 4, 4, 7, 7, 2])


def test_before_any_evaluation_there_is_no_best() -> None:
    callback = evaluating(1)
    assert callback.best_mean_reward == callback.last_mean_reward == -np.inf
    assert isinstance(callback, BaseCallback)
