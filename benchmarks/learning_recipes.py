"""Any recipe in any environment, as groups that `learning.py` measures: `RECIPE@ENV`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gymnasium.spaces import Discrete
from learning_settings import Group, Setting, Task

from sbdqn import recipes
from sbdqn.recipes import Recipe
from sbdqn.specs import policy_for

SEEDS = range(10)
TIME_LIMIT = 5_000  # where there is none, and a greedy episode might never end


def of_recipes(names: Iterable[str], timesteps: int | None) -> dict[str, Group]:
    """A group for each environment, with a setting for each recipe.

    Args:
        names: such as `rainbow_classic@CartPole-v1`.
        timesteps: the budget; by default what the recipe was tuned for.

    Raises:
        ValueError: if a recipe is unknown, has no budget of its own, or if the environment is one
            of ALE's, whose games are made and evaluated otherwise, or has other actions.
    """
    budgets: dict[str, dict[str, int]] = {}
    for name in names:
        chosen, _, env_id = name.partition("@")
        known = recipes.by_name().get(chosen)
        if known is None:
            raise ValueError(f"{name}: no recipe has this name; `sbdqn recipes` lists them")
        if env_id.startswith("ALE/"):
            raise ValueError(f"{name}: `sbdqn train` and `sbdqn evaluate` measure Atari games")
        budget = timesteps or known.timesteps
        if budget is None:
            raise ValueError(f"{name}: the recipe has no budget of its own; give `--timesteps`")
        budgets.setdefault(env_id, {})[chosen] = budget
    return {
        env_id.replace("/", "-"): Group(env_id, settings_in(env_id, chosen), SEEDS)
        for env_id, chosen in budgets.items()
    }


def settings_in(env_id: str, budgets: Mapping[str, int]) -> tuple[Setting, ...]:
    """Recipes with their budgets; all are evaluated with the shortest of their time limits."""
    chosen = {name: recipes.by_name()[name] for name in budgets}
    stated = [each.get("env_kwargs", {}).get("max_episode_steps") for each in chosen.values()]
    limit = min((limit for limit in stated if limit is not None), default=None)
    env = Task(env_id, max_episode_steps=limit).make()
    if not isinstance(env.action_space, Discrete):
        raise ValueError(f"{env_id}: the actions of a DQN are Discrete, not {env.action_space}")
    if env.spec is None or env.spec.max_episode_steps is None:
        limit = TIME_LIMIT
    task = Task(env_id, env.spec.reward_threshold if env.spec else None, limit)
    policy = {"policy": policy_for(env.observation_space)}
    return tuple(
        Setting(
            name,
            "sbdqn",
            task,
            budget,
            Recipe(name, chosen[name], policy),
            eval_every=max(1, budget // 20),
            title=name,
        )
        for name, budget in budgets.items()
    )
