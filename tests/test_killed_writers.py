"""A program that saves is killed, or has no room: the last complete files are there."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sbdqn import DQN
from sbdqn.checkpoint import checkpoints_in
from sbdqn.errors import FileAccessError
from sbdqn.persistence import read_archive
from tests.damage import plain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise")

N_KILLS = 60
MODEL = """
import sys
import gymnasium as gym, numpy as np, torch
from sbdqn import DQN, MlpPolicy
from sbdqn.exploration import EpsilonGreedy
torch.set_num_threads(1)

class Wide(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (20_000,), np.uint8)
    action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}
    def step(self, action):
        return self.seen(), float(action), False, False, {}
    def seen(self):
        return self.np_random.integers(0, 256, (20_000,), np.uint8)

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
CHAIN = f"""{MODEL}
import os, signal
from sbdqn.callbacks import CheckpointCallback
from sbdqn.checkpoint import checkpoints_in
model.set_params(learning_starts=20, batch_size=8, exploration=EpsilonGreedy(0.3))
steps = 1_000_000
if checkpoints_in(sys.argv[1]):
    model, steps = DQN.resume(sys.argv[1], trusted=True), None
print(model.num_timesteps, flush=True)

def killer(event, arguments):
    if event == sys.argv[2] and "/checkpoint_" in str(arguments):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(killer)  # before a checkpoint is deleted, or gets its name
model.learn(steps, callback=CheckpointCallback(5, sys.argv[1], resumable=True, keep_last=2))
"""
NEVER_KILLED = f"""{MODEL}
model.set_params(learning_starts=20, batch_size=8, exploration=EpsilonGreedy(0.3))
resumed = DQN.resume(sys.argv[1], trusted=True)
model.learn(resumed.num_timesteps)
pairs = zip(resumed.policy.parameters(), model.policy.parameters(), strict=True)
print(all(torch.equal(*pair) for pair in pairs), resumed.num_timesteps, resumed._n_updates)
"""


def start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_whose_every_process_is_killed_is_the_run_that_never_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kills, read = Counter[str](), 0
    newest, count, left_before = 0, 2, set[str]()
    for number in range(N_KILLS):
        moment = ("later", "os.remove", "later", "os.rename")[number % 4]
        with start(CHAIN, tmp_path, moment) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline()) == newest, "the newest one is resumed"
            while not checkpoints_in(tmp_path):  # so that there is something to lose
                time.sleep(0.01)
            if moment == "later":
                time.sleep(rng.uniform(0.0, 0.3))
                process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        found = checkpoints_in(tmp_path)
        assert 1 <= len(found) <= max(count, 2) + 1
        for path in found:
            read_archive(path, "checkpoint")
        read += len(found)
        left = {path.name for path in tmp_path.iterdir()} - {path.name for path in found}
        assert len(left) <= 1, "the next writer removes what the last one left"
        kills["before the old ones were deleted"] += len(found) > max(count, 2)
        kills["while one was written"] += bool(left - left_before)
        kills["after progress"] += timesteps_of(found[-1]) > newest
        newest, count, left_before = timesteps_of(found[-1]), len(found), left
    with start(NEVER_KILLED, tmp_path) as process:
        report = process.communicate()[0].split()
    print(f"{N_KILLS} kills: {dict(kills)}; {read} files read; equal, steps, updates: {report}")
    assert report[:2] == ["True", str(newest)]
    assert kills["while one was written"] > N_KILLS // 4 + 3, "not only before they got names"
    assert kills["before the old ones were deleted"] >= N_KILLS // 4
    assert kills["after progress"] > N_KILLS // 3


def timesteps_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("_")[2])


ADVICE = "make room for it, or write it elsewhere"
NO_ROOM = """
import resource, sys
from pathlib import Path
from sbdqn.callbacks import CheckpointCallback
from sbdqn.errors import FileAccessError
from tests.damage import plain

folder, path, elsewhere = map(Path, sys.argv[1:])
callback = CheckpointCallback(20, folder, resumable=True, keep_last=1)
model = plain().learn(50, callback=CheckpointCallback(20, folder, resumable=True))

def limit(most_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

for most_bytes in (3000, 100, 0):
    limit(most_bytes)
    for write in (
        lambda: model.save(path),
        lambda: model.save_replay_buffer(path),
        lambda: model.save_checkpoint(folder, keep_last=1),
        lambda: model.learn(20, callback=callback),
    ):
        try:
            write()
        except FileAccessError as error:
            print(error.errno, error)
limit(resource.RLIM_INFINITY)
model.save_checkpoint(elsewhere)
"""


def test_a_full_disk_keeps_the_files_that_were_there(tmp_path: Path) -> None:
    folder, path, elsewhere = (tmp_path / name for name in ("runs", "model.zip", "elsewhere"))
    path.write_bytes(b"the old one")
    report = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(folder), str(path), str(elsewhere)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    refused = [path, path, *(f"{folder}/checkpoint_000003_{{}}_steps.zip",) * 2]
    assert report == [
        f"{errno.EFBIG} {str(name).format(timesteps)} cannot be written: File too large; {ADVICE}"
        for steps in ((50, 70), (70, 90), (90, 110))
        for name, timesteps in zip(refused, (0, 0, *steps), strict=True)
    ]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "model.zip", "runs"]
    assert path.read_bytes() == b"the old one"
    assert sorted(each.name for each in folder.iterdir()) == [
        "checkpoint_000001_20_steps.zip",
        "checkpoint_000002_40_steps.zip",
    ]
    assert DQN.resume(folder, trusted=True).learn().num_timesteps == 50
    assert DQN.resume(elsewhere, trusted=True).num_timesteps == 110


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_given_file_without_room_is_reported(buffering: int) -> None:
    model = plain().learn(40)
    for write in (model.save, model.save_replay_buffer):
        file = open("/dev/full", "wb", buffering=buffering)  # noqa: SIM115  # to close it fails too
        with pytest.raises(FileAccessError, match=f"cannot be written: No space left .*; {ADVICE}"):
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
