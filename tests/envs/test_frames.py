"""Which observations are stacks of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FrameStackObservation
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from sbdqn.envs import stacked_frames, with_frames
from sbdqn.errors import ConfigurationError
from sbdqn.memory import Memory
from sbdqn.protocols import ObservationPart
from tests.environments import CountingEnv, DictCountingEnv, PictureEnv
from tests.warnings_of_workers import FORK

pytestmark = FORK
BYTES, FLOATS = np.dtype(np.uint8), np.dtype(np.float32)


def stacked(kind: Any = PictureEnv) -> Any:
    return FrameStackObservation(kind(), 3)


@pytest.mark.parametrize("kind", [PictureEnv, DictCountingEnv, CountingEnv])
def test_gymnasiums_wrapper_says_how_many_it_stacks(kind: Any) -> None:
    assert stacked_frames(SyncVectorEnv([lambda: stacked(kind)] * 2)) == 3


def test_so_it_does_in_processes_and_within_wrappers() -> None:
    workers = AsyncVectorEnv([stacked] * 2)
    assert stacked_frames(workers) == 3
    workers.close()
    assert stacked_frames(workers) == 1  # nobody to ask
    env = gym.wrappers.RecordEpisodeStatistics(stacked())
    assert stacked_frames(RecordEpisodeStatistics(SyncVectorEnv([lambda: env]))) == 3


def test_others_stack_none() -> None:
    assert stacked_frames(SyncVectorEnv([PictureEnv])) == 1
    assert stacked_frames(gym.make_vec("CartPole-v1", 2, "vector_entry_point")) == 1


@pytest.fixture
def atari(monkeypatch: pytest.MonkeyPatch) -> Iterator[VectorEnv[Any, Any, Any]]:
    ale = pytest.importorskip("ale_py")
    # It writes its mode into the metadata of all vector environments.
    monkeypatch.setattr(VectorEnv, "metadata", dict(VectorEnv.metadata))
    env = ale.vector_env.AtariVectorEnv("pong", num_envs=1, stack_num=3)
    yield env
    env.close()


def test_ales_vector_environment_has_them_in_its_shape(atari: VectorEnv[Any, Any, Any]) -> None:
    assert stacked_frames(atari) == 3


# -- what becomes of a layout --------------------------------------------------------------

IMAGE = ObservationPart((4, 84, 84), BYTES)


def test_by_default_images_are_framed_as_the_environment_says() -> None:
    assert with_frames(IMAGE, Memory(), 4) == ObservationPart((4, 84, 84), BYTES, 4, 0)
    assert with_frames(IMAGE, Memory(), 3) == IMAGE  # another shape than that of a stack
    assert with_frames(IMAGE, Memory(), 1) == IMAGE
    vectors = ObservationPart((4, 8), FLOATS)
    assert with_frames(vectors, Memory(), 4) == vectors
    many = ObservationPart((130, 4, 4), BYTES)
    assert with_frames(many, Memory(), 130) == many


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 84, 84), 0),
        ((84, 84, 4), -1),
        ((12, 84, 84), 0),
        ((84, 84, 12), -1),
        ((4, 84, 84, 3), 0),
        ((4, 3), 0),
        ((3, 4), -1),
        ((4, 4), 0),
    ],
)
def test_a_number_finds_the_axis_of_the_frames(shape: tuple[int, ...], axis: int) -> None:
    part = ObservationPart(shape, BYTES)
    assert with_frames(part, Memory(frame_stack=4), 1) == ObservationPart(shape, BYTES, 4, axis)


@pytest.mark.parametrize("shape", [(), (4,), (3, 5), (4, 84, 84)])
def test_one_keeps_all_whole(shape: tuple[int, ...]) -> None:
    part = ObservationPart(shape, BYTES)
    assert with_frames(part, Memory(frame_stack=1), 4) == part


def test_only_the_parts_that_can_be_stacks_are() -> None:
    layout = {"eye": IMAGE, "speed": ObservationPart((4,), FLOATS)}
    for memory, hint in ((Memory(), 4), (Memory(frame_stack=4), 1)):
        framed: Any = with_frames(layout, memory, hint)
        assert {name: part.frames for name, part in framed.items()} == {"eye": 4, "speed": 1}
    assert layout["eye"] == IMAGE


@pytest.mark.parametrize(
    "layout", [ObservationPart((4,), FLOATS), {"a": ObservationPart((3, 5), BYTES)}]
)
def test_frames_that_no_part_can_have_are_refused_with_the_shapes(layout: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"(?s)frame_stack=4 needs .* \[\((4,|3, 5)\)\]; leave"
    ):
        with_frames(layout, Memory(frame_stack=4), 4)
