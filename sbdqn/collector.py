"""From a vector environment to rows of transitions, the same in every mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from sbdqn.errors import NonFiniteError
from sbdqn.networks import QNetwork, q_of
from sbdqn.nonfinite import NonFinite, require_finite_observations, require_finite_rewards
from sbdqn.observations import apply, take
from sbdqn.protocols import Background, Exploration, Outcome
from sbdqn.types import (
    Array,
    BoolArray,
    Clock,
    Episode,
    FloatArray,
    IntArray,
    Purpose,
    Row,
)

_OF_OPEN_EPISODES = ("resets_itself", "first", "reward_sum", "begun")  # arrays (E,)

ToStored: TypeAlias = Callable[[Any], Any]
"""From what an environment returns to observations (E, ...) as they are stored."""


class Stepper:
    """Steps a vector environment and says what really happened.

    Hides the autoreset mode: a row's `next_obs` is always the true successor,
    and steps on which an environment ignored its action are not `valid`.

    Episodes are those of the rows, until the environment tells of its own in
    `infos["episode"]`, as gymnasium's `RecordEpisodeStatistics` and `AtariGames`
    do. From then on an episode counts when it is told of, with the return and the
    length that are told: under wrappers that clip rewards, or end an episode at a
    lost life, the raw score of a full game. An environment that has
    `infos["_episode"]` after its reset is believed from the beginning.

    Args:
        env: the vector environment.
        to_stored: brings its observations into their stored form; must copy,
            because environments may reuse their arrays.
        background: begins and ends its steps, if it can step in the background.
        nonfinite: what is done about observations and rewards that are not finite.

    Attributes:
        infos: of the last step, as the environment returned them.
        action_start: the environment's name for action 0.
        is_stepping: whether the environment is stepping in the background.
        steps: made since the last reset.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        to_stored: ToStored,
        background: Background | None = None,
        nonfinite: NonFinite | None = None,
    ) -> None:
        self.env = env
        self.n_envs = env.num_envs
        self.background = background
        self._mode = env.metadata["autoreset_mode"]
        self._to_stored = to_stored
        self._nonfinite = nonfinite or NonFinite()
        self.action_start = int(env.single_action_space.start)  # type: ignore[attr-defined]
        self._obs: Any = None
        self._everywhere = np.ones(self.n_envs, dtype=np.bool_)
        self._everywhere.flags.writeable = False  # rows share it
        self._tells_of_episodes = False
        self.is_stepping = False
        self.steps = 0
        self.infos: dict[str, Any] = {}

    @property
    def is_reset(self) -> bool:
        """Whether there are observations to act on."""
        return self._obs is not None

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes everywhere; open ones are abandoned."""
        obs, self.infos = self.env.reset(seed=seed)
        self._obs = self._kept(obs, step=0)
        self._resets_itself = np.zeros(self.n_envs, dtype=np.bool_)
        self._some_reset = self._all_reset = False
        self._first = np.ones(self.n_envs, dtype=np.bool_)
        self._reward_sum = np.zeros(self.n_envs, dtype=np.float64)
        self.steps = 0
        self._begun = np.zeros(self.n_envs, dtype=np.int64)  # the steps before the open episodes
        self._always_tells = _told(self.infos, self._mode) is not None

    @property
    def ignores_actions(self) -> bool:
        """Whether all environments spend the next step on resetting themselves."""
        return self._all_reset

    @property
    def obs(self) -> Any:
        """(E, ...) observations to act on."""
        assert self._obs is not None
        return self._obs

    @property
    def first(self) -> BoolArray:
        """(E,) whether `obs` begins an episode."""
        return self._first

    def forget(self) -> None:
        """Drop the observations, so that the next use begins with a reset.

        A step in the background is awaited, and its outcome dropped. One of
        environments that have been closed meanwhile has none.
        """
        self._obs = None
        if self.is_stepping and not self.env.closed:
            self._finish()
        self.is_stepping = False

    def state_dict(self) -> dict[str, Any]:
        """The observations to act on and the statistics of open episodes, between two steps.

        What `load_state_dict` makes of them goes on with environments in the state
        that they have now.
        """
        assert not self.is_stepping
        return {
            "obs": apply(torch.from_numpy, self._obs),
            "tells_of_episodes": self._tells_of_episodes,
            "steps": self.steps,
            "always_tells": self._always_tells,
            **{name: torch.from_numpy(getattr(self, f"_{name}")) for name in _OF_OPEN_EPISODES},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        for name in _OF_OPEN_EPISODES:
            setattr(self, f"_{name}", state[name].numpy().copy())
        self._some_reset = bool(self._resets_itself.any())
        self._all_reset = bool(self._resets_itself.all())
        self.steps = int(state["steps"])
        self._tells_of_episodes = bool(state["tells_of_episodes"])
        self._always_tells = bool(state["always_tells"])
        self._obs = apply(lambda part: part.numpy().copy(), state["obs"])

    def step(self, action: IntArray) -> tuple[Row, list[Episode]]:
        """`send`, and `receive`."""
        self.send(action)
        return self.receive()

    def send(self, action: IntArray) -> None:
        """Begin a step of all environments; those in the background step from now on.

        Args:
            action: (E,) from 0.
        """
        self._action = action
        if self.background is not None:
            self.background.send(self._named_action())
            self.is_stepping = True

    def receive(self) -> tuple[Row, list[Episode]]:
        """End the step that was begun.

        Returns:
            What happened, and the episodes that ended.

        Raises:
            NonFiniteError: if an environment returns a NaN or infinite reward or
                observation, unless `nonfinite` tolerates it.
        """
        before = self._obs
        obs, reward, terminated, truncated, self.infos = self._finish()
        after = self._kept(obs, self.steps + 1)
        try:
            require_finite_rewards(reward, self.steps + 1)
        except NonFiniteError as error:
            self._nonfinite.tolerate("reward", error)
        ended = terminated | truncated
        valid = self._everywhere
        if self._some_reset:
            valid = ~self._resets_itself
            ended &= valid
            # Not by a product with what is valid: where an action was ignored, NaN may come.
            np.add(self._reward_sum, reward, out=self._reward_sum, where=valid)
            self._begun[self._resets_itself] += 1
        else:
            self._reward_sum += reward
        self.steps += 1
        some_ended = bool(np.count_nonzero(ended))
        next_obs = after
        if some_ended and self._mode is AutoresetMode.SAME_STEP:
            next_obs = self._kept(self._true_successors(obs, ended), self.steps)
        row = Row(before, self._action, reward, next_obs, terminated, truncated, self._first, valid)
        episodes = self._take_ended(ended) if some_ended else []
        if some_ended and self._mode is AutoresetMode.DISABLED:
            after = self._reset_where(ended)
        self._obs = after
        if self._mode is AutoresetMode.NEXT_STEP:
            self._first, self._resets_itself = self._resets_itself, ended
            self._some_reset = some_ended
            self._all_reset = some_ended and bool(ended.all())
        else:
            self._first = ended
        return row, episodes

    def _kept(self, obs: Any, step: int) -> Any:
        """An environment's observations (E, ...) as they are stored."""
        stored = self._to_stored(obs)
        try:
            require_finite_observations(stored, step)
        except NonFiniteError as error:
            self._nonfinite.tolerate("observation", error)
        return stored

    def _finish(self) -> Outcome:
        self.is_stepping = False
        if self.background is not None:
            return self.background.receive()
        return self.env.step(self._named_action())

    def _named_action(self) -> IntArray:
        """The actions (E,) as the environment takes them, in an array of its own."""
        return self._action + self.action_start if self.action_start else self._action.copy()

    def _true_successors(self, obs: Any, ended: BoolArray) -> Any:
        """The observations (E, ...), with the last ones of the episodes that ended."""
        space = self.env.single_observation_space
        successors = list(iterate(self.env.observation_space, obs))
        for env in np.flatnonzero(ended):
            successors[env] = self.infos["final_obs"][env]
        empty: Any = create_empty_array(space, self.n_envs)
        return concatenate(space, successors, empty)

    def _reset_where(self, ended: BoolArray) -> Any:
        obs, _ = self.env.reset(options={"reset_mask": ended.copy()})
        return self._kept(obs, step=0)

    def _take_ended(self, ended: BoolArray) -> list[Episode]:
        # Before gymnasium 1.4 its wrapper of a vector environment errs under SAME_STEP.
        infos = self.infos if self._always_tells else _last_infos(self.infos, self._mode)
        told = _told(infos, self._mode)
        self._tells_of_episodes |= told is not None
        reward, length, counted = told or (self._reward_sum, self.steps - self._begun, ended)
        if told is None and self._tells_of_episodes:
            counted = np.zeros_like(ended)  # lives were lost, and the games go on
        episodes = [
            Episode(
                float(reward[env]),
                int(length[env]),
                int(env),
                _success(self.infos, int(env), self._mode),
            )
            for env in np.flatnonzero(counted & ended)
        ]
        self._reward_sum[ended] = 0.0
        self._begun[ended] = self.steps
        return episodes


