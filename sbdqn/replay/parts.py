"""The observations of a ring, or one part of them: kept whole, or as single frames.

A stack of S frames shares S - 1 of them with the one before it. `StackedPart`
keeps the newest frame of each row, and for each older one how many rows above
it stands. Every observation is compared with what will be read in its place
before it is written that way; one that differs is kept whole beside the ring.
So what is read is always what the environment returned, whatever it does at the
start of an episode, at its end, and between.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay.blocks import Block, DeviceBlock, HostBlock, Places
from sbdqn.replay.states import damaged, require_like
from sbdqn.types import Array, BoolArray, IntArray

_UNKNOWN = 255  # in place of a number of rows: this frame is nowhere in the ring, or too far
_PADDING = 254  # the frame that fills the stacks that begin an episode
_FIRST_SLOTS = 64  # for observations kept whole
_log = logging.getLogger("sbdqn.replay")


class Part(Protocol):
    """One part of the observations of a ring.

    Attributes:
        reach: how many rows above its own an observation may need.
    """

    reach: int

    def write(self, place: Places, values: Array) -> None:
        """Write an observation (k, ...) in each of k columns, below the last one there.

        The columns come in order, and so do the rows of a column.
        """

    def read(self, place: IntArray) -> Tensor:
        """Copies (B, ...) of the observations at these places, on the device of batches."""

    def state_dict(self, used: int) -> dict[str, Any]:
        """The first places."""

    def require_fit(self, state: Mapping[str, Any], used: int) -> None:
        """Refuse a damaged state of so many places, with a `CheckpointError`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""


def part_of(layout: ReplayLayout, name: str, rows: int) -> Part:
    """Allocate a part of the observations for so many rows of all environments."""
    part = layout.parts[name]
    if part.frames == 1:
        return WholePart(layout, part, rows)
    return StackedPart(layout, part, rows, name)


def reach_of(part: ObservationPart) -> int:
    """Rows above its own that an observation may need."""
    return 0 if part.frames == 1 else 2 * part.frames


def nbytes_of(part: ObservationPart, places: int) -> int:
    """Bytes that a ring of so many places takes for a part."""
    if part.frames == 1:
        return places * part.nbytes
    return (places + 1) * part.nbytes // part.frames + places * (part.frames - 1 + 8)


class WholePart:
    """Keeps each observation as it is.

    Args:
        layout: of the replay.
        part: what to keep.
        rows: of the ring.
    """

    reach = 0

    def __init__(self, layout: ReplayLayout, part: ObservationPart, rows: int) -> None:
        self._block = _block(layout, (rows * layout.n_envs, *part.shape), part.dtype)
        self.write, self.read = self._block.write, self._block.read

    def state_dict(self, used: int) -> dict[str, Any]:
        """The first places."""
        return {"whole": self._block.first(used)}

    def require_fit(self, state: Mapping[str, Any], used: int) -> None:
        """Refuse observations of another shape, dtype or number."""
        require_like(state, "whole", self._block.first(used))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self._block.load(state["whole"])


