"""Recipes: their figures, the losses of their first updates, and what they learn."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from sbdqn import DQN, evaluate_policy, recipes
from sbdqn.backups import Munchausen
from sbdqn.callbacks import BaseCallback
from sbdqn.errors import ConfigurationError
from sbdqn.exploration import EpsilonGreedy
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile
from sbdqn.networks import CenteredRMSprop
from sbdqn.recipes import Recipe
from sbdqn.replay import Prioritized
from sbdqn.schedules import Linear

RECIPES = recipes.by_name()
ATARI = ("rainbow_atari", "atari")
CLASSIC = [name for name in RECIPES if name.endswith("_classic")]
GOLDEN = Path(__file__).with_name("golden_losses.json")
UPDATES = 50

ADAM_EPS = 0.01 / 32
NATURE = {
    "buffer_size": 1_000_000,
    "learning_starts": 50_000,
    "batch_size": 32,
    "gamma": 0.99,
    "n_steps": 1,
    "max_grad_norm": None,
    "train_freq": 4,
    "target_update_interval": 10_000,
    "tau": 1.0,
}
# What the papers and their authors' code say, in transitions of 4 frames each.
PUBLISHED: dict[str, dict[str, Any]] = {
    "dqn": {**NATURE, "learning_rate": 2.5e-4, "final_epsilon": 0.1},
    "double_dqn": {
        **NATURE,
        "learning_rate": 2.5e-4,
        "target_update_interval": 30_000,
        "final_epsilon": 0.01,
    },
    "dueling_ddqn": {
        **NATURE,
        "learning_rate": 6.25e-5,
        "target_update_interval": 30_000,
        "max_grad_norm": 10.0,
        "final_epsilon": 0.01,
    },
    "prioritized_ddqn": {
        **NATURE,
        "learning_rate": 6.25e-5,
        "target_update_interval": 30_000,
        "final_epsilon": 0.01,
        "replay": Prioritized(0.6, Linear(0.4, 1.0, 50_000_000)),
    },
    "c51": {
        **NATURE,
        "learning_rate": 2.5e-4,
        "eps": ADAM_EPS,
        "final_epsilon": 0.01,
        "head": Categorical(51, -10.0, 10.0),
    },
    "qr_dqn": {
        **NATURE,
        "learning_rate": 5e-5,
        "eps": ADAM_EPS,
        "final_epsilon": 0.01,
        "head": Quantile(200, 1.0),
    },
    "iqn": {
        **NATURE,
        "learning_rate": 5e-5,
        "eps": ADAM_EPS,
        "final_epsilon": 0.01,
        "head": ImplicitQuantile(64, 64, 32, 64, 1.0),
    },
    "munchausen_dqn": {
        **NATURE,
        "learning_rate": 5e-5,
        "eps": ADAM_EPS,
        "learning_starts": 20_000,
        "target_update_interval": 8_000,
        "final_epsilon": 0.01,
        "backup": Munchausen(0.9, 0.03, -1.0),
    },
    "munchausen_iqn": {
        **NATURE,
        "learning_rate": 5e-5,
        "eps": ADAM_EPS,
        "learning_starts": 20_000,
        "target_update_interval": 8_000,
        "final_epsilon": 0.01,
        "backup": Munchausen(0.9, 0.03, -1.0),
        "head": ImplicitQuantile(64, 64, 32, 64, 1.0),
    },
    "rainbow": {
        **NATURE,
        "learning_rate": 6.25e-5,
        "eps": 1.5e-4,
        "learning_starts": 20_000,
        "target_update_interval": 8_000,
        "n_steps": 3,
        "max_grad_norm": 10.0,
        "backup": "double",
        "exploration": "greedy",
        "head": Categorical(51, -10.0, 10.0),
        "replay": Prioritized(0.5, Linear(0.4, 1.0, 50_000_000)),
    },
}


# hyperparams/dqn.yml of rl-baselines3-zoo, and what SB3 2.9.2 has where that says nothing.
ZOO = {
    "buffer_size": 100_000,
    "learning_rate": 1e-4,
    "batch_size": 32,
    "learning_starts": 100_000,
    "target_update_interval": 1_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_fraction": 0.1,
    "exploration_initial_eps": 1.0,
    "exploration_final_eps": 0.01,
    "gamma": 0.99,
    "n_steps": 1,
    "tau": 1.0,
    "max_grad_norm": 10.0,
    "loss": "huber",
    "backup": "greedy",
    "replay": "uniform",
    "eps": 1e-8,
}
# What is played: the protocol of no-op starts, in which no action sticks.
NO_OPS = {
    "repeat_action_probability": 0.0,
    "frameskip": 4,
    "noop_max": 30,
    "max_num_frames_per_episode": 108_000,
    "terminal_on_life_loss": True,
    "clip_reward": True,
}


def on_cartpole(name: str) -> dict[str, Any]:
    """A recipe without what only games take, and the convolutions that only images take."""
    recipe = {key: value for key, value in RECIPES[name].items() if key != "env_kwargs"}
    network = recipe.get("policy_kwargs", {})
    kept = {key: value for key, value in network.items() if "features_extractor" not in key}
    return {**recipe, "policy_kwargs": kept} if network else recipe


def figures(recipe: Recipe) -> dict[str, Any]:
    """A recipe's parameters, with those of its optimiser and its epsilon among them."""
    found = {**recipe, **recipe["policy_kwargs"]["optimizer_kwargs"]}
    exploration = recipe["exploration"]
    if isinstance(exploration, EpsilonGreedy):
        assert isinstance(exploration.epsilon, Linear)
        found["final_epsilon"] = exploration.epsilon.end
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_figures_of_its_paper(name: str) -> None:
    found = figures(RECIPES[name])
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_atari_has_the_figures_of_the_zoo_and_its_wrapper() -> None:
    found = figures(RECIPES["atari"])
    assert {key: found[key] for key in ZOO} == ZOO
    assert RECIPES["atari"]["env_kwargs"] == {**NO_OPS, "use_fire_reset": True}
    assert RECIPES["atari"]["policy_kwargs"]["layer_norm"] is False


