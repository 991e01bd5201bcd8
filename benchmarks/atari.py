"""Atari beside Stable-Baselines3: the memory of a replay, and steps per second on Breakout.

    pip install -e ".[atari,bench]" opencv-python-headless
    python benchmarks/atari.py memory
    python benchmarks/atari.py speed

`memory` fills a replay with stacks of four frames and reads the process's resident memory;
Stable-Baselines3 gets as many as fit (`--sb3-size`). `speed` trains with the hyperparameters of
the RL Baselines3 Zoo, libraries in turns, each measurement in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from speed import spread, versions

N_ENVS = 8
BATCH = 32
SETTING: dict[str, Any] = {
    "learning_rate": 1e-4,
    "batch_size": BATCH,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 1_000,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
    "gamma": 0.99,
    "buffer_size": 10_000,
    "learning_starts": 1_000,
}
KINDS = {
    "SB3, 1 environment": ("stable_baselines3", 1, {}),
    "sbdqn, 1 environment": ("sbdqn", 1, {}),
    "sbdqn, 8 environments": ("sbdqn", N_ENVS, {}),
    "sbdqn, 8 environments, compiled": ("sbdqn", N_ENVS, {"compile": True}),
    "sbdqn, 8 environments, overlap=False": ("sbdqn", N_ENVS, {"overlap": False}),
}


def resident() -> float:
    """Resident memory of this process, in GB."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e9)


def stacks() -> Any:
    """Stacks (E, 4, 84, 84) as an environment returns them, for ever; episodes of 500 steps."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (500, 84, 84), np.uint8)
    stack = np.zeros((N_ENVS, 4, 84, 84), np.uint8)
    step = 0
    while True:
        is_first = step % 500 == 0
        if is_first:
            stack[:] = 0
        else:
            stack[:, :-1] = stack[:, 1:]
        stack[:, -1] = frames[(step * 7 + np.arange(N_ENVS)) % len(frames)]
        yield is_first, stack.copy()
        step += 1


def memory_of_sbdqn(size: int) -> dict[str, float]:
    """Fill our replay."""
    import torch

    from sbdqn.protocols import ObservationPart, ReplayLayout
    from sbdqn.replay import Uniform
    from sbdqn.types import Clock, Row

    part = ObservationPart((4, 84, 84), np.dtype(np.uint8), frames=4)
    seed = np.random.SeedSequence(0)
    before = resident()
    replay = Uniform().build(ReplayLayout(part, N_ENVS, size, 1, 0.99, torch.device("cpu"), seed))
    none, every = np.zeros(N_ENVS, np.bool_), np.ones(N_ENVS, np.bool_)
    source = stacks()
    is_first, obs = next(source)
    adding = 0.0
    steps = size // N_ENVS + size // N_ENVS // 500 + 20
    for _ in range(steps):
        begins, following = next(source)
        actions, rewards = np.zeros(N_ENVS, np.int64), np.zeros(N_ENVS)
        first = every if is_first else none
        if not begins:  # where an episode begins, its last observation was the one before
            row = Row(obs, actions, rewards, following, none, none, first, every)
            started = time.perf_counter()
            replay.add(row)
            adding += time.perf_counter() - started
        is_first, obs = begins, following
    taken = timed(lambda: replay.sample(BATCH, Clock(0)))
    return {
        "stored": replay.stored,
        "gigabytes": resident() - before,
        "add_us": 1e6 * adding / (steps * N_ENVS),
        "sample_us": taken,
    }


def memory_of_sb3(size: int) -> dict[str, float]:
    """Fill Stable-Baselines3's."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    before = resident()
    buffer = ReplayBuffer(
        size, space, spaces.Discrete(4), "cpu", n_envs=N_ENVS, handle_timeout_termination=True
    )
    source = stacks()
    _, obs = next(source)
    infos: list[dict[str, Any]] = [{} for _ in range(N_ENVS)]
    adding = 0.0
    for _ in range(size // N_ENVS):
        begins, following = next(source)
        dones = np.full(N_ENVS, begins)
        actions, rewards = np.zeros((N_ENVS, 1), np.int64), np.zeros(N_ENVS)
        started = time.perf_counter()
        buffer.add(obs, following, actions, rewards, dones, infos)
        adding += time.perf_counter() - started
        obs = following
    return {
        "stored": buffer.size() * N_ENVS,
        "gigabytes": resident() - before,
        "add_us": 1e6 * adding / size,
        "sample_us": timed(lambda: buffer.sample(BATCH)),
    }


def timed(call: Any) -> float:
    """Median time of a call, in microseconds."""
    times = []
    for _ in range(1_000):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


def model_of(library: str, n_envs: int, settings: dict[str, Any], device: str) -> Any:
    """The same agent in either library."""
    if library == "stable_baselines3":
        import ale_py  # registers the games
        from stable_baselines3 import DQN as SB3DQN
        from stable_baselines3.common.env_util import make_atari_env
        from stable_baselines3.common.vec_env import VecFrameStack

        assert ale_py
        env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs, seed=0), 4)
        return SB3DQN("CnnPolicy", env, seed=0, device=device, **SETTING)
    from sbdqn import DQN, recipes

    recipe = {**recipes.atari, **SETTING, **settings}
    return DQN("CnnPolicy", "ALE/Breakout-v5", n_envs=n_envs, seed=0, device=device, **recipe)


