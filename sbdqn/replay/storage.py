"""The ring that transitions are kept in, and n-step returns read from it.

Every environment has a column of its own. A column is a run of observations in
the order in which they were seen; between two of them stand the action, the
reward and whether the episode terminated. An episode of L transitions takes
L + 1 rows: its true last observation has a row too, so the successor of a
transition is always the row below, and no observation is stored twice.

Columns advance on their own. Whatever the autoreset mode, the same experience
leaves the same column behind.

How an observation is kept is its parts' business (`sbdqn.replay.parts`). A part
that keeps single frames needs some rows above an observation's own: what is that
near to the write head cannot be sampled.

What a batch needs of a transition besides its observations is worked out once,
when its n-step window is complete, and kept in one record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from sbdqn.errors import ConfigurationError, SpaceError
from sbdqn.observations import take
from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay.blocks import Places, indexing
from sbdqn.replay.parts import Part, nbytes_of, part_of, reach_of
from sbdqn.replay.states import damaged, require_integers, require_like
from sbdqn.types import Array, Arrays, Batch, BoolArray, IntArray, Row, Tensors

_OPEN = -1  # a transition whose n-step window is not complete yet
_MOST_STEPS = 1 << 62  # of an episode
_PLACES_AT_ONCE = 1 << 16  # whose records are worked out again together
_NOTHING = 0  # no transition: never written, overwritten, or a last observation

_RECORD = np.dtype(
    [
        ("action", np.int64),
        ("following", np.int64),  # the place of the observation that is bootstrapped from
        ("return", np.float32),
        ("discount", np.float32),
    ]
)


class Storage:
    """A preallocated ring of transitions with exact n-step returns.

    Places are counted over the flattened (T, E) ring: row t of environment e is
    `t * E + e`.

    Args:
        layout: what to hold.

    Raises:
        ConfigurationError: if the capacity does not hold one n-step window for
            each environment.

    Attributes:
        gamma: discount per step.
        stored: transitions held, those with an open window too.
        sampleable: transitions with a complete window.
        span: (T, E) rewards that each transition's return really has: fewer
            than `n_steps` where the episode ends first; below 1 where there is
            nothing to sample.
        size: places in the ring.
        used: places that have been written so far, the first ones of the ring.
        on_change: told of places that have become sampleable (True) or are so no
            longer (False), but not by `load_state_dict`; may be assigned.
    """

    def __init__(self, layout: ReplayLayout) -> None:
        self.n_envs = layout.n_envs
        self.n_steps = layout.n_steps
        self.rows = rows_for(layout)
        self._layout = layout
        reach = _reach(layout)
        if self.rows - reach < layout.n_steps + 2:
            least = layout.n_steps + 1
            raise ConfigurationError(
                f"buffer_size={layout.capacity} gives each of {layout.n_envs} environments "
                f"{self.rows - 1 - reach} transitions, fewer than n_steps + 1 = {least}; make "
                f"buffer_size at least {layout.n_envs * least}"
            )
        self.device = layout.device
        self._on_cpu = layout.device.type == "cpu"
        self.size = self.rows * self.n_envs
        self._parts = {name: part_of(layout, name, self.rows) for name in layout.parts}
        self._only = layout.obs if isinstance(layout.obs, ObservationPart) else None
        self._whole: Part | None = None if self._only is None else self._parts[""]
        self._below = reach * self.n_envs  # from what is written to what is lost by it
        self._record = np.zeros(self.size, dtype=_RECORD)
        self._action, self._following = self._record["action"], self._record["following"]
        self._return, self._discount = self._record["return"], self._record["discount"]
        # A return of one reward is that reward.
        is_sum = layout.n_steps > 1
        self._reward = np.zeros(self.size, dtype=np.float32) if is_sum else self._return
        self._terminated = np.zeros(self.size, dtype=np.bool_)
        self._span = np.zeros(self.size, dtype=np.int32)
        self._all = np.arange(self.n_envs)
        # Of the next observation to act on.
        self._place: Places = 0 if self.n_envs == 1 else self._all.copy()
        # To add a number to an array, NumPy makes an array of it each time.
        of_places: Any = int if self.n_envs == 1 else np.atleast_1d
        self._row, self._ring = of_places(self.n_envs), of_places(self.size)
        self._to_oldest = of_places((self.n_steps - 1) * self.n_envs)  # of the rewards in a window
        # Of the open episode; not counted on once all have n_steps transitions or more.
        self._length = np.zeros(self.n_envs, dtype=np.int64)
        self._are_long = False
        self._window = np.arange(self.n_steps) * self.n_envs
        self._is_stale = False  # whether records were written with another gamma
        self._one = np.ones(0, dtype=np.float32)
        self.used = 0
        self.stored = 0
        self.sampleable = 0
        self.on_change: Callable[[IntArray, bool], None] | None = None
        self._gamma = self.gamma = layout.gamma

    @staticmethod
    def nbytes(layout: ReplayLayout) -> int:
        """Bytes of memory that a storage of this layout allocates, its file not counted."""
        places = rows_for(layout) * layout.n_envs
        reward = 4 if layout.n_steps > 1 else 0
        beside_obs = _RECORD.itemsize + reward + 1 + 4  # and terminated, and span
        obs = sum(nbytes_of(part, places) for part in layout.parts.values())
        return places * beside_obs + (obs if layout.memory.folder is None else 0)

    @property
    def gamma(self) -> float:
        """Discount per step."""
        return self._gamma

    @gamma.setter
    def gamma(self, gamma: float) -> None:
        changes = gamma != self._gamma
        self._gamma = gamma
        steps = np.arange(self.n_steps + 1)
        powers = np.float64(gamma) ** steps
        self._discounts = powers.astype(np.float32)  # by span
        counted = steps[:-1] < steps[:, None]  # (span, step within the window)
        self._reward_weights = (counted * powers[:-1]).astype(np.float32)
        self._is_stale = self.sampleable > 0 and (changes or self._is_stale)

    @property
    def span(self) -> Array:
        """A view (T, E) of what `span` is said to be above."""
        return self._span.reshape(self.rows, self.n_envs)

    def add(self, row: Row) -> None:
        """Store the transitions of one step; copies what it keeps."""
        self._require_fit(row)
        if _every(row.valid):
            self._add(self._all, row)
        elif _some(row.valid):
            envs = np.flatnonzero(row.valid)
            self._add(envs, Row._make(take(column, envs) for column in row))

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Places (count,) drawn uniformly, with replacement, of sampleable ones."""
        assert self.sampleable
        index = self._draw_at_most(count, rng)
        while index.size < count:
            index = np.concatenate((index, self._draw_at_most(count - index.size, rng)))
        return index

    def draw_several(self, size: int, count: int, rng: np.random.Generator) -> IntArray:
        """Places (count * size,), the same as `count` calls of `draw` one after the other."""
        before = rng.bit_generator.state
        each = _with_spare(size)
        index = self._draw_any(count * each, rng).reshape(count, each)
        can_be_taken = self._span[index] > 0
        is_taken = can_be_taken & (can_be_taken.cumsum(axis=1) <= size)
        taken = index[is_taken]
        if taken.size < count * size:  # one of the calls would have drawn again
            rng.bit_generator.state = before
            taken = np.concatenate([self.draw(size, rng) for _ in range(count)])
        return taken

    def _draw_at_most(self, count: int, rng: np.random.Generator) -> IntArray:
        """At most `count` sampleable places, of some more that are drawn."""
        index = self._draw_any(_with_spare(count), rng)
        return index[self._span[index] > 0][:count]

    def _draw_any(self, count: int, rng: np.random.Generator) -> IntArray:
        """Places (count,), sampleable or not."""
        # Generator.integers takes several times as long.
        return (rng.random(count) * self.used).astype(np.int64)

    def read(self, index: IntArray, weight: Array | None = None) -> Batch:
        """The transitions at sampleable places (B,).

        Args:
            index: the places.
            weight: (B,) float32 importance weights; None for 1.
        """
        if self._is_stale:
            self._write_records_again(index)
        record = self._record.take(index)  # (B,)
        return Batch(
            obs=self._read_obs(index),
            action=self._send(record["action"]),
            reward=self._send(record["return"]),
            next_obs=self._read_obs(record["following"]),
            discount=self._send(record["discount"]),
            weight=self._ones(len(index)) if weight is None else self._send(weight),
            index=torch.from_numpy(index),
        )

    def state_dict(self) -> dict[str, Any]:
        """Views of the rows in use, and the counters."""
        used = self.used
        return {
            "holds": self._holds(),
            "obs": {name: part.state_dict(used) for name, part in self._parts.items()},
            "action": torch.from_numpy(self._action[:used]),
            "reward": torch.from_numpy(self._reward[:used]),
            "terminated": torch.from_numpy(self._terminated[:used]),
            "span": torch.from_numpy(self._span[:used]),
            "row": (np.atleast_1d(self._place) // self.n_envs).tolist(),
            "length": self._length.tolist(),
        }

    def require_fit(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that `load_state_dict` could not become.

        Raises:
            ConfigurationError: if the state is of another size or number of
                environments, other observations, or another `n_steps`.
            CheckpointError: if it is damaged.
        """
        self._require_same(state["holds"])
        used = len(state["action"])
        if used % self.n_envs or used > self.size:
            raise damaged("action", f"there cannot be {used} places in use of {self.size}")
        for name in ("action", "reward", "terminated", "span"):
            require_like(state, name, getattr(self, f"_{name}")[:used])
        span = np.asarray(state["span"])
        if used and not _OPEN <= span.min() <= span.max() <= self.n_steps:
            raise damaged("span", f"its numbers are not from {_OPEN} to {self.n_steps}")
        require_integers(state, "row", self.n_envs, self.rows)
        require_integers(state, "length", self.n_envs, _MOST_STEPS)
        if set(state["obs"]) != set(self._parts):
            raise damaged("obs", f"its parts are {list(state['obs'])}, not {list(self._parts)}")
        for name, part in self._parts.items():
            part.require_fit(state["obs"][name], used)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described, or, if that does not fit, stay as it is.

        Raises:
            ConfigurationError: as `require_fit`.
            CheckpointError: as `require_fit`.
        """
        self.require_fit(state)
        used = len(state["action"])
        for name, part in self._parts.items():  # spaces are equal in any order
            part.load_state_dict(state["obs"][name])
        for name in ("action", "reward", "terminated", "span"):
            getattr(self, f"_{name}")[:used] = np.asarray(state[name])
        self._span[used:] = _NOTHING
        self._move(self._all, np.asarray(state["row"]) * self.n_envs + self._all)
        self._length[:] = state["length"]
        self._are_long = _every(self._length >= self.n_steps)
        self.used = used
        self.stored = int(np.count_nonzero(self._span != _NOTHING))
        complete = np.flatnonzero(self._span > 0)
        for begin in range(0, complete.size, _PLACES_AT_ONCE):
            self._write_records_again(complete[begin : begin + _PLACES_AT_ONCE])
        self.sampleable = complete.size
        self._is_stale = False

    def _require_same(self, given: Mapping[str, Any]) -> None:
        """Refuse what a replay of another shape says of itself, and say what would help."""
        mine = self._holds()
        if set(given) != set(mine):
            raise damaged("holds", f"it names {list(given)}, not {list(mine)}")
        for name in ("environments", "n_steps", "rows"):
            if type(given[name]) is not int or given[name] < 1:
                raise damaged(name, f"{given[name]!r} is no number of them")
        if not isinstance(given["observations"], dict):
            raise damaged("observations", f"it is a {type(given['observations']).__name__}")
        differs = {name: given[name] for name in mine if given[name] != mine[name]}
        if not differs:
            return
        name = next(iter(differs))
        capacity = (given["rows"] - 1 - self._below // self.n_envs) * given["environments"]
        advice = {
            "environments": f"make the model with n_envs={given['environments']}",
            "n_steps": f"make the model with n_steps={given['n_steps']}",
            "observations": "use the environment, and the frame_stack of replay_memory, that it "
            "was filled with",
            "rows": f"make the model with buffer_size={capacity}",
        }
        raise ConfigurationError(
            f"the {name} of the stored replay are {given[name]}, and of this one {mine[name]}; "
            f"they must be equal: {advice[name]}"
        )

    def _holds(self) -> dict[str, Any]:
        """What must be equal for a state to be taken over."""
        return {
            "environments": self.n_envs,
            "n_steps": self.n_steps,
            "observations": {
                name: [part.dtype.name, *part.shape, "in frames", part.frames, part.frame_axis]
                if part.frames > 1
                else [part.dtype.name, *part.shape]
                for name, part in self._layout.parts.items()
            },
            "rows": self.rows,  # last: it depends on the others
        }

    def _require_fit(self, row: Row) -> None:
        only = self._only
        for obs in (row.obs, row.next_obs):
            if only is None or isinstance(obs, dict):
                self._require_parts(obs if isinstance(obs, dict) else {"": obs})
            elif obs.shape[1:] != only.shape or obs.dtype != only.dtype:
                _refuse(only, obs)

    def _require_parts(self, given: dict[str, Array]) -> None:
        parts = self._layout.parts
        if given.keys() != parts.keys():
            raise SpaceError(
                f"this replay holds observations with the parts {list(parts)}, and was given "
                f"{list(given)}; see ObservationAdapter"
            )
        for name, part in parts.items():
            if given[name].shape[1:] != part.shape or given[name].dtype != part.dtype:
                _refuse(part, given[name], f" as the part {name!r}")

    def _add(self, envs: IntArray, row: Row) -> None:
        """Store a row that has an entry for each of these environments."""
        if _some(row.first):
            self._begin(envs[row.first], take(row.obs, row.first))
        is_all = envs is self._all
        place = self._place if is_all else self._place_of(envs)
        below = (place + self._row) % self._ring
        self._write_obs(below, row.next_obs)
        here = indexing(place)
        self._action[here] = row.action
        self._reward[here] = row.reward
        self._terminated[here] = row.terminated
        self.stored += len(envs)
        if is_all:
            self._place = below
        else:
            self._move(envs, below)
        oldest = place
        if self.n_steps > 1:
            self._span[here] = _OPEN
            oldest = (place - self._to_oldest) % self._ring
        if self._are_long:
            self._complete(oldest, below, self.n_steps, row.terminated)
        else:
            is_long = self._lengthen(envs)
            self._complete_where(is_long, oldest, below, self.n_steps, row.terminated)
        if _some(row.terminated) or _some(row.truncated):
            ended = row.terminated | row.truncated
            self._close(envs[ended], row.terminated[ended])

    def _begin(self, envs: IntArray, obs: Arrays) -> None:
        """Write the first observations of episodes; those that are open have been given up."""
        given_up = envs[self._length[envs] > 0]
        if given_up.size:
            self._close(given_up, np.zeros(given_up.size, dtype=np.bool_))
        self._write_obs(self._place_of(envs), obs)

    def _lengthen(self, envs: IntArray) -> BoolArray:
        """Count a transition more; says where there are enough for a whole window."""
        self._length[envs] += 1
        is_long: BoolArray = self._length >= self.n_steps
        self._are_long = _every(is_long)
        return is_long[envs]

    def _write_obs(self, place: Places, obs: Arrays) -> None:
        self._lose((place + self._below) % self.size if self._below else place)
        if isinstance(obs, dict):
            for name, part in self._parts.items():
                part.write(place, obs[name])
        else:
            assert self._whole is not None
            self._whole.write(place, obs)
        if self.used < self.size:
            lowest = place if isinstance(place, int) else max(place.tolist())
            self.used = max(self.used, (lowest // self.n_envs + 1) * self.n_envs)

    def _lose(self, place: Places) -> None:
        """What is overwritten, or lacks what was, is a transition no longer."""
        here = indexing(place)
        lost = int(np.count_nonzero(self._span[here]))
        if lost:
            # None has an open window: those are close above the newest observations.
            self.stored -= lost
            self.sampleable -= lost
            lost_place = np.atleast_1d(place)[self._span[here] > 0]
            self._span[here] = _NOTHING
            if self.on_change is not None:
                self.on_change(lost_place, False)

    def _read_obs(self, place: IntArray) -> Tensors:
        if self._whole is not None:
            return self._whole.read(place)
        return {name: part.read(place) for name, part in self._parts.items()}

    def _ones(self, count: int) -> Tensor:
        if not self._on_cpu:
            return torch.ones(count, device=self.device)
        if len(self._one) < count:
            self._one = np.ones(count, dtype=np.float32)
        # A batch may be written to. Torch takes several times as long to make it.
        return torch.from_numpy(self._one[:count].copy())

    def _send(self, values: Array) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor if self._on_cpu else tensor.to(self.device, non_blocking=True)

    def _complete_where(
        self,
        mask: BoolArray,
        place: Places,
        following: Places,
        span: int,
        terminated: BoolArray,
    ) -> None:
        """`_complete` those that the mask is True for, if any."""
        if _every(mask):
            self._complete(place, following, span, terminated)
        elif _some(mask):
            place, following = np.atleast_1d(place)[mask], np.atleast_1d(following)[mask]
            self._complete(place, following, span, terminated[mask])

    def _complete(self, place: Places, following: Places, span: int, terminated: BoolArray) -> None:
        """Windows are complete: of so many rewards, up to these newest observations."""
        self._write_records(place, following, span, terminated)
        self._span[indexing(place)] = span
        self.sampleable += len(terminated)
        if self.on_change is not None:
            self.on_change(np.atleast_1d(place), True)

    def _write_records(
        self, place: Places, following: Places, span: int | Array, terminated: BoolArray
    ) -> None:
        """Work out what depends on the windows of these transitions."""
        here = indexing(place)
        discount = self._discounts[span]
        self._discount[here] = discount * ~terminated if _some(terminated) else discount
        self._following[here] = following
        if self.n_steps > 1:
            window = np.add.outer(place, self._window)  # (B, n)
            rewards = self._reward.take(window, mode="wrap") * self._reward_weights[span]
            self._return[here] = rewards.sum(axis=-1)

    def _write_records_again(self, place: IntArray) -> None:
        span = self._span[place]
        following = (place + span * self.n_envs) % self.size
        self._write_records(place, following, span, self._terminated[following - self.n_envs])

    def _close(self, envs: IntArray, terminated: BoolArray) -> None:
        """End the open episodes: all their shorter tails become sampleable."""
        newest, length = self._place_of(envs), self._length[envs]
        for span in range(1, self.n_steps):
            place = (newest - span * self.n_envs) % self.size
            self._complete_where(length >= span, place, newest, span, terminated)
        self._length[envs] = 0
        self._are_long = False
        self._move(envs, (newest + self._row) % self._ring)

    def _place_of(self, envs: IntArray) -> IntArray:
        """Where the next observations of these environments to act on belong."""
        return np.atleast_1d(self._place)[envs]

    def _move(self, envs: IntArray, place: IntArray) -> None:
        """Let these environments go on at these places."""
        if isinstance(self._place, int):
            self._place = int(place[0])
        else:
            self._place[envs] = place


def _with_spare(count: int) -> int:
    """Places to draw so that most likely so many of them are sampleable."""
    return count + count // 4 + 8


def _some(mask: BoolArray) -> bool:
    """Whether one is True; NumPy's `any` takes ten times as long."""
    return 1 in mask.tobytes()


def _every(mask: BoolArray) -> bool:
    """Whether all are True; NumPy's `all` takes ten times as long."""
    return 0 not in mask.tobytes()


def _refuse(part: ObservationPart, given: Array, of: str = "") -> NoReturn:
    raise SpaceError(
        f"this replay holds observations of shape {part.shape} and dtype {part.dtype}{of}, and was "
        f"given shape {given.shape[1:]} and dtype {given.dtype}; see ObservationAdapter"
    )


def rows_for(layout: ReplayLayout) -> int:
    """Rows of the ring: each environment's share of the capacity, a last one, and the reach."""
    return -(-layout.capacity // layout.n_envs) + 1 + _reach(layout)


def _reach(layout: ReplayLayout) -> int:
    return max(map(reach_of, layout.parts.values()))
