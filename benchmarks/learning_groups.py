"""What `learning.py` measures: each group is a table of settings on one kind of task.

A setting of ours is a recipe of `sbdqn.recipes` and what differs from it. Those of SB3 are the
tuned ones of the RL Baselines3 Zoo (`hyperparams/dqn.yml`, the same since its commit ce95481; that
of LunarLander-v3 is the one of v2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learning_settings import Group, Setting, Task

from sbdqn import recipes
from sbdqn.exploration import EpsilonGreedy
from sbdqn.recipes import Recipe
from sbdqn.schedules import Linear


def recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A named recipe, with changes."""
    return Recipe(name, recipes.by_name()[name], changes or {})


CART_POLE = Task("CartPole-v1", 475.0)
SHORT_CART_POLE = Task("CartPole-v0", 195.0)
ACROBOT = Task("Acrobot-v1", -100.0)
MOUNTAIN_CAR = Task("MountainCar-v0", -110.0)
LUNAR_LANDER = Task("LunarLander-v3", 200.0)
MINATAR = recipe("minatar")
MINATAR_GAMES = ("Breakout", "Asterix", "SpaceInvaders")

_WIDE = {"policy_kwargs": {"net_arch": [256, 256]}}
ZOO_CART_POLE = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    **_WIDE,
}
ZOO_MOUNTAIN_CAR = {
    "learning_rate": 4e-3,
    "batch_size": 128,
    "buffer_size": 10_000,
    "learning_starts": 1_000,
    "gamma": 0.98,
    "target_update_interval": 600,
    "train_freq": 16,
    "gradient_steps": 8,
    "exploration_fraction": 0.2,
    "exploration_final_eps": 0.07,
    **_WIDE,
}
ZOO_ACROBOT = ZOO_LUNAR_LANDER = {
    "learning_rate": 6.3e-4,
    "batch_size": 128,
    "buffer_size": 50_000,
    "learning_starts": 0,
    "gamma": 0.99,
    "target_update_interval": 250,
    "train_freq": 4,
    "gradient_steps": -1,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
    **_WIDE,
}


def beside_sb3(
    task: Task,
    timesteps: int,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    suffix: str = "",
    **both: Any,
) -> tuple[Setting, Setting]:
    """Our setting and SB3's, on the same task with the same budget."""
    return (
        Setting(f"sbdqn{suffix}", "sbdqn", task, timesteps, ours, **both),
        Setting(f"sb3{suffix}", "sb3", task, timesteps, theirs, **both),
    )


def minatar(game: str, timesteps: int, ours: Mapping[str, Any]) -> tuple[Setting, Setting]:
    """Our setting and random play; the zoo has no setting for these games."""
    limit = ours["env_kwargs"]["max_episode_steps"]  # the same where it is evaluated
    task = Task(f"MinAtar/{game}-v1", max_episode_steps=limit)
    name = game.lower()
    return (
        Setting(f"{name}_sbdqn", "sbdqn", task, timesteps, ours, eval_every=50_000),
        Setting(f"{name}_random", "random", task, 0),
    )


def of_network(**changes: Any) -> dict[str, Any]:
    return {"policy_kwargs": changes}


STUDY_STEPS = 100_000


def epsilon_floor(floor: float) -> dict[str, Any]:
    """The exploration of the recipe `cartpole` with another floor, reached as soon."""
    return {"exploration": EpsilonGreedy(Linear(1.0, floor, 5_000))}


def study(
    base: Mapping[str, Any], switches: Mapping[str, Mapping[str, Any]]
) -> tuple[Setting, ...]:
    """The base, and each change of one thing."""

    def changed(name: str, changes: Mapping[str, Any], **more: Any) -> Setting:
        parameters = Recipe(name, base, changes)
        return Setting(name, "sbdqn", CART_POLE, STUDY_STEPS, parameters, **more)

    return (
        changed("base", {}),
        changed("no_time_limit_bootstrap", {}, limits_end=True),
        *(changed(name, changes) for name, changes in switches.items()),
    )


