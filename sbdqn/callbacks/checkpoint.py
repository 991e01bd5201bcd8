"""Saving the model while it trains."""

from __future__ import annotations

from pathlib import Path

from sbdqn.callbacks.base import BaseCallback
from sbdqn.callbacks.timing import Every


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
    """

    def __init__(
        self,
        save_freq: int,
        save_path: str | Path,
        name_prefix: str = "rl_model",
        save_replay_buffer: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.save_freq = save_freq
        self.save_path = Path(save_path)
        self.name_prefix = name_prefix
        self.save_replay_buffer = save_replay_buffer
        self._every = Every(save_freq)

    def _init_callback(self) -> None:
        self.save_path.mkdir(parents=True, exist_ok=True)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            path = self._path("")
            self.model.save(path)
            self._say(path)
            if self.save_replay_buffer:
                path = self._path("replay_buffer_")
                self.model.save_replay_buffer(path)
                self._say(path)
        return True

    def _path(self, kind: str) -> Path:
        return self.save_path / f"{self.name_prefix}_{kind}{self.num_timesteps}_steps.zip"

    def _say(self, path: Path) -> None:
        if self.verbose >= 2:
            print(f"Saved {path}")
