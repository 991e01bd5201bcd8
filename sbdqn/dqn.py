"""The estimator: parameters in; learn, predict, save and load out."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import torch
from gymnasium import Env, Space, spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv

from sbdqn import from_sb3, logger as logging, reconfiguration, specs
from sbdqn.assembly import Parts, build_parts, build_replay
from sbdqn.callbacks import LogInterval, MaybeCallback
from sbdqn.checking import advice_before
from sbdqn.checkpoint import keep_newest, newest_checkpoint, next_checkpoint
from sbdqn.collector import Collector, Stepper
from sbdqn.envs import (
    Environments,
    EnvLike,
    FaultReporting,
    ObservationAdapter,
    SB3View,
    Vectorization,
    discrete_actions,
    make_evaluation_env,
    make_vector_env,
    pickled_environments,
    reward_threshold,
    stacked_frames,
    unpickled_environments,
)
from sbdqn.errors import (
    CheckpointError,
    ConfigurationError,
    MismatchError,
    NotReadyError,
    SbdqnError,
    SpaceError,
    require_count,
)
from sbdqn.export import export_policy
from sbdqn.learner import Learner
from sbdqn.memory import Memory
from sbdqn.networks import QNetwork
from sbdqn.nonfinite import OnNonFinite
from sbdqn.own_loop import OwnLoop
from sbdqn.parameters import CHECKS, Parameter, validate
from sbdqn.persistence import (
    Archive,
    PathOrFile,
    fitting,
    make_folder,
    read_archive,
    require_trust,
    restoring,
    unpickle,
    write_archive,
)
from sbdqn.policy import Policy
from sbdqn.protocols import (
    Backup,
    Exploration,
    Head,
    PolicySpec,
    Replay,
    ReplaySpec,
    Schedule,
    value_at,
)
from sbdqn.representation import represent_call
from sbdqn.seeds import Seeds, as_integer
from sbdqn.session import LearnSession
from sbdqn.threads import threads_to_learn_with, threads_within
from sbdqn.training import Trainer
from sbdqn.types import Episode, FloatArray

if TYPE_CHECKING:
    from typing_extensions import Self

_log = getLogger(__name__)


class DQN:
    """Deep Q-learning: every member of the family that the five axes span.

    Making one stores and checks the parameters; environments, networks and the
    replay are made when they are first needed.

    Args:
        policy: `"MlpPolicy"` for vectors and categories, `"CnnPolicy"` for images,
            `"MultiInputPolicy"` for Dict and Tuple observations, or a policy such as
            `MlpPolicy(net_arch=(256, 256))`.
        env: a registered id, a `gymnasium.Env`, a `gymnasium.vector.VectorEnv`
            in any autoreset mode, or a callable that makes a `gymnasium.Env`.
        n_envs: how many environments to make.
        vectorization: `"sync"`, `"async"` (a process each),
            `"vector_entry_point"` (the id's own implementation), or `"auto"`:
            the last for Atari games and, where there is one, for several
            environments, else the first.
        env_kwargs: keyword arguments of the environment.
        policy_kwargs: keyword arguments of the policy that is named.
        head: what the network's outputs mean: `"scalar"`, `"categorical"`,
            `"quantile"`, `"implicit_quantile"`, or a head.
        backup: which next action targets believe in: `"greedy"`, `"double"`,
            `"munchausen"`, or a backup.
        replay: which transitions are learned from: `"uniform"`,
            `"prioritized"`, or a replay.
        replay_memory: where observations are kept, and whether stacks of frames
            are kept as single frames: a `sbdqn.memory.Memory`.
        exploration: how data is collected: `"epsilon_greedy"`, `"greedy"`, or an
            exploration.
        learning_rate: a number above 0, a schedule from `sbdqn.schedules`, or a
            function of the progress remaining (1 to 0).
        buffer_size: transitions that the replay holds.
        learning_starts: transitions in the replay before the first update;
            until then actions are random.
        batch_size: transitions in an update.
        gamma: discount per step, 0 to 1.
        n_steps: rewards in a return.
        max_grad_norm: gradients are scaled down to this norm; None for never.
        loss: `"huber"` or `"mse"`, of the scalar head.
        train_freq: transitions from one round of updates to the next, whatever
            `n_envs` is, or `(n, "step")`, or `(n, "episode")`.
        gradient_steps: updates in a round; -1 for one per transition.
        target_update_interval: transitions from one sync of the target network
            to the next; None for no target network.
        tau: share of the online network in a sync, 1 for a copy.
        exploration_fraction: share of the first `learn` in which epsilon falls;
            it stays fixed in absolute steps from then on.
        exploration_initial_eps: epsilon at first.
        exploration_final_eps: epsilon at last.
        stats_window_size: episodes that the logged means go over.
        tensorboard_log: folder for TensorBoard and CSV logs; None for none.
        verbose: 0 for silence, 1 or 2 for a table at each log.
        seed: makes a run repeatable; None for one that is not.
        device: `"auto"`, `"cpu"`, `"cuda"`, or any torch device.
        compile: whether the update is compiled with `torch.compile`.
        overlap: whether updates are made while environments step that can do so in
            the background: `"async"` ones and ALE's. Their actions are then chosen
            before the updates that the last step made due, not after them.
        threads: that torch and NumPy use while the model learns: a number, None for as
            many as they use anyway, or `"auto"` for one where more would not pay, with
            small networks on the CPU. Afterwards they use as many as before.
        on_nonfinite: what is done about rewards, observations and losses that are NaN or
            infinite: `"raise"` an error, before such a step is stored; `"warn"` in the log,
            at the first, the tenth, the hundredth; or `"ignore"` them. The last two learn
            from them, which ruins the weights.

    Raises:
        ConfigurationError: if a parameter is out of its range.

    Example:
        >>> model = DQN("MlpPolicy", "CartPole-v1", seed=0).learn(500)
        >>> action, _ = model.predict([0.0, 0.1, 0.0, -0.1])
        >>> int(action) in (0, 1)
        True
    """

    head = Parameter["str | Head"]()
    backup = Parameter["str | Backup"]()
    replay = Parameter["str | ReplaySpec"]()
    replay_memory = Parameter[Memory]()
    exploration = Parameter["str | Exploration"]()
    vectorization = Parameter[Vectorization]()
    env_kwargs = Parameter["Mapping[str, Any] | None"]()
    policy_kwargs = Parameter["Mapping[str, Any] | None"]()
    learning_rate = Parameter["float | Schedule | Callable[[float], float]"]()
    buffer_size = Parameter[int]()
    learning_starts = Parameter[int]()
    batch_size = Parameter[int]()
    gamma = Parameter[float]()
    n_steps = Parameter[int]()
    max_grad_norm = Parameter["float | None"]()
    loss = Parameter[Literal["huber", "mse"]]()
    train_freq = Parameter["int | tuple[int, str]"]()
    gradient_steps = Parameter[int]()
    target_update_interval = Parameter["int | None"]()
    tau = Parameter[float]()
    exploration_fraction = Parameter[float]()
    exploration_initial_eps = Parameter[float]()
    exploration_final_eps = Parameter[float]()
    stats_window_size = Parameter[int]()
    tensorboard_log = Parameter["str | Path | None"]()
    verbose = Parameter[int]()
    seed = Parameter["int | None"]()
    compile = Parameter[bool]()
    overlap = Parameter[bool]()
    threads = Parameter['int | Literal["auto"] | None']()
    on_nonfinite = Parameter[OnNonFinite]()

    def __init__(
        self,
        policy: str | PolicySpec,
        env: EnvLike | None,
        *,
        n_envs: int = 1,
        vectorization: Vectorization = "auto",
        env_kwargs: Mapping[str, Any] | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        head: str | Head = "scalar",
        backup: str | Backup = "double",
        replay: str | ReplaySpec = "uniform",
        replay_memory: Memory = Memory(),  # noqa: B008  # frozen
        exploration: str | Exploration = "epsilon_greedy",
        learning_rate: float | Schedule | Callable[[float], float] = 1e-3,
        buffer_size: int = 100_000,
        learning_starts: int = 100,
        batch_size: int = 64,
        gamma: float = 0.99,
        n_steps: int = 8,
        max_grad_norm: float | None = 10.0,
        loss: Literal["huber", "mse"] = "huber",
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        target_update_interval: int | None = 500,
        tau: float = 1.0,
        exploration_fraction: float = 0.2,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        stats_window_size: int = 100,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: str | torch.device = "auto",
        compile: bool = False,
        overlap: bool = True,
        threads: int | Literal["auto"] | None = "auto",
        on_nonfinite: OnNonFinite = "raise",
    ) -> None:
        given = locals()
        for name in ("load", "resume", "from_sb3"):
            setattr(self, name, functools.partial(_refuse_to_make_another, name))
        self._parameters: dict[str, Any] = {name: given[name] for name in _defaults()}
        validate(self._parameters, _defaults())
        self._seeds = Seeds.of(seed)
        self._fresh_seed = True
        self._vector_env: VectorEnv[Any, Any, Any] | None = None
        self._made_env = False
        self._frames = 1  # that the environment says it stacks in an observation
        self._spaces: tuple[Space[Any], Space[Any], int] | None = None
        self._parts: Parts | None = None
        self._collector: Collector | None = None
        self._own_loop: OwnLoop | None = None
        self._logger: logging.Logger | None = None
        self._has_own_logger = False
        self._log_of: tuple[str, str | Path | None] | None = None
        self._learn_steps: int | None = None
        self._session: LearnSession | None = None  # while `learn` runs
        self._kept_by_callbacks: dict[str, Any] | None = None  # of the last `learn`
        self._callbacks_go_on = False  # with that, in the next one
        self._prediction_rng = np.random.default_rng(self._seeds.prediction)
        self.ep_info_buffer: deque[dict[str, Any]] = deque(maxlen=int(stats_window_size))
        self.ep_success_buffer: deque[float] = deque(maxlen=int(stats_window_size))

    # -- parameters ------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters, as they were passed.

        Args:
            deep: whether the fields of specs are added as `name__field`.

        Example:
            >>> DQN("MlpPolicy", "CartPole-v1", gamma=0.9).get_params()["gamma"]
            0.9
        """
        parameters = dict(self._parameters)
        if deep:
            for name, value in self._parameters.items():
                parameters.update(reconfiguration.nested(name, value))
        return parameters

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters, all of them or, on an error, none.

        What is built already follows; what it cannot follow is refused.

        Args:
            parameters: by name, or by `name__field` for a field of a spec.

        Raises:
            ConfigurationError: if a name is unknown, a value out of range, or a
                change impossible.

        Example:
            >>> model = DQN("MlpPolicy", "CartPole-v1").set_params(gamma=0.9, batch_size=32)
        """
        before = dict(self._parameters)
        after = reconfiguration.merged(before, parameters)
        validate(after, _defaults())
        reconfiguration.refuse_impossible(before, after, self._vector_env is not None, self._parts)
        self._parameters.update(after)
        if after["env"] is not before["env"] and self._spaces is not None:
            try:
                self._use_env(after["env"])
            except BaseException:
                self._parameters.update(before)
                raise
        if self._vector_env is None and self._spaces is not None:
            self._spaces = (*self._spaces[:2], after["n_envs"])
        if self._parts is not None:
            reconfiguration.apply(self._parts, self._parameters, self._learn_steps)
        if after["seed"] != before["seed"]:
            self.set_random_seed(after["seed"])
        if after["stats_window_size"] != before["stats_window_size"]:
            size = int(after["stats_window_size"])
            self.ep_info_buffer = deque(self.ep_info_buffer, maxlen=size)
            self.ep_success_buffer = deque(self.ep_success_buffer, maxlen=size)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Refuse: an optimiser and an environment cannot be copied like data."""
        raise NotReadyError(
            "a model cannot be deep-copied; use save and load for one that has learned, "
            "sklearn.base.clone or DQN(**model.get_params(deep=False)) for a new one"
        )

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled; only of a model that is not built yet."""
        if self._parts is not None:
            raise NotReadyError("a model that is built cannot be pickled; use save and load")
        return self.__dict__

    def __repr__(self) -> str:
        """The call that makes a model like this one."""
        return represent_call(self, self._parameters, _defaults())

    # -- what is built when it is needed ---------------------------------------

    @property
    def env(self) -> VectorEnv[Any, Any, Any] | None:
        """The vector environment, None for a model without one."""
        if self._vector_env is None and self._parameters["env"] is not None:
            self._use_env(self._parameters["env"])
        return self._vector_env

    @property
    def n_envs(self) -> int:
        """E, the number of environments."""
        return self._known_spaces()[2]

    @property
    def observation_space(self) -> Space[Any]:
        """Of one observation."""
        return self._known_spaces()[0]

    @property
    def action_space(self) -> spaces.Discrete:
        """Of one action."""
        return discrete_actions(self._known_spaces()[1])

    @property
    def policy(self) -> Policy:
        """The networks, with the spaces they act in."""
        return self._built().policy

    @property
    def q_net(self) -> QNetwork:
        """The online network, from observations (B, ...) to values (B, A)."""
        return self.policy.q_net

    @property
    def q_net_target(self) -> QNetwork:
        """The target network; the online network itself where there is none."""
        return self.policy.q_net_target

    @property
    def learner(self) -> Learner:
        """What makes the updates."""
        return self._built().learner

    @property
    def trainer(self) -> Trainer:
        """The loop and its clocks."""
        return self._built().trainer

    @property
    def replay_buffer(self) -> Replay:
        """The replay; the first use allocates it."""
        return self.trainer.replay

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.policy.device

    @property
    def logger(self) -> logging.Logger:
        """Where metrics go; silent before `learn` and without `set_logger`."""
        if self._logger is None:
            self._logger = logging.Logger(None, [])
        return self._logger

    @property
    def num_timesteps(self) -> int:
        """Transitions collected, summed over environments."""
        return 0 if self._parts is None else self._parts.trainer.num_timesteps

    @property
    def exploration_rate(self) -> float:
        """The amount of exploration now, as epsilon or what takes its place."""
        return self.trainer.exploration.rate(self.trainer.clock)

    @property
    def reward_threshold(self) -> float | None:
        """The mean return at which the environment counts as solved, if it says."""
        return None if self.env is None else reward_threshold(self.env)

    @property
    def _n_updates(self) -> int:
        return 0 if self._parts is None else self._parts.learner.n_updates

    # -- training --------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: LogInterval = None,
        tb_log_name: str = "DQN",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """Train for so many transitions more.

        A second call continues: clocks, schedules, replay and open episodes. If
        you have stepped an environment that you passed as an object in between,
        pass it to `set_env` first, which begins new episodes. Ctrl-C ends
        training after the current step.

        Args:
            total_timesteps: transitions to collect, summed over environments; None for
                what is left of the last `learn`, which was interrupted or is resumed.
            callback: a callback, a list of them, or a function of
                `(locals, globals)`.
            log_interval: None to log every 1 000 timesteps, an integer for every
                so many episodes, or `(n, "step")` or `(n, "episode")`.
            tb_log_name: name of the run's folder in `tensorboard_log`.
            reset_num_timesteps: whether clocks and schedules begin again, in a
                new run folder; weights and replay stay.
            progress_bar: whether one is shown (needs `sbdqn[progress]`).

        Returns:
            The model.

        Raises:
            CheckpointError: if a callback does not take what a checkpoint keeps of it.
            ConfigurationError: if an argument is out of range, or the replay
                does not fit into memory.
            NotReadyError: if the model has no environment, or nothing is left.
            NonFiniteError: if a reward, an observation or the loss is NaN or infinite,
                and `on_nonfinite` is `"raise"`.
            WorkerError: if an environment's worker process fails.

        Example:
            >>> model = DQN("MlpPolicy", "CartPole-v1").learn(200).learn(200)
            >>> model.num_timesteps
            400
        """
        steps = self._steps_left() if total_timesteps is None else _positive_steps(total_timesteps)
        trainer = self.trainer
        self._present_collector()
        session = LearnSession(self, callback, log_interval, progress_bar)
        if reset_num_timesteps:
            trainer.restart_clock()
            self.abandon_episodes()
            self._learn_steps = None
            self.ep_info_buffer.clear()
            self.ep_success_buffer.clear()
        if self._learn_steps is None:
            self._learn_steps = steps
            policy = specs.resolve_policy(self._parameters)
            for advice in advice_before(self.observation_space, policy, trainer.missing, steps):
                _log.warning("%s", advice)
            trainer.exploration = specs.resolve_exploration(self._parameters, steps)
        self._open_log(tb_log_name, reset_num_timesteps)
        self._own_loop = None  # its episodes do not continue those of this call
        if self._callbacks_go_on and self._kept_by_callbacks is not None:
            with restoring():
                session.load_state_dict(self._kept_by_callbacks)
        self._callbacks_go_on = False
        self._session = session
        try:
            with self._learning_threads():
                session.run(trainer.num_timesteps + steps)
        finally:
            self._session = None
            self._kept_by_callbacks = session.state_dict()
        return self

    def _steps_left(self) -> int:
        left = self.trainer.total_timesteps - self.num_timesteps
        if left < 1:
            raise NotReadyError(
                "no learn was left unfinished, so total_timesteps must say how long this one is"
            )
        return left

    def remember_episodes(self, episodes: list[Episode]) -> None:
        """Add episodes to the statistics that are logged."""
        for episode in episodes:
            self.ep_info_buffer.append({"r": episode.reward, "l": episode.length})
            if episode.success is not None:
                self.ep_success_buffer.append(float(episode.success))

    def act(self, observation: Any) -> Any:
        """An action that explores, for a program that owns its own loop.

        Args:
            observation: one, or a batch.

        Returns:
            An `np.int64`, or actions (B,).

        Raises:
            NotReadyError: if epsilon depends on the length of a `learn` that
                was never called.

        Example:
            >>> import gymnasium as gym
            >>> from sbdqn.exploration import EpsilonGreedy
            >>> env = gym.make("CartPole-v1")
            >>> model = DQN("MlpPolicy", env, exploration=EpsilonGreedy(0.1), learning_starts=10)
            >>> obs, _ = env.reset()
            >>> for _ in range(20):
            ...     action = model.act(obs)
            ...     next_obs, reward, terminated, truncated, _ = env.step(action)
            ...     model.observe(obs, action, reward, next_obs, terminated, truncated)
            ...     obs = env.reset()[0] if terminated or truncated else next_obs
            >>> model.train(4)
        """
        if self._learn_steps is None and self._parameters["exploration"] == "epsilon_greedy":
            raise NotReadyError(
                "the default exploration takes its length from learn(total_timesteps), which has "
                "not been called; say it outright, for instance "
                "exploration=EpsilonGreedy(Linear(1.0, 0.05, 10_000))"
            )
        return self._verbs().act(observation)

    def observe(
        self, obs: Any, action: Any, reward: Any, next_obs: Any, terminated: Any, truncated: Any
    ) -> None:
        """Store one transition of each environment.

        An observation that does not continue the last transition begins a new
        episode; the old one is then treated as cut short.

        Args:
            obs: observations acted upon, one or (E, ...).
            action: what was done, one or (E,).
            reward: what came of it, one or (E,).
            next_obs: true successors, before any reset, one or (E, ...).
            terminated: whether the episode ended in a terminal state.
            truncated: whether it was cut short.
        """
        self._verbs().observe(obs, action, reward, next_obs, terminated, truncated)
        self.abandon_episodes()  # of `learn`, which this transition does not continue

    def train(self, gradient_steps: int = 1) -> None:
        """Make gradient steps now.

        Args:
            gradient_steps: how many.

        Raises:
            NotReadyError: if the replay holds nothing to learn from.
        """
        count = _positive_steps(gradient_steps)
        with self._learning_threads():
            self._verbs().train(count)

    # -- prediction ------------------------------------------------------------

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """The action for one observation, or for each of a batch.

        Args:
            observation: an array, a tensor or a list, of the space's shape or
                with a batch axis before it.
            state: returned as it is; there is no recurrent state.
            episode_start: as `state`.
            deterministic: whether the action is greedy; else it explores as
                data collection does at this moment.

        Returns:
            An `np.int64`, or actions (B,); and `state`.

        Raises:
            SpaceError: if the observation is not of the observation space.
        """
        if deterministic:
            return self.policy.predict(observation, state)
        trainer, rng = self.trainer, self._prediction_rng
        action = self.policy.explore(observation, trainer.exploration, trainer.clock, rng)
        return action, state

    def q_values(self, observation: Any) -> FloatArray:
        """Expected returns of every action: (A,), or (B, A) for a batch.

        Raises:
            SpaceError: if the observation is not of the observation space.
        """
        return self.policy.q_values(observation)

    # -- state -----------------------------------------------------------------

    def save(self, path: PathOrFile) -> None:
        """Write parameters, weights, optimiser and clocks; not the replay.

        The file appears complete or not at all.

        Args:
            path: `.zip` is added to a name without a suffix; or an open binary
                file.

        Raises:
            CheckpointError: if a parameter cannot be described even by
                cloudpickle.
            FileAccessError: if the file cannot be written.
        """
        write_archive(path, "model", self._saved_parameters(), self._model_state())

    def save_checkpoint(self, folder: str | Path, keep_last: int | None = None) -> None:
        """Write everything that `resume` needs to go on as if the run had never stopped.

        That is what `save` writes, and the replay, the generators, the open episodes
        with their statistics, what is due, what the callbacks keep, and the
        environments where they can be copied. Files are called
        `checkpoint_{number}_{timesteps}_steps.zip`, and appear complete or not at all.

        While the model learns, as in a callback, the file is written when all
        callbacks have seen the step and its updates have been made.

        Args:
            folder: made if missing.
            keep_last: how many checkpoints are left in the folder afterwards; None
                for all. The others are deleted when the new one is complete, so
                there must be room for one more.

        Raises:
            CheckpointError: if a parameter cannot be described even by cloudpickle.
            ConfigurationError: if `keep_last` is no integer of at least 1.
            FileAccessError: if the file cannot be written, or an older one cannot be
                deleted.

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp()
            >>> model = DQN("MlpPolicy", "CartPole-v1", seed=0).learn(300)
            >>> model.save_checkpoint(folder)
            >>> DQN.resume(folder, trusted=True).learn(200).num_timesteps
            500
        """
        if keep_last is not None:
            require_count("keep_last", keep_last)
        if self._session is None:
            self._write_checkpoint(folder, keep_last)
        else:
            self._session.between_steps(lambda: self._write_checkpoint(folder, keep_last))

    @classmethod
    def resume(
        cls,
        path: str | Path,
        env: EnvLike | None = None,
        device: str | torch.device = "auto",
        trusted: bool = False,
        **parameters: Any,
    ) -> Self:
        """Make the model that `save_checkpoint` wrote, to go on where it was.

        `learn()` then makes what was left of the `learn` in which the checkpoint was
        written; pass the same callbacks to it, in the same order. On the CPU, in the
        environments of the file (`trusted=True`), the weights become those of a run
        that was never stopped, bit for bit. Otherwise the environments are reset.

        Args:
            path: the folder, for its newest checkpoint, or one of the files.
            env: as for `load`; its episodes begin anew, as they do where `vectorization`,
                `env_kwargs` or `seed` are given.
            device: where the networks go.
            trusted: whether Python objects in the file may be unpickled, which can
                execute anything: the environments are, and parameters that only
                Python can describe.
            parameters: constructor parameters to use instead of the saved ones; `seed`
                restarts every generator and, with it, the episodes.

        Raises:
            CheckpointError: as for `load`; `MissingFileError` if there is no
                checkpoint.
            ConfigurationError: if a parameter is unknown, or does not fit the replay.
            SpaceError: if the environment has other spaces.
        """
        archive = read_archive(newest_checkpoint(path), "checkpoint", mapped=True)
        model = cls._loaded(archive, env, device, trusted, parameters)
        if env is None and "n_envs" in parameters and parameters["n_envs"] != model.n_envs:
            raise MismatchError(
                f"n_envs={parameters['n_envs']} does not fit the replay of the checkpoint, which "
                f"is of {model.n_envs}; to go on with an empty one, save the model that is resumed "
                f"without n_envs, and load that with it"
            )
        with restoring():
            asks_for_others = not {"vectorization", "env_kwargs"}.isdisjoint(parameters)
            model._go_on(archive, trusted, env is not None or asks_for_others)
        if "seed" in parameters:  # which the generators of the file have taken the place of
            model.set_random_seed(parameters["seed"])
        return model

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the greedy policy to a file that acts without this library.

        Preprocessing is inside: what goes in are observations (B, ...) of the
        space's shape, of any number of rows, or the parts of Dict and Tuple
        observations by name. Out come `action` (B,) and `q_values` (B, A). What
        the file says is compared with the model before it appears.

        Args:
            path: `.onnx` for ONNX, which needs `sbdqn[onnx]`; `.pt2` for
                `torch.export`.

        Raises:
            ConfigurationError: if the ending is another, or torch cannot export
                the network.
            ExportError: if the file says something else than the model.
            FileAccessError: if it cannot be written.
            MissingDependencyError: if `sbdqn[onnx]` is not installed.
        """
        export_policy(self.policy, path)

    @classmethod
    def load(
        cls,
        path: PathOrFile,
        env: EnvLike | None = None,
        device: str | torch.device = "auto",
        trusted: bool = False,
        **parameters: Any,
    ) -> Self:
        """Make a model from what `save` wrote, executing nothing from it.

        Args:
            path: the file.
            env: an environment with the spaces of the saved one, made with the
                `n_envs`, `vectorization` and `env_kwargs` given here; None for
                the saved id, if there was one, made as it was.
            device: where the networks go.
            trusted: whether Python objects in the file may be unpickled, which
                can execute anything.
            parameters: constructor parameters to use instead of the saved ones.

        Raises:
            CheckpointError: if the file cannot be read, or holds a Python object
                and is not trusted; `MissingFileError` if there is none.
            ConfigurationError: if a parameter is unknown.
            SpaceError: if the environment has other spaces.
        """
        return cls._loaded(read_archive(path, "model"), env, device, trusted, parameters)

    @classmethod
    def _loaded(
        cls,
        archive: Archive,
        env: EnvLike | None,
        device: str | torch.device,
        trusted: bool,
        parameters: Mapping[str, Any],
    ) -> Self:
        unknown = [name for name in parameters if name not in _defaults()]
        if unknown:
            raise ConfigurationError(
                f"unknown keyword arguments {', '.join(unknown)}; accepted are path, env, device, "
                f"trusted, and the constructor's parameters"
            )
        needed = [name for name in archive.objects if name not in parameters]
        require_trust(needed, trusted)
        saved_env = archive.parameters.get("env")
        if saved_env is not None and not isinstance(saved_env, str):
            raise CheckpointError(f"the file is damaged: its environment is {saved_env!r}")
        if env is None and not trusted and saved_env is not None and ":" in saved_env:
            raise CheckpointError(
                f"the environment of the file is {saved_env!r}, and making it imports a module; "
                f"pass env, or, if you trust the file, trusted=True"
            )
        objects = unpickle(archive) if needed else {}
        given: dict[str, Any] = {"device": device}
        if env is not None:
            # How the saved environment was made says nothing about this one.
            given |= {"env": env, "n_envs": 1, "vectorization": "auto", "env_kwargs": None}
        model = cls._restored(archive, objects, {**given, **parameters})
        if env is not None:
            model._use_env(env)
        if "seed" in parameters:
            model.set_random_seed(parameters["seed"])
        return model

    @classmethod
    def from_sb3(
        cls,
        path: PathOrFile,
        env: EnvLike,
        device: str | torch.device = "auto",
        **parameters: Any,
    ) -> Self:
        """Make a model from what Stable-Baselines3's DQN saved, executing nothing from it.

        It has the same weights, settings, clocks and state of the optimiser, and learns as
        SB3's does: huber loss, greedy backup, uniform replay. The replay is empty.

        Args:
            path: the archive, of SB3 2.x.
            env: an environment with the spaces of the one that the model learned in; SB3
                does not save which that was. Images may have their channels first or last.
            device: where the networks go.
            parameters: constructor parameters to use instead of the saved ones;
                `policy_kwargs` are added to them.

        Raises:
            CheckpointError: if the archive cannot be read, or holds what has no counterpart
                here; `MissingFileError` if there is none.
            ConfigurationError: if a parameter is unknown or out of its range.
            SpaceError: if the environment's actions are not counted from 0.
        """
        unknown = [name for name in parameters if name not in _defaults() or name == "policy"]
        if unknown:
            raise ConfigurationError(
                f"from_sb3 got unknown keyword arguments {', '.join(unknown)}; accepted are path, "
                f"env, device, and the constructor's parameters but policy"
            )
        # What the caller chose is judged by itself: what is wrong later is the archive's fault.
        cls("MlpPolicy", env, device=device, **parameters)
        archive = from_sb3.read_sb3(path, parameters)
        with restoring():
            model = cls(env=env, device=device, **archive.parameters)
        from_sb3.require_actions_from_zero(model.action_space)
        with restoring():
            observations, actions = model.observation_space, model.action_space
            with from_sb3.in_environment_of(observations):
                shapes = specs.shapes_of_network(model._parameters, observations, actions)
            archive.require_fit(shapes, observations)
            parts = model._built()
            archive.fill(parts)
            model._learn_steps = archive.counts["_total_timesteps"] or None
            model._follow_parameters()
        return model

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Copies of the state dicts of `"policy"` and `"policy.optimizer"`."""
        parts = self._built()
        return copy.deepcopy(
            {
                "policy": dict(parts.policy.state_dict()),
                "policy.optimizer": parts.learner.optimizer.state_dict(),
            }
        )

    def set_parameters(
        self, parameters: PathOrFile | Mapping[str, Mapping[str, Any]], exact_match: bool = True
    ) -> None:
        """Take over state dicts as `get_parameters` gives them, or a saved file's.

        Args:
            parameters: the state dicts, or the file.
            exact_match: whether every state dict and every tensor must be there, and a
                file be of a model with the same kind of optimiser.

        Raises:
            ConfigurationError: if something is missing, unknown, or of another
                shape; then everything stays as it was.
            CheckpointError: if the file cannot be read, or is of another model.
        """
        if not isinstance(parameters, Mapping):
            state = read_archive(parameters, "model").state
            with restoring():
                self._set_parameters_of(state["learner"], exact_match)
            return
        parts = self._built()
        accepted = {"policy", "policy.optimizer"}
        if set(parameters) - accepted or (exact_match and set(parameters) != accepted):
            raise ConfigurationError(
                f"the state dicts must be {sorted(accepted)}, not {sorted(parameters)}"
            )
        before = self.get_parameters()
        try:
            if "policy" in parameters:
                parts.policy.load_state_dict(parameters["policy"], strict=exact_match)
            if "policy.optimizer" in parameters:
                parts.learner.load_optimizer(parameters["policy.optimizer"])
        except Exception as error:  # torch refuses in many ways
            parts.policy.load_state_dict(before["policy"])
            parts.learner.load_optimizer(before["policy.optimizer"])
            raise ConfigurationError(f"the state dicts do not fit: {error}") from error

    def _set_parameters_of(self, learner: Mapping[str, Any], exact_match: bool) -> None:
        """Take over what a learner's `state_dict` held."""
        policy = self._built().policy
        online, target = learner["online"], learner["target"]
        if policy.q_net_target is policy.q_net:
            target = online
        weights = {f"q_net.{name}": value for name, value in online.items()}
        weights |= {f"q_net_target.{name}": value for name, value in target.items()}
        state_dicts = {"policy": weights, "policy.optimizer": learner["optimizer"]}
        mine, saved = type(self.learner.optimizer).__name__, learner["optimizer_class"]
        if saved != mine:  # which torch would not notice before the next update
            if exact_match:
                raise MismatchError(
                    f"the file holds the state of the optimiser {saved!r}, and this model has "
                    f"{mine}; exact_match=False takes the weights over, and not that state"
                )
            del state_dicts["policy.optimizer"]
        with fitting():
            self.set_parameters(state_dicts, exact_match)

    def save_replay_buffer(self, path: PathOrFile) -> None:
        """Write the replay.

        Args:
            path: `.zip` is added to a name without a suffix; or an open binary
                file.

        Raises:
            FileAccessError: if the file cannot be written.
        """
        write_archive(path, "replay", {}, self.replay_buffer.state_dict())

    def load_replay_buffer(self, path: PathOrFile) -> None:
        """Fill the replay with what `save_replay_buffer` wrote.

        Raises:
            CheckpointError: if the file cannot be read; `MissingFileError` if there
                is none, `MismatchError` if it is of a replay of another shape. The
                replay stays as it was.
        """
        state = read_archive(path, "replay", mapped=True).state
        trainer, _ = self.trainer, self.replay_buffer  # which may not fit into the memory
        with restoring(), fitting():
            trainer.load_replay(state)
        # The episodes that are open here do not continue the ones that were open there.
        self.abandon_episodes()
        self._own_loop = None

    # -- environment, logger, seed ---------------------------------------------

    def get_env(self) -> SB3View | None:
        """The training environment with SB3's calls; `env` is gymnasium's own."""
        env = self.env
        return None if env is None else SB3View(env, self.abandon_episodes)

    def make_eval_env(self, n_envs: int = 1) -> VectorEnv[Any, Any, Any]:
        """Environments like those of training, to evaluate in; yours to close.

        They are made of the same id or callable in the same way, but Atari games
        are full ones with raw rewards.

        Args:
            n_envs: how many.

        Raises:
            ConfigurationError: if the model was given an environment as an object.
            NotReadyError: if it has none.

        Example:
            >>> model = DQN("MlpPolicy", "CartPole-v1", n_envs=8)
            >>> model.make_eval_env(n_envs=2).num_envs
            2
        """
        parameters = self._parameters
        if parameters["env"] is None:
            raise NotReadyError("the model has no environment; pass env, or call set_env")
        return make_evaluation_env(
            parameters["env"], n_envs, parameters["vectorization"], parameters["env_kwargs"]
        )

    def set_env(self, env: EnvLike) -> None:
        """Train in another environment of the same spaces from now on.

        Raises:
            SpaceError: if its spaces, or the number of environments in a replay
                that holds something, differ.
        """
        before = dict(self._parameters)
        if isinstance(env, (Env, VectorEnv)):
            # How others were made says nothing about one that is made already.
            self._parameters.update(n_envs=1, vectorization="auto", env_kwargs=None)
        try:
            self._use_env(env)
        except BaseException:
            self._parameters.update(before)
            raise
        self._parameters["env"] = env

    def trains_in(self, env: object) -> bool:
        """Whether this is the environment that the model trains in, wrapped or not."""
        mine = (self._parameters["env"], self._vector_env)
        known = {id(inner) for each in mine for inner in _unwrapped(each)}
        return any(id(inner) in known for inner in _unwrapped(env))

    def abandon_episodes(self) -> None:
        """Begin the next `learn` with a reset: somebody else used the environment."""
        if self._collector is not None:
            self._collector.stepper.forget()

    def set_logger(self, logger: logging.Logger) -> None:
        """Log to this logger from now on, whatever `tensorboard_log` says."""
        self._logger = logger
        self._has_own_logger = True

    def set_random_seed(self, seed: int | None = None) -> None:
        """Restart every generator; weights stay as they are.

        Args:
            seed: None for an unpredictable one.

        Raises:
            ConfigurationError: if it is out of range.
        """
        CHECKS["seed"]("seed", seed)
        self._parameters["seed"] = seed
        self._seeds = Seeds.of(seed)
        self._fresh_seed = True
        self._prediction_rng = np.random.default_rng(self._seeds.prediction)
        self.abandon_episodes()
        if self._parts is not None:
            self._parts.trainer.seed(self._seeds.exploration)
            self._parts.learner.seed = as_integer(self._seeds.learner)
            if self._parts.trainer.has_replay:
                self._parts.trainer.replay.seed(self._seeds.replay)

    def close(self) -> None:
        """Close the logger, and the environments that the model made.

        An environment that was passed as an object is left open. The model stays
        usable, and makes again what it needs.
        """
        if self._vector_env is not None:
            self.abandon_episodes()
            if self._made_env:
                self._vector_env.close()
            self._vector_env = None
            self._collector = None
        if self._logger is not None:
            self._logger.close()
            self._logger = self._log_of = None
            self._has_own_logger = False

    # -- making things ---------------------------------------------------------

    def _use_env(self, given: EnvLike) -> None:
        """Train in this environment, unless its spaces do not fit."""
        parameters = self._parameters
        env = make_vector_env(
            given, parameters["n_envs"], parameters["vectorization"], parameters["env_kwargs"]
        )
        is_ours = isinstance(given, str) or callable(given)
        try:
            discrete_actions(env.single_action_space)
            self._check_same(env)
        except SpaceError:
            if is_ours:
                env.close()
            raise
        self.abandon_episodes()
        if self._vector_env is not None and self._made_env:
            self._vector_env.close()
        self._take(env, is_ours)

    def _take(self, env: VectorEnv[Any, Any, Any], is_ours: bool) -> None:
        self._made_env = is_ours
        self._frames = stacked_frames(env)
        self._vector_env = env
        self._fresh_seed = True
        self._spaces = (env.single_observation_space, env.single_action_space, env.num_envs)
        self._collector = None
        self._own_loop = None

    def _check_same(self, env: VectorEnv[Any, Any, Any]) -> None:
        if self._spaces is None:
            return
        observation_space, action_space, n_envs = self._spaces
        for name, known, given in (
            ("observation", observation_space, env.single_observation_space),
            ("action", action_space, env.single_action_space),
        ):
            if known != given:
                raise SpaceError(
                    f"the {name} space must be {known}, but the environment has {given}"
                )
        has_replay = self._parts is not None and self._parts.trainer.has_replay
        if has_replay and n_envs != env.num_envs:
            raise SpaceError(
                f"the replay is of {n_envs} environments, so they cannot become {env.num_envs}; "
                f"load the model again to begin with an empty replay"
            )

    def _known_spaces(self) -> tuple[Space[Any], Space[Any], int]:
        if self._spaces is None and self.env is None:
            raise NotReadyError(
                "the model has no environment, so its spaces are unknown; pass env, or call set_env"
            )
        assert self._spaces is not None
        return self._spaces

    def _built(self) -> Parts:
        if self._parts is None:
            observation_space, action_space, _ = self._known_spaces()
            self._parts = build_parts(
                self._parameters,
                observation_space,
                action_space,
                lambda device: build_replay(
                    self._parameters,
                    observation_space,
                    self.n_envs,
                    device,
                    self._seeds.replay,
                    self._frames,
                ),
                self._seeds,
            )
        return self._parts

    def _learning_threads(self) -> AbstractContextManager[None]:
        return threads_within(threads_to_learn_with(self.threads, self.learner, self.batch_size))

    def ready_collector(self) -> Collector:
        """What steps the environment, with observations to act on."""
        collector = self._collector
        if collector is None or not collector.stepper.is_reset:
            collector = self._present_collector()
            collector.stepper.reset(as_integer(self._seeds.env) if self._fresh_seed else None)
            self._fresh_seed = False
        return collector

    def _present_collector(self) -> Collector:
        if self.env is None:
            raise NotReadyError(
                "the model has no environment to learn in; pass env to DQN.load or DQN.resume, or "
                "call set_env"
            )
        if self.env.closed:
            if not self._made_env:
                raise NotReadyError("the environment is closed; give the model one with set_env")
            self._vector_env = self._collector = None
        if self._collector is None:
            policy = self.policy
            adapter = ObservationAdapter(self.observation_space)
            env = FaultReporting(self.env)
            background = env.background if self.overlap else None
            self._collector = Collector(
                Stepper(env, adapter.stored, background, self.trainer.nonfinite),
                policy.q_net,
                int(self.action_space.n),
            )
        return self._collector

    def _verbs(self) -> OwnLoop:
        self._built()
        if self._own_loop is None:
            self._own_loop = OwnLoop(self)
        return self._own_loop

    def _open_log(self, name: str, new_run: bool) -> None:
        if self._has_own_logger:
            return
        if self._log_of == (name, self.tensorboard_log) and not new_run:
            _show_tables(self.logger, bool(self.verbose))
            return
        if self._logger is not None:
            self._logger.close()
        if self.tensorboard_log is None:
            self._logger = logging.Logger(None, [])
        else:
            make_folder(Path(self.tensorboard_log))
            folder = _claimed_folder(Path(self.tensorboard_log), name)
            shown = ["stdout"] if self.verbose else []
            self._logger = logging.configure(folder, [*shown, "csv", "tensorboard"])
        _show_tables(self._logger, bool(self.verbose))
        self._log_of = (name, self.tensorboard_log)

    def _saved_parameters(self) -> dict[str, Any]:
        env = self._parameters["env"]
        return {**self._parameters, "env": env if isinstance(env, str) else None}

    def _model_state(self) -> dict[str, Any]:
        """What `load` restores."""
        parts = self._built()
        observation_space, action_space, n_envs = self._known_spaces()
        return {
            "observation_space": observation_space,
            "action_space": action_space,
            "n_envs": n_envs,
            "frames": self._frames,
            "learn_steps": self._learn_steps,
            "learner": parts.learner.state_dict(),
            "trainer": parts.trainer.state_dict(),
        }

    def _run_state(self) -> dict[str, Any]:
        """What `resume` restores besides."""
        collector = self._collector
        is_open = collector is not None and collector.stepper.is_reset
        return {
            "data": self.trainer.data_state_dict(),
            "entropy": self._seeds.entropy,
            "restarts": self._seeds.restarts,
            "prediction_rng": self._prediction_rng.bit_generator.state,
            "episodes": list(self.ep_info_buffer),
            "successes": list(self.ep_success_buffer),
            "stepper": collector.stepper.state_dict() if collector and is_open else None,
            "fresh_seed": self._fresh_seed,
            "why_no_environments": "",
            "own_loop": None if self._own_loop is None else self._own_loop.state_dict(),
            "callbacks": self._kept_by_callbacks,
        }

    def _write_checkpoint(self, folder: str | Path, keep_last: int | None) -> None:
        if self._session is not None:
            self._kept_by_callbacks = self._session.state_dict()
        self._built()
        state = {**self._model_state(), "run": self._run_state()}
        environments = b""
        if state["run"]["stepper"] is not None:
            assert self._vector_env is not None
            given = self._parameters["env"]
            environments, state["run"]["why_no_environments"] = pickled_environments(
                Environments(self._vector_env, None if isinstance(given, str) else given)
            )
        path = next_checkpoint(folder, self.num_timesteps)
        write_archive(path, "checkpoint", self._saved_parameters(), state, environments)
        if keep_last is not None:
            keep_newest(folder, keep_last)

    def _go_on(self, archive: Archive, trusted: bool, in_other_env: bool) -> None:
        """Become what `_run_state` described."""
        state = archive.state["run"]
        with fitting():
            self.trainer.load_data_state_dict(state["data"])
        self._seeds = Seeds.of(state["entropy"], state.get("restarts", ()))
        self._prediction_rng.bit_generator.state = state["prediction_rng"]
        for each in state["episodes"]:
            self.ep_info_buffer.append({**each, "r": float(each["r"]), "l": int(each["l"])})
        self.ep_success_buffer.extend(map(float, state["successes"]))
        # Copies: a view of the file would keep it on the disk after it is deleted.
        self._kept_by_callbacks = copy.deepcopy(state["callbacks"])
        self._callbacks_go_on = True
        if state["own_loop"] is not None:
            self._verbs().load_state_dict(state["own_loop"])
        if state["stepper"] is None:
            if not state["fresh_seed"]:  # the environments were reset before, and left
                self._seeds = self._seeds.after(self.num_timesteps)
            return
        why_not = state["why_no_environments"]
        if in_other_env:
            why_not = "others were asked for, and theirs are left in the file"
        elif not trusted:
            why_not = "restoring theirs unpickles it, which needs trusted=True (or --trusted)"
        if why_not:
            _log.warning("the environments begin new episodes: %s", why_not)
            self._seeds = self._seeds.after(self.num_timesteps)
            return
        env, given = unpickled_environments(archive.environments)
        if given is not None:
            self._parameters["env"] = given
        self._take(env, is_ours=not isinstance(given, (Env, VectorEnv)))
        self._fresh_seed = False
        self._present_collector().stepper.load_state_dict(state["stepper"])

    @classmethod
    def _restored(
        cls, archive: Archive, objects: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Self:
        """A model of what an archive holds, but for the parameters that are given.

        What the archive is to blame for is a `CheckpointError`, what the caller gave
        stays what it is: the archive is to blame for what happens without that too.
        """
        saved = {**archive.parameters, **objects}
        try:
            model = cls(**{**saved, **given})
            model._restore(archive.state, _describes_networks(archive, given))
            if specs.NETWORK_PARAMETERS.isdisjoint(given):
                model._require_optimizer_of(archive.state)
        except CheckpointError:
            raise
        except Exception as error:
            with restoring():
                if not isinstance(error, SbdqnError):
                    raise
                in_place = {name: given[name] for name in archive.objects if name in given}
                alone = cls(**{**in_place, **saved, "device": "cpu"})
                alone._restore(archive.state, _describes_networks(archive, {}))
            raise
        return model

    def _restore(self, state: Mapping[str, Any], describes_networks: bool) -> None:
        n_envs, frames, learn_steps = state["n_envs"], state.get("frames", 1), state["learn_steps"]
        require_count("n_envs", n_envs)
        require_count("frames", frames)
        if learn_steps is not None:
            require_count("learn_steps", learn_steps)
        self._spaces = (state["observation_space"], state["action_space"], n_envs)
        self._frames, self._learn_steps = frames, learn_steps
        if describes_networks:
            specs.require_networks_of(
                self._parameters, *self._spaces[:2], weights=state["learner"]["online"]
            )
        parts = self._built()
        parts.learner.load_state_dict(state["learner"])
        parts.trainer.load_state_dict(state["trainer"])
        self._follow_parameters()

    def _follow_parameters(self) -> None:
        """Put the parameters into effect at the moment that the clocks show."""
        parts = self._built()
        reconfiguration.apply(parts, self._parameters, self._learn_steps)
        clock = parts.trainer.clock
        parts.learner.learning_rate = value_at(parts.trainer.learning_rate, clock)

    def _require_optimizer_of(self, state: Mapping[str, Any]) -> None:
        """Refuse a state whose optimiser is not the one that the policy describes."""
        mine, saved = type(self.learner.optimizer).__name__, state["learner"]["optimizer_class"]
        if saved != mine:
            raise CheckpointError(
                f"the file is damaged, or its optimiser was exchanged: it holds the state of "
                f"{saved!r}, and its policy describes {mine}; pass policy, or policy_kwargs, to "
                f"load the weights and begin with a fresh optimiser"
            )


def _describes_networks(archive: Archive, given: Mapping[str, Any]) -> bool:
    """Whether the archive alone says what networks there are, and executes nothing."""
    return specs.NETWORK_PARAMETERS.isdisjoint((*archive.objects, *given))


@functools.cache
def _defaults() -> Mapping[str, Any]:
    parameters = inspect.signature(DQN.__init__).parameters
    return {name: each.default for name, each in parameters.items() if name != "self"}


def _positive_steps(steps: float) -> int:
    if isinstance(steps, bool) or not isinstance(steps, (int, float, np.number)):
        raise ConfigurationError(f"a number of steps must be an integer, not {steps!r}")
    if not (math.isfinite(steps) and steps == int(steps) and steps >= 1):
        raise ConfigurationError(f"a number of steps must be a whole number above 0, not {steps!r}")
    return int(steps)


def _unwrapped(env: object) -> list[object]:
    """The innermost environments of one that is made; none for anything else."""
    if not isinstance(env, (Env, VectorEnv)):
        return []
    inner = env.unwrapped
    members = inner.envs if isinstance(inner, SyncVectorEnv) else []
    return [inner, *(member.unwrapped for member in members)]


def _show_tables(logger: logging.Logger, wanted: bool) -> None:
    """Begin or cease to write to stdout; other outputs go on as they are."""
    human = logging.HumanOutputFormat
    others = [output for output in logger.output_formats if not isinstance(output, human)]
    logger.output_formats = [human(sys.stdout), *others] if wanted else others


def _claimed_folder(parent: Path, name: str) -> str:
    """A run folder that no other process has."""
    while True:
        folder = logging.next_run_folder(parent, name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return str(folder)


def _refuse_to_make_another(name: str, *args: object, **kwargs: object) -> NoReturn:
    raise NotReadyError(
        f"{name} makes a new model and leaves this one as it is; call it on the class: "
        f"model = DQN.{name}(...)"
    )
