"""Single frames give back, bit for bit, the stacks that they were taken from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from sbdqn.errors import ReplayMemoryError
from sbdqn.memory import Memory
from sbdqn.protocols import ObservationPart, ReplayLayout, ReplaySpec
from sbdqn.replay import Prioritized, RingReplay, Uniform
from sbdqn.replay.blocks import DeviceBlock
from sbdqn.replay.parts import StackedPart
from sbdqn.types import Arrays, Batch, Clock, Row

GAMMA = 0.9
FRAMES = 4
CPU = torch.device("cpu")
NOW = Clock(0)
PADDINGS = ("repeat", "zero", "custom", "life", "continue", "own")


class Stacks:
    """One environment whose observations are stacks (4, 3, 2) of random frames.

    Args:
        seed: of all that happens.
        padding: what fills the stack that begins an episode: the first frame, zeros,
            another constant frame; `"life"`, where an episode ends but the game goes on
            with the same observation; `"continue"`, where it goes on with the next one;
            or `"own"`, frames that were never seen before.
        still: how often a frame is the same as the one before.
    """

    def __init__(self, seed: int, padding: str, still: float = 0.2) -> None:
        self.rng = np.random.default_rng(seed)
        self.padding = padding
        self.still = still
        self.stack = np.zeros((FRAMES, 3, 2), np.uint8)
        self.games = 0

    def frame(self) -> Any:
        if self.rng.random() < self.still:
            return self.stack[-1]
        return self.rng.integers(0, 256, (3, 2), np.uint8)

    def begin(self) -> Any:
        first, self.games = self.frame(), self.games + 1
        goes_on = self.games > 1 and self.games % 3 != 0
        if self.padding == "life" and goes_on:
            return self.stack
        if self.padding == "continue" and goes_on:
            return self.step()
        older = {"repeat": first, "custom": np.full((3, 2), 7, np.uint8)}.get(self.padding)
        self.stack = np.zeros((FRAMES, 3, 2), np.uint8)
        if self.padding == "own":
            self.stack = self.rng.integers(0, 256, self.stack.shape, np.uint8)
        elif older is not None:
            self.stack[:] = older
        self.stack[-1] = first
        return self.stack

    def step(self) -> Any:
        self.stack = np.concatenate([self.stack[1:], self.frame()[None]])
        return self.stack


def rows(envs: list[Stacks], mode: AutoresetMode, steps: int, shape: Any) -> Iterator[Row]:
    """What a stepper makes of environments whose episodes end in every way.

    The action of a transition is its number, so that a batch says what it is of.
    """
    n_envs, rng = len(envs), np.random.default_rng(99)
    obs = [env.begin() for env in envs]
    first, resetting = np.ones(n_envs, np.bool_), np.zeros(n_envs, np.bool_)
    for step in range(steps):
        end = rng.choice(["", "", "", "", "", "terminated", "truncated"], n_envs)
        terminated, truncated = (end == kind for kind in ("terminated", "truncated"))
        terminated &= ~resetting
        truncated &= ~resetting
        following = [
            env.begin() if resets else env.step()
            for env, resets in zip(envs, resetting, strict=True)
        ]
        yield Row(
            obs=shape(np.stack(obs)),
            action=np.arange(n_envs) + step * n_envs,
            reward=rng.random(n_envs),
            next_obs=shape(np.stack(following)),
            terminated=terminated,
            truncated=truncated,
            first=first,
            valid=~resetting,
        )
        ended = terminated | truncated
        if mode is AutoresetMode.NEXT_STEP:
            first, resetting, obs = resetting, ended, following
            continue
        pairs = zip(envs, following, ended, strict=True)
        obs = [env.begin() if ends else each for env, each, ends in pairs]
        first = ended


class Truth:
    """Every transition that ever was, by its number."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self.columns: dict[int, list[Any]] = {}
        self.at: dict[int, tuple[int, int]] = {}

    def add(self, row: Row) -> None:
        for env in np.flatnonzero(row.valid):
            column = self.columns.setdefault(int(env), [])
            self.at[int(row.action[env])] = (int(env), len(column))
            ended = bool(row.terminated[env] or row.truncated[env])
            here = [np.array(each[env]) for each in (row.obs, row.next_obs)]  # type: ignore[index]
            column.append((*here, row.reward[env], bool(row.terminated[env]), ended))

    def forget(self, steps: int) -> None:
        """Drop the observations that are older, to spare memory."""
        for column in self.columns.values():
            if len(column) > steps:
                column[-steps - 1] = None

    def expect(self, batch: Batch) -> None:
        for place, number in enumerate(batch.action.tolist()):
            env, start = self.at[number]
            window = []
            for step in self.columns[env][start : start + self.n_steps]:
                window.append(step)
                if step[-1]:
                    break
            assert len(window) == self.n_steps or window[-1][-1]
            assert torch.equal(batch.obs[place], torch.from_numpy(window[0][0]))
            assert torch.equal(batch.next_obs[place], torch.from_numpy(window[-1][1]))
            total = sum(GAMMA**k * step[2] for k, step in enumerate(window))
            assert batch.reward[place].item() == pytest.approx(total, rel=1e-5)
            discount = 0.0 if window[-1][3] else GAMMA ** len(window)
            assert batch.discount[place].item() == pytest.approx(discount, rel=1e-5)