OF_RECIPE = {
    "greedy_targets": {"backup": "greedy"},
    "1_step": {"n_steps": 1},
    "3_steps": {"n_steps": 3},
    "5_steps": {"n_steps": 5},
    "no_layer_norm": of_network(layer_norm=False),
    "copies_every_10": {"target_update_interval": 10},
    "memory_10000": {"buffer_size": 10_000},
    "memory_50000": {"buffer_size": 50_000},
    "adam_eps_1e-5": of_network(optimizer_kwargs={"eps": 1e-5}),
    "adam_eps_1e-3": of_network(optimizer_kwargs={"eps": 1e-3}),
    "constant_rate": {"learning_rate": 1e-3},
    "batch_32": {"batch_size": 32},
    "batch_128": {"batch_size": 128},
    "batch_256": {"batch_size": 256},
    "epsilon_floor_0": epsilon_floor(0.0),
    "epsilon_floor_0.01": epsilon_floor(0.01),
    "epsilon_floor_0.1": epsilon_floor(0.1),
    "updates_every_256": {"train_freq": 256, "gradient_steps": 128},
    "network_256_256": of_network(net_arch=(256, 256)),
    # The target is as old, on average, as with copies after every 250 updates.
    "polyak_0.008": {"tau": 0.008, "target_update_interval": 2},
}
IN_SBDQN = Recipe(
    "the zoo's setting of CartPole, and what SB3 has by default, in this library",
    {name: value for name, value in ZOO_CART_POLE.items() if "exploration" not in name},
    # The zoo's share of these steps.
    {"exploration": EpsilonGreedy(Linear(1.0, 0.04, 16_000))},
    {"backup": "greedy", "n_steps": 1, "loss": "huber", "tau": 1.0, "max_grad_norm": 10.0},
    of_network(layer_norm=False, optimizer_class="Adam", optimizer_kwargs={"eps": 1e-8}),
)
OF_ZOO = {  # what the recipe `cartpole` has instead
    "double_targets": {"backup": "double"},
    "8_steps": {"n_steps": 8},
    "layer_norm": of_network(layer_norm=True),
    "copies_every_500": {"target_update_interval": 500},
    # As old a target as there, where all copies but the last before 128 updates are overwritten.
    "updates_every_2": {"train_freq": 2, "gradient_steps": 1, "target_update_interval": 256},
    "lower_rate": {"learning_rate": 1e-3},
    "falling_rate": {"learning_rate": Linear(2.3e-3, 2.3e-4, 50_000)},
    "network_64_64": of_network(net_arch=(64, 64)),
}

GROUPS = {
    "cartpole": Group(
        "CartPole-v1",
        beside_sb3(CART_POLE, 50_000, recipe("cartpole"), ZOO_CART_POLE)
        + beside_sb3(CART_POLE, 100_000, recipe("cartpole"), ZOO_CART_POLE, "_100k"),
        seeds=range(30),
    ),
    "cartpole_fast": Group(
        "CartPole-v0",
        beside_sb3(
            SHORT_CART_POLE,
            30_000,
            recipe("cartpole_fast"),
            ZOO_CART_POLE,
            eval_every=1_000,
            solved_at=195.0,
        ),
        seeds=range(20),
    ),
    "acrobot": Group(
        "Acrobot-v1",
        beside_sb3(ACROBOT, 100_000, recipe("acrobot"), ZOO_ACROBOT),
        seeds=range(10, 20),  # what an earlier recipe did on others decided this one
    ),
    "mountain_car": Group(
        "MountainCar-v0",
        beside_sb3(MOUNTAIN_CAR, 120_000, recipe("mountain_car"), ZOO_MOUNTAIN_CAR),
        seeds=range(10),
    ),
    "lunar_lander": Group(
        "LunarLander-v3",
        beside_sb3(LUNAR_LANDER, 100_000, recipe("lunar_lander"), ZOO_LUNAR_LANDER),
        seeds=range(20, 30),  # what earlier recipes did on others decided this one
    ),
    "minatar": Group(
        "MinAtar",
        sum((minatar(game, 1_000_000, MINATAR) for game in MINATAR_GAMES), ()),
        seeds=range(1, 4),  # an earlier recipe was chosen on seed 0
    ),
    "forgetting": Group(
        "changes of our recipe",
        study(recipe("cartpole"), OF_RECIPE),
        seeds=range(10),
        is_study=True,
    ),
    "forgetting_zoo": Group(
        "changes of the zoo's setting",
        study(IN_SBDQN, OF_ZOO),
        seeds=range(10),
        is_study=True,
    ),
}
