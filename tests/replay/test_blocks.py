"""Tables of rows: what is read is a copy, wherever the rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sbdqn.errors import ConfigurationError, ReplayMemoryError
from sbdqn.replay import blocks
from sbdqn.replay.blocks import DeviceBlock, HostBlock

CPU = torch.device("cpu")
SHAPE, UINT8 = (50, 64, 64), np.dtype(np.uint8)  # 4 KB a row: 40 of them count as large
VALUES = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def in_ram() -> HostBlock:
    return HostBlock(SHAPE, UINT8, CPU)


def on_device() -> DeviceBlock:
    return DeviceBlock(SHAPE, UINT8, CPU)


@pytest.fixture(params=["ram", "file", "device"])
def block(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    filled: Any = {
        "ram": in_ram,
        "device": on_device,
        "file": lambda: HostBlock(SHAPE, UINT8, CPU, tmp_path),
    }[request.param]()
    filled.write(np.arange(50), VALUES)
    return filled


@pytest.mark.parametrize("count", [1, 3, 40, 200])
def test_rows_are_read_in_the_order_asked_for_with_repetition(block: Any, count: int) -> None:
    place = np.random.default_rng(1).integers(0, 50, count)
    assert torch.equal(block.read(place), torch.from_numpy(VALUES[place]))


@pytest.mark.parametrize("count", [3, 40])
def test_what_was_read_stays_while_rows_are_written_and_read(block: Any, count: int) -> None:
    batches = [block.read(np.arange(at, at + count)) for at in range(10)]
    views = [batch[1:3] for batch in batches[5:]]
    del batches[5:]
    block.write(np.arange(50), np.zeros_like(VALUES))
    assert not block.read(np.arange(count)).any()
    for at, batch in enumerate(batches):
        assert torch.equal(batch, torch.from_numpy(VALUES[at : at + count]))
    for at, view in enumerate(views, 5):
        assert torch.equal(view, torch.from_numpy(VALUES[at + 1 : at + 3]))


def test_a_large_batch_takes_the_memory_of_one_that_nobody_has_any_more() -> None:
    block = in_ram()
    first, second = (block.read(np.arange(40)) for _ in range(2))
    place = first.data_ptr()
    assert second.data_ptr() != place
    array = first.numpy()
    del first
    assert block.read(np.arange(40)).data_ptr() != place  # the array has it
    del array
    assert block.read(np.arange(40)).data_ptr() == place
    assert len(block.read(np.arange(45))) == 45


@pytest.mark.parametrize("make", [in_ram, on_device])
def test_the_first_rows_can_be_loaded_into_another_table(block: Any, make: Any) -> None:
    other = make()
    other.load(block.first(20))
    assert torch.equal(other.read(np.arange(20)), torch.from_numpy(VALUES[:20]))
    assert not other.read(np.arange(20, 50)).any()


def test_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    block = HostBlock(SHAPE, UINT8, CPU, tmp_path)
    block.write(np.arange(50), VALUES)
    assert list(tmp_path.iterdir()) == []


def test_parts_without_values_need_no_file(tmp_path: Path) -> None:
    block = HostBlock((50, 0), np.dtype(np.float32), CPU, tmp_path)
    block.write(np.arange(3), np.zeros((3, 0), np.float32))
    assert block.read(np.arange(3)).shape == (3, 0)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no folder .*missing"):
        HostBlock(SHAPE, UINT8, CPU, tmp_path / "missing")


def test_a_file_that_is_too_large_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        ReplayMemoryError, match=r"file of .* MB cannot be made in .*smaller buffer"
    ):
        HostBlock((2**50, 4), UINT8, CPU, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_call_to_reserve_space_the_file_has_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(blocks.os, "posix_fallocate")
    block = HostBlock(SHAPE, UINT8, CPU, tmp_path)
    block.write(np.array([49]), VALUES[:1])
    assert torch.equal(block.read(np.array([49])), torch.from_numpy(VALUES[:1]))
