"""Learning: the chain, whose Q is known, is solved through the public class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn import DQN, recipes
from sbdqn.backups import Munchausen
from sbdqn.exploration import EpsilonGreedy
from sbdqn.schedules import Linear
from tests.environments import ChainEnv

GAMMA = 0.9


@pytest.mark.parametrize(
    ("n_envs", "mode", "variant"),
    [
        (1, AutoresetMode.NEXT_STEP, {"backup": "double", "loss": "huber"}),
        (4, AutoresetMode.SAME_STEP, {"backup": "greedy", "loss": "mse"}),
        (2, AutoresetMode.DISABLED, {"target_update_interval": 20, "tau": 1.0}),
    ],
)
def test_the_chain_is_solved_to_a_hundredth(
    n_envs: int, mode: AutoresetMode, variant: dict[str, Any]
) -> None:
    # Episodes are cut after 4 steps: were that taken for an end, no value would be right.
    env = SyncVectorEnv([lambda: ChainEnv(limit=4)] * n_envs, autoreset_mode=mode)
    parameters: dict[str, Any] = {
        "policy_kwargs": {"net_arch": ()},  # one weight for each state and action
        "gamma": GAMMA,
        "n_steps": 1,
        "learning_rate": 0.02,
        "exploration": EpsilonGreedy(1.0),
        "learning_starts": 100,
        "batch_size": 32,
        "train_freq": 1,
        "target_update_interval": 1,
        "tau": 0.1,
        "seed": 0,
        "device": "cpu",
        **variant,
    }

    model = DQN("MlpPolicy", env, **parameters).learn(1_500)

    states = np.arange(5)
    np.testing.assert_allclose(model.q_values(states), ChainEnv.optimal_q(GAMMA), atol=1e-2)
    assert model.predict(states)[0].tolist() == [1] * 5
    model.close()


def munchausen_q(backup: Munchausen) -> Any:
    """The fixed point of the paper's Eq. 2 and 3 on the chain, by iteration."""
    q = np.zeros((5, 2))
    leads_to = np.array([[max(0, state - 1), min(4, state + 1)] for state in range(5)])
    reward, goes_on = np.zeros((5, 2)), np.ones((5, 2))
    reward[4, 1], goes_on[4, 1] = 1.0, 0.0
    for _ in range(1_000):
        logits = q / backup.temperature
        log_policy = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scaled = backup.temperature * log_policy
        value = (np.exp(log_policy) * (q - scaled)).sum(axis=1)
        bonus = backup.alpha * np.clip(scaled, backup.clip, 0.0)
        q = reward + bonus + GAMMA * goes_on * value[leads_to]
    return q


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in recipes.by_name() if "_classic" in name])
def test_every_recipe_for_small_tasks_solves_the_chain(name: str) -> None:
    recipe = recipes.by_name()[name]
    env = SyncVectorEnv([lambda: ChainEnv(limit=4)] * 2)
    parameters = {
        **recipe,
        "gamma": GAMMA,
        "n_steps": 1,  # more would not know what the best action leads to
        "exploration": EpsilonGreedy(1.0),
        "train_freq": 1,
        "target_update_interval": 50,
        "learning_rate": Linear(1e-3, 1e-5, 4_000),
    }

    model = DQN("MlpPolicy", env, **parameters, seed=0, device="cpu").learn(5_000)

    states = np.arange(5)
    backup = recipe["backup"]
    is_soft = isinstance(backup, Munchausen)
    expected = munchausen_q(backup) if is_soft else ChainEnv.optimal_q(GAMMA)
    np.testing.assert_allclose(model.q_values(states), expected, atol=1e-2)
    assert model.predict(states)[0].tolist() == [1] * 5
    model.close()
