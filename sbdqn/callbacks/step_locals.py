"""What callbacks see of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sbdqn.envs import split_infos
from sbdqn.observations import take
from sbdqn.training import StepResult

if TYPE_CHECKING:
    from sbdqn.dqn import DQN


class StepLocals(Mapping[str, Any]):
    """A read-only mapping of the last step; what is costly is built when asked for.

    One of these follows a whole `learn`: `show` makes it tell of the next step.

    Keys:
        self: the model.
        env: its vector environment.
        rewards: (E,) rewards.
        dones: (E,) whether an episode ended.
        terminated: (E,) whether it ended in a terminal state.
        truncated: (E,) whether it was cut short.
        actions: (E,) actions, as the environment takes them.
        obs: (E, ...) observations that were acted upon.
        new_obs: (E, ...) true successors, taken before any reset.
        valid: (E,) whether this was a transition at all; False where the
            environment spent the step on resetting itself.
        infos: a list of E dicts; where an episode ended, `"episode"` holds its
            return `r` and length `l`, `"terminal_observation"` its last
            observation, and `"TimeLimit.truncated"` whether it was only cut
            short.
        episodes: the episodes that ended.

    Args:
        model: the model that trains.
        step: what happened.
        raw_infos: as the vector environment returned them.
    """

    def __init__(self, model: DQN, step: StepResult, raw_infos: Mapping[str, Any]) -> None:
        self._model = model
        self.show(step, raw_infos)

    def show(self, step: StepResult, raw_infos: Mapping[str, Any]) -> None:
        """Tell of this step from now on."""
        self._step = step
        self._raw_infos = raw_infos

    def __getitem__(self, key: str) -> Any:
        """The value of a key."""
        return _MAKERS[key](self)

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return iter(_MAKERS)

    def __len__(self) -> int:
        """The number of keys."""
        return len(_MAKERS)

    def _infos(self) -> list[dict[str, Any]]:
        row = self._step.row
        infos = split_infos(self._raw_infos, len(row.reward))
        for episode in self._step.episodes:
            info = infos[episode.env]
            info["episode"] = {"r": episode.reward, "l": episode.length}
            cut = row.truncated[episode.env] and not row.terminated[episode.env]
            info["TimeLimit.truncated"] = bool(cut)
            info["terminal_observation"] = take(row.next_obs, episode.env)
        return infos


_MAKERS: dict[str, Callable[[StepLocals], Any]] = {
    "self": lambda step: step._model,
    "env": lambda step: step._model.env,
    "rewards": lambda step: step._step.row.reward,
    "dones": lambda step: step._step.row.terminated | step._step.row.truncated,
    "terminated": lambda step: step._step.row.terminated,
    "truncated": lambda step: step._step.row.truncated,
    "actions": lambda step: step._step.row.action + int(step._model.action_space.start),
    "obs": lambda step: step._step.row.obs,
    "new_obs": lambda step: step._step.row.next_obs,
    "valid": lambda step: step._step.row.valid,
    "infos": lambda step: step._infos(),
    "episodes": lambda step: step._step.episodes,
}
