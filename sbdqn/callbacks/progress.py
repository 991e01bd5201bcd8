"""A progress bar."""

from __future__ import annotations

from typing import Any

from sbdqn.callbacks.base import BaseCallback
from sbdqn.errors import MissingDependencyError


class ProgressBarCallback(BaseCallback):
    """Shows the progress of `learn` with tqdm.

    Raises:
        MissingDependencyError: if tqdm is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingDependencyError(
                "the progress bar needs tqdm; install it with: pip install 'sbdqn[progress]'"
            ) from error
        self._tqdm = tqdm
        self._bar: Any = None

    def _on_training_start(self) -> None:
        total = self.model.trainer.total_timesteps - self.num_timesteps
        self._bar = self._tqdm(total=total, unit="step", dynamic_ncols=True)
        self._shown = self.num_timesteps

    def _on_step(self) -> bool:
        self._bar.update(self.num_timesteps - self._shown)
        self._shown = self.num_timesteps
        return True

    def _on_training_end(self) -> None:
        self._bar.close()
