"""The kinds of work that `speed.py` measures, and the agents that do them.

Hyperparameters go by SB3's names. Each agent gets the same ones, and a constant
epsilon, so that every agent asks its network equally often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SETTING: dict[str, Any] = {
    "batch_size": 64,
    "train_freq": 1,  # transitions
    "gradient_steps": 1,
    "learning_starts": 100,
    "learning_rate": 1e-4,
    "buffer_size": 100_000,
    "target_update_interval": 10_000,
    "tau": 1.0,
    "gamma": 0.99,
    "exploration_final_eps": 0.05,
}


class Agent(NamedTuple):
    """Who works."""

    name: str
    is_ours: bool = True
    compile: bool = False
    replay: str = "uniform"


SB3 = Agent("SB3", is_ours=False)
EAGER = Agent("sbdqn")
COMPILED = Agent("sbdqn, compiled", compile=True)
ALL = (SB3, EAGER, COMPILED)


@dataclass(frozen=True)
class Work:
    """One comparison.

    Args:
        title: what it is, for the table.
        setting: what differs from `SETTING`.
        net_arch: the layers of the network.
        n_envs: environments that each agent has.
        agents: who is compared with the first of them.
        is_acting: whether single observations are predicted for, instead of learning.
        is_scaled: whether SB3's defaults are measured beside it, as a yardstick.
    """

    title: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    net_arch: tuple[int, ...] = (64, 64)
    n_envs: int = 1
    agents: tuple[Agent, ...] = ALL
    is_acting: bool = False
    is_scaled: bool = False

    @property
    def rounds(self) -> int:
        """Rounds of updates that one step of all environments makes due, at least 1."""
        period: int = {**SETTING, **self.setting}["train_freq"]
        return max(1, self.n_envs // period)


RL_ZOO = {
    "learning_rate": 2.3e-3,
    "learning_starts": 1_000,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_final_eps": 0.04,
}
PUREJAXRL = {
    "learning_rate": 2.5e-4,
    "batch_size": 128,
    "train_freq": 10,
    "buffer_size": 10_000,
    "target_update_interval": 500,
}
UNIFORM, PRIORITIZED = Agent("uniform"), Agent("prioritized", replay="prioritized")

WORKS = {
    "defaults": Work("SB3's defaults", {"batch_size": 32, "train_freq": 4}),
    "every-step": Work("an update every step"),
    "rl-zoo": Work("rl-zoo's CartPole", RL_ZOO, net_arch=(256, 256)),
    "8-envs": Work("8 environments", {"train_freq": 4}, n_envs=8),
    "10-envs": Work("10 environments", PUREJAXRL, (120, 84), n_envs=10, is_scaled=True),
    "predict": Work("`predict` of one observation", agents=(SB3, EAGER), is_acting=True),
    "prioritized": Work("priorities", agents=(UNIFORM, PRIORITIZED)),
    "prioritized-compiled": Work(
        "priorities, compiled",
        agents=(UNIFORM._replace(compile=True), PRIORITIZED._replace(compile=True)),
    ),
}


def model_of(agent: Agent, work: Work, device: str = "cpu", **changes: Any) -> Any:
    """The agent, not trained yet.

    Args:
        agent: who works.
        work: at what.
        device: where the networks are.
        changes: of the setting.
    """
    setting = {**SETTING, **work.setting, **changes}
    setting["exploration_initial_eps"] = setting["exploration_final_eps"]
    common: dict[str, Any] = {"seed": 0, "device": device}
    if agent.is_ours:
        from sbdqn import DQN

        return DQN(
            "MlpPolicy",
            "CartPole-v1",
            n_envs=work.n_envs,
            policy_kwargs={"net_arch": work.net_arch, "layer_norm": False},
            backup="greedy",
            n_steps=1,
            replay=agent.replay,
            compile=agent.compile,
            **common,
            **setting,
        )
    from stable_baselines3 import DQN as SB3DQN
    from stable_baselines3.common.env_util import make_vec_env

    # SB3 counts steps of all environments at once, and makes all updates after them.
    setting["gradient_steps"] *= work.rounds
    setting["train_freq"] = max(1, setting["train_freq"] // work.n_envs)
    env = make_vec_env("CartPole-v1", n_envs=work.n_envs)
    policy = {"net_arch": list(work.net_arch)}
    return SB3DQN("MlpPolicy", env, policy_kwargs=policy, **common, **setting)
