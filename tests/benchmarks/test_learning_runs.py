"""One training: what its rows say, and that evaluations do not disturb it."""

from __future__ import annotations

import dataclasses

import gymnasium
import learning_runs
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from learning_groups import (
    CART_POLE,
    GROUPS,
    SHORT_CART_POLE,
    ZOO_CART_POLE,
    of_recipes,
)
from learning_runs import Run, solved_after, train
from learning_settings import LimitsEnd, Setting, Task

from tests.environments import AnyObsEnv

SHORT = Task("CartPole-v1", 475.0, max_episode_steps=5)


@pytest.fixture(autouse=True)
def _few_episodes(monkeypatch):
    monkeypatch.setattr(learning_runs, "EVALUATION_EPISODES", 2)
    monkeypatch.setattr(learning_runs, "FINAL_EPISODES", 4)


def test_solved_is_the_first_place_with_enough_episodes_after_it():
    returns, ends = [1.0, 5.0, 2.0, 6.0, 4.0], [1, 6, 8, 14, 18]
    found = solved_after(returns, ends, mean=4.0, window=2)
    assert found == (2, 6, [2.0, 6.0])  # after 2 episodes; they took 6 timesteps
    assert solved_after(returns, ends, mean=3.0, window=2) == (0, 0, [1.0, 5.0])
    assert solved_after(returns, ends, mean=5.0, window=2) == (3, 8, [6.0, 4.0])
    assert solved_after(returns, ends, mean=5.1, window=2) is None
    assert solved_after(returns, ends, mean=1.0, window=6) is None


@pytest.mark.parametrize("library", ["sbdqn", "sb3"])
def test_rows_tell_when_and_how_well(library):
    parameters = {"learning_starts": 20, "train_freq": 10, "buffer_size": 100}
    setting = Setting("name", library, SHORT, 60, parameters, eval_every=25, solved_at=6.0)
    rows = train(Run(setting, 3))
    assert [row["kind"] for row in rows] == ["evaluation", "evaluation", "solved_after", "final"]
    assert [row["timesteps"] for row in rows] == [25, 50, None, 60]
    assert [row["episodes"] for row in rows] == [5, 10, None, 12]  # of 5 steps each
    assert [row["evaluation_episodes"] for row in rows] == [2, 2, 0, 4]
    assert [row.get("mean") for row in rows] == [5.0, 5.0, None, 5.0]
    assert rows[0]["seconds"] <= rows[1]["seconds"] <= rows[3]["seconds"]
    assert all((row["library"], row["seed"]) == (library, 3) for row in rows)


def test_a_row_tells_when_training_counted_as_solved(monkeypatch):
    monkeypatch.setattr(learning_runs, "SOLVED_WINDOW", 4)
    setting = Setting("name", "sbdqn", SHORT, 60, {"learning_starts": 60}, solved_at=5.0)
    solved, _ = train(Run(setting, 0))
    assert (solved["kind"], solved["episodes"], solved["timesteps"]) == ("solved_after", 0, 0)
    assert (solved["evaluation_episodes"], solved["mean"], solved["std"]) == (4, 5.0, 0.0)


@pytest.mark.parametrize("library", ["sbdqn", "sb3"])
def test_evaluations_do_not_disturb_training(library):
    parameters = {"learning_starts": 20, "train_freq": 5, "buffer_size": 1_000}
    task = Task("CartPole-v1", 475.0)
    often = Setting("name", library, task, 200, parameters, eval_every=20)
    first, second = train(Run(often, 1)), train(Run(dataclasses.replace(often, eval_every=200), 1))
    assert (len(first), len(second)) == (11, 2)
    measured = ("timesteps", "episodes", "mean", "std", "min")
    assert [first[-1][name] for name in measured] == [second[-1][name] for name in measured]
    assert [first[-2][name] for name in measured] == [second[-2][name] for name in measured]


def test_random_actions_are_evaluated_alone():
    (row,) = train(Run(Setting("name", "random", SHORT, 0), 0))
    assert (row["kind"], row["timesteps"], row["mean"]) == ("final", 0, 5.0)


def test_a_training_that_ends_early_is_no_run():
    setting = Setting("name", "random", SHORT, 10)
    with pytest.raises(RuntimeError, match="ended after 0 timesteps"):
        train(Run(setting, 0))


def test_time_limits_can_be_reported_as_terminations():
    for limits_end, expected in ((False, (False, True)), (True, (True, False))):
        env = Setting("name", "sbdqn", SHORT, 10, limits_end=limits_end).make_env()
        assert isinstance(env, LimitsEnd) == limits_end
        env.reset(seed=0)
        for _ in range(5):
            _, _, terminated, truncated, _ = env.step(0)
        assert (terminated, truncated) == expected


