"""Tensors in a file: the format that others read, in pieces, and refused where it is damaged."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sbdqn import tensor_member
from sbdqn.errors import CheckpointError
from sbdqn.tensor_member import TensorWriter, map_tensors, read_tensors

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
]


def several() -> dict[str, Tensor]:
    """Tensors of every dtype and of awkward shapes."""
    torch.manual_seed(0)
    every = {str(dtype): torch.randint(0, 100, (3, 5)).to(dtype) for dtype in DTYPES}
    return {
        **every,
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 7),
        "transposed": torch.arange(12.0).reshape(3, 4).T,
        "strided": torch.arange(20, dtype=torch.int16)[::3],
        "a single number with a stride": torch.arange(20.0)[3:4].as_strided((1,), (6,)),
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 9),
        "learned": torch.nn.Parameter(torch.arange(3.0)),
        "a name with \\ and \u00e9": torch.ones(2),
    }


def written(tensors: dict[str, Tensor], offset: int = 0) -> bytes:
    file = io.BytesIO()
    writer = TensorWriter(tensors)
    writer.write(file, offset)
    assert len(file.getvalue()) == writer.nbytes(offset)
    return file.getvalue()


def assert_same(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        assert given[name].dtype == tensor.dtype, name
        assert given[name].shape == tensor.shape, name
        assert torch.equal(given[name], tensor), name


@pytest.mark.parametrize("offset", [0, 1, 77])
def test_the_library_of_the_format_reads_what_is_written(offset: int) -> None:
    assert_same(safetensors.torch.load(written(several(), offset)), several())


def test_what_the_library_of_the_format_writes_is_read() -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in several().items()}
    content = safetensors.torch.save(tensors, {"made": "elsewhere"})
    assert_same(read_tensors(io.BytesIO(content), len(content)), tensors)


def test_tensors_are_read_into_memory_of_their_own() -> None:
    content = written(several())
    tensors = read_tensors(io.BytesIO(content), len(content))
    assert_same(tensors, several())
    tensors["scalar"].fill_(7)
    assert len({tensor.data_ptr() for tensor in tensors.values() if tensor.numel()}) == 20


@pytest.mark.parametrize("offset", [0, 1, 77])
def test_a_file_is_mapped_at_any_offset_and_never_written_to(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "file"
    before = b"x" * offset + written(several(), offset)
    path.write_bytes(before + b"what follows")
    with path.open("rb") as file:
        tensors = map_tensors(file, offset, len(before) - offset)
    assert_same(tensors, several())
    for tensor in tensors.values():
        assert tensor.data_ptr() % tensor.itemsize == 0
        tensor.zero_()
    assert path.read_bytes() == before + b"what follows"


def test_values_begin_where_every_processor_can_map_them() -> None:
    for offset in range(130):
        content = written({"a": torch.zeros(3, dtype=torch.float64)}, offset)
        assert (offset + len(content) - 24) % 64 == 0


def test_values_that_lie_awkwardly_are_copied(tmp_path: Path) -> None:
    content = b"x" + written(several(), 0)  # written for another place
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        tensors = map_tensors(file, 1, len(content) - 1)
    assert_same(tensors, several())
    assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in tensors.values())


@pytest.mark.parametrize("piece", [64, 100, 1000])
def test_large_tensors_are_written_and_read_in_pieces(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    class Watched(io.BytesIO):
        longest = 0

        def write(self, content: Any) -> int:
            self.longest = max(self.longest, len(content))
            return super().write(content)

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            self.longest = max(self.longest, size)
            return super().read(size)

    monkeypatch.setattr(tensor_member, "_PIECE", piece)
    tensors = {
        "whole": torch.arange(1000, dtype=torch.int32),
        "transposed": torch.arange(3000.0).reshape(100, 30).T,
        "of long rows": torch.arange(6000.0).reshape(3, 2000)[:, ::2],
        "every second": torch.arange(2000, dtype=torch.float64)[::2],
        "deep": torch.arange(5040.0).reshape(7, 6, 5, 24).permute(3, 1, 2, 0),
    }
    file = Watched()
    writer = TensorWriter(tensors)
    writer.write(file, 0)
    header = 8 + len(writer._padded_header(0))
    assert file.longest <= max(piece, header)
    file.longest = 0
    file.seek(0)
    assert_same(read_tensors(file, len(file.getvalue())), tensors)
    assert file.longest <= max(piece, header)


def test_a_dtype_without_a_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"weight is of torch\.complex64, which cannot be"):
        TensorWriter({"weight": torch.zeros(1, dtype=torch.complex64)})


A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}


def described(header: Any, values: bytes = bytes(12)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


def test_the_order_of_a_header_does_not_matter() -> None:
    content = described({"b": B, "a": A, "__metadata__": {}})
    assert_same(
        read_tensors(io.BytesIO(content), len(content)),
        {"a": torch.zeros(2), "b": torch.zeros(4, dtype=torch.uint8)},
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        (1 << 63).to_bytes(8, "little") + b"{}",
        ((1 << 25) + 1).to_bytes(8, "little") + bytes((1 << 25) + 1),
        described(b"[]"),
        described(b'{"a": NaN}'),
        described(b"{"),
        described(b'{"a": 1, "a": 1}'),
        described({"a": A}),  # values that are nobody's
        described({"a": A, "b": B}, bytes(11)),
        described({"a": A, "b": B}, bytes(13)),
        described({"a": A, "b": {**B, "data_offsets": [7, 11]}}),  # overlapping
        described({"a": A, "b": {**B, "data_offsets": [9, 13]}}, bytes(13)),  # a hole
        described({"a": A, "b": A}),
        *(
            described({"a": each, "b": B})
            for each in (
                None,
                [],
                {},
                {"dtype": "F32", "shape": [2]},
                {**A, "more": 1},
                {**A, "dtype": "X9"},
                {**A, "dtype": ["F32"]},
                {**A, "dtype": None},
                {**A, "shape": [3]},
                {**A, "shape": 2},
                {**A, "shape": [-2]},
                {**A, "shape": [-1, -2]},
                {**A, "shape": [2.0]},
                {**A, "shape": [True, 2]},
                {**A, "shape": ["2"]},
                {**A, "shape": [1 << 32, 1 << 32]},  # 0 where 64 bits overflow
                {**A, "shape": [1 << 63, 2]},
                {**A, "shape": [0, 1 << 64], "data_offsets": [0, 0]},
                {**A, "shape": [1] * 65 + [2]},
                {**A, "shape": [2, 10**12]},
                {**A, "data_offsets": [8, 0]},
                {**A, "data_offsets": [-8, 0]},
                {**A, "data_offsets": [0]},
                {**A, "data_offsets": [0, 8, 9]},
                {**A, "data_offsets": "08"},
                {**A, "data_offsets": [0, 8.0]},
                {**A, "data_offsets": None},
            )
        ),
    ],
)
def test_damage_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(io.BytesIO(content), len(content))
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file, pytest.raises(CheckpointError, match="damaged"):
        map_tensors(file, 0, len(content))


def test_a_file_that_ends_too_early_is_refused() -> None:
    content = written(several())
    with pytest.raises(CheckpointError, match="ends too early"):
        read_tensors(io.BytesIO(content[:-1]), len(content))
