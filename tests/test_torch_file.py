"""Files of torch come out as torch itself reads them, and nothing is unpickled."""

from __future__ import annotations

import copy
import io
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sbdqn.errors import CheckpointError
from sbdqn.torch_file import read_torch_file, stored_members

BASE = torch.arange(24.0)
TENSORS: dict[str, Tensor] = {
    **{
        str(dtype): torch.arange(6).to(dtype).view(2, 3)
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
    },
    **{str(t): torch.tensor([1, 0, 1]).to(t) for t in (torch.int32, torch.int16, torch.bool)},
    **{str(t): torch.tensor([1, 0, 100]).to(t) for t in (torch.int8, torch.uint8)},
    **{str(t): torch.tensor([1 - 2j, 3j], dtype=t) for t in (torch.complex64, torch.complex128)},
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0),
    "empty rows": torch.zeros(3, 0, 2),
    "transposed": BASE.view(4, 6).T,
    "part": BASE.view(4, 6)[1:3, ::2],
    "windows": BASE.unfold(0, 4, 5),
    "parameter": nn.Parameter(torch.ones(2)),
    "learns": torch.ones(2, requires_grad=True),
}


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def changed(content: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The same zip with other members; those of which None is made are left out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            member = change(info.filename, old.read(info))
            if member is not None:
                new.writestr(info.filename, member)
    return file.getvalue()


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_the_one_that_torch_reads(name: str) -> None:
    content = saved({"x": TENSORS[name]})
    expected = torch.load(io.BytesIO(content), weights_only=True)["x"]
    read = read_torch_file(content)["x"]
    assert (read.dtype, read.shape, read.stride()) == (
        expected.dtype,
        expected.shape,
        expected.stride(),
    )
    assert torch.equal(read, expected.detach())
    assert not read.requires_grad


def test_all_that_stands_around_tensors_is_read_too() -> None:
    value = OrderedDict(a=1, b=[0.5, None, True, (1, "x")], c={3: -(2**40), "t": torch.ones(2)})
    read = read_torch_file(saved(value))
    assert torch.equal(read["c"].pop("t"), torch.ones(2))
    assert read == {"a": 1, "b": [0.5, None, True, (1, "x")], "c": {3: -(2**40)}}


def test_views_of_one_storage_share_it() -> None:
    row = torch.zeros(6)
    read = read_torch_file(saved([row, row[2:4]]))
    read[0][3] = 7
    assert read[1].tolist() == [0, 7]


def test_a_network_and_its_optimiser_come_out_whole() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    weights = read_torch_file(saved(network.state_dict()))
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], each) for name, each in network.state_dict().items())
    other = torch.optim.Adam(network.parameters())
    other.load_state_dict(read_torch_file(saved(optimizer.state_dict())))
    assert torch.equal(
        other.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int16, torch.complex64, torch.uint8]
)
def test_a_file_of_a_big_endian_machine_is_turned_round(dtype: torch.dtype) -> None:
    value = torch.tensor([1, -2, 300]).to(dtype)
    n_bytes = dtype.itemsize // (2 if dtype.is_complex else 1)

    def turned(name: str, content: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        if "/data/" in name:
            return b"".join(content[i : i + n_bytes][::-1] for i in range(0, len(content), n_bytes))
        return content

    assert torch.equal(read_torch_file(changed(saved(value), turned)), value)


def test_a_file_without_a_byte_order_is_of_little_endian() -> None:
    old = changed(saved(BASE), lambda name, raw: None if name.endswith("byteorder") else raw)
    assert torch.equal(read_torch_file(old), BASE)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_call_in_a_file_is_refused_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "canary"
    with pytest.raises(CheckpointError, match="a call that makes no tensor"):
        read_torch_file(saved({"x": Canary(path)}))
    assert not path.exists()


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(1000),
        torch.tensor([1j]).conj(),
        torch.zeros(2, dtype=torch.uint16),
        torch.device("cpu"),
        torch.Size([2]),
    ],
    ids=["expanded", "conjugate", "uint16", "device", "size"],
)
def test_what_is_no_plain_tensor_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError):
        read_torch_file(saved([value]))


def with_tensor(offset: int, shape: Any, strides: Any, count: int = 6) -> bytes:
    """A file with a tensor like this over a storage of six floats."""

    class Described:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (
                Storage(), offset, shape, strides, False, OrderedDict(),
            )  # fmt: skip

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", count)
            return None

    file = io.BytesIO()
    Pickler(file, 2).dump(Described())
    return changed(
        saved(torch.arange(6.0)),
        lambda name, raw: file.getvalue() if name.endswith("data.pkl") else raw,
    )


def test_a_tensor_within_its_storage_is_read() -> None:
    assert read_torch_file(with_tensor(1, (2, 2), (3, 1))).tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (6,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
        (0, (10**9, 10**9), (0, 0)),
        (0, (2,), (10**30,)),
        (0, (0, 10**30), (1, 1)),
        (10**30, (0,), (1,)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0.0, (1,), (1,)),
        (0, [2], (1,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(offset: Any, shape: Any, strides: Any) -> None:
    with pytest.raises(CheckpointError):
        read_torch_file(with_tensor(offset, shape, strides))


@pytest.mark.parametrize("sizes", [(2**60,) * 40_000, (2**1_000_000,) * 40])
def test_sizes_are_not_multiplied_for_long(sizes: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match="a tensor of no possible shape"):
        read_torch_file(with_tensor(0, sizes, (1,) * len(sizes)))


def test_a_storage_of_another_size_than_it_says_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has 6 elements, not 7"):
        read_torch_file(with_tensor(0, (1,), (1,), count=7))
    cut = changed(saved(BASE), lambda name, raw: raw[:-1] if "/data/" in name else raw)
    with pytest.raises(CheckpointError, match="has 95 bytes"):
        read_torch_file(cut)


@pytest.mark.parametrize("missing", ["data.pkl", "data/0"])
def test_a_file_that_lacks_something_is_refused(missing: str) -> None:
    content = changed(saved(BASE), lambda name, raw: None if name.endswith(missing) else raw)
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_file(content)


def test_an_unknown_byte_order_is_refused() -> None:
    content = changed(saved(BASE), lambda name, raw: b"odd" if name.endswith("byteorder") else raw)
    with pytest.raises(CheckpointError, match="byte order"):
        read_torch_file(content)


def test_a_compressed_zip_is_refused_before_it_is_unpacked() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(CheckpointError, match="is compressed"):
        read_torch_file(file.getvalue())


def test_members_that_are_larger_than_their_file_are_not_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", bytes(10_000))
        for n in range(5):  # the same bytes once more
            again = copy.copy(archive.filelist[0])
            again.filename = f"b{n}"
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    with pytest.raises(CheckpointError, match="larger than the file"):
        stored_members(file, "the file")


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 100])
def test_what_is_no_zip_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="no readable zip"):
        read_torch_file(content)


def test_mutated_files_are_read_or_refused() -> None:
    draw = random.Random(0)
    content = saved({"a": TENSORS["part"], "b": [torch.ones(2), 1.5, "x"]})
    refused = 0
    for _ in range(300):

        def mutated(name: str, raw: bytes) -> bytes:
            if not name.endswith("data.pkl"):
                return raw
            mutable = bytearray(raw)
            for _ in range(draw.randint(1, 3)):
                mutable[draw.randrange(len(raw))] = draw.randrange(256)
            return bytes(mutable)

        try:
            read_torch_file(changed(content, mutated))
        except CheckpointError:
            refused += 1
    assert 100 < refused < 300
