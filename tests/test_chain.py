"""Learning: the chain, whose Q is known, is solved through the public class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn import DQN
from sbdqn.exploration import EpsilonGreedy
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
