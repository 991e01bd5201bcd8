"""Where a replay keeps its observations, and in what form."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from sbdqn.errors import ConfigurationError, is_integer, require

MOST_FRAMES = 64  # in a stack that is kept as single frames


@dataclass(frozen=True)
class Memory:
    """The memory of a replay.

    Attributes:
        device: `"auto"` for the networks' device, or a torch device: with
            `"cpu"`, networks on a GPU learn from batches that are sent there.
        folder: a folder for a file that holds the observations instead of RAM,
            for buffers that are larger. The file has no name, and its space is
            free again when the process ends, however it ends.
        frame_stack: frames in an observation, each of which is kept once and
            stacked when it is sampled; 1 to keep observations whole. `"auto"`
            asks the environment, which knows of
            `gymnasium.wrappers.FrameStackObservation` and of ALE's vector
            environment. A number is for stacks that other wrappers make, along
            the first or the last axis, the newest frame last.

    Example:
        >>> from sbdqn import DQN
        >>> model = DQN("MlpPolicy", "CartPole-v1", replay_memory=Memory(device="cpu"))
    """

    device: str = "auto"
    folder: str | os.PathLike[str] | None = None
    frame_stack: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        frames = self.frame_stack
        fits = frames == "auto" or (is_integer(frames) and 1 <= frames <= MOST_FRAMES)
        require(fits, "frame_stack", frames, f"'auto', or an integer from 1 to {MOST_FRAMES}")
        fits = self.folder is None or isinstance(self.folder, (str, os.PathLike))
        require(fits, "folder", self.folder, "the path of a folder, or None")
        try:
            kind = "cpu" if self.device == "auto" else torch.device(self.device).type
        except (RuntimeError, TypeError) as error:
            raise ConfigurationError(
                f"device must be 'auto' or a torch device such as 'cpu', not {self.device!r}: "
                f"{error}"
            ) from error
        if self.folder is not None and (self.device == "auto" or kind != "cpu"):
            raise ConfigurationError(
                f"a file is read by the CPU, so folder={self.folder!r} goes with device='cpu', "
                f"not with device={self.device!r}"
            )

    def on(self, device: torch.device) -> torch.device:
        """Where observations are kept, if the networks are on this device."""
        return device if self.device == "auto" else torch.device(self.device)
