"""The vector environment with the calls that Stable-Baselines3's scripts make."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

from sbdqn.envs.faults import FaultReporting
from sbdqn.envs.infos import split_infos
from sbdqn.errors import MissingMethodError
from sbdqn.types import Array, BoolArray


class SB3View:
    """A gymnasium vector environment behind SB3's `VecEnv` calls.

    `reset()` returns observations alone and `step()` four values. Where the
    environment resets itself on the step after an end (gymnasium's default),
    that step returns the first observation of the next episode and reward 0.
    Otherwise `step()` resets the environments that end, as SB3's do.

    Stepping the training environment abandons its open episodes: the next
    `learn` begins with a reset.

    Args:
        vector_env: the environment.
        abandon_episodes: called when the environment is touched.
    """

    def __init__(
        self,
        vector_env: VectorEnv[Any, Any, Any],
        abandon_episodes: Callable[[], None],
    ) -> None:
        self.vector_env = vector_env
        self.num_envs = vector_env.num_envs
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space
        self.render_mode = vector_env.render_mode
        self.abandon_episodes = abandon_episodes
        self._faults = FaultReporting(vector_env)
        self._resets = vector_env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
        self._seed: int | None = None

    def seed(self, seed: int | None = None) -> None:
        """Use a seed for the next reset."""
        self._seed = seed

    def reset(self) -> Any:
        """Reset all environments; observations (E, ...)."""
        self.abandon_episodes()
        obs, _ = self._faults.reset(seed=self._seed)
        self._seed = None
        return deepcopy(obs)

    def step(self, actions: Any) -> tuple[Any, Array, BoolArray, list[dict[str, Any]]]:
        """Step all environments: observations, rewards, dones, infos."""
        self.abandon_episodes()
        obs, rewards, terminated, truncated, infos = self._faults.step(np.asarray(actions))
        dones = terminated | truncated
        split = split_infos(infos, self.num_envs)
        for env in np.flatnonzero(dones):
            final = split[env].get("final_obs")
            if final is None:
                final = list(iterate(self.vector_env.observation_space, obs))[env]
            split[env] |= split[env].get("final_info", {})
            split[env]["terminal_observation"] = deepcopy(final)
            split[env]["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
        if self._resets and dones.any():
            obs, _ = self._faults.reset(options={"reset_mask": dones.copy()})
        return deepcopy(obs), rewards, dones, split

    def render(self, mode: str | None = None) -> Any:
        """Render as the environment's `render_mode` says.

        Args:
            mode: accepted because SB3's scripts pass it; gymnasium fixes the
                mode when an environment is made.
        """
        return self.vector_env.render()

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment.

        Raises:
            MissingMethodError: if the environments are not single ones.
        """
        values: tuple[Any, ...] = self._ask("get_attr", name)
        return values

    def set_attr(self, name: str, value: Any) -> None:
        """Give an attribute of every environment the same value.

        Raises:
            MissingMethodError: if the environments are not single ones.
        """
        self._ask("set_attr", name, [value] * self.num_envs)

    def env_method(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment.

        Raises:
            MissingMethodError: if the environments are not single ones.
        """
        results: tuple[Any, ...] = self._ask("call", name, *args, **kwargs)
        return results

    def close(self) -> None:
        """Close the environment."""
        self.vector_env.close()

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        inner = self.vector_env.unwrapped
        for env in (self.vector_env, inner):  # gymnasium's wrappers do not pass these on
            asked = getattr(env, method, None)
            if asked is not None:
                return self._faults.watch(partial(asked, *args, **kwargs))
        raise MissingMethodError(
            f"{type(inner).__name__} steps all environments at once and has no {method!r} for each "
            f"of them; make single ones with vectorization='sync' or 'async'"
        )
