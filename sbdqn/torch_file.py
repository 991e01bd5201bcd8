"""Files that `torch.save` wrote, read without unpickling them.

Such a file is a zip of `data.pkl`, a pickle in which a tensor is a call, and of the raw
bytes of each storage. `torch.load(weights_only=True)` has an unpickler of its own, in which
holes were found; here nothing is called at all.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sbdqn.errors import CheckpointError
from sbdqn.inert_pickle import Name, read_pickle
from sbdqn.stored_zip import stored_infos

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}

_MOST_AXES = 64  # that torch has; the product of many sizes takes long


def read_torch_file(content: bytes) -> Any:
    """The dicts, lists, tuples, numbers, texts and tensors of a file of `torch.save`.

    Tensors are on the CPU, learn nothing, and share storages as they did.

    Raises:
        CheckpointError: if it is damaged, or holds anything else.
    """
    members = stored_members(io.BytesIO(content), "a file of torch")
    folder = next(iter(members), "").partition("/")[0]
    if f"{folder}/data.pkl" not in members:
        raise CheckpointError("a file of torch is damaged: it has no data.pkl")
    order = members.get(f"{folder}/byteorder", b"little")
    if order not in (b"little", b"big"):
        raise CheckpointError("a file of torch is damaged: its byte order is unknown")
    storages = _Storages(members, f"{folder}/data/", order == b"big")
    return read_pickle(members[f"{folder}/data.pkl"], _tensor, storages.storage)


def stored_members(file: IO[bytes], what: str) -> dict[str, bytes]:
    """The members of a zip that compresses nothing.

    Raises:
        CheckpointError: if it is damaged, or another kind of zip.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = stored_infos(archive, file)
            return {name: archive.read(info) for name, info in infos.items()}
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError),
        *(NotImplementedError, RuntimeError, ValueError, OverflowError),
    ) as error:
        if isinstance(error, CheckpointError):
            raise CheckpointError(f"{what} cannot be read: {error}") from error
        raise CheckpointError(f"{what} is no readable zip archive: {error}") from error


class _Storages:
    """The raw memory that tensors are views of."""

    def __init__(self, members: dict[str, bytes], folder: str, is_big_endian: bool) -> None:
        self._members = members
        self._folder = folder
        self._is_big_endian = is_big_endian
        self._made: dict[tuple[str, torch.dtype], Tensor] = {}

    def storage(self, identifier: Any) -> Tensor:
        """The elements that a persistent id of torch stands for, (N,)."""
        match identifier:
            case ("storage", Name("torch", kind), str(key), str(), int(count)) if kind in _DTYPES:
                dtype = _DTYPES[kind]
            case _:
                raise ValueError("a storage of an unknown kind")
        if (key, dtype) not in self._made:
            self._made[key, dtype] = self._read(key, dtype)
        elements = self._made[key, dtype]
        if len(elements) != count:
            raise ValueError(f"the storage {key} has {len(elements)} elements, not {count}")
        return elements

    def _read(self, key: str, dtype: torch.dtype) -> Tensor:
        raw = self._members[self._folder + key]
        if len(raw) % dtype.itemsize:
            raise ValueError(f"the storage {key} has {len(raw)} bytes")
        if not raw:
            return torch.empty(0, dtype=dtype)
        if self._is_big_endian:
            n_bytes = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
            raw = np.frombuffer(raw, np.uint8).reshape(-1, n_bytes)[:, ::-1].tobytes()
        return torch.frombuffer(bytearray(raw), dtype=dtype)


def _tensor(function: Any, arguments: tuple[Any, ...]) -> Tensor:
    """The tensor that a call of torch's would make."""
    match function, arguments:
        case (Name("torch._utils", "_rebuild_parameter"), (Tensor() as data, bool(), dict())):
            return data
        case (
            Name("torch._utils", "_rebuild_tensor_v2"),
            (Tensor() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()),
        ):
            return _view(storage, offset, shape, strides)
    raise ValueError("a call that makes no tensor")


def _view(storage: Tensor, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> Tensor:
    numbers = (offset, *shape, *strides)
    are_sizes = all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
    if not are_sizes or len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise ValueError("a tensor of no possible shape")
    n_elements = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # An expanded tensor would cost its reader more memory than the file has.
    if n_elements > len(storage) or (n_elements and last >= len(storage)):
        raise ValueError("a tensor that is larger than its storage")
    try:
        return torch.as_strided(storage, shape, strides, offset)
    except (RuntimeError, TypeError) as error:  # of too many axes, or with too large numbers
        raise ValueError(f"a tensor that torch cannot make: {error}") from error
