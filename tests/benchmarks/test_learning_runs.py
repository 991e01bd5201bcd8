"""One training: what its rows say, and that evaluations do not disturb it."""

from __future__ import annotations

import dataclasses
from itertools import count
from typing import Any

import gymnasium
import learning_runs
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from learning_groups import CART_POLE, GROUPS, IN_SBDQN, SHORT_CART_POLE
from learning_recipes import of_recipes
from learning_runs import Evaluations, RandomAgent, Run, solved_after, train
from learning_settings import LimitsEnd, Setting, Task

from sbdqn import DQN
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


def records(group: str) -> dict[str, dict[str, str]]:
    return {setting.name: setting.record() for setting in GROUPS[group].settings}


@pytest.mark.parametrize("name", ["forgetting", "forgetting_zoo"])
def test_a_study_changes_one_thing_at_a_time(name):
    base, without_bootstrap, *others = records(name).values()
    assert {key for key in base if base[key] != without_bootstrap[key]} == {"limits_end"}
    rhythm = {"train_freq", "gradient_steps"}
    together = [{"tau", "target_update_interval"}, rhythm, {*rhythm, "target_update_interval"}]
    for record in others:
        changed = {key for key in base if base[key] != record[key]}
        assert len(changed) == 1 or changed in together


def test_a_change_is_what_its_name_says():
    values = records("forgetting")
    assert values["memory_50000"]["buffer_size"] == "50000"
    assert values["batch_256"]["batch_size"] == "256"
    assert values["adam_eps_1e-3"]["policy.optimizer_kwargs"] == "{'eps': 0.001}"
    assert "end=0.1," in values["epsilon_floor_0.1"]["exploration"]


def test_the_zoos_setting_is_given_what_the_recipe_has():
    ours, theirs = records("forgetting")["base"], records("forgetting_zoo")
    for name, key in (
        ("double_targets", "backup"),
        ("8_steps", "n_steps"),
        ("layer_norm", "policy.layer_norm"),
        ("copies_every_500", "target_update_interval"),
        ("updates_every_2", "train_freq"),
        ("network_64_64", "policy.net_arch"),
    ):
        assert theirs[name][key] == ours[key] != theirs["base"][key]
    assert f"start={theirs['lower_rate']['learning_rate']}," in ours["learning_rate"]


def test_a_change_of_rhythm_keeps_the_age_of_the_zoos_target():
    settings = records("forgetting_zoo")
    rhythm = ("train_freq", "gradient_steps", "target_update_interval")
    assert [settings["updates_every_2"][name] for name in rhythm] == ["2", "1", "256"]
    assert [settings["base"][name] for name in rhythm] == ["256", "128", "10"]


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


# Of rl-baselines3-zoo, hyperparameters/dqn.yml.
ZOO_NAMES = (
    *("learning_rate", "batch_size", "buffer_size", "learning_starts", "gamma"),
    *("target_update_interval", "train_freq", "gradient_steps"),
    *("exploration_fraction", "exploration_final_eps"),
)
ZOO_VALUES = {
    "CartPole-v1": (2.3e-3, 64, 100_000, 1_000, 0.99, 10, 256, 128, 0.16, 0.04),
    "MountainCar-v0": (4e-3, 128, 10_000, 1_000, 0.98, 600, 16, 8, 0.2, 0.07),
    "LunarLander-v3": (6.3e-4, 128, 50_000, 0, 0.99, 250, 4, -1, 0.12, 0.1),
    "Acrobot-v1": (6.3e-4, 128, 50_000, 0, 0.99, 250, 4, -1, 0.12, 0.1),
}
ZOO = {env: dict(zip(ZOO_NAMES, each, strict=True)) for env, each in ZOO_VALUES.items()}
ZOO["CartPole-v0"] = ZOO["CartPole-v1"]


def test_the_settings_of_sb3_are_those_of_the_zoo():
    theirs = [each for group in GROUPS.values() for each in group.settings if each.library == "sb3"]
    assert {each.task.env_id for each in theirs} == {*ZOO}
    for each in theirs:
        wide = {"policy_kwargs": {"net_arch": [256, 256]}}
        assert each.parameters == {**ZOO[each.task.env_id], **wide}, each.name


