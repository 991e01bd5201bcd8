"""Saving the model while it trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sbdqn.callbacks.base import BaseCallback
from sbdqn.callbacks.timing import Every
from sbdqn.errors import require_count
from sbdqn.persistence import make_folder


class CheckpointCallback(BaseCallback):
    """Saves the model every `save_freq` timesteps.

    Files are called `{name_prefix}_{timesteps}_steps.zip`, replays
    `{name_prefix}_replay_buffer_{timesteps}_steps.zip`.

    Args:
        save_freq: timesteps from one file to the next.
        save_path: folder, made if missing.
        name_prefix: how file names begin.
        save_replay_buffer: whether the replay is saved too.
        verbose: 2 to print every file.
        resumable: whether `DQN.save_checkpoint` writes instead, with the replay and all
            else that `DQN.resume` needs, under names of its own.
        keep_last: how many files of a kind are left; None for all.

    Example:
        >>> import tempfile
        >>> from sbdqn import DQN
        >>> folder = tempfile.mkdtemp()
        >>> checkpoints = CheckpointCallback(100, folder, resumable=True, keep_last=2)
        >>> model = DQN("MlpPolicy", "CartPole-v1").learn(500, callback=checkpoints)
        >>> DQN.resume(folder).num_timesteps
        500
    """

    def __init__(
        self,
        save_freq: int,
        save_path: str | Path,
        name_prefix: str = "rl_model",
        save_replay_buffer: bool = False,
        verbose: int = 0,
        resumable: bool = False,
        keep_last: int | None = None,
    ) -> None:
        super().__init__(verbose)
        if keep_last is not None:
            require_count("keep_last", keep_last)
        self.save_freq = save_freq
        self.save_path = Path(save_path)
        self.name_prefix = name_prefix
        self.save_replay_buffer = save_replay_buffer
        self.resumable = resumable
        self.keep_last = keep_last
        self._every = Every(save_freq)
        self._written: dict[str, list[str]] = {}  # what is to be kept, by kind, the oldest first

    def _init_callback(self) -> None:
        make_folder(self.save_path)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _state_dict(self) -> dict[str, Any]:
        return {"last": self._every.last, "written": self._written}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._every.last = state["last"]
        # Files are deleted by these names, and whoever wrote the checkpoint chose them.
        ours = re.compile(rf"{re.escape(self.name_prefix)}_(?:replay_buffer_)?[0-9]+_steps\.zip")
        self._written = {
            kind: [name for name in names if ours.fullmatch(name)]
            for kind, names in state["written"].items()
        }

    def _on_step(self) -> bool:
        if not self._every.is_due(self.num_timesteps):
            return True
        if self.resumable:
            self.model.save_checkpoint(self.save_path, self.keep_last)
            self._say(f"a checkpoint in {self.save_path}")
            return True
        self._save("", self.model.save)
        if self.save_replay_buffer:
            self._save("replay_buffer_", self.model.save_replay_buffer)
        return True

    def _save(self, kind: str, write: Callable[[Path], None]) -> None:
        name = f"{self.name_prefix}_{kind}{self.num_timesteps}_steps.zip"
        write(self.save_path / name)
        self._say(self.save_path / name)
        if self.keep_last is None:
            return
        written = self._written.setdefault(kind, [])
        written.append(name)
        while len(written) > self.keep_last:
            (self.save_path / written.pop(0)).unlink(missing_ok=True)

    def _say(self, what: object) -> None:
        if self.verbose >= 2:
            print(f"Saved {what}")
