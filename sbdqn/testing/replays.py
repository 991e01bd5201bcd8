"""Whether a replay keeps the promises of `sbdqn.protocols.Replay`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from sbdqn.encoding import NotEncodableError, decode, encode
from sbdqn.networks import seeded
from sbdqn.protocols import ObservationPart, Replay, ReplayLayout, ReplaySpec, ahead
from sbdqn.testing.counting import CountingEnvs
from sbdqn.testing.errors import CheckFailedError
from sbdqn.testing.steps import (
    copy_of,
    expect,
    expect_frozen_dataclass,
    expect_methods,
    expect_tensor,
    is_same,
    only_tensor,
    run_steps,
)
from sbdqn.types import Batch, Clock

_GAMMA = 0.9
_CAPACITY = 50
_AROUND_THE_RING = 4 * _CAPACITY
_METHODS = ("gamma", "stored", "sampleable", "seed", "add", "sample", "feedback")
_STATE_METHODS = ("state_dict", "load_state_dict")


def check_replay(spec: ReplaySpec) -> None:
    """Check that every batch of a replay is what the environments did.

    Small replays for 1 and 3 environments and returns of 1 and 3 steps are fed
    with terminations, truncations, unannounced resets and rows that are no
    transitions, until the ring has been overwritten several times. All that is
    drawn is compared with what happened; then come seeds, batches that are drawn at
    once, and the saved state.

    Args:
        spec: an object of your class, which builds the replay.

    Raises:
        CheckFailedError: if it breaks a law; the message names it.

    Example:
        >>> from sbdqn.replay import Uniform
        >>> from sbdqn.testing import check_replay
        >>> check_replay(Uniform())
    """
    for n_envs, n_steps in ((1, 1), (3, 1), (1, 3), (3, 3)):
        part = f"{spec!r} for n_envs={n_envs}, n_steps={n_steps}"
        run_steps("check_replay", _STEPS, _Subject(spec, n_envs, n_steps), part)


class _Subject(NamedTuple):
    """A replay's description, and for what it is to be built."""

    spec: ReplaySpec
    n_envs: int
    n_steps: int

    def layout(self, seed: int = 0) -> ReplayLayout:
        """Of images where there is one environment, of vectors where there are more."""
        is_image = self.n_envs == 1
        return ReplayLayout(
            obs=ObservationPart(
                shape=(1, 1, 3) if is_image else (3,),
                dtype=np.dtype(np.uint8 if is_image else np.float32),
            ),
            n_envs=self.n_envs,
            capacity=_CAPACITY,
            n_steps=self.n_steps,
            gamma=_GAMMA,
            device=torch.device("cpu"),
            seed=np.random.SeedSequence(seed),
        )

    def built(self, steps: int, seed: int = 0) -> tuple[Replay, CountingEnvs]:
        """A replay that was given so many rows, and where they are from."""
        layout = self.layout(seed)
        replay, envs = self.spec.build(layout), CountingEnvs(layout)
        _feed(replay, envs, steps)
        return replay, envs


def _feed(replay: Replay, envs: CountingEnvs, steps: int) -> None:
    for _ in range(steps):
        replay.add(envs.row())


def _draw(replay: Replay, count: int = 32) -> Batch:
    return replay.sample(count, Clock(1_000, 10, 2_000))


def _is_a_frozen_dataclass(subject: _Subject) -> None:
    expect_frozen_dataclass(subject.spec)
    expect_methods(subject.spec, ("nbytes", "build"))


def _nbytes_is_a_positive_integer(subject: _Subject) -> None:
    size = subject.spec.nbytes(subject.layout())
    fits = isinstance(size, int) and not isinstance(size, bool) and size > 0
    advice = "return an int of what build(layout) allocates: Storage.nbytes(layout) and your own"
    expect(fits, "nbytes(layout) to be a positive int", repr(size), advice)


def _builds_an_empty_replay(subject: _Subject) -> None:
    replay, _ = subject.built(0)
    expect_methods(replay, (*_METHODS, *_STATE_METHODS))
    counts = (replay.stored, replay.sampleable)
    expect(counts == (0, 0), "stored and sampleable of 0", counts, "build a fresh replay each time")
    expect(replay.gamma == _GAMMA, "the layout's gamma", replay.gamma, "take it from the layout")


