"""Where a replay keeps its observations: what is accepted, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sbdqn import DQN
from sbdqn.errors import ConfigurationError, ReplayMemoryError
from sbdqn.memory import Memory


def test_it_is_where_the_networks_are_unless_told_otherwise() -> None:
    cuda = torch.device("cuda", 1)
    assert Memory().on(cuda) == cuda
    assert Memory(device="cpu").on(cuda) == torch.device("cpu")


@pytest.mark.parametrize("frames", [0, -1, 65, 2.0, "4", None, True])
def test_frames_are_a_small_number(frames: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"frame_stack must be 'auto', or an integer from 1"
    ):
        Memory(frame_stack=frames)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"device": "gpu"}, "device must be 'auto' or a torch device such as 'cpu', not 'gpu'"),
        ({"device": None}, "device must be 'auto'"),
        ({"folder": 3, "device": "cpu"}, "folder must be the path of a folder, or None"),
        ({"folder": "/tmp"}, r"folder='/tmp' goes with device='cpu', not with device='auto'"),
        ({"folder": "/tmp", "device": "cuda"}, r"not with device='cuda'"),
    ],
)
def test_what_has_no_meaning_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Memory(**wrong)


def model(memory: Memory, **parameters: Any) -> DQN:
    settings: dict[str, Any] = {"buffer_size": 200, "learning_starts": 20, "seed": 0}
    return DQN("MlpPolicy", "CartPole-v1", replay_memory=memory, **{**settings, **parameters})


@pytest.mark.parametrize("memory", ["cpu", "folder", "whole"])
def test_a_run_is_the_same_wherever_observations_are_kept(memory: str, tmp_path: Path) -> None:
    kinds = {
        "cpu": Memory(device="cpu"),
        "folder": Memory(device="cpu", folder=tmp_path),
        "whole": Memory(frame_stack=1),  # of vectors, which are no stacks anyway
    }
    one, other = (model(each).learn(300) for each in (Memory(), kinds[memory]))
    obs = one.replay_buffer.sample(16, one.trainer.clock)
    for mine, theirs in zip(obs, other.replay_buffer.sample(16, other.trainer.clock), strict=True):
        assert torch.equal(mine, theirs)  # type: ignore[arg-type]
    for mine, theirs in zip(one.q_net.parameters(), other.q_net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    memory = Memory(device="cpu", folder=tmp_path / "gone")
    with pytest.raises(ConfigurationError, match=r"there is no folder '.*gone' for the replay"):
        model(memory).learn(10)


def test_a_file_that_does_not_fit_is_refused_with_its_size(tmp_path: Path) -> None:
    memory = Memory(device="cpu", folder=tmp_path)
    pytest.importorskip("resource")
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(
            ReplayMemoryError, match=r"file of 16\.0 MB cannot be made in .*smaller"
        ):
            model(memory, buffer_size=1_000_000).learn(10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_is_saved_with_the_model(tmp_path: Path) -> None:
    memory = Memory(device="cpu", folder=tmp_path, frame_stack=1)
    model(memory).save(tmp_path / "model")
    assert DQN.load(tmp_path / "model").get_params()["replay_memory"] == memory


def test_its_fields_are_parameters_until_there_is_a_replay() -> None:
    made = model(Memory()).set_params(replay_memory__frame_stack=1)
    assert made.get_params()["replay_memory"] == Memory(frame_stack=1)
    made.learn(10)
    with pytest.raises(ConfigurationError, match="replay_memory cannot change"):
        made.set_params(replay_memory__frame_stack=4)
