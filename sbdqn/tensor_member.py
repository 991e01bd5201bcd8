"""Tensors in the safetensors format, written and read piece by piece.

https://huggingface.co/docs/safetensors describes it: the length of a header, the
header in JSON, the values one after the other. The library of that name wants all
of it in memory at once, beside the tensors; a replay has no room for that.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sbdqn.errors import CheckpointError
from sbdqn.strict_json import MOST_BYTES, from_json, to_json

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_PIECE = 1 << 24  # bytes that are copied at a time, where they must be
_ALIGNED = 64  # where values begin in the file: a multiple of every item's size
_LENGTH = 8  # bytes that hold the length of the header


class _Entry(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: list[int]
    begin: int
    end: int


class TensorWriter:
    """Writes tensors that may be larger than the memory that is left.

    Args:
        tensors: by name, on any device, contiguous or not.

    Raises:
        CheckpointError: if the format has no name for a dtype.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype not in _NAMES:
                raise CheckpointError(f"{name} is of {tensor.dtype}, which cannot be saved")
        # Those with the largest items first: then each begins at a multiple of its item.
        names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
        self._tensors = [tensors[name].detach() for name in names]
        header, end = {}, 0
        for name, tensor in zip(names, self._tensors, strict=True):
            begin, end = end, end + tensor.numel() * tensor.itemsize
            header[name] = {
                "dtype": _NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],
            }
        self._header = to_json("tensors", header, indent=None)
        self._nbytes = end

    def nbytes(self, offset: int) -> int:
        """Bytes that `write` writes at this offset of a file."""
        return _LENGTH + len(self._padded_header(offset)) + self._nbytes

    def write(self, file: IO[bytes], offset: int) -> None:
        """Write all of them; `file` begins at this offset of the file that can be mapped."""
        header = self._padded_header(offset)
        file.write(len(header).to_bytes(_LENGTH, "little") + header)
        for tensor in self._tensors:
            for piece in _pieces(tensor):
                flat = piece.contiguous().reshape(-1)
                if flat.stride(0) != 1:  # a single number may keep whatever stride it had
                    flat = flat.clone(memory_format=torch.contiguous_format)
                file.write(flat.view(torch.uint8).numpy(force=True).data)

    def _padded_header(self, offset: int) -> bytes:
        """The header with spaces at its end, which the format allows."""
        length = len(self._header)
        return self._header.ljust(length + -(offset + _LENGTH + length) % _ALIGNED)


def read_tensors(file: IO[bytes], nbytes: int) -> dict[str, Tensor]:
    """Read tensors into memory of their own.

    Args:
        file: at their beginning.
        nbytes: from there to their end.

    Raises:
        CheckpointError: if they are damaged.
    """
    entries, _ = _read_header(file, nbytes)
    return {entry.name: _view(entry, _read_exactly(file, entry)) for entry in entries}


def map_tensors(file: IO[bytes], offset: int, nbytes: int) -> dict[str, Tensor]:
    """Views of tensors in a file of the file system; what is written to them is lost.

    They are valid while the file is neither shortened nor changed. To replace it by
    another of its name does neither.

    Args:
        file: that has a descriptor.
        offset: of their beginning.
        nbytes: from there to their end.

    Raises:
        CheckpointError: if they are damaged.
    """
    file.seek(offset)
    entries, header_bytes = _read_header(file, nbytes)
    memory = mmap.mmap(file.fileno(), offset + nbytes, access=mmap.ACCESS_COPY)
    values = np.frombuffer(memory, np.uint8)[offset + header_bytes :]
    tensors = {}
    for entry in entries:
        part = values[entry.begin : entry.end]
        is_aligned = part.ctypes.data % entry.dtype.itemsize == 0
        tensors[entry.name] = _view(entry, part if is_aligned else part.copy())
    return tensors


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor, in pieces of a bounded size whatever its shape and strides."""
    if tensor.numel() * tensor.itemsize <= _PIECE:
        yield tensor
    elif tensor.is_contiguous():
        yield from torch.split(tensor.reshape(-1), _PIECE // tensor.itemsize)
    else:
        row_bytes = tensor[0].numel() * tensor.itemsize
        for rows in torch.split(tensor, max(1, _PIECE // row_bytes)):
            yield from _pieces(rows[0]) if row_bytes > _PIECE else [rows]


def _read_header(file: IO[bytes], nbytes: int) -> tuple[list[_Entry], int]:
    """What is described, in the order of its values, and the bytes up to these."""
    length = int.from_bytes(file.read(_LENGTH), "little")
    if not _LENGTH + length <= nbytes or length > MOST_BYTES:
        raise CheckpointError(f"the archive is damaged: a header of {length} bytes of tensors")
    header = from_json("the header of its tensors", file.read(length))
    header.pop("__metadata__", None)
    entries = sorted(
        (_entry(name, described) for name, described in header.items()),
        key=lambda entry: (entry.begin, entry.end),
    )
    before = 0
    for entry in entries:
        if entry.begin != before:
            raise CheckpointError(f"the archive is damaged: {entry.name} does not begin at its end")
        before = entry.end
    if _LENGTH + length + before != nbytes:
        raise CheckpointError("the archive is damaged: the values of its tensors are not all there")
    return entries, _LENGTH + length


def _entry(name: str, described: Any) -> _Entry:
    """One tensor's description, if it makes sense by itself."""
    if not isinstance(described, dict) or set(described) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"the archive is damaged: {name!r} does not describe a tensor")
    shape, offsets = described["shape"], described["data_offsets"]
    are_counts = (
        isinstance(numbers, list)
        and len(numbers) <= 64  # dimensions; torch has no more
        and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        for numbers in (shape, offsets)
    )
    dtype = described["dtype"]
    if not all(are_counts) or len(offsets) != 2 or not isinstance(dtype, str):
        raise CheckpointError(f"the archive is damaged: {name!r} does not describe a tensor")
    if dtype not in _DTYPES:
        raise CheckpointError(f"the archive is damaged: {name!r} is of an unknown dtype {dtype!r}")
    nbytes = _DTYPES[dtype].itemsize
    for size in shape:  # of integers without a bound
        nbytes *= size
    if offsets[1] - offsets[0] != nbytes:
        raise CheckpointError(
            f"the archive is damaged: {name!r} of shape {shape} and dtype {dtype} takes "
            f"{nbytes} bytes, not those from {offsets[0]} to {offsets[1]}"
        )
    return _Entry(name, _DTYPES[dtype], shape, *offsets)


def _read_exactly(file: IO[bytes], entry: _Entry) -> Any:
    """The values, read in pieces into memory that is made for them."""
    values = np.empty(entry.end - entry.begin, np.uint8)
    for begin in range(0, values.size, _PIECE):
        piece = values[begin : begin + _PIECE]
        given = file.read(piece.size)
        if len(given) != piece.size:
            raise CheckpointError(f"the archive is damaged: {entry.name} ends too early")
        piece[:] = np.frombuffer(given, np.uint8)
    return values


def _view(entry: _Entry, values: Any) -> Tensor:
    if not values.size:
        return torch.empty(entry.shape, dtype=entry.dtype)
    return torch.from_numpy(values).view(entry.dtype).reshape(entry.shape)