def test_the_old_cart_pole_is_made_without_a_warning():
    assert SHORT_CART_POLE.make().spec.max_episode_steps == 200


@pytest.mark.parametrize("name", ["forgetting", "forgetting_zoo"])
def test_a_study_changes_one_thing_at_a_time(name):
    settings = GROUPS[name].settings
    base, unlimited, *others = (setting.record() for setting in settings)
    assert {name for name in base if base[name] != unlimited[name]} == {"limits_end"}
    together = [{"tau", "target_update_interval"}, {"train_freq", "gradient_steps"}]
    for record in others:
        changed = {name for name in base if base[name] != record[name]}
        assert len(changed) == 1 or changed in together
    assert {"memory_10000", "batch_256"} < {setting.name for setting in settings}


def test_switches_that_change_nothing_are_left_out():
    ours, zoo = (
        {setting.name for setting in GROUPS[name].settings}
        for name in ("forgetting", "forgetting_zoo")
    )
    assert {"1_step", "no_layer_norm", "constant_rate"} <= ours - zoo
    assert {"8_steps", "layer_norm", "falling_rate"} <= zoo - ours


def test_all_our_settings_make_their_environments():
    pytest.importorskip("Box2D")
    pytest.importorskip("minatar")
    for group in GROUPS.values():
        for setting in group.settings:
            if setting.library == "sbdqn":
                model = setting.model(seed=0)
                assert model.env.num_envs == model.get_params()["n_envs"]
                model.close()


def test_the_env_kwargs_of_a_recipe_reach_its_environment():
    recipe = {"env_kwargs": {"max_episode_steps": 7}}
    model = Setting("short", "sbdqn", CART_POLE, 10, recipe).model(seed=0)
    assert model.env.envs[0].spec.max_episode_steps == 7
    model.close()


def test_settings_of_the_zoo_make_the_models_they_describe():
    for group in GROUPS.values():
        for setting in group.settings:
            if setting.library == "sb3" and setting.task.env_id.startswith("CartPole"):
                model = setting.model(seed=0)
                assert model.train_freq.frequency == ZOO_CART_POLE["train_freq"]
                assert model.exploration_fraction == 0.16


def test_any_recipe_is_measured_in_any_environment():
    names = ["cartpole@CartPole-v1", "c51_classic@CartPole-v1", "c51_classic@FrozenLake-v1"]
    groups = of_recipes(names, 40)
    assert list(groups) == ["CartPole-v1", "FrozenLake-v1"]
    ours, c51 = groups["CartPole-v1"].settings
    assert ours.task == c51.task == CART_POLE
    assert (ours.agent, ours.timesteps, ours.eval_every) == ("cartpole", 40, 2)
    assert (ours.record()["head"], ours.record()["n_steps"]) == ("'scalar'", "8")
    assert c51.record()["head"].startswith("Categorical(")
    (lake,) = groups["FrozenLake-v1"].settings
    assert lake.task.threshold == 0.7
    assert train(Run(lake, 0))[-1]["timesteps"] == 40


def test_a_recipe_is_measured_for_as_long_as_it_was_tuned():
    (setting,) = of_recipes(["cartpole@CartPole-v1"], None)["CartPole-v1"].settings
    assert (setting.timesteps, setting.eval_every) == (50_000, 2_500)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cart@CartPole-v1", "no recipe has this name"),
        ("rainbow@CartPole-v1", "no budget of its own; give `--timesteps`"),
        ("atari@ALE/Pong-v5", "`sbdqn train`"),
    ],
)
def test_what_cannot_be_measured_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        of_recipes([name], None)


def test_a_recipe_with_a_time_limit_is_evaluated_with_it():
    pytest.importorskip("minatar")
    (group,) = of_recipes(["minatar@MinAtar/Breakout-v1"], 100).values()
    assert group.settings[0].task.max_episode_steps == 5_000


def test_a_recipe_has_the_policy_of_the_environments_observations():
    spaces = {"space": Box(0, 255, (6, 5, 1), np.uint8), "actions": Discrete(2)}
    gymnasium.register("Pictures-v0", AnyObsEnv, kwargs=spaces)
    try:
        (group,) = of_recipes(["dqn_classic@Pictures-v0"], 100).values()
        assert group.settings[0].parameters["policy"] == "CnnPolicy"
    finally:
        gymnasium.registry.pop("Pictures-v0")