def test_rainbow_atari_is_rainbow_and_how_its_paper_plays() -> None:
    assert on_cartpole("rainbow_atari") == RECIPES["rainbow"]
    assert RECIPES["rainbow_atari"]["env_kwargs"] == {**NO_OPS, "use_fire_reset": False}
    games = {name for name, recipe in RECIPES.items() if "env_kwargs" in recipe}
    assert games == {*ATARI, "minatar"}


def test_no_paper_has_layer_norm_and_each_has_its_optimisers_epsilon() -> None:
    for name in PUBLISHED:
        network = RECIPES[name]["policy_kwargs"]
        assert network["layer_norm"] is False
        assert network["optimizer_kwargs"]["eps"] > 1e-8  # which no paper ran


def test_the_optimiser_of_dqn_takes_the_published_step() -> None:
    settings = RECIPES["dqn"]["policy_kwargs"]["optimizer_kwargs"]
    gradients = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))  # means over 32
    parameter = torch.nn.Parameter(torch.zeros(5))
    optimizer = CenteredRMSprop([parameter], lr=2.5e-4, **settings)
    published, mean, square = torch.zeros(5), torch.zeros(5), torch.zeros(5)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        summed = 32 * gradient
        mean = 0.95 * mean + 0.05 * summed
        square = 0.95 * square + 0.05 * summed**2
        published -= 2.5e-4 * summed / (square - mean**2 + 0.01).sqrt()
    torch.testing.assert_close(parameter.detach(), published)


def test_rainbow_is_noisy_and_dueling_and_others_are_not() -> None:
    has = {
        name: {key for key in ("noisy", "dueling") if recipe.get("policy_kwargs", {}).get(key)}
        for name, recipe in RECIPES.items()
    }
    assert {name: parts for name, parts in has.items() if parts} == {
        "dueling_ddqn": {"dueling"},
        "dueling_ddqn_classic": {"dueling"},
        "rainbow": {"noisy", "dueling"},
        "rainbow_atari": {"noisy", "dueling"},
        "rainbow_classic": {"noisy", "dueling"},
    }


def test_every_paper_has_its_variant_for_small_tasks_with_the_same_parts() -> None:
    assert sorted(CLASSIC) == sorted(f"{name}_classic" for name in PUBLISHED)

    def kinds(recipe: Recipe) -> dict[str, Any]:
        network = recipe.get("policy_kwargs", {})
        return {
            "head": type(recipe.get("head", "scalar")),
            "backup": recipe.get("backup", "double"),
            "replay": type(recipe.get("replay", "uniform")),
            "noise": recipe.get("exploration") == "greedy",
            **{key: network.get(key, False) for key in ("noisy", "dueling")},
        }

    for name in PUBLISHED:
        assert kinds(RECIPES[name]) == kinds(RECIPES[f"{name}_classic"]), name


def test_parts_override_what_comes_before_and_share_network_and_environment() -> None:
    first = {
        "gamma": 0.9,
        "policy_kwargs": {"dueling": True, "net_arch": (8,)},
        "env_kwargs": {"noop_max": 30, "frameskip": 4},
    }
    second = {"gamma": 0.5, "policy_kwargs": {"net_arch": (4,)}, "env_kwargs": {"noop_max": 0}}
    recipe = Recipe("mine", first, second, {"tau": 0.1})
    assert recipe == {
        "gamma": 0.5,
        "tau": 0.1,
        "policy_kwargs": {"dueling": True, "net_arch": (4,)},
        "env_kwargs": {"noop_max": 0, "frameskip": 4},
    }
    assert first["policy_kwargs"] == {"dueling": True, "net_arch": (8,)}
    assert first["env_kwargs"] == {"noop_max": 30, "frameskip": 4}
    assert recipe.summary == "mine"


TUNED = {name: recipe for name, recipe in RECIPES.items() if recipe.envs}


