"""Evaluating the model while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from sbdqn.callbacks.base import EventCallback, MaybeCallback, as_child, described, restore
from sbdqn.callbacks.timing import Every
from sbdqn.envs import EnvLike, make_vector_env
from sbdqn.errors import ConfigurationError
from sbdqn.evaluation import evaluate_policy
from sbdqn.persistence import make_folder

_RESULTS = (
    "last_mean_reward",
    "best_mean_reward",
    "evaluations_timesteps",
    "evaluations_results",
    "evaluations_length",
)


class EvalCallback(EventCallback):
    """Evaluates the model every `eval_freq` timesteps and keeps the best one.

    Args:
        eval_env: what `DQN` takes for `env`; not the training environment.
        callback_on_new_best: called after an evaluation that is the best so far; whatever
            `learn` takes for a callback.
        callback_after_eval: called after every evaluation, likewise.
        n_eval_episodes: episodes in an evaluation.
        eval_freq: timesteps from one evaluation to the next.
        log_path: folder for `evaluations.npz`, with the arrays `timesteps` (K,),
            `results` (K, n_eval_episodes) and `ep_lengths` (K, n_eval_episodes).
        best_model_save_path: folder for `best_model.zip`.
        deterministic: whether actions are greedy.
        render: whether the environment is rendered.
        verbose: 1 to print every result.
        warn: has no effect; episode statistics need no wrapper here.
        seed: resets the environment the same way for every evaluation.

    Attributes:
        last_mean_reward: of the last evaluation.
        best_mean_reward: of the best evaluation.
    """

    def __init__(
        self,
        eval_env: EnvLike,
        callback_on_new_best: MaybeCallback = None,
        callback_after_eval: MaybeCallback = None,
        n_eval_episodes: int = 5,
        eval_freq: int = 10_000,
        log_path: str | Path | None = None,
        best_model_save_path: str | Path | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        warn: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(callback_after_eval, verbose)
        self.callback_on_new_best = as_child(callback_on_new_best, self)
        self._given_env = eval_env
        self.eval_env = self._made()
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.log_path = None if log_path is None else Path(log_path)
        self.best_model_save_path = None
        if best_model_save_path is not None:
            self.best_model_save_path = Path(best_model_save_path)
        self.deterministic = deterministic
        self.render = render
        self.seed = seed
        self.last_mean_reward = -float("inf")
        self.best_mean_reward = -float("inf")
        self.evaluations_timesteps: list[int] = []
        self.evaluations_results: list[list[float]] = []
        self.evaluations_length: list[list[int]] = []
        self._every = Every(eval_freq)

    def init_callback(self, model: Any) -> None:
        """Attach to a model, the children too."""
        super().init_callback(model)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(model)

    def update_child_locals(self, locals_: Any) -> None:
        """Let the children look at another step."""
        super().update_child_locals(locals_)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.update_locals(locals_)

    def _made(self) -> VectorEnv[Any, Any, Any]:
        return make_vector_env(self._given_env)

    def _init_callback(self) -> None:
        if self._given_env is not None and self.model.trains_in(self._given_env):
            raise ConfigurationError(
                "eval_env is the training environment; evaluating would break its open episodes; "
                "make a second one"
            )
        for folder in (self.log_path, self.best_model_save_path):
            if folder is not None:
                make_folder(folder)

    def _state_dict(self) -> dict[str, Any]:
        best = self.callback_on_new_best
        return {
            **super()._state_dict(),
            "callback_on_new_best": None if best is None else described(best),
            "last": self._every.last,
            **{name: getattr(self, name) for name in _RESULTS},
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        super()._load_state_dict(state)
        restore(self.callback_on_new_best, state["callback_on_new_best"])
        self._every.last = state["last"]
        self.last_mean_reward = float(state["last_mean_reward"])
        self.best_mean_reward = float(state["best_mean_reward"])
        self.evaluations_timesteps = list(map(int, state["evaluations_timesteps"]))
        self.evaluations_results = [list(map(float, each)) for each in state["evaluations_results"]]
        self.evaluations_length = [list(map(int, each)) for each in state["evaluations_length"]]

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self.eval_env.closed:
            self.eval_env = self._made()
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.on_training_start(self.locals, self.globals)
        self._every.start(self.num_timesteps)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        if isinstance(self._given_env, str) or callable(self._given_env):
            self.eval_env.close()
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.on_training_end()

    def _on_step(self) -> bool:
        if not self._every.is_due(self.num_timesteps):
            return True
        rewards, lengths = evaluate_policy(
            self.model,
            self.eval_env,
            self.n_eval_episodes,
            deterministic=self.deterministic,
            render=self.render,
            return_episode_rewards=True,
            seed=self.seed,
        )
        self._write(rewards, lengths)
        goes_on = True
        if self.last_mean_reward > self.best_mean_reward:
            self.best_mean_reward = self.last_mean_reward
            if self.best_model_save_path is not None:
                self.model.save(self.best_model_save_path / "best_model.zip")
            if self.callback_on_new_best is not None:
                goes_on = self.callback_on_new_best.on_step()
        return self._on_event() and goes_on

    def _write(self, rewards: list[float], lengths: list[int]) -> None:
        self.last_mean_reward = float(np.mean(rewards))
        self.evaluations_timesteps.append(self.num_timesteps)
        self.evaluations_results.append(rewards)
        self.evaluations_length.append(lengths)
        if self.log_path is not None:
            np.savez(
                self.log_path / "evaluations.npz",
                timesteps=self.evaluations_timesteps,
                results=self.evaluations_results,
                ep_lengths=self.evaluations_length,
            )
        if self.verbose >= 1:
            print(
                f"Eval num_timesteps={self.num_timesteps}, episode_reward="
                f"{self.last_mean_reward:.2f} +/- {np.std(rewards):.2f}, "
                f"episode_length={np.mean(lengths):.1f}"
            )
        self.logger.record("eval/mean_reward", self.last_mean_reward)
        self.logger.record("eval/mean_ep_length", float(np.mean(lengths)))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
