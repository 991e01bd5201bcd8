"""Playing episodes with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np

from sbdqn.collector import Stepper
from sbdqn.envs import (
    EnvLike,
    FaultReporting,
    SB3View,
    actions_in,
    discrete_actions,
    make_vector_env,
    split_infos,
)
from sbdqn.errors import ConfigurationError, add_note
from sbdqn.nonfinite import NonFinite, OnNonFinite
from sbdqn.types import Episode

StepCallback = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


class Predictor(Protocol):
    """Has `predict`."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations, and the state for the next call."""


@runtime_checkable
class Trainee(Protocol):
    """Has a training environment, whose open episodes others may disturb."""

    def trains_in(self, env: object) -> bool:
        """Whether this is its training environment."""

    def abandon_episodes(self) -> None:
        """Begin the next use of the training environment with a reset."""

    @property
    def on_nonfinite(self) -> OnNonFinite:
        """What is done about rewards and observations that are not finite."""


@overload
def evaluate_policy(
    model: Predictor,
    env: EnvLike | SB3View,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    render: bool = False,
    callback: StepCallback | None = None,
    reward_threshold: float | None = None,
    return_episode_rewards: Literal[False] = False,
    warn: bool = True,
    seed: int | None = None,
) -> tuple[float, float]: ...


@overload
def evaluate_policy(
    model: Predictor,
    env: EnvLike | SB3View,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    render: bool = False,
    callback: StepCallback | None = None,
    reward_threshold: float | None = None,
    *,
    return_episode_rewards: Literal[True],
    warn: bool = True,
    seed: int | None = None,
) -> tuple[list[float], list[int]]: ...


def evaluate_policy(
    model: Predictor,
    env: EnvLike | SB3View,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    render: bool = False,
    callback: StepCallback | None = None,
    reward_threshold: float | None = None,
    return_episode_rewards: bool = False,
    warn: bool = True,
    seed: int | None = None,
) -> tuple[float, float] | tuple[list[float], list[int]]:
    """Play whole episodes and report their returns.

    With several environments each plays its share of the episodes, so that
    short episodes are not favoured.

    Args:
        model: anything with `predict`.
        env: what `DQN` takes for `env`, or `model.get_env()`. The open episodes
            of a model's own training environment are abandoned.
        n_eval_episodes: episodes in all.
        deterministic: whether actions are greedy.
        render: whether `env.render()` is called after each step.
        callback: called after each step with `(locals, globals)`; `locals` has
            `rewards`, `dones`, `infos`, `actions`, `observations` and
            `new_observations`.
        reward_threshold: the least mean return to accept.
        return_episode_rewards: whether all returns and lengths are wanted.
        warn: has no effect; episode statistics need no wrapper here.
        seed: of the first reset.

    Returns:
        Mean and standard deviation of the returns, or the lists of returns and
        lengths.

    Raises:
        ConfigurationError: if fewer than one episode is asked for.
        AssertionError: if the mean return is below `reward_threshold`.
        NonFiniteError: if a reward or an observation is NaN or infinite, unless the
            model's `on_nonfinite` says otherwise.

    Example:
        >>> from sbdqn import DQN
        >>> model = DQN("MlpPolicy", "CartPole-v1", seed=0)
        >>> mean, std = evaluate_policy(model, "CartPole-v1", n_eval_episodes=2, seed=0)
    """
    if n_eval_episodes < 1:
        raise ConfigurationError(f"n_eval_episodes must be at least 1, not {n_eval_episodes!r}")
    if isinstance(model, Trainee) and model.trains_in(env):
        model.abandon_episodes()
    is_ours = isinstance(env, str) or callable(env)
    if isinstance(env, SB3View):
        env.abandon_episodes()
        env = env.vector_env
    vector_env = make_vector_env(env)
    try:
        discrete_actions(vector_env.single_action_space)
        nonfinite = NonFinite(model.on_nonfinite if isinstance(model, Trainee) else "raise")
        stepper = Stepper(FaultReporting(vector_env), deepcopy, nonfinite=nonfinite)
        with _noting_steps(stepper):
            episodes = _play(model, stepper, n_eval_episodes, deterministic, render, callback, seed)
    finally:
        if is_ours:
            vector_env.close()
    returns = [episode.reward for episode in episodes]
    mean, std = float(np.mean(returns)), float(np.std(returns))
    if reward_threshold is not None and mean < reward_threshold:
        raise AssertionError(f"mean return {mean:.2f} is below the threshold {reward_threshold}")
    if return_episode_rewards:
        return returns, [episode.length for episode in episodes]
    return mean, std


@contextmanager
def _noting_steps(stepper: Stepper) -> Iterator[None]:
    """Say of an exception in the block when it came."""
    try:
        yield
    except Exception as error:
        add_note(error, f"It ended an evaluation after {stepper.steps} steps.")
        raise


def _play(
    model: Predictor,
    stepper: Stepper,
    n_episodes: int,
    deterministic: bool,
    render: bool,
    callback: StepCallback | None,
    seed: int | None,
) -> list[Episode]:
    env = stepper.env
    action_space: Any = env.single_action_space
    n_envs = env.num_envs
    shares = [(n_episodes + index) // n_envs for index in range(n_envs)]
    episodes: list[Episode] = []
    state = None
    stepper.reset(seed)
    while any(shares):
        actions, state = model.predict(stepper.obs, state, stepper.first, deterministic)
        row, ended = stepper.step(actions_in(actions, action_space))
        if callback is not None:
            step = {
                "rewards": row.reward,
                "dones": row.terminated | row.truncated,
                "infos": split_infos(stepper.infos, n_envs),
                "actions": actions,
                "observations": row.obs,
                "new_observations": row.next_obs,
            }
            callback(step, {})
        for episode in ended:
            if shares[episode.env]:
                shares[episode.env] -= 1
                episodes.append(episode)
        if render:
            env.render()
    return episodes