def test_a_tuned_recipe_does_not_follow_the_defaults() -> None:
    assert len(TUNED) >= 3
    needed = {name for name in inspect.signature(DQN).parameters if name in TUNED["cartpole"]}
    assert {"n_steps", "batch_size", "learning_rate", "train_freq", "tau", "gamma"} <= needed
    for name, recipe in {**TUNED, "cartpole_fast": RECIPES["cartpole_fast"]}.items():
        assert set(TUNED["cartpole"]) <= set(recipe), name
        assert {"net_arch", "layer_norm"} <= set(recipe["policy_kwargs"]), name


def test_tuned_recipes_explore_and_are_measured_for_as_long_as_they_were_tuned() -> None:
    def explored(name: str) -> tuple[float, float]:
        epsilon = RECIPES[name]["exploration"].epsilon
        return epsilon.end, epsilon.duration

    expected = {
        "cartpole": (0.05, 5_000, 50_000),
        "cartpole_fast": (0.0, 600, None),
        "acrobot": (0.05, 10_000, 100_000),
        "mountain_car": (0.05, 48_000, 120_000),
        "lunar_lander": (0.05, 30_000, 100_000),
        "minatar": (0.05, 100_000, 1_000_000),
    }
    assert expected.keys() == TUNED.keys() | {"cartpole_fast"}
    for name, values in expected.items():
        assert (*explored(name), RECIPES[name].timesteps) == values, name


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("CartPole-v1", "cartpole"),
        ("CartPole-v0", "cartpole"),
        ("Acrobot-v1", "acrobot"),
        ("MountainCar-v0", "mountain_car"),
        ("MountainCarContinuous-v0", None),
        ("LunarLander-v3", "lunar_lander"),
        ("LunarLanderContinuous-v3", None),
        ("MinAtar/Seaquest-v0", "minatar"),
        ("ALE/Pong-v5", None),
        ("cartpole-v1", None),
        ("", None),
    ],
)
def test_an_environment_has_the_recipe_that_was_tuned_for_it(env_id: str, name: str | None) -> None:
    assert recipes.tuned_for(env_id) == name


def test_no_environment_has_two_recipes() -> None:
    for env_id in gymnasium.registry:
        found = [n for n, r in TUNED.items() if any(fnmatchcase(env_id, p) for p in r.envs)]
        assert len(found) <= 1, env_id


def test_a_recipe_says_what_it_was_tuned_for() -> None:
    recipe = Recipe("mine", {"gamma": 0.9}, envs=["A-v0", "B-*"], timesteps=10)
    assert (recipe, recipe.envs, recipe.timesteps) == ({"gamma": 0.9}, ("A-v0", "B-*"), 10)
    assert (Recipe("mine").envs, Recipe("mine").timesteps) == ((), None)


def test_a_recipe_without_a_summary_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="summary must be text, before the parts"):
        Recipe(recipes.rainbow, {"gamma": 0.9})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_saving_and_printing(name: str, tmp_path: Path) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", **{**on_cartpole(name), "buffer_size": 1_000})
    model.save(tmp_path / "model.zip")  # nothing in it is unpickled
    again = DQN.load(tmp_path / "model.zip", device="auto")
    assert repr(again) == repr(model)
    obs = [0.0, 0.1, 0.0, -0.1]
    assert again.q_values(obs).tolist() == model.q_values(obs).tolist()


class Losses(BaseCallback):
    """Keeps the mean loss of each of the first updates, then ends training."""

    def __init__(self) -> None:
        super().__init__()
        self.means: list[float] = []

    def _on_update(self) -> None:
        last = self.model.learner.last
        assert last is not None
        self.means.append(float((last.weight * last.loss.value).mean()))

    def _on_step(self) -> bool:
        return len(self.means) < UPDATES


def first_losses(name: str) -> list[float]:
    """The losses of a recipe's first updates, after little experience."""
    small = {**on_cartpole(name), "buffer_size": 2_000, "learning_starts": 100}
    model = DQN("MlpPolicy", "CartPole-v1", **small, seed=0, device="cpu")
    losses = Losses()
    model.learn(10_000, callback=losses)
    return losses.means[:UPDATES]


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_updates_are_what_they_were(name: str) -> None:
    """If a change is meant to move them: python -m tests.test_recipes, and say why."""
    golden = json.loads(GOLDEN.read_text())
    assert first_losses(name) == pytest.approx(golden[name], rel=2e-3, abs=1e-6)


def final_return(name: str, seed: int) -> float:
    torch.set_num_threads(1)
    model = DQN("MlpPolicy", "CartPole-v1", **RECIPES[name], seed=seed, device="cpu")
    model.learn(50_000)
    return evaluate_policy(model, "CartPole-v1", n_eval_episodes=20, seed=2)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIC)
def test_cartpole_is_solved_on_four_of_five_seeds(name: str) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        returns = list(pool.map(final_return, [name] * 5, range(5)))
    assert sum(mean >= 475 for mean in returns) >= 4, returns


if __name__ == "__main__":
    rows = {name: json.dumps([float(f"{x:.7g}") for x in first_losses(name)]) for name in RECIPES}
    GOLDEN.write_text(
        "{\n" + ",\n".join(f'"{name}": {row}' for name, row in rows.items()) + "\n}\n"
    )
