"""What `learning.py` measures: each group is a table of settings on one kind of task.

A setting of ours is a recipe of `sbdqn.recipes` and what differs from it. Those of SB3 are the
tuned ones of the RL Baselines3 Zoo (`hyperparams/dqn.yml`, the same since its commit ce95481; that
of LunarLander-v3 is the one of v2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from learning_settings import Group, Setting, Task

from sbdqn import recipes
from sbdqn.exploration import EpsilonGreedy
from sbdqn.recipes import Recipe
from sbdqn.schedules import Linear
from sbdqn.specs import policy_for


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
        Setting(f"{name}_sbdqn", "sbdqn", task, timesteps, ours, eval_every=25_000),
        Setting(f"{name}_random", "random", task, 0),
    )


def of_network(**changes: Any) -> dict[str, Any]:
    return {"policy_kwargs": changes}


STUDY_STEPS = 100_000
ZOO_EXPLORED = 16_000  # of these steps, as the zoo's share of them is


def switches(rate: float, explored: int) -> dict[str, Mapping[str, Any]]:
    """Changes of one thing at a time.

    Args:
        rate: the learning rate in the beginning.
        explored: timesteps after which epsilon is at its floor.
    """

    def epsilon_floor(floor: float) -> dict[str, Any]:
        return {"exploration": EpsilonGreedy(Linear(1.0, floor, explored))}

    return {
        "greedy_targets": {"backup": "greedy"},
        "double_targets": {"backup": "double"},
        "1_step": {"n_steps": 1},
        "3_steps": {"n_steps": 3},
        "5_steps": {"n_steps": 5},
        "8_steps": {"n_steps": 8},
        "layer_norm": of_network(layer_norm=True),
        "no_layer_norm": of_network(layer_norm=False),
        "copies_every_500": {"tau": 1.0, "target_update_interval": 500},
        "copies_every_10": {"tau": 1.0, "target_update_interval": 10},
        "polyak_0.01": {"tau": 0.01, "target_update_interval": 2},
        "memory_10000": {"buffer_size": 10_000},
        "memory_50000": {"buffer_size": 50_000},
        "memory_100000": {"buffer_size": 100_000},
        "adam_eps_1e-8": of_network(optimizer_kwargs={"eps": 1e-8}),
        "adam_eps_1e-5": of_network(optimizer_kwargs={"eps": 1e-5}),
        "adam_eps_1e-3": of_network(optimizer_kwargs={"eps": 1e-3}),
        "constant_rate": {"learning_rate": rate},
        "falling_rate": {"learning_rate": Linear(rate, rate / 10, 50_000)},
        "batch_32": {"batch_size": 32},
        "batch_64": {"batch_size": 64},
        "batch_128": {"batch_size": 128},
        "batch_256": {"batch_size": 256},
        "epsilon_floor_0": epsilon_floor(0.0),
        "epsilon_floor_0.01": epsilon_floor(0.01),
        "epsilon_floor_0.05": epsilon_floor(0.05),
        "epsilon_floor_0.1": epsilon_floor(0.1),
        "updates_every_2": {"train_freq": 2, "gradient_steps": 1},
        "updates_every_256": {"train_freq": 256, "gradient_steps": 128},
        "network_64_64": of_network(net_arch=(64, 64)),
        "network_256_256": of_network(net_arch=(256, 256)),
    }


def study(base: Mapping[str, Any], *, rate: float, explored: int) -> tuple[Setting, ...]:
    """The base, and each switch that makes a difference to it."""

    def changed(name: str, changes: Mapping[str, Any], **more: Any) -> Setting:
        parameters = Recipe(name, base, changes)
        return Setting(name, "sbdqn", CART_POLE, STUDY_STEPS, parameters, **more)

    first = changed("base", {})
    others = [changed(name, changes) for name, changes in switches(rate, explored).items()]
    unlike = [setting for setting in others if setting.record() != first.record()]
    return first, changed("no_time_limit_bootstrap", {}, limits_end=True), *unlike


OF_ZOO = Recipe(
    "the zoo's setting of CartPole, and what SB3 has by default, in this library",
    {name: value for name, value in ZOO_CART_POLE.items() if "exploration" not in name},
    {"exploration": EpsilonGreedy(Linear(1.0, 0.04, ZOO_EXPLORED))},
    {"backup": "greedy", "n_steps": 1, "loss": "huber", "tau": 1.0, "max_grad_norm": 10.0},
    of_network(layer_norm=False, optimizer_class="Adam", optimizer_kwargs={"eps": 1e-8}),
)

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
        seeds=range(10),
    ),
    "mountain_car": Group(
        "MountainCar-v0",
        beside_sb3(MOUNTAIN_CAR, 120_000, recipe("mountain_car"), ZOO_MOUNTAIN_CAR),
        seeds=range(10),
    ),
    "lunar_lander": Group(
        "LunarLander-v3",
        beside_sb3(LUNAR_LANDER, 100_000, recipe("lunar_lander"), ZOO_LUNAR_LANDER),
        seeds=range(10),
    ),
    "minatar": Group(
        "MinAtar",
        sum((minatar(game, 750_000, MINATAR) for game in MINATAR_GAMES), ()),
        seeds=range(1, 4),  # the recipe was chosen on seed 0
    ),
    "forgetting": Group(
        "changes of our recipe",
        study(recipe("cartpole"), rate=1e-3, explored=5_000),
        seeds=range(10),
        is_study=True,
    ),
    "forgetting_zoo": Group(
        "changes of the zoo's setting",
        study(OF_ZOO, rate=2.3e-3, explored=ZOO_EXPLORED),
        seeds=range(10),
        is_study=True,
    ),
}


def of_recipes(names: Iterable[str], timesteps: int | None) -> dict[str, Group]:
    """Groups of `RECIPE@ENV`: one for each environment, with a setting for each recipe.

    Args:
        names: such as `rainbow_classic@CartPole-v1`.
        timesteps: the budget; by default what the recipe was tuned for.

    Raises:
        ValueError: if a recipe is unknown, has no budget of its own, or if the environment is one
            of ALE's, whose games are made and evaluated otherwise.
    """
    groups: dict[str, Group] = {}
    for name in names:
        recipe_name, _, env_id = name.partition("@")
        chosen = recipes.by_name().get(recipe_name)
        if chosen is None:
            raise ValueError(f"{name}: no recipe has this name; `sbdqn recipes` lists them")
        if env_id.startswith("ALE/"):
            raise ValueError(f"{name}: `sbdqn train` and `sbdqn evaluate` measure Atari games")
        budget = timesteps or chosen.timesteps
        if budget is None:
            raise ValueError(f"{name}: the recipe has no budget of its own; give `--timesteps`")
        limit = chosen.get("env_kwargs", {}).get("max_episode_steps")
        env = Task(env_id, max_episode_steps=limit).make()
        threshold = env.spec.reward_threshold if env.spec else None
        setting = Setting(
            recipe_name,
            "sbdqn",
            Task(env_id, threshold, limit),
            budget,
            recipe(recipe_name, {"policy": policy_for(env.observation_space)}),
            eval_every=max(1, budget // 20),
            agent=recipe_name,
        )
        title = env_id.replace("/", "-")
        others = groups[title].settings if title in groups else ()
        groups[title] = Group(env_id, (*others, setting), seeds=range(10))
    return groups
