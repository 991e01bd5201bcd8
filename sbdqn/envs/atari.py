"""Atari games: ALE's own vector environment, with what training adds to a game."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from sbdqn.envs.faults import Wrapper
from sbdqn.envs.spaces import actions_in
from sbdqn.errors import ConfigurationError, require
from sbdqn.types import Array, BoolArray

FOR_TRAINING = ("terminal_on_life_loss", "clip_reward")
_REPLACED = {
    "episodic_life": "terminal_on_life_loss=True, which does not restart the game",
    "life_loss_info": "terminal_on_life_loss=True",
    "reward_clipping": "clip_reward=True, which keeps the raw score",
}
_FIXED = {
    "game": "the id names it",
    "num_envs": "n_envs says it",
    "batch_size": "all environments step together",
    "autoreset_mode": "it is always SAME_STEP",
}
_DEFAULTS = {"noop_max": 0, "use_fire_reset": False}
_SEEDS = 2**31  # of ALE


class AtariGames(Wrapper):
    """Atari games that step together, in which a lost life can end an episode.

    A lost life ends an episode for the learner alone: `terminated` is true, and the
    game goes on from the same observation (DQN Zoo; Mnih et al. 2015). It is in
    `infos["final_obs"]` too, as at every end in the mode SAME_STEP. `infos["episode"]`
    has the raw score `"r"` and the length `"l"` of each full game that ended, and
    `infos["_episode"]` says which did; both are there after every reset and step.

    Args:
        env: ALE's vector environment in the mode SAME_STEP, with `episodic_life` and
            `reward_clipping` off.
        terminal_on_life_loss: whether a lost life ends an episode.
        clip_reward: whether rewards become their signs: -1, 0 or 1.

    Attributes:
        terminal_on_life_loss: as given.
        clip_reward: as given.

    Raises:
        ConfigurationError: if the environment has another mode.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        terminal_on_life_loss: bool = False,
        clip_reward: bool = False,
    ) -> None:
        super().__init__(env)
        self._native: Any = env.unwrapped
        mode = getattr(env.unwrapped, "autoreset_mode", None)
        require(mode is AutoresetMode.SAME_STEP, "autoreset_mode", mode, "AutoresetMode.SAME_STEP")
        for name, given in zip(FOR_TRAINING, (terminal_on_life_loss, clip_reward), strict=True):
            require(isinstance(given, bool), name, given, "True or False")
        self.metadata = {**env.metadata, "autoreset_mode": mode}
        self.terminal_on_life_loss = terminal_on_life_loss
        self.clip_reward = clip_reward
        self._score = np.zeros(self.num_envs, dtype=np.float64)
        self._length = np.zeros(self.num_envs, dtype=np.int64)
        self._is_stepping = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new games, all of them or those in `options["reset_mask"]`.

        Args:
            seed: of the first game; each next one has the next seed.
            options: `reset_mask` (E,).

        Raises:
            AlreadyPendingCallError: between `send` and `recv`.
        """
        self._require_rest("reset")
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        begun = (options or {}).get("reset_mask", everywhere)
        seeds = None
        if seed is not None:
            seeds = (seed + np.arange(np.count_nonzero(begun))) % _SEEDS
        obs, infos = self._native.reset(seed=seeds, options=options)
        self._score[begun] = 0.0
        self._length[begun] = 0
        self._lives = infos["lives"]
        self._report_games(infos, ~everywhere)
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Play one action in each game."""
        self.send(actions)
        return self.recv()

    def send(self, actions: Any) -> None:
        """Begin a step; `recv` waits for its end.

        Raises:
            SpaceError: if an action is none; ALE would wait for ever.
            AlreadyPendingCallError: between `send` and `recv`, where it would as well.
        """
        self._require_rest("send")
        if isinstance(self.single_action_space, Discrete):
            actions = actions_in(actions, self.single_action_space)
        self._native.send(actions)
        self._is_stepping = True

    def recv(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """What came of the actions that were sent, as `step` returns it."""
        self._require_open()
        obs, points, terminated, truncated, infos = self._native.recv()
        self._is_stepping = False
        over = terminated | truncated
        rewards = points.astype(np.float64)
        self._score += rewards
        self._length += 1
        self._report_games(infos, over)
        ended = over
        if self.terminal_on_life_loss:
            lost = (infos["lives"] < self._lives) & ~over
            if lost.any():
                ended, terminated = over | lost, terminated | lost
                infos["final_obs"] = _last_of_each(obs, infos.get("final_obs"), over)
        if ended.any():
            infos["_final_obs"] = ended
        self._lives = infos["lives"]
        return obs, np.sign(rewards) if self.clip_reward else rewards, terminated, truncated, infos

    def close(self, **kwargs: Any) -> None:
        """End the games and their threads now, not when the garbage is collected."""
        super().close(**kwargs)
        self._native.ale = None

    def _require_rest(self, name: str) -> None:
        self._require_open()
        if self._is_stepping:
            message = f"Calling `{name}` while waiting for a pending call to `step` to complete"
            raise AlreadyPendingCallError(message, "step")

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("these games have been closed; make new ones")

    def _report_games(self, infos: dict[str, Any], over: BoolArray) -> None:
        """Tell of the games that are over, and begin to count anew there."""
        infos["episode"] = {
            "r": np.where(over, self._score, 0.0),
            "l": np.where(over, self._length, 0),
        }
        infos["_episode"] = over
        self._score[over] = 0.0
        self._length[over] = 0


def _last_of_each(obs: Array, final_obs: Array | None, over: BoolArray) -> Array:
    """The last observations (E, ...): ALE's where a game is over, else those of now."""
    last = obs.copy()
    if final_obs is not None:
        last[over] = final_obs[over]
    return last


def make_atari(spec: EnvSpec, n_envs: int, env_kwargs: Mapping[str, Any]) -> AtariGames:
    """Make games of an id that ALE registers.

    An id alone is the protocol of Machado et al. 2018, in which actions stick;
    `docs/atari.md` has the settings of the others.

    | keyword | default | |
    |---|---|---|
    | `repeat_action_probability` | 0.25 | actions stick; registered with the id |
    | `frameskip` | 4 | frames of an action; registered with the id |
    | `max_num_frames_per_episode` | 108 000 | then a game is truncated; registered |
    | `full_action_space` | False | all 18 actions; registered with the id |
    | `noop_max` | 0 | a game begins with fewer than so many frames of no-ops |
    | `use_fire_reset` | False | then fires, where there is something to fire |
    | `terminal_on_life_loss` | False | see `AtariGames` |
    | `clip_reward` | False | see `AtariGames` |

    Args:
        spec: of the id.
        n_envs: how many games.
        env_kwargs: those above, or others that ALE takes, such as `stack_num`,
            `img_height`, `img_width`, `maxpool` and `num_threads` (0: as many as there
            are cores, or games).

    Raises:
        ConfigurationError: if a keyword has no meaning here.
    """
    for name in env_kwargs:
        if name in _REPLACED:
            raise ConfigurationError(f"env_kwargs: instead of {name!r} use {_REPLACED[name]}")
        if name in _FIXED:
            raise ConfigurationError(f"env_kwargs: {name!r} cannot be chosen: {_FIXED[name]}")
    ours = {name: env_kwargs[name] for name in FOR_TRAINING if name in env_kwargs}
    settings = {**_DEFAULTS, **spec.kwargs, **env_kwargs}
    settings = {name: value for name, value in settings.items() if name not in FOR_TRAINING}
    env = _native_class()(
        num_envs=n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        episodic_life=False,
        reward_clipping=False,
        **settings,
    )
    env.spec = _spec_of(spec, settings)
    return AtariGames(env, **ours)


@functools.cache
def _native_class() -> Any:
    """ALE's vector environment, with metadata of its own.

    Its constructor writes into those of its class, which all vector environments share.
    """
    native = importlib.import_module("ale_py.vector_env").AtariVectorEnv
    return type(native.__name__, (native,), {"metadata": {}})


def for_full_games(env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the same games, full ones with raw rewards."""
    return {**env_kwargs, **dict.fromkeys(FOR_TRAINING, False)}


def _spec_of(spec: EnvSpec, settings: Mapping[str, Any]) -> EnvSpec:
    """The specification of what was made, with its time limit in steps."""
    made = copy.deepcopy(spec)
    made.kwargs = dict(settings)
    frames, frames_per_step = settings["max_num_frames_per_episode"], settings["frameskip"]
    made.max_episode_steps = -(-frames // frames_per_step)
    return made
