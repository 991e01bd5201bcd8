"""Rows of one shape and dtype: in RAM, in a file, or on a GPU."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sbdqn.errors import ConfigurationError, ReplayMemoryError
from sbdqn.types import Array, IntArray

Places: TypeAlias = int | IntArray
"""Rows of a table: the number of a single one, with which Python is faster, or an array."""

_LARGE = 1 << 17  # bytes, beyond which memory is not taken from what is at hand
_MOST_SPARES = 3


def _references_of_a_spare() -> int:
    """What Python counts of an object that a list alone holds, in a loop over it."""
    for each in [object()]:
        count = sys.getrefcount(each)
    return count


_REFERENCES_OF_A_SPARE = _references_of_a_spare()


class Block(Protocol):
    """A preallocated table of rows."""

    def write(self, place: Places, values: Array) -> None:
        """Overwrite the rows at these places with as many values."""

    def read(self, place: IntArray) -> Tensor:
        """Copies of the rows at these places, on the device of batches."""

    def first(self, rows: int) -> Tensor:
        """The first rows, where they are."""

    def load(self, values: Tensor) -> None:
        """Overwrite the first rows."""


class HostBlock:
    """In RAM, or in a file that has no name.

    Args:
        shape: (rows, ...).
        dtype: of the values.
        device: where rows that are read go.
        folder: where the file is; None for RAM.

    Raises:
        ReplayMemoryError: if the file does not fit.
        ConfigurationError: if there can be no file.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: torch.device,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        # NumPy's zeros take no memory until they are written.
        self._values = np.zeros(shape, dtype) if folder is None else _mapped(shape, dtype, folder)
        self._device = device
        self._stays = device.type == "cpu"
        self._row_bytes = self._values[:1].nbytes
        self._spares: list[Array] = []

    def write(self, place: Places, values: Array) -> None:
        """Overwrite the rows at these places with as many values."""
        self._values[indexing(place)] = values

    def read(self, place: IntArray) -> Tensor:
        """Copies of the rows at these places."""
        if len(place) * self._row_bytes < _LARGE:
            taken = self._values.take(place, axis=0)
        else:
            taken = self._values.take(place, axis=0, out=self._spare(len(place)), mode="clip")
        rows = torch.from_numpy(taken)
        return rows if self._stays else rows.to(self._device, non_blocking=True)

    def _spare(self, rows: int) -> Array:
        """Memory for so many rows, that of an earlier batch if nobody has it any more.

        The system hands out fresh memory page by page, which takes several times as
        long as it takes to fill it.
        """
        for spare in self._spares:
            if len(spare) == rows and sys.getrefcount(spare) == _REFERENCES_OF_A_SPARE:
                return spare
        fresh = np.empty((rows, *self._values.shape[1:]), self._values.dtype)
        self._spares = [*self._spares[-_MOST_SPARES:], fresh]
        return fresh

    def first(self, rows: int) -> Tensor:
        """The first rows."""
        return torch.from_numpy(self._values[:rows])

    def load(self, values: Tensor) -> None:
        """Overwrite the first rows."""
        self.first(len(values)).copy_(values)


class DeviceBlock:
    """On any torch device.

    Args:
        shape: (rows, ...).
        dtype: of the values.
        device: where they are.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: torch.device) -> None:
        as_torch = torch.from_numpy(np.empty(0, dtype)).dtype
        self._values = torch.zeros(shape, dtype=as_torch, device=device)
        self._device = device

    def write(self, place: Places, values: Array) -> None:
        """Overwrite the rows at these places with as many values."""
        sent = torch.from_numpy(np.ascontiguousarray(values))
        index = self._send(np.atleast_1d(place))
        self._values.index_copy_(0, index, sent.to(self._device, non_blocking=True))

    def read(self, place: IntArray) -> Tensor:
        """Copies of the rows at these places."""
        return self._values.index_select(0, self._send(place))

    def first(self, rows: int) -> Tensor:
        """The first rows."""
        return self._values[:rows]

    def load(self, values: Tensor) -> None:
        """Overwrite the first rows."""
        self._values[: len(values)].copy_(values)

    def _send(self, place: IntArray) -> Tensor:
        return torch.from_numpy(place).to(self._device, non_blocking=True)


def indexing(place: Places) -> IntArray | slice:
    """An index that gives the rows as an array: of one, if the place is a number."""
    return slice(place, place + 1) if isinstance(place, int) else place


def _mapped(shape: tuple[int, ...], dtype: np.dtype[Any], folder: str | os.PathLike[str]) -> Array:
    needed = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not needed:  # there is no file of no bytes
        return np.zeros(shape, dtype)
    if not Path(folder).is_dir():
        raise ConfigurationError(f"there is no folder {os.fspath(folder)!r} for the replay's file")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), needed)
            values: Array = np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise ReplayMemoryError(
            f"the replay's file of {needed / 1e6:,.1f} MB cannot be made in {os.fspath(folder)!r}: "
            f"{error.strerror or error}; choose another folder, or a smaller buffer_size"
        ) from error
    return values


def _reserve(descriptor: int, size: int) -> None:
    """Let the file have its size now: a disk that fills up later would end the process."""
    reserve = getattr(os, "posix_fallocate", None)
    if reserve is None:  # not every system has it
        os.truncate(descriptor, size)
    else:
        reserve(descriptor, 0, size)
