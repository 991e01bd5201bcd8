"""A program that saves is killed, or has no room: the last complete files are there."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sbdqn import DQN
from sbdqn.errors import FileAccessError
from tests.damage import plain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise")

N_KILLS = 60
MODEL = """
import sys
import gymnasium as gym, numpy as np, torch
from sbdqn import DQN, MlpPolicy
torch.set_num_threads(1)

class Wide(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (20_000,), np.uint8)
    action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}

model = DQN(MlpPolicy(net_arch=(64,)), Wide, seed=0, buffer_size=500, learning_starts=1000)
"""
SAVER = f"""{MODEL}
model.learn(300)
print("ready", flush=True)
while True:
    model.save(sys.argv[1] + "/model.zip")
    model.save_replay_buffer(sys.argv[1] + "/replay.zip")
"""
LOADER = f"""{MODEL}
for _ in sys.stdin:
    loaded = DQN.load(sys.argv[1] + "/model.zip", env=Wide)
    assert loaded.num_timesteps == 300
    model.load_replay_buffer(sys.argv[1] + "/replay.zip")
    assert model.replay_buffer.stored == 300
    print("loaded", flush=True)
"""


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whenever_a_writer_is_killed_the_last_complete_files_load(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    during_a_write, before = 0, set[str]()
    with start(LOADER, tmp_path) as loader:
        assert loader.stdin is not None
        assert loader.stdout is not None
        for number in range(N_KILLS):
            with start(SAVER, tmp_path) as saver:
                assert saver.stdout is not None
                assert saver.stdout.readline() == "ready\n"
                # The first one may finish once, so that there is something to lose.
                while not (tmp_path / "replay.zip").exists():
                    time.sleep(0.01)
                time.sleep(rng.uniform(0.0, 0.3))
                saver.send_signal(signal.SIGKILL)
            left = {path.name for path in tmp_path.iterdir() if path.suffix != ".zip"}
            during_a_write += bool(left - before)
            before = left
            final = [name.partition(".sbdqn-")[0] for name in left]
            assert len(final) == len(set(final)), "the next writer removes what the last one left"
            loader.stdin.write("again\n")
            loader.stdin.flush()
            assert loader.stdout.readline() == "loaded\n", f"after {number} kills"
        loader.kill()
    print(f"{during_a_write} of {N_KILLS} kills during a write")
    assert during_a_write > N_KILLS // 4


NO_ROOM = """
import resource, sys
from pathlib import Path
from sbdqn.errors import FileAccessError
from tests.damage import plain
model = plain().learn(40)
path = Path(sys.argv[1])
for most_bytes in (3000, 100, 0):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    for write in (model.save, model.save_replay_buffer):
        try:
            write(path)
        except FileAccessError as error:
            print(error.errno, error)
"""


def test_a_full_disk_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"the old one")
    report = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert report == [f"{errno.EFBIG} {path} cannot be written: File too large"] * 6
    assert [each.name for each in tmp_path.iterdir()] == ["model.zip"]
    assert path.read_bytes() == b"the old one"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_given_file_without_room_is_reported(buffering: int) -> None:
    model = plain().learn(40)
    for write in (model.save, model.save_replay_buffer):
        file = open("/dev/full", "wb", buffering=buffering)  # noqa: SIM115  # to close it fails too
        with pytest.raises(FileAccessError, match="the file cannot be written: No space left"):
            write(file)
        with pytest.raises(OSError, match="No space left") if buffering else file:
            file.close()


class Pipe(io.RawIOBase):
    """A file that can only be written to, like a pipe or a socket."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        self.content += bytes(memoryview(content))  # type: ignore[arg-type]
        return len(memoryview(content))  # type: ignore[arg-type]


def test_a_file_that_cannot_be_sought_in_is_written_to() -> None:
    model = plain().learn(40)
    pipe = Pipe()
    model.save(pipe)  # type: ignore[arg-type]
    loaded = DQN.load(io.BytesIO(pipe.content), device="cpu")
    assert loaded.q_values([0.0] * 4).tolist() == model.q_values([0.0] * 4).tolist()