def test_the_studys_other_base_is_what_sb3_makes_of_the_zoos_setting():
    (theirs,) = (each for each in GROUPS["cartpole"].settings if each.name == "sb3_100k")
    sb3, ours = theirs.model(seed=0), DQN("MlpPolicy", "CartPole-v1", **IN_SBDQN)
    for name in ("batch_size", "gamma", "tau", "max_grad_norm", "gradient_steps", "n_steps"):
        assert getattr(sb3, name) == ours.get_params()[name], name
    for name in ("buffer_size", "learning_starts", "target_update_interval", "learning_rate"):
        assert getattr(sb3, name) == ours.get_params()[name], name
    assert sb3.train_freq.frequency == ours.get_params()["train_freq"]
    adam = sb3.policy.optimizer.defaults
    assert IN_SBDQN["policy_kwargs"]["optimizer_kwargs"] == {"eps": adam["eps"]}
    of_sb3 = [tuple(each.shape) for each in sb3.q_net.parameters()]
    shapes = {k: tuple(each.shape) for k, each in ours.get_parameters()["policy"].items()}
    assert [each for k, each in shapes.items() if k.startswith("q_net.")] == of_sb3
    assert (IN_SBDQN["loss"], IN_SBDQN["backup"]) == ("huber", "greedy")
    for timesteps in (0, 4_000, 16_000, 90_000):
        expected = sb3.exploration_schedule(1 - timesteps / theirs.timesteps)
        assert IN_SBDQN["exploration"].epsilon(timesteps) == pytest.approx(expected)


SEEDS = {
    "cartpole": range(30),
    "cartpole_fast": range(20),
    "acrobot": range(10, 20),
    "mountain_car": range(10),
    "lunar_lander": range(20, 30),
    "minatar": range(1, 4),
    "forgetting": range(10),
    "forgetting_zoo": range(10),
}


def test_the_reported_seeds_are_none_that_recipes_were_tuned_on():
    assert {name: group.seeds for name, group in GROUPS.items()} == SEEDS


def test_the_clocks_stand_still_during_evaluations(monkeypatch):
    ticks = count()
    monkeypatch.setattr(learning_runs, "clocks", lambda: np.full(2, float(next(ticks))))
    evaluations = Evaluations(Setting("name", "random", SHORT, 60, eval_every=20), 0)
    evaluations.model = RandomAgent(Setting("name", "random", SHORT, 60), 0)
    for timesteps in (20, 40):
        evaluations.after_step(timesteps, [])
    evaluations.finish(60)
    # Each call of the clocks takes a second, and each evaluation is between two.
    assert [row["seconds"] for row in evaluations.rows] == [1.0, 2.0, 3.0]
    assert [row["cpu_seconds"] for row in evaluations.rows] == [1.0, 2.0, 3.0]


def test_evaluations_begin_the_same_each_time_and_the_last_one_otherwise():
    evaluations = Evaluations(Setting("name", "random", SHORT, 60, eval_every=20), 0)
    agent = evaluations.model = RandomAgent(Setting("name", "random", SHORT, 60), 0)
    starts: list[Any] = []
    predict = agent.predict

    def watched(observation: Any, *others: Any, **named: Any) -> Any:
        seen.append(np.array(observation))
        return predict(observation, *others, **named)

    agent.predict = watched
    for timesteps in (20, 40, 60):
        seen: list[Any] = []
        evaluations.after_step(timesteps, [])
        starts.append(seen[0])
    seen = []
    evaluations.finish(60)
    assert np.array_equal(starts[0], starts[1])
    assert np.array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], seen[0])


def test_training_has_one_thread():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(Run(Setting("name", "random", SHORT, 0), 0))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_rows_have_the_spread_and_the_lowest_return():
    evaluations = Evaluations(Setting("name", "random", CART_POLE, 60, eval_every=20), 0)
    evaluations.model = RandomAgent(Setting("name", "random", CART_POLE, 60), 0)
    evaluations._keep("evaluation", 0, 20, [3.0, 1.0, 5.0])
    (row,) = evaluations.rows
    assert (row["mean"], row["std"], row["min"]) == (3.0, 1.633, 1.0)


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
        ("cartpole@Pendulum-v1", "Discrete, not Box"),
    ],
)
def test_what_cannot_be_measured_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        of_recipes([name], None)


def test_recipes_are_evaluated_with_the_shortest_of_their_time_limits():
    pytest.importorskip("minatar")
    names = ["minatar@MinAtar/Breakout-v1", "dqn_classic@MinAtar/Breakout-v1"]
    (group,) = of_recipes(names, 100).values()
    assert [each.task.max_episode_steps for each in group.settings] == [5_000, 5_000]
    assert all(
        each.task.max_episode_steps == 5_000
        for each in GROUPS["minatar"].settings
        if each.library == "sbdqn"
    )


def test_an_environment_without_a_time_limit_gets_one():
    (group,) = of_recipes(["cartpole@Blackjack-v1"], 100).values()
    (setting,) = group.settings
    assert setting.task.max_episode_steps == 5_000
    assert setting.make_env().spec.max_episode_steps == 5_000


def test_a_recipe_has_the_policy_of_the_environments_observations():
    spaces = {"space": Box(0, 255, (6, 5, 1), np.uint8), "actions": Discrete(2)}
    gymnasium.register("Pictures-v0", AnyObsEnv, kwargs=spaces)
    try:
        (group,) = of_recipes(["dqn_classic@Pictures-v0"], 100).values()
        assert group.settings[0].parameters["policy"] == "CnnPolicy"
    finally:
        gymnasium.registry.pop("Pictures-v0")
