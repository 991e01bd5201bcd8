"""Environment steps and updates per second, side by side with Stable-Baselines3.

Each measurement is a process of its own with one torch thread; the libraries
take turns, so a machine that changes its speed changes it for both. Both sides
get the same hyperparameters and must report the same number of updates.

    pip install -e ".[bench]"
    python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

LIBRARIES = ("sbdqn", "stable_baselines3")
WARM_UP_STEPS = 1_000


@dataclass(frozen=True)
class Work:
    """Hyperparameters that both libraries get, by SB3's names."""

    batch_size: int
    train_freq: int
    gradient_steps: int = 1
    learning_starts: int = 100
    learning_rate: float = 1e-4
    buffer_size: int = 100_000
    target_update_interval: int = 10_000
    tau: float = 1.0
    exploration_fraction: float = 0.1
    exploration_final_eps: float = 0.05


WORKS = {
    "SB3's defaults": Work(batch_size=32, train_freq=4),
    "an update every step": Work(batch_size=64, train_freq=1),
}


def model_of(library: str, work: Work) -> Any:
    """The same agent in either library."""
    if library == "stable_baselines3":
        from stable_baselines3 import DQN as SB3DQN

        return SB3DQN(
            "MlpPolicy",
            "CartPole-v1",
            seed=0,
            device="cpu",
            policy_kwargs={"net_arch": [64, 64]},
            **asdict(work),
        )
    from sbdqn import DQN

    return DQN(
        "MlpPolicy",
        "CartPole-v1",
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [64, 64], "layer_norm": False},
        backup="greedy",
        n_steps=1,
        gamma=0.99,
        max_grad_norm=10.0,
        loss="huber",
        **asdict(work),
    )


def measure(library: str, work: Work, steps: int) -> dict[str, float]:
    """Train in this process, after a warm-up, and count."""
    import torch

    torch.set_num_threads(1)
    model = model_of(library, work)
    model.learn(WARM_UP_STEPS)
    updates_before = model._n_updates
    started = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - started
    updates = model._n_updates - updates_before
    return {"steps_per_s": steps / seconds, "updates_per_s": updates / seconds, "updates": updates}


def measure_elsewhere(library: str, name: str, steps: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", library, "--work", name, "--steps", str(steps)]
    done = subprocess.run(
        command, env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{library} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(name: str, steps: int, repeats: int) -> str:
    """A table row for one kind of work."""
    results: dict[str, list[dict[str, float]]] = {library: [] for library in LIBRARIES}
    for _ in range(repeats):
        for library in LIBRARIES:
            results[library].append(measure_elsewhere(library, name, steps))
    updates = {int(each["updates"]) for runs in results.values() for each in runs}
    if len(updates) != 1:
        sys.exit(f"{name}: the libraries made different numbers of updates: {updates}")
    ours, theirs = ([run["steps_per_s"] for run in results[library]] for library in LIBRARIES)
    our_updates, their_updates = (
        statistics.median(run["updates_per_s"] for run in results[library]) for library in LIBRARIES
    )
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return (
        f"| {name} | {spread(ours)} | {spread(theirs)} | {our_updates:.0f} | "
        f"{their_updates:.0f} | {spread(ratios, 2)} |"
    )


def versions() -> str:
    """The machine and the packages, on one line."""
    from importlib.metadata import version

    packages = ("torch", "gymnasium", "numpy", "stable_baselines3", "sbdqn")
    found = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {found}"
    )


def spread(values: list[float], digits: int = 0) -> str:
    """Median, lowest and highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000, help="timed steps in a measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each library")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=list(WORKS), help="only this kind of work")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker, WORKS[options.work], options.steps)))
        return
    print(versions())
    print(f"median (lowest to highest) of {options.repeats} runs of {options.steps} steps\n")
    print("| CartPole-v1, 64x64 | steps/s | SB3 steps/s | updates/s | SB3 updates/s | ratio |")
    print("|---|---|---|---|---|---|")
    for name in [options.work] if options.work else WORKS:
        print(compare(name, options.steps, options.repeats), flush=True)


if __name__ == "__main__":
    main()