class StackedPart:
    """Keeps stacks of frames as single frames.

    Args:
        layout: of the replay.
        part: what to keep.
        rows: of the ring.
        name: of the part, for the log.

    Attributes:
        whole: observations that are kept whole at present.
    """

    def __init__(
        self, layout: ReplayLayout, part: ObservationPart, rows: int, name: str = ""
    ) -> None:
        self._part = part
        # NaN is not equal to itself, and -0.0 is to 0.0: numbers are compared by their bits.
        is_float = part.dtype.kind == "f"
        self._bits = np.dtype(f"i{part.dtype.itemsize}") if is_float else part.dtype
        self._name = name
        self._layout = layout
        self._n_envs = layout.n_envs
        self._size = rows * layout.n_envs
        self.reach = reach_of(part)
        older = part.frames - 1
        self._shape = self._frames_of(np.empty((1, *part.shape), part.dtype)).shape[1:]
        # The place after the last holds the padding.
        self._block = _block(layout, (self._size + 1, *self._shape[1:]), part.dtype)
        self._has_padding = False
        self._padding = np.zeros(self._shape[1:], self._bits)
        # Rows from an observation's own up to each of its older frames, the oldest first.
        self._history = np.zeros((self._size, older), np.uint8)
        self._last = np.zeros((layout.n_envs, *self._shape), self._bits)  # of each column
        self._last_history = np.full((layout.n_envs, older), _UNKNOWN, np.uint8)
        self._slot = np.zeros(self._size, np.int64)  # of those kept whole
        self._free = list(range(_FIRST_SLOTS))
        self._slots = self._slot_block(_FIRST_SLOTS)
        self._n_slots = _FIRST_SLOTS
        self._has_said_so = False

    @property
    def whole(self) -> int:
        """Observations that are kept whole at present."""
        return self._n_slots - len(self._free)

    def write(self, place: Places, values: Array) -> None:
        """Write rows."""
        place = np.atleast_1d(place)
        column = place % self._n_envs
        if column.size == self._n_envs:
            column = slice(None)  # type: ignore[assignment]  # spares copies
        frames = self._frames_of(values)  # (k, S, ...)
        bits = frames.view(self._bits)
        history = self._history_of(bits, column)
        whole = history[:, 0] == _UNKNOWN
        n_whole = int(np.count_nonzero(whole))
        self._make_room(n_whole)  # which may fail, so before anything is overwritten
        self._release(place)
        self._block.write(place, frames[:, -1])
        self._history[place] = history
        self._last[column] = bits
        self._last_history[column] = history
        if n_whole:
            self._keep_whole(place[whole], frames[whole])

    def read(self, place: IntArray) -> Tensor:
        """Copies of the observations at these places."""
        history = self._history.take(place, axis=0)  # (B, S - 1)
        above = np.zeros((len(place), self._shape[0]), np.int64)
        above[:, :-1] = history
        index = (place[:, None] - above * self._n_envs) % self._size
        index[above == _PADDING] = self._size
        frames = self._block.read(index.reshape(-1)).view(*index.shape, *self._shape[1:])
        whole = history[:, 0] == _UNKNOWN
        if np.count_nonzero(whole):
            rows = torch.from_numpy(np.flatnonzero(whole))
            kept = self._slots.read(self._slot[place[whole]])
            frames.index_copy_(0, rows.to(frames.device, non_blocking=True), kept)
        return self._stacked(frames)

    def state_dict(self, used: int) -> dict[str, Any]:
        """The first places, and what the next observations are compared with."""
        whole = np.flatnonzero(self._history[:used, 0] == _UNKNOWN)
        return {
            "frames": self._block.first(used),
            "history": torch.from_numpy(self._history[:used]),
            "whole_place": torch.from_numpy(whole),
            "whole": self._slots.read(self._slot[whole]),
            "has_padding": self._has_padding,
            "padding": torch.from_numpy(self._padding),
            "last": torch.from_numpy(self._last),
            "last_history": torch.from_numpy(self._last_history),
        }

    def require_fit(self, state: Mapping[str, Any], used: int) -> None:
        """Refuse frames of another shape, dtype or number, and stacks of what is not there."""
        require_like(state, "frames", self._block.first(used))
        require_like(state, "history", self._history[:used])
        require_like(state, "padding", self._padding)
        require_like(state, "last", self._last)
        require_like(state, "last_history", self._last_history)
        for name in ("history", "last_history"):
            rows = np.asarray(state[name])
            if not ((rows <= self.reach) | (rows == _PADDING) | (rows == _UNKNOWN)).all():
                raise damaged(name, f"frames are more than {self.reach} rows away")
        whole = np.flatnonzero(np.asarray(state["history"])[:, 0] == _UNKNOWN)
        require_like(state, "whole_place", whole)
        require_like(state, "whole", self._slots.first(0).new_empty((whole.size, *self._shape)))
        if not (np.asarray(state["whole_place"]) == whole).all():
            raise damaged("whole_place", "these observations are not kept whole")
        if not isinstance(state["has_padding"], bool):
            raise damaged("has_padding", f"{state['has_padding']!r} is no truth value")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self._free = list(range(self._n_slots))
        history = np.asarray(state["history"])
        self._history[: len(history)] = history
        self._history[len(history) :] = 0
        # A stack of two that begins with zeros takes them from the row above the first one.
        above = np.arange(self._size - self._n_envs, self._size)
        self._block.write(above, np.zeros((self._n_envs, *self._shape[1:]), self._part.dtype))
        self._block.load(state["frames"])
        place = np.asarray(state["whole_place"])
        if place.size:
            self._make_room(place.size)
            self._keep_whole(place, state["whole"].numpy(force=True))
        self._has_padding = bool(state["has_padding"])
        self._set_padding(np.asarray(state["padding"]))
        self._last[:] = np.asarray(state["last"])
        self._last_history[:] = np.asarray(state["last_history"])

    def _frames_of(self, values: Array) -> Array:
        """A view (k, S, ...) of observations, the newest frame last."""
        shape, frames = values.shape, self._part.frames
        if self._part.frame_axis == 0:
            return values.reshape(shape[0], frames, shape[1] // frames, *shape[2:])
        each = values.reshape(*shape[:-1], frames, shape[-1] // frames)
        moved: Array = np.moveaxis(each, -2, 1)
        return moved

    def _stacked(self, frames: Tensor) -> Tensor:
        """Observations (B, ...) of frames (B, S, ...)."""
        if self._part.frame_axis == 0:
            return frames.flatten(1, 2)
        return frames.movedim(1, -2).flatten(-2)

    def _history_of(self, frames: Array, column: Any) -> Array:
        """Where the older frames (k, S - 1) of these observations stand, as verified."""
        last, before = self._last[column], self._last_history[column]
        moved_on: Array = np.empty_like(before)
        moved_on[:, :-1] = self._one_row_more(before[:, 1:])
        moved_on[:, -1] = 1
        goes_on = _equal(frames[:, :-1], last[:, 1:])
        moved_on[~goes_on] = _UNKNOWN
        for row in np.flatnonzero((moved_on == _UNKNOWN).any(axis=1)):
            begun = self._beginning(frames[row], last[row], before[row])
            if begun is not None:
                moved_on[row] = begun
            if (moved_on[row] == _UNKNOWN).any():
                moved_on[row, 0] = _UNKNOWN  # which says so of the whole observation
        return moved_on

    def _beginning(self, frames: Array, last: Array, before: Array) -> Array | int | None:
        """The same for an observation (S, ...) that does not go on from the last one."""
        older = frames[:-1]
        if (older == frames[-1]).all():
            return 0
        if not self._has_padding and (older == older[0]).all():
            self._has_padding = True
            self._set_padding(older[0])
        if self._has_padding and (older == self._padding).all():
            return _PADDING
        if (frames == last).all():  # as where a life is lost and the game goes on
            return self._one_row_more(before)
        return None

    def _one_row_more(self, history: Array) -> Array:
        """The distances of the same frames from one row below, if within reach."""
        further: Array = np.where(history < self.reach, history + 1, _UNKNOWN).astype(np.uint8)
        further[history == _PADDING] = _PADDING
        return further

    def _set_padding(self, frame: Array) -> None:
        self._padding[:] = frame
        self._block.write(np.array([self._size]), self._padding[None].view(self._part.dtype))

    def _keep_whole(self, place: IntArray, frames: Array) -> None:
        if not self._has_said_so:
            self._has_said_so = True
            of = f" of {self._name!r}" if self._name else ""
            _log.warning(
                "some observations%s are no continuation of the stack of %d frames before them; "
                "each of these is stored whole, and takes %d times the memory; "
                "Memory(frame_stack=1) stores all whole",
                of,
                self._part.frames,
                self._part.frames,
            )
        slot = np.array([self._free.pop() for _ in range(place.size)])
        self._slot[place] = slot
        self._slots.write(slot, frames)

    def _release(self, place: IntArray) -> None:
        """Free the slots of what is about to be overwritten."""
        lost = place[self._history[place, 0] == _UNKNOWN]
        if lost.size:
            self._free.extend(self._slot[lost].tolist())

    def _make_room(self, count: int) -> None:
        """Have free slots for so many observations."""
        while len(self._free) < count:
            slots = self._slot_block(2 * self._n_slots)
            slots.load(self._slots.first(self._n_slots))
            self._slots = slots
            self._free.extend(range(self._n_slots, 2 * self._n_slots))
            self._n_slots *= 2

    def _slot_block(self, slots: int) -> Block:
        return _block(self._layout, (slots, *self._shape), self._part.dtype)


def _block(layout: ReplayLayout, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Block:
    device = layout.memory.on(layout.device)
    if device.type == "cpu":
        return HostBlock(shape, dtype, layout.device, layout.memory.folder)
    return DeviceBlock(shape, dtype, device)


def _equal(one: Array, other: Array) -> BoolArray:
    equal: BoolArray = (one == other).reshape(len(one), -1).all(axis=1)
    return equal
