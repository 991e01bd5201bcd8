"""Ending training early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbdqn.callbacks.base import BaseCallback
from sbdqn.callbacks.evaluation import EvalCallback
from sbdqn.errors import ConfigurationError


class StopTrainingOnRewardThreshold(BaseCallback):
    """Stops when an evaluation's mean reward reaches a threshold.

    To be passed to `EvalCallback(callback_on_new_best=...)`.

    Args:
        reward_threshold: mean reward per episode that ends training.
        verbose: 1 to say so.
    """

    def __init__(self, reward_threshold: float, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.reward_threshold = reward_threshold

    def _on_step(self) -> bool:
        best = _evaluation_of(self).best_mean_reward
        if best < self.reward_threshold:
            return True
        if self.verbose >= 1:
            print(f"Stopping: mean reward {best:.2f} is at least {self.reward_threshold}")
        return False


class StopTrainingOnNoModelImprovement(BaseCallback):
    """Stops after so many evaluations in a row without a new best mean reward.

    To be passed to `EvalCallback(callback_after_eval=...)`.

    Args:
        max_no_improvement_evals: evaluations without a new best.
        min_evals: evaluations before any is counted.
        verbose: 1 to say so.
    """

    def __init__(self, max_no_improvement_evals: int, min_evals: int = 0, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.max_no_improvement_evals = max_no_improvement_evals
        self.min_evals = min_evals
        self.last_best_mean_reward = -float("inf")
        self.no_improvement_evals = 0

    def _state_dict(self) -> dict[str, Any]:
        return {
            "last_best_mean_reward": self.last_best_mean_reward,
            "no_improvement_evals": self.no_improvement_evals,
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.last_best_mean_reward = float(state["last_best_mean_reward"])
        self.no_improvement_evals = int(state["no_improvement_evals"])

    def _on_step(self) -> bool:
        best = _evaluation_of(self).best_mean_reward
        if self.n_calls > self.min_evals:
            improved = best > self.last_best_mean_reward
            self.no_improvement_evals = 0 if improved else self.no_improvement_evals + 1
        self.last_best_mean_reward = best
        if self.no_improvement_evals <= self.max_no_improvement_evals:
            return True
        if self.verbose >= 1:
            print(f"Stopping: no new best mean reward in {self.no_improvement_evals} evaluations")
        return False


class StopTrainingOnMaxEpisodes(BaseCallback):
    """Stops after `max_episodes` episodes for each environment, on average.

    Args:
        max_episodes: episodes per environment.
        verbose: 1 to say so.
    """

    def __init__(self, max_episodes: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.max_episodes = max_episodes
        self.n_episodes = 0

    def _state_dict(self) -> dict[str, Any]:
        return {"n_episodes": self.n_episodes}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_episodes = int(state["n_episodes"])

    def _on_step(self) -> bool:
        self.n_episodes += len(self.locals["episodes"])
        if self.n_episodes < self.max_episodes * self.model.n_envs:
            return True
        if self.verbose >= 1:
            print(f"Stopping after {self.n_episodes} episodes")
        return False


class StopTrainingWhenSolved(BaseCallback):
    """Stops when the mean return of the last episodes reaches a threshold.

    Args:
        reward_threshold: mean return; by default the environment's own
            `spec.reward_threshold`.
        window: how many episodes; all of them must have been played.
        verbose: 1 to say so.

    Attributes:
        solved_after: episodes before the window that reached the threshold,
            None until then.
    """

    def __init__(
        self, reward_threshold: float | None = None, window: int = 100, verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        self.reward_threshold = reward_threshold
        self.window = window
        self.returns: list[float] = []
        self._forgotten = 0  # episodes before those, of a run that was resumed
        self.solved_after: int | None = None

    def _init_callback(self) -> None:
        if self.reward_threshold is None:
            self.reward_threshold = self.model.reward_threshold
        if self.reward_threshold is None:
            raise ConfigurationError(
                "the environment registers no reward_threshold; pass one to StopTrainingWhenSolved"
            )

    def _state_dict(self) -> dict[str, Any]:
        recent = self.returns[-self.window :]
        return {
            "forgotten": self._forgotten + len(self.returns) - len(recent),
            "returns": recent,
            "solved_after": self.solved_after,
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._forgotten = int(state.get("forgotten", 0))
        self.returns = list(map(float, state["returns"]))
        self.solved_after = state["solved_after"]

    def _on_step(self) -> bool:
        assert self.reward_threshold is not None
        for episode in self.locals["episodes"]:
            self.returns.append(episode.reward)
            recent = self.returns[-self.window :]
            mean = sum(recent) / len(recent)
            if len(recent) == self.window and mean >= self.reward_threshold:
                self.solved_after = self._forgotten + len(self.returns) - self.window
                if self.verbose >= 1:
                    print(f"Solved: mean return {mean:.2f} over {self.window} episodes")
                return False
        return True


def _evaluation_of(callback: BaseCallback) -> EvalCallback:
    parent = callback.parent
    while parent is not None and not isinstance(parent, EvalCallback):
        parent = parent.parent
    if parent is None:
        raise ConfigurationError(
            f"{type(callback).__name__} reads an evaluation; pass it to EvalCallback, as "
            f"callback_on_new_best or callback_after_eval"
        )
    return parent
