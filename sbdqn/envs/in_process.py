"""Environments that step in this process, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate


class InProcessVectorEnv(SyncVectorEnv):
    """gymnasium's `SyncVectorEnv`, whose steps take a third less time.

    A step of one CartPole takes 4 microseconds, and gymnasium as long again and half
    to make a batch of it, since it treats all spaces alike. Here arrays are written
    where they belong; whatever is not an array of the space's shape and dtype, other
    spaces, and the other modes of autoreset, are left to gymnasium.
    """

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """See `SyncVectorEnv.step`."""
        space = self.single_observation_space
        are_plain = type(space) is Box and type(self.single_action_space) is Discrete
        if not are_plain or self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            return super().step(actions)
        infos: dict[str, Any] = {}
        batch: Any = self._observations
        are_written = True
        for index, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            if self._autoreset_envs[index]:
                obs, info = env.reset()
                reward, terminated, truncated = 0.0, False, False
            else:
                obs, reward, terminated, truncated, info = env.step(action)  # type: ignore[assignment]
            self._env_obs[index] = obs
            self._rewards[index] = reward
            self._terminations[index] = terminated
            self._truncations[index] = truncated
            if type(obs) is np.ndarray and obs.shape == space.shape and obs.dtype == space.dtype:
                batch[index] = obs
            else:
                are_written = False
            if info != {}:
                infos = self._add_info(infos, info, index)
        if not are_written:
            batch = self._observations = concatenate(space, self._env_obs, batch)
        self._autoreset_envs = self._terminations | self._truncations
        return (
            batch.copy() if self.copy else batch,
            self._rewards.copy(),
            self._terminations.copy(),
            self._truncations.copy(),
            infos,
        )