def same(obs: Any) -> Any:
    return obs


def channels_last(obs: Any) -> Any:
    return np.ascontiguousarray(obs.transpose(0, 2, 3, 1))


def colours_last(obs: Any) -> Any:
    """(E, 3, 2, 4 * 2): two channels of each frame side by side, as SB3 stacks them."""
    coloured = np.stack([obs, obs[:, :, ::-1] // 2], axis=-1)  # (E, S, H, W, 2)
    return np.ascontiguousarray(coloured.transpose(0, 2, 3, 1, 4).reshape(len(obs), 3, 2, 8))


FORMS: dict[str, tuple[Callable[[Any], Any], ObservationPart]] = {
    "first": (same, ObservationPart((4, 3, 2), np.dtype(np.uint8), FRAMES, 0)),
    "last": (channels_last, ObservationPart((3, 2, 4), np.dtype(np.uint8), FRAMES, -1)),
    "colours": (colours_last, ObservationPart((3, 2, 8), np.dtype(np.uint8), FRAMES, -1)),
}


def built(
    spec: ReplaySpec, part: ObservationPart, n_envs: int, n_steps: int, capacity: int
) -> RingReplay:
    replay: Any = spec.build(
        ReplayLayout(part, n_envs, capacity, n_steps, GAMMA, CPU, np.random.SeedSequence(0))
    )
    return replay


def stacked(replay: RingReplay) -> StackedPart:
    part = replay.storage._parts[""]
    assert isinstance(part, StackedPart)
    return part


@pytest.mark.parametrize("spec", [Uniform(), Prioritized()], ids=["uniform", "prioritized"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(("n_envs", "n_steps"), [(1, 1), (1, 3), (3, 1), (3, 5)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_what_is_read_is_what_the_environment_returned(
    padding: str, n_envs: int, n_steps: int, mode: AutoresetMode, spec: ReplaySpec
) -> None:
    envs = [Stacks(seed, padding) for seed in range(n_envs)]
    replay, truth = built(spec, FORMS["first"][1], n_envs, n_steps, 30 * n_envs), Truth(n_steps)
    drawn = set()
    for step, row in enumerate(rows(envs, mode, 200, same)):
        truth.add(row)
        replay.add(row)
        if step > n_steps and step % 3 == 0:
            batch = replay.sample(16, NOW)
            truth.expect(batch)
            drawn.update(batch.action.tolist())
            replay.feedback(batch.index, torch.rand(16))
    truth.expect(replay.storage.read(np.flatnonzero(replay.storage.span.reshape(-1) > 0)))
    assert len(drawn) > 100 * n_envs  # the ring has been around several times


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_so_it_is_whichever_axis_the_frames_are_stacked_along(form: str, padding: str) -> None:
    shape, part = FORMS[form]
    replay, truth = built(Uniform(), part, 2, 2, 60), Truth(2)
    envs = [Stacks(seed, padding) for seed in range(2)]
    for row in rows(envs, AutoresetMode.NEXT_STEP, 150, shape):
        truth.add(row)
        replay.add(row)
    truth.expect(replay.sample(256, NOW))


@pytest.mark.parametrize("padding", ["repeat", "zero", "custom", "life", "continue"])
def test_whatever_fills_the_first_stacks_single_frames_suffice(
    padding: str, caplog: pytest.LogCaptureFixture
) -> None:
    replay = built(Uniform(), FORMS["first"][1], 2, 1, 100)
    with caplog.at_level(logging.INFO, "sbdqn"):
        # Moving frames: where all stand still, a stack may look like another one for a while.
        for row in rows(
            [Stacks(seed, padding, 0.0) for seed in range(2)], AutoresetMode.SAME_STEP, 300, same
        ):
            replay.add(row)
    assert stacked(replay).whole == 0
    assert caplog.messages == []


def test_what_is_no_stack_is_kept_whole_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replay, truth = built(Uniform(), FORMS["first"][1], 2, 1, 200), Truth(1)
    rng = np.random.default_rng(0)
    with caplog.at_level(logging.INFO, "sbdqn"):
        envs = [Stacks(seed, "repeat") for seed in range(2)]
        for row in rows(envs, AutoresetMode.SAME_STEP, 300, same):
            noise = rng.integers(0, 256, (2, 2, 4, 3, 2), np.uint8)
            noisy = row._replace(obs=noise[0], next_obs=noise[1], first=np.ones(2, np.bool_))
            truth.add(noisy)
            replay.add(noisy)
    truth.expect(replay.sample(256, NOW))
    assert len(caplog.messages) == 1
    assert "stored whole" in caplog.messages[0]
    held = stacked(replay).whole
    assert held > 200
    assert held <= replay.storage.size  # places are used again


def test_where_there_is_no_room_for_a_stack_all_others_are_still_true(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay, truth = built(Uniform(), FORMS["first"][1], 1, 1, 200), Truth(1)

    def full(layout: ReplayLayout, shape: tuple[int, ...], dtype: Any) -> Any:
        raise ReplayMemoryError("there is no room")

    failures = 0
    every = np.ones(1, np.bool_)
    with monkeypatch.context() as patched:
        patched.setattr("sbdqn.replay.parts._block", full)
        for row in rows([Stacks(0, "own", 0.0)], AutoresetMode.SAME_STEP, 150, same):
            again = row._replace(first=every) if failures else row  # as after an error in `learn`
            try:
                replay.add(again)
            except ReplayMemoryError:
                failures += 1
            else:
                truth.add(again)
    assert failures > 1
    for row in rows([Stacks(1, "own", 0.0)], AutoresetMode.SAME_STEP, 190, same):
        late = row._replace(action=row.action + 1_000)
        truth.add(late)
        replay.add(late)
        truth.expect(replay.storage.read(np.flatnonzero(replay.storage.span.reshape(-1) > 0)))


def test_an_environment_that_skips_frames_in_its_stack_is_read_as_it_is() -> None:
    part = FORMS["first"][1]
    replay, truth = built(Uniform(), part, 1, 1, 60), Truth(1)

    class Dilated(Stacks):
        def step(self) -> Any:
            super().step()
            return super().step()  # two frames further: never a continuation

    for row in rows([Dilated(0, "repeat", 0.0)], AutoresetMode.NEXT_STEP, 150, same):
        truth.add(row)
        replay.add(row)
    truth.expect(replay.sample(128, NOW))


def test_the_capacity_is_kept_though_rows_near_the_write_head_cannot_be_drawn() -> None:
    whole = built(Uniform(), ObservationPart((4, 3, 2), np.dtype(np.uint8)), 3, 2, 60)
    frames = built(Uniform(), FORMS["first"][1], 3, 2, 60)
    envs = [Stacks(seed, "zero") for seed in range(3)]
    for row in rows(envs, AutoresetMode.NEXT_STEP, 200, same):
        whole.add(row)
        frames.add(row)
        assert frames.stored == whole.stored
        assert frames.sampleable == whole.sampleable
    one, other = (
        replay.storage.read(np.flatnonzero(replay.storage.span.reshape(-1) > 0))
        for replay in (whole, frames)
    )
    assert sorted(one.action.tolist()) == sorted(other.action.tolist())


def test_a_million_transitions_of_atari_are_estimated_at_seven_gigabytes() -> None:
    part = ObservationPart((4, 84, 84), np.dtype(np.uint8), FRAMES)
    seed = np.random.SeedSequence(0)
    layout = ReplayLayout(part, 8, 1_000_000, 1, 0.99, CPU, seed)
    assert 7.06e9 < Uniform().nbytes(layout) < 7.15e9


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_loaded_state_goes_on_with_the_same_stacks(padding: str) -> None:
    part = FORMS["first"][1]
    envs = [Stacks(seed, padding) for seed in range(2)]
    replay, truth = built(Uniform(), part, 2, 3, 50), Truth(3)
    loaded = built(Uniform(), part, 2, 3, 50)
    for step, row in enumerate(rows(envs, AutoresetMode.SAME_STEP, 170, same)):
        truth.add(row)
        replay.add(row)
        if step == 90:
            loaded.load_state_dict(replay.state_dict())
        if step > 90:
            loaded.add(row)
            one, other = replay.sample(8, NOW), loaded.sample(8, NOW)
            for name, a, b in zip(Batch._fields, one, other, strict=True):
                assert torch.equal(a, b), name  # type: ignore[arg-type]
            truth.expect(other)
            assert stacked(loaded).whole == stacked(replay).whole


def test_nothing_of_what_a_replay_held_before_it_was_loaded_is_read() -> None:
    def pairs(obs: Any) -> Any:
        return np.ascontiguousarray(obs[:, 2:])

    part = ObservationPart((2, 3, 2), np.dtype(np.uint8), frames=2)
    source, truth = built(Uniform(), part, 1, 1, 50), Truth(1)
    for row in rows([Stacks(0, "zero", 0.0)], AutoresetMode.NEXT_STEP, 10, pairs):
        truth.add(row)
        source.add(row)
    loaded = built(Uniform(), part, 1, 1, 50)
    for row in rows([Stacks(1, "zero", 0.0)], AutoresetMode.NEXT_STEP, 120, pairs):
        loaded.add(row)
    loaded.load_state_dict(source.state_dict())
    truth.expect(loaded.sample(64, NOW))


def test_a_file_holds_what_memory_would(tmp_path: Path) -> None:
    memory = Memory(device="cpu", folder=tmp_path)
    seed = np.random.SeedSequence(0)
    layout = ReplayLayout(FORMS["first"][1], 2, 50, 1, GAMMA, CPU, seed, memory)
    replay, truth = Uniform().build(layout), Truth(1)
    envs = [Stacks(seed, "zero") for seed in range(2)]
    for row in rows(envs, AutoresetMode.NEXT_STEP, 120, same):
        truth.add(row)
        replay.add(row)
    truth.expect(replay.sample(64, NOW))
    assert isinstance(replay.storage._parts[""]._block._values, np.memmap)  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []  # nothing to clean up
    assert Uniform().nbytes(layout) < 10_000


@pytest.mark.parametrize("padding", PADDINGS)
def test_on_another_device_frames_are_read_the_same(
    padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sbdqn.replay import parts

    def on_device(layout: ReplayLayout, shape: tuple[int, ...], dtype: Any) -> DeviceBlock:
        return DeviceBlock(shape, dtype, CPU)

    monkeypatch.setattr(parts, "_block", on_device)  # its operations are torch's on any device
    replay, truth = built(Uniform(), FORMS["first"][1], 2, 1, 50), Truth(1)
    envs = [Stacks(seed, padding) for seed in range(2)]
    for row in rows(envs, AutoresetMode.NEXT_STEP, 120, same):
        truth.add(row)
        replay.add(row)
    truth.expect(replay.sample(64, NOW))


def test_another_device_than_the_cpu_has_torchs_tensors() -> None:
    meta = Memory(device="meta")  # a device of torch's that holds no values
    seed = np.random.SeedSequence(0)
    for part in (FORMS["first"][1], ObservationPart((3,), np.dtype(np.float32))):
        replay: Any = Uniform().build(ReplayLayout(part, 2, 50, 1, GAMMA, CPU, seed, meta))
        assert isinstance(replay.storage._parts[""]._block, DeviceBlock)


def test_parts_of_an_observation_are_kept_each_in_its_own_way() -> None:
    obs = {
        "camera": FORMS["first"][1],
        "speed": ObservationPart((2,), np.dtype(np.float32)),
        "gear": ObservationPart((), np.dtype(np.int64)),
    }
    seed = np.random.SeedSequence(0)
    replay = Uniform().build(ReplayLayout(obs, 2, 60, 2, GAMMA, CPU, seed))

    def parts(stack: Any) -> Arrays:
        """Each observation once more, as what can be told from its newest frame."""
        newest = stack[:, -1, 0].astype(np.float32) / 3  # (E, 2)
        return {"camera": stack, "speed": newest, "gear": stack[:, -1, 1, 1].astype(np.int64)}

    truth = Truth(2)
    envs = [Stacks(seed, "repeat") for seed in range(2)]
    for row in rows(envs, AutoresetMode.NEXT_STEP, 150, same):
        truth.add(row)
        replay.add(row._replace(obs=parts(row.obs), next_obs=parts(row.next_obs)))
    batch: Any = replay.sample(128, NOW)
    truth.expect(batch._replace(obs=batch.obs["camera"], next_obs=batch.next_obs["camera"]))
    for side in (batch.obs, batch.next_obs):
        expected: Any = parts(side["camera"].numpy())
        assert side.keys() == expected.keys()
        for name, values in expected.items():
            assert side[name].dtype == torch.from_numpy(values).dtype
            assert torch.equal(side[name], torch.from_numpy(values))


def test_numbers_are_kept_by_their_bits() -> None:
    part = ObservationPart((2, 2), np.dtype(np.float32), frames=2)
    frames = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [np.nan, 2.0], [np.nan, 2.0]], "f4")
    frames = np.concatenate([frames, frames])
    stacks = np.stack([frames[:-1], frames[1:]], axis=1)
    replay: Any = built(Uniform(), part, 1, 1, 30)
    add(replay, Truth(1), list(stacks), 0)
    batch = replay.storage.read(np.flatnonzero(replay.storage.span.reshape(-1) > 0))
    for number, obs in zip(batch.action.tolist(), batch.obs, strict=True):
        assert obs.numpy().tobytes() == stacks[number].tobytes()
    assert stacked(replay).whole == 0


def one_by_one(observations: list[Any], capacity: int = 60) -> tuple[RingReplay, Truth]:
    """A replay of a single episode with these observations."""
    replay, truth = built(Uniform(), FORMS["first"][1], 1, 1, capacity), Truth(1)
    add(replay, truth, observations, 0)
    return replay, truth


def add(replay: RingReplay, truth: Truth, observations: list[Any], number: int) -> None:
    never = np.zeros(1, np.bool_)
    for step, (obs, next_obs) in enumerate(pairwise(observations)):
        row = Row(
            obs[None],
            np.array([number + step]),
            np.zeros(1),
            next_obs[None],
            never,
            never,
            np.array([step == 0]),
            ~never,
        )
        truth.add(row)
        replay.add(row)


@pytest.mark.parametrize("repeats", range(14))
@pytest.mark.parametrize("moves", [1, 2, 3, 5])
def test_an_observation_that_repeats_is_read_as_it_is(moves: int, repeats: int) -> None:
    env = Stacks(0, "zero", 0.0)
    observations = [env.begin(), *(env.step() for _ in range(moves))]
    observations += [observations[-1]] * repeats
    observations += [env.step() for _ in range(6)]
    replay, truth = one_by_one(observations)
    truth.expect(replay.sample(200, NOW))


def test_a_loaded_padding_is_not_replaced_by_a_later_one() -> None:
    env = Stacks(0, "custom", 0.0)
    replay, truth = one_by_one([env.begin(), *(env.step() for _ in range(6))])
    loaded = built(Uniform(), FORMS["first"][1], 1, 1, 60)
    loaded.load_state_dict(replay.state_dict())
    other = np.concatenate([np.full((3, 3, 2), 9, np.uint8), env.frame()[None]])
    env.stack = other
    truth.columns[0][-1] = (*truth.columns[0][-1][:-1], True)  # the next one is another episode
    add(loaded, truth, [other, *(env.step() for _ in range(6))], 6)
    batch = loaded.sample(200, NOW)
    assert set(batch.action.tolist()) == set(range(12))
    truth.expect(batch)


def test_parts_are_loaded_by_their_names_in_whatever_order_the_space_has_them() -> None:
    one = ObservationPart((2,), np.dtype(np.float32))
    source, loaded = (
        Uniform().build(
            ReplayLayout(dict.fromkeys(names, one), 1, 20, 1, GAMMA, CPU, np.random.SeedSequence(0))
        )
        for names in (("left", "right"), ("right", "left"))
    )
    no, yes = np.zeros(1, np.bool_), np.ones(1, np.bool_)
    obs: Arrays = {
        name: np.full((1, 2), at, np.float32) for at, name in enumerate(("left", "right"))
    }
    for _ in range(5):
        source.add(Row(obs, np.zeros(1, np.int64), np.zeros(1), obs, no, no, yes, yes))
    loaded.load_state_dict(source.state_dict())
    batch: Any = loaded.sample(4, NOW).obs
    assert (batch["left"] == 0).all()
    assert (batch["right"] == 1).all()
