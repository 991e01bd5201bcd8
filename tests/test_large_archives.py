"""Large replays are written and read without a second copy, and empty places not at all."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
from gymnasium import spaces

from sbdqn import DQN, CnnPolicy, Memory, MlpPolicy

# Anonymous memory is what a program has to itself: the pages of a file that is mapped are
# the system's to take back. The largest amount is seen by looking all the time.
MEASURE = """
import json, sys, threading, time
import gymnasium as gym, numpy as np
from sbdqn import DQN, MlpPolicy
from sbdqn.types import Row

class Wide(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (40_000,), np.uint8)
    action_space = gym.spaces.Discrete(2)

def empty():
    return DQN(
        MlpPolicy(net_arch=(8,)), Wide, buffer_size=5500, n_steps=3, replay="prioritized",
        device="cpu",
    )

def anonymous_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def growth(action):
    before = peak = anonymous_bytes()
    ends = False
    def look():
        nonlocal peak
        while not ends:
            peak = max(peak, anonymous_bytes())
            time.sleep(0.001)
    thread = threading.Thread(target=look)
    thread.start()
    action()
    ends = True
    thread.join()
    return peak - before

full, path = empty(), sys.argv[1]
rng = np.random.default_rng(0)
obs = rng.integers(0, 256, (1, 40_000), np.uint8)
for t in range(5600):  # once around the ring
    after = np.roll(obs, 1)
    no, ends, begins = np.array([False]), np.array([t % 50 == 49]), np.array([t % 50 == 0])
    full.replay_buffer.add(Row(obs, np.array([t % 2]), np.array([t]), after, no, ends, begins, ~no))
    obs = after
loaded = empty()
loaded.replay_buffer
report = {
    "ring": 5500 * 40_000,
    "save": growth(lambda: full.save_replay_buffer(path)),
    "load": growth(lambda: loaded.load_replay_buffer(path)),
}
mine, theirs = (model.replay_buffer.state_dict()["storage"] for model in (full, loaded))
assert (mine["obs"][""]["whole"] == theirs["obs"][""]["whole"]).all()
assert (mine["span"] == theirs["span"]).all()
print(json.dumps(report))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured otherwise")
def test_a_ring_is_saved_and_loaded_without_a_second_copy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "replay.zip")],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    ring = report["ring"]
    assert report["save"] < 0.25 * ring
    assert 0.8 * ring < report["load"] < 1.3 * ring  # the ring itself, which was empty


class Frames(gym.Env[Any, Any]):
    """Random frames, as small as convolutions take them."""

    observation_space = spaces.Box(0, 255, (36, 36), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._frame(), 1.0, self.t == 50, False, {}

    def _frame(self) -> Any:
        return self.np_random.integers(0, 256, (36, 36), np.uint8)


def stacked_frames() -> gym.Env[Any, Any]:
    return gym.wrappers.FrameStackObservation(Frames(), 4)


@pytest.mark.parametrize("replay", ["uniform", "prioritized"])
@pytest.mark.parametrize("n_envs", [1, 4])
def test_of_a_large_buffer_only_what_is_filled_is_written(replay: str, n_envs: int) -> None:
    parameters: dict[str, Any] = {
        "buffer_size": 1_000_000,
        "learning_starts": 1000,
        "replay": replay,
        "n_envs": n_envs,
    }
    model = DQN(MlpPolicy(net_arch=(8,)), "CartPole-v1", **parameters).learn(200)
    file = io.BytesIO()
    model.save_replay_buffer(file)
    assert len(file.getvalue()) < 20_000
    loaded = DQN(MlpPolicy(net_arch=(8,)), "CartPole-v1", **parameters)
    loaded.load_replay_buffer(file)
    assert loaded.replay_buffer.stored == model.replay_buffer.stored >= 200


@pytest.mark.parametrize("replay", ["uniform", "prioritized"])
def test_each_frame_is_written_once(replay: str) -> None:
    model = DQN(
        CnnPolicy(),
        stacked_frames,
        buffer_size=100_000,
        learning_starts=1000,
        replay=replay,
        replay_memory=Memory("cpu"),
        seed=0,
    ).learn(200)
    file = io.BytesIO()
    model.save_replay_buffer(file)
    assert 200 * 36 * 36 < len(file.getvalue()) < 1.15 * 200 * 36 * 36


def test_the_tensors_of_an_archive_are_readable_without_this_library(tmp_path: Path) -> None:
    model = DQN(MlpPolicy(net_arch=(8,)), "CartPole-v1", buffer_size=100).learn(150)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        tensors = safetensors.torch.load(archive.read("tensors.safetensors"))
    weights = model.q_net.state_dict()
    for name, weight in weights.items():
        assert (tensors[f"learner.online.{name}"] == weight).all()
    with zipfile.ZipFile(tmp_path / "replay.zip") as archive:
        archive.extract("tensors.safetensors", tmp_path)
    stored = safetensors.torch.load_file(tmp_path / "tensors.safetensors")
    state = model.replay_buffer.state_dict()["storage"]
    assert (stored["storage.obs..whole"] == state["obs"][""]["whole"]).all()
    assert (stored["storage.action"] == state["action"]).all()