def measure(kind: str, steps: int, threads: int, device: str) -> dict[str, float]:
    """Train in this process, after a warm-up, and count."""
    import torch

    torch.set_num_threads(threads)
    model = model_of(*KINDS[kind], device)
    model.learn(SETTING["learning_starts"] + 400)
    before = model._n_updates
    started = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - started
    return {"steps_per_s": steps / seconds, "updates": model._n_updates - before}


def elsewhere(*arguments: str, threads: int) -> dict[str, float]:
    """One measurement, in a process of its own."""
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, *arguments, "--worker"]
    done = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare_memory(size: int, sb3_size: int) -> None:
    """Print a table of both replays."""
    print("| replay | transitions | resident memory | add one | sample 32 |")
    print("|---|---|---|---|---|")
    for library, number in (("sbdqn", size), ("stable_baselines3", sb3_size)):
        arguments = ("memory", "--library", library, "--size", str(number))
        found = elsewhere(*arguments, threads=1)
        print(
            f"| {library} | {found['stored']:,.0f} | {found['gigabytes']:.2f} GB | "
            f"{found['add_us']:.1f} us | {found['sample_us']:.0f} us |",
            flush=True,
        )


def compare_speed(steps: int, repeats: int, threads: int, device: str) -> None:
    """Print a table of all kinds, in turns."""
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind in KINDS:
            arguments = ["speed", "--kind", kind, "--steps", str(steps)]
            arguments += ["--threads", str(threads), "--device", device]
            runs[kind].append(elsewhere(*arguments, threads=threads))
    updates = {int(run["updates"]) for each in runs.values() for run in each}
    if len(updates) != 1:
        sys.exit(f"they made different numbers of updates: {updates}")
    theirs = [run["steps_per_s"] for run in runs["SB3, 1 environment"]]
    print("| Breakout | steps/s | ratio to SB3 |")
    print("|---|---|---|")
    for kind, each in runs.items():
        ours = [run["steps_per_s"] for run in each]
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        print(f"| {kind} | {spread(ours)} | {spread(ratios, 2)} |")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument(
        "--size",
        type=int,
        default=1_002_016,
        help="buffer_size of our replay; ends of episodes take some",
    )
    parser.add_argument("--sb3-size", type=int, default=100_000, help="and in SB3's")
    parser.add_argument("--steps", type=int, default=4_000, help="timed steps in a measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--device", default="cpu", help="of the networks: cpu (default) or cuda")
    parser.add_argument("--library", help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu" and options.what == "memory":
        parser.error("--device is of `speed`; `memory` is measured in RAM")
    if options.worker and options.what == "memory":
        fill = memory_of_sbdqn if options.library == "sbdqn" else memory_of_sb3
        print(json.dumps(fill(options.size)))
    elif options.worker:
        print(json.dumps(measure(options.kind, options.steps, options.threads, options.device)))
    else:
        print(versions(), "\n")
        if options.what == "memory":
            compare_memory(options.size, options.sb3_size)
        else:
            compare_speed(options.steps, options.repeats, options.threads, options.device)


if __name__ == "__main__":
    main()
