"""What can be set of a measurement of `learning.py`; `learning_groups.py` has what is measured."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Literal

import gymnasium

from sbdqn import DQN
from sbdqn.specs import resolve_policy

EVALUATION_EPISODES = 20
FINAL_EPISODES = 100

Library = Literal["sbdqn", "sb3", "random"]
LIBRARIES = {"sbdqn": "sbdqn", "sb3": "SB3", "random": "random actions"}


@dataclass(frozen=True)
class Task:
    """An environment, and the mean return at which it counts as solved.

    Args:
        env_id: its registered name.
        threshold: None where there is none.
        max_episode_steps: a time limit in place of its own.
    """

    env_id: str
    threshold: float | None = None
    max_episode_steps: int | None = None

    def make(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        """One environment; `kwargs` are for `gymnasium.make`."""
        if self.env_id.startswith("MinAtar/") and self.env_id not in gymnasium.registry:
            from minatar.gym import register_envs

            register_envs()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*CartPole-v0 is out of date")
            return gymnasium.make(
                self.env_id, **{"max_episode_steps": self.max_episode_steps, **kwargs}
            )


class LimitsEnd(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Reports time limits as terminations, so that nothing is bootstrapped from them."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info


@dataclass(frozen=True)
class Setting:
    """What is trained, on what, and for how long.

    Args:
        name: of its row in the tables, and of its files.
        library: whose DQN it is, or `"random"` for actions without an agent.
        task: what is learned.
        timesteps: the budget.
        parameters: of the library's `DQN`, with a `policy` if it is not the MLP.
        eval_every: timesteps from one evaluation to the next.
        limits_end: whether training takes time limits for terminations.
        solved_at: the mean return of 100 training episodes that counts as solved, if it is asked.
        title: of who learns, in tables and figures, if it is not the library's name.
    """

    name: str
    library: Library
    task: Task
    timesteps: int
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    eval_every: int = 5_000
    limits_end: bool = False
    solved_at: float | None = None
    title: str = ""

    @property
    def agent(self) -> str:
        """Who learns, as tables and figures have it."""
        return self.title or LIBRARIES[self.library]

    def make_env(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        """One environment to train in; `kwargs` are the agent's `env_kwargs`."""
        env = self.task.make(**kwargs)
        return LimitsEnd(env) if self.limits_end else env

    def model(self, seed: int) -> Any:
        """The agent, not trained yet."""
        parameters = {"policy": "MlpPolicy", **self.parameters, "seed": seed, "device": "cpu"}
        if self.library == "sbdqn":
            return DQN(env=self.make_env, **parameters)
        from stable_baselines3 import DQN as SB3DQN

        return SB3DQN(env=self.make_env(), **parameters)

    def record(self) -> dict[str, str]:
        """All that its results depend on, by name, but seeds and versions."""
        measured: dict[str, Any] = {
            "library": self.library,
            "env": self.task.env_id,
            "max_episode_steps": self.task.max_episode_steps,
            "timesteps": self.timesteps,
            "eval_every": self.eval_every,
            "evaluation_episodes": EVALUATION_EPISODES,
            "final_episodes": FINAL_EPISODES,
            "limits_end": self.limits_end,
            "solved_at": self.solved_at,
        }
        return {name: text_of(value) for name, value in {**measured, **self._parameters()}.items()}

    def _parameters(self) -> dict[str, Any]:
        """Ours with their defaults, which may change; SB3's are those of its version."""
        if self.library != "sbdqn":
            return dict(self.parameters)
        parameters = self.model(seed=0).get_params(deep=False)
        policy = resolve_policy(parameters)
        of_policy = {f"policy.{each.name}": getattr(policy, each.name) for each in fields(policy)}
        kept = {name: value for name, value in parameters.items() if name not in _WITHOUT_EFFECT}
        return {**kept, "policy": type(policy).__name__, **of_policy}


def require_installed(settings: Iterable[Setting]) -> None:
    """Find out, before anything long begins, what is not there.

    Raises:
        ImportError: if a library is missing.
        gymnasium.error.Error: if an environment cannot be made.
    """
    settings = list(settings)
    for task in {setting.task for setting in settings}:
        task.make().close()
    if any(setting.library == "sb3" for setting in settings):
        import_module("stable_baselines3")


# `policy_kwargs` are listed as the policy's fields.
_WITHOUT_EFFECT = {
    *("env", "seed", "device", "threads", "verbose", "tensorboard_log", "stats_window_size"),
    "policy_kwargs",
}


def text_of(value: Any) -> str:
    """The same text for the same value in every process."""
    if isinstance(value, type) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    if " at 0x" in text:
        raise ValueError(f"{text} cannot be recorded; give it a repr without its address")
    return text


@dataclass(frozen=True)
class Group:
    """Settings that are measured on the same seeds, and compared.

    Args:
        title: of its table.
        settings: the rows.
        seeds: that are reported; settings are tuned on others.
        is_study: whether the first setting is the one that each other changes in one thing.
    """

    title: str
    settings: tuple[Setting, ...]
    seeds: range
    is_study: bool = False