def _counts_are_plausible(subject: _Subject) -> None:
    replay, envs = subject.built(0)
    for _ in range(_CAPACITY // (2 * subject.n_envs)):
        _feed(replay, envs, 1)
        advice = "count a transition when it is added; a row's entry that is not valid is none"
        found = f"stored = {replay.stored}"
        expect(replay.stored == envs.transitions, f"{envs.transitions} stored", found, advice)
        found = f"sampleable = {replay.sampleable}"
        advice = "leave out transitions whose n-step window is open"
        expected = f"at most {envs.complete} sampleable"
        expect(replay.sampleable <= envs.complete, expected, found, advice)
    expect(replay.sampleable > 0, "something to sample by now", "nothing", "see Replay.sampleable")
    _feed(replay, envs, _AROUND_THE_RING)
    fewest, most = 2 * _CAPACITY // 3, _CAPACITY + subject.n_envs - 1
    stored = replay.stored
    expected = f"from {fewest} to {most} stored, of a capacity of {_CAPACITY}"
    advice = "overwrite the oldest when the ring is full, no earlier, and count what is lost"
    expect(fewest <= stored <= most, expected, f"stored = {stored}", advice)
    found = f"sampleable = {replay.sampleable}"
    expect(replay.sampleable <= stored, f"at most {stored} sampleable", found, advice)
    distinct = len(np.unique(only_tensor(_draw(replay, 2_000).obs).flatten(1).numpy(), axis=0))
    expected = f"at most {replay.sampleable} different transitions, all that are sampleable"
    expect(distinct <= replay.sampleable, expected, distinct, "count what can be drawn")


def _a_batch_has_its_shapes_and_dtypes(subject: _Subject) -> None:
    replay, _ = subject.built(_CAPACITY)
    layout = subject.layout()
    part = layout.parts[""]
    obs_dtype = torch.from_numpy(np.empty(0, part.dtype)).dtype
    for count in (1, 7):
        batch = _draw(replay, count)
        expect(isinstance(batch, Batch), "a sbdqn.types.Batch", type(batch).__name__, "return one")
        for name in ("obs", "next_obs"):
            expect_tensor(name, getattr(batch, name), (count, *part.shape), obs_dtype)
        for name in ("action", "index"):
            expect_tensor(name, getattr(batch, name), (count,), torch.int64)
        for name in ("reward", "discount", "weight"):
            expect_tensor(name, getattr(batch, name), (count,))


def _what_is_drawn_has_happened(subject: _Subject) -> None:
    replay, envs = subject.built(0)
    for step in range(_AROUND_THE_RING):
        _feed(replay, envs, 1)
        if step % 5 == 0 and replay.sampleable:
            envs.expect_true(_draw(replay, 16), _GAMMA)
    envs.expect_true(_draw(replay, 256), _GAMMA)


def _what_is_drawn_has_happened_after_feedback_too(subject: _Subject) -> None:
    replay, envs = subject.built(0)
    for step in range(_AROUND_THE_RING):
        _feed(replay, envs, 1)
        if step % 5 == 0 and replay.sampleable:
            batch = _draw(replay, 16)
            envs.expect_true(batch, _GAMMA)
            _expect_weights(batch)
            replay.feedback(batch.index, torch.rand(16) * 10.0 ** (step % 4 - 2))
    replay.feedback(_draw(replay, 16).index, torch.zeros(16))
    envs.expect_true(_draw(replay, 256), _GAMMA)


def _feedback_may_come_late(subject: _Subject) -> None:
    replay, envs = subject.built(_CAPACITY)
    for step in range(_AROUND_THE_RING):
        if step % 20 == 0:
            index = _draw(replay, 64).index
        _feed(replay, envs, 1)
        replay.feedback(index, 10 * torch.rand(64))
        try:
            envs.expect_true(_draw(replay, 16), _GAMMA)
        except CheckFailedError as failure:
            advice = "leave places alone that have been overwritten and are not sampleable again"
            expected = "true transitions after feedback to places that were drawn before the last"
            expect(False, f"{expected} {step % 20 + 1} row(s)", f"one ({failure})", advice)


def _expect_weights(batch: Batch) -> None:
    inside = bool(((batch.weight > 0) & (batch.weight <= 1)).all())
    advice = "divide importance weights by the largest of the batch; 1 where there are none"
    expect(inside, "weights above 0 and at most 1", batch.weight.tolist(), advice)


def _tails_of_episodes_are_drawn(subject: _Subject) -> None:
    replay, envs = subject.built(_CAPACITY)
    tails = envs.tails(_draw(replay, 2_000))
    advice = "at an end, truncation too, all shorter windows are complete"
    expected = f"some of 2000 draws from the last {subject.n_steps - 1} steps of an episode"
    expect(tails > 0 or subject.n_steps == 1, expected, "none", advice)


def _rows_are_copied(subject: _Subject) -> None:
    replay, envs = subject.built(0)
    for _ in range(_CAPACITY):
        row = envs.row()
        replay.add(row)
        for column in row:
            assert isinstance(column, np.ndarray)
            column.fill(1)
    try:
        envs.expect_true(_draw(replay, 256), _GAMMA)
    except CheckFailedError as failure:
        advice = "copy what add is given: environments write into the same arrays again"
        expect(False, "no change when a row's arrays are re-used", f"one ({failure})", advice)


def _a_batch_keeps_its_values_while_rows_are_added(subject: _Subject) -> None:
    replay, envs = subject.built(_CAPACITY)
    batch = _draw(replay)
    before = copy_of(batch)
    _feed(replay, envs, _AROUND_THE_RING)
    advice = "copy out of the ring: a slice of it is a view"
    expect(is_same(before, batch), "the batch as it was drawn", "that it has changed", advice)


def _gamma_may_be_assigned(subject: _Subject) -> None:
    replay, envs = subject.built(_CAPACITY)
    for gamma in (0.5, 1.0):
        replay.gamma = gamma
        envs.expect_true(_draw(replay, 64), gamma)
        _feed(replay, envs, 10)
        envs.expect_true(_draw(replay, 64), gamma)


def _the_seed_alone_decides_what_is_drawn(subject: _Subject) -> None:
    drawn = []
    for global_seed in (1, 2):
        with _global_generators_at(global_seed):
            replay, _ = subject.built(_CAPACITY)
            drawn.append((_draw(replay), _draw(replay)))
    one, other = drawn
    same = is_same(one[0], other[0]) and is_same(one[1], other[1])
    advice = "draw from np.random.default_rng(layout.seed), and from no global generator"
    expect(same, "the same draws from the same seed", "other ones", advice)
    is_random = not torch.equal(one[0].index, one[1].index)
    replay, _ = subject.built(_CAPACITY, seed=1)
    differs = not torch.equal(_draw(replay).index, one[0].index)
    advice = "make the generator of layout.seed"
    expect(differs or not is_random, "other draws from another seed", "the same ones", advice)


def _seed_restarts_the_generator(subject: _Subject) -> None:
    replay, _ = subject.built(_CAPACITY)
    drawn = []
    for _ in range(2):
        replay.seed(np.random.SeedSequence(7))
        drawn.append(_draw(replay))
    advice = "make a new generator in seed()"
    expect(is_same(*drawn), "the same draws after the same seed", "other ones", advice)


def _several_batches_are_those_that_come_one_by_one(subject: _Subject) -> None:
    (replay, envs), (single, same_envs) = (subject.built(_CAPACITY) for _ in range(2))
    together = ahead(replay)
    if together is None:
        return
    for turn in range(20):
        batches = together.sample_several(8, 5, Clock(1_000, 10, 2_000))
        expect(len(batches) == 5, "as many batches as asked for", len(batches), "see AheadReplay")
        for number, batch in enumerate(batches):
            advice = "draw in the same order; if feedback matters, let draws_ahead be False"
            expected = f"batch {number} of 5, {turn} rows later, as `sample` gives it"
            other = _draw(single, 8)
            expect(is_same(batch, other), expected, "another one", advice)
            single.feedback(other.index, 10 * torch.rand(8))
        replay.add(envs.row())
        single.add(same_envs.row())


def _a_loaded_state_continues_to_the_last_bit(subject: _Subject) -> None:
    replay, envs = subject.built(_CAPACITY)
    _feed(replay, envs, 3)
    for _ in range(5):
        replay.feedback(_draw(replay).index, 10 * torch.rand(32))
        _feed(replay, envs, 13)
    loaded, _ = subject.built(0, seed=1)
    loaded.load_state_dict(_saved(replay.state_dict()))
    counts = [(each.stored, each.sampleable) for each in (replay, loaded)]
    advice = "work them out in load_state_dict, or keep them in the state"
    expect(counts[0] == counts[1], f"stored, sampleable = {counts[0]}", counts[1], advice)
    for turn in range(20):
        _expect_same_draws(replay, loaded, turn)
        row = envs.row()
        replay.add(row)
        loaded.add(row)


def _expect_same_draws(replay: Replay, loaded: Replay, turn: int) -> None:
    one, other = _draw(replay), _draw(loaded)
    advice = "state_dict must hold the generator's state, the priorities and the open episodes"
    different = [
        name
        for name, a, b in zip(Batch._fields, one, other, strict=True)
        if not torch.equal(only_tensor(a), only_tensor(b))
    ]
    expected = f"the same batch as without saving, {turn} rows after loading"
    expect(not different, expected, f"another {', '.join(different)}", advice)
    surprise = 10 * torch.rand(32)
    replay.feedback(one.index, surprise)
    loaded.feedback(other.index, surprise)


def _saved(state: dict[str, Any]) -> Any:
    """A state as it comes back from a file."""
    tensors: dict[str, torch.Tensor] = {}
    try:
        text = json.dumps(encode(state, tensors))
    except NotEncodableError as error:
        advice = "turn arrays into tensors with torch.from_numpy"
        expect(False, "tensors and what JSON can hold in state_dict", error, advice)
    return decode(json.loads(text), tensors)


@contextmanager
def _global_generators_at(seed: int) -> Iterator[None]:
    """Seed the generators that no replay should use; put them back afterwards."""
    before, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with seeded(seed, torch.device("cpu")):
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numbers)  # noqa: NPY002


_STEPS = (
    _is_a_frozen_dataclass,
    _nbytes_is_a_positive_integer,
    _builds_an_empty_replay,
    _counts_are_plausible,
    _a_batch_has_its_shapes_and_dtypes,
    _what_is_drawn_has_happened,
    _what_is_drawn_has_happened_after_feedback_too,
    _feedback_may_come_late,
    _tails_of_episodes_are_drawn,
    _rows_are_copied,
    _a_batch_keeps_its_values_while_rows_are_added,
    _gamma_may_be_assigned,
    _the_seed_alone_decides_what_is_drawn,
    _seed_restarts_the_generator,
    _several_batches_are_those_that_come_one_by_one,
    _a_loaded_state_continues_to_the_last_bit,
)
