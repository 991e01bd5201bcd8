"""The three verbs for a program that owns its own loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sbdqn.callbacks import CallbackList
from sbdqn.envs import actions_in
from sbdqn.errors import NonFiniteError, SpaceError
from sbdqn.nonfinite import require_finite_observations, require_finite_rewards
from sbdqn.observations import apply, rows_of, same_rows
from sbdqn.session import shares_of, with_target_update
from sbdqn.training import StepResult
from sbdqn.types import Array, Arrays, BoolArray, Row

if TYPE_CHECKING:
    from sbdqn.dqn import DQN


class OwnLoop:
    """Acts, observes and trains step by step.

    Args:
        model: the model, with its networks built.
    """

    def __init__(self, model: DQN) -> None:
        self._model = model
        self._callback = CallbackList(with_target_update(model, []))
        self._callback.init_callback(model)
        self._shares = shares_of(self._callback)
        self._next_obs: Arrays | None = None
        self._ended: BoolArray = np.ones(model.n_envs, dtype=np.bool_)

    def state_dict(self) -> dict[str, Any]:
        """The last observations, and where they ended an episode."""
        obs = self._next_obs
        return {
            "next_obs": None if obs is None else apply(torch.from_numpy, obs),
            "ended": self._ended.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        obs = state["next_obs"]
        self._next_obs = None if obs is None else apply(lambda part: part.numpy().copy(), obs)
        self._ended = np.array(state["ended"], dtype=np.bool_)

    def act(self, observation: Any) -> Any:
        """An exploring action for each observation."""
        model, trainer = self._model, self._model.trainer
        if not trainer.is_warming_up:
            return model.policy.explore(
                observation, trainer.exploration, trainer.clock, trainer.rng
            )
        batch, single = model.policy.adapter.batch(observation)
        actions = trainer.rng.integers(0, int(model.action_space.n), rows_of(batch))
        return (actions[0] if single else actions) + np.int64(model.action_space.start)

    def observe(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        next_obs: Any,
        terminated: Any,
        truncated: Any,
    ) -> None:
        """Store one transition of each environment."""
        model = self._model
        before, _ = model.policy.adapter.batch(obs)
        after, _ = model.policy.adapter.batch(next_obs)
        n_envs = model.n_envs
        ends = {"terminated": _flags(terminated), "truncated": _flags(truncated)}
        actions = actions_in(action, model.action_space)
        rewards = np.atleast_1d(np.asarray(reward, np.float64))
        numbers = {"action": actions, "reward": rewards, **ends}
        shapes = {name: (values.shape, (n_envs,)) for name, values in numbers.items()}
        for name, values in (("obs", before), ("next_obs", after)):
            for part in values.values() if isinstance(values, dict) else (values,):
                shapes[name] = (part.shape, (n_envs, *part.shape[1:]))
        for name, (given, wanted) in shapes.items():
            if given != wanted:
                raise SpaceError(
                    f"{name} has shape {given}, but with n_envs={n_envs} it must be {wanted}"
                )
        self._require_finite(rewards, before, after)
        row = Row(
            before,
            actions,
            rewards,
            after,
            ends["terminated"],
            ends["truncated"],
            first=self._begins_episode(before),
            valid=np.ones(n_envs, dtype=np.bool_),
        )
        self._next_obs = apply(np.copy, after)
        self._ended = row.terminated | row.truncated
        model.trainer.store(row, int(np.count_nonzero(self._ended)))
        self.on_step(StepResult(row, []))

    def train(self, gradient_steps: int) -> None:
        """Make gradient steps now."""
        self._model.trainer.update(gradient_steps, self)
        self._model.trainer.require_finite()

    def on_step(self, step: StepResult) -> bool:
        """Let the target network follow."""
        self._model.trainer.settle()
        return self._callback.on_step()

    def shares(self, moments: Sequence[int]) -> list[float]:
        """What the target network takes on after each update."""
        assert self._shares is not None
        return self._shares(self._model.trainer.settled[1], moments)

    def on_update(self) -> None:
        """Nobody listens here."""

    def on_rollout_start(self) -> None:
        """The program's own business."""

    def on_rollout_end(self) -> None:
        """The program's own business."""

    def _require_finite(self, rewards: Array, before: Arrays, after: Arrays) -> None:
        trainer = self._model.trainer
        step = trainer.num_timesteps // len(rewards) + 1
        try:
            require_finite_rewards(rewards, step)
            require_finite_observations(before, step)
            require_finite_observations(after, step)
        except NonFiniteError as error:
            trainer.nonfinite.tolerate("reward or observation", error)

    def _begins_episode(self, obs: Arrays) -> BoolArray:
        """Where an observation does not continue the last transition."""
        if self._next_obs is None:
            return np.ones(rows_of(obs), dtype=np.bool_)
        begins: BoolArray = self._ended | ~same_rows(obs, self._next_obs)
        return begins


def _flags(flags: Any) -> BoolArray:
    values = np.atleast_1d(np.asarray(flags))
    if values.dtype.kind not in "biu":
        raise SpaceError(f"whether an episode ended must be True or False, not {flags!r}")
    return values.astype(np.bool_)
