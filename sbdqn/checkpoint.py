"""A folder of checkpoints, each a file that is complete, and newer by its number."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sbdqn.errors import MissingFileError, inaccessible
from sbdqn.replacement import remove_abandoned

_NAME = re.compile(r"checkpoint_(\d+)_\d+_steps\.zip")


def checkpoints_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    found = {path: _NAME.fullmatch(path.name) for path in Path(folder).glob("checkpoint_*.zip")}
    numbers = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(numbers, key=lambda path: numbers[path])


def next_checkpoint(folder: str | os.PathLike[str], num_timesteps: int) -> Path:
    """The name of a checkpoint that is newer than all in the folder.

    The first number in it counts checkpoints: timesteps may begin anew. What killed
    writers of checkpoints left behind is removed.
    """
    # Whoever was killed while writing one may have been at other timesteps.
    remove_abandoned(Path(folder), _NAME.pattern)
    newest = checkpoints_in(folder)[-1:]
    number = 1 + max((int(path.name.split("_")[1]) for path in newest), default=0)
    return Path(folder, f"checkpoint_{number:06d}_{num_timesteps}_steps.zip")


def newest_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The newest checkpoint of a folder, or the file itself.

    Raises:
        MissingFileError: if there is none.
    """
    given = Path(path)
    if not given.is_dir():
        if not given.exists() and not given.with_name(f"{given.name}.zip").exists():
            raise MissingFileError(f"there is no folder and no file {os.fspath(path)!r}")
        return given
    found = checkpoints_in(path)
    if not found:
        raise MissingFileError(
            f"there is no checkpoint in {os.fspath(path)!r}; DQN.save_checkpoint and "
            f"CheckpointCallback(resumable=True) write them"
        )
    return found[-1]


def keep_newest(folder: str | os.PathLike[str], count: int) -> None:
    """Delete all checkpoints of a folder but so many, the oldest first.

    Raises:
        FileAccessError: if one cannot be deleted.
    """
    for path in checkpoints_in(folder)[:-count]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise inaccessible(f"{path} cannot be deleted", error) from error