class Collector:
    """Chooses actions and steps.

    Args:
        stepper: steps the environment.
        network: chooses actions.
        n_actions: A, the number of actions.

    Attributes:
        overlaps: whether there is time for other work between `send` and `receive`.
    """

    def __init__(self, stepper: Stepper, network: QNetwork, n_actions: int) -> None:
        self.stepper = stepper
        self._network = network
        self._n_actions = n_actions
        self.overlaps = stepper.background is not None

    def choose(self, exploration: Exploration, clock: Clock, rng: np.random.Generator) -> IntArray:
        """Actions (E,) from 0."""
        n_envs = self.stepper.n_envs
        return exploration.select(self._q_values, n_envs, self._n_actions, clock, rng)

    def choose_at_random(self, rng: np.random.Generator) -> IntArray:
        """Uniformly random actions (E,) from 0."""
        return rng.integers(0, self._n_actions, self.stepper.n_envs)

    def send(self, action: IntArray) -> None:
        """See `Stepper.send`."""
        self.stepper.send(action)

    def receive(self) -> tuple[Row, list[Episode]]:
        """See `Stepper.receive`."""
        return self.stepper.receive()

    def _q_values(self, envs: IntArray) -> FloatArray:
        stepper = self.stepper
        if stepper.ignores_actions:
            return np.zeros((len(envs), self._n_actions), np.float32)
        obs = stepper.obs if len(envs) == stepper.n_envs else take(stepper.obs, envs)
        return q_of(self._network, obs, Purpose.ACT)


def _last_infos(infos: Mapping[str, Any], mode: AutoresetMode) -> Mapping[str, Any]:
    """The infos of steps on which episodes ended, not of the resets that followed."""
    last: Mapping[str, Any] = infos
    if mode is AutoresetMode.SAME_STEP:
        last = infos.get("final_info", {})
    return last


def _told(infos: Mapping[str, Any], mode: AutoresetMode) -> tuple[Array, Array, BoolArray] | None:
    """Returns, lengths and a mask (E,) of the episodes that an environment tells of."""
    match infos:
        case {"episode": {"r": returns, "l": lengths, **others}, "_episode": ended}:
            # Under DISABLED gymnasium's wrapper of a vector environment begins to count anew
            # everywhere when one of them is reset; what single ones tell has a mask "_r".
            if mode is not AutoresetMode.DISABLED or "_r" in others:
                return returns, lengths, ended
    return None


def _success(infos: Mapping[str, Any], env: int, mode: AutoresetMode) -> bool | None:
    infos = _last_infos(infos, mode)
    if "is_success" not in infos or not infos.get("_is_success", np.ones(env + 1))[env]:
        return None
    return bool(infos["is_success"][env])
