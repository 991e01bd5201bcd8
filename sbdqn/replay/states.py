"""What the state of a replay must be, before anything is overwritten by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sbdqn.errors import CheckpointError
from sbdqn.types import Array


def require_like(state: Mapping[str, Any], name: str, like: Tensor | Array) -> None:
    """Refuse a tensor of another shape or dtype.

    Raises:
        CheckpointError: if it is one, or no tensor.
    """
    expected = like if isinstance(like, Tensor) else torch.from_numpy(like)
    given = state[name]
    if not isinstance(given, Tensor):
        raise damaged(name, f"it is a {type(given).__name__}")
    if given.dtype != expected.dtype or given.shape != expected.shape:
        raise damaged(
            name,
            f"{given.dtype} of shape {tuple(given.shape)} in place of {expected.dtype} of shape "
            f"{tuple(expected.shape)}",
        )


def require_integers(state: Mapping[str, Any], name: str, count: int, below: int) -> None:
    """Refuse what is no list of so many integers from 0 on.

    Raises:
        CheckpointError: if it is none.
    """
    given = state[name]
    is_list = isinstance(given, list) and len(given) == count
    if not (is_list and all(type(each) is int and 0 <= each < below for each in given)):
        raise damaged(name, f"it must be a list of {count} integers from 0 to {below - 1}")


def damaged(name: str, how: str) -> CheckpointError:
    """An error to raise."""
    return CheckpointError(f"the state of the replay is damaged: {name}: {how}")
