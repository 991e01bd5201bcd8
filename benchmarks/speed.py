"""Environment steps and updates per second, side by side with Stable-Baselines3.

Each measurement is a process of its own with one torch thread; the agents take
turns, so a machine that changes its speed changes it for all. All get the same
hyperparameters and must make the same number of updates. What is compiled is
compiled before the clock starts.

    pip install -e ".[bench]"
    python benchmarks/speed.py                  # the table
    python benchmarks/speed.py --profile        # where our own time goes
    python benchmarks/speed.py --endurance      # long runs, and their memory
    python benchmarks/speed.py --start-up       # what the import costs
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

from works import SB3, WORKS, Agent, Work, model_of

ROUND = 1_280  # a multiple of every `train_freq` and number of environments
WARM_UP = 4 * ROUND
YARDSTICK = 3_200  # steps/s of SB3's defaults, on the machine that figures are scaled to
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Result = dict[str, float]


def measure(agent: Agent, work: Work, steps: int, device: str) -> Result:
    """Work in this process, after a warm-up, and count."""
    import torch

    torch.set_num_threads(1)
    model = model_of(agent, work, device)
    model.learn(WARM_UP)
    if work.is_acting:
        return {"steps_per_s": predictions_per_second(model, steps), "updates": 0}
    updates_before, steps_before = model._n_updates, model.num_timesteps
    started = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - started
    updates = model._n_updates - updates_before
    return {
        "steps_per_s": (model.num_timesteps - steps_before) / seconds,
        "updates_per_s": updates / seconds,
        "updates": updates,
    }


def predictions_per_second(model: Any, calls: int) -> float:
    """How often actions for one observation are predicted."""
    space = model.observation_space
    observations = [space.sample() for _ in range(calls)]
    model.predict(observations[0], deterministic=True)
    started = time.perf_counter()
    for observation in observations:
        model.predict(observation, deterministic=True)
    return calls / (time.perf_counter() - started)


def measure_elsewhere(name: str, agent: Agent, steps: int, device: str) -> Result:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--work", name, "--steps", str(steps)]
    command += ["--device", device, "--worker", json.dumps(agent)]
    result: Result = json.loads(output_of(command))
    return result


def output_of(command: list[str]) -> str:
    """The last line that a process prints; ends this one if that one fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def compare(name: str, steps: int, repeats: int, device: str) -> tuple[list[str], list[str]]:
    """Table rows for one kind of work, the first agent being the reference; and remarks."""
    work = WORKS[name]
    results: dict[Agent, list[Result]] = {agent: [] for agent in work.agents}
    yardsticks: list[float] = []
    for _ in range(repeats):
        if work.is_scaled:
            yardsticks.append(measure_elsewhere("defaults", SB3, steps, device)["steps_per_s"])
        for agent, runs in results.items():
            runs.append(measure_elsewhere(name, agent, steps, device))
    require_equal_updates(work, results)
    reference = [run["steps_per_s"] for run in results[work.agents[0]]]
    rows, remarks = [], []
    for agent, runs in results.items():
        speeds = [run["steps_per_s"] for run in runs]
        updating = "" if work.is_acting else spread([run["updates_per_s"] for run in runs])
        ratio = "1" if agent is work.agents[0] else spread(ratios(speeds, reference), 2)
        rows.append(f"| {work.title} | {agent.name} | {spread(speeds)} | {updating} | {ratio} |")
        if work.is_scaled:
            scaled = spread([YARDSTICK * ratio for ratio in ratios(speeds, yardsticks)])
            remarks.append(
                f"{work.title}, {agent.name}: {scaled} steps/s where SB3's defaults run at "
                f"{YARDSTICK} steps/s"
            )
    return rows, remarks


def require_equal_updates(work: Work, results: dict[Agent, list[Result]]) -> None:
    """Stop if the agents did not do the same work."""
    updates = {agent.name: {int(run["updates"]) for run in runs} for agent, runs in results.items()}
    every = set.union(*updates.values())
    # Several environments do not end at a number of steps, but with the step that reaches it.
    tolerated = work.rounds if work.n_envs > 1 else 0
    if max(every) - min(every) > tolerated:
        sys.exit(f"{work.title}: the numbers of updates differ: {updates}")


def ratios(values: list[float], references: list[float]) -> list[float]:
    """Each value by the reference of the same turn."""
    return [value / reference for value, reference in zip(values, references, strict=True)]


def spread(values: list[float], digits: int = 0) -> str:
    """Median, lowest and highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def versions() -> str:
    """The machine and the packages, on one line."""
    from importlib.metadata import version

    import torch

    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    packages = ("torch", "gymnasium", "numpy", "stable_baselines3", "sbdqn")
    found = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {gpu}Python {platform.python_version()}, "
        f"{found}"
    )


def table(names: list[str], steps: int, repeats: int, device: str) -> None:
    """Measure the kinds of work, and print a table."""
    print(f"median (lowest to highest) of {repeats} runs of {steps} steps\n")
    print("| CartPole-v1 | agent | steps/s (calls/s of `predict`) | updates/s | ratio |")
    print("|---|---|---|---|---|")
    remarks = []
    for name in names:
        rows, more = compare(name, steps, repeats, device)
        print(*rows, sep="\n", flush=True)
        remarks += more
    if remarks:
        print("", *remarks, sep="\n")


def start_up(repeats: int) -> None:
    """What the import of `DQN` costs beside torch and gymnasium, whole processes in turns.

    Their objects are so many that Python's garbage collector goes through them again when a few
    more come, whoever makes them; so the same is measured without it.
    """
    imports = ("import torch, gymnasium", "from sbdqn import DQN")
    programs = [f"{first}{each}" for first in ("", "import gc; gc.disable(); ") for each in imports]
    seconds: dict[str, list[float]] = {program: [] for program in programs}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has been compiled
    for turn in range(repeats + 1):
        for program, times in seconds.items():
            started = time.perf_counter()
            output_of([sys.executable, "-c", program])
            if turn:  # the first one compiles, and reads from the disk
                times.append(time.perf_counter() - started)
    print(f"median (lowest to highest) of {repeats} processes\n")
    print("| program | s | ratio | ratio of the lowest |")
    print("|---|---|---|---|")
    for place, (program, times) in enumerate(seconds.items()):
        reference = seconds[programs[place // 2 * 2]]
        lowest = min(times) / min(reference)
        ratio = spread(ratios(times, reference), 2)
        print(f"| `{program}` | {spread(times, 2)} | {ratio} | {lowest:.2f} |")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", choices=list(WORKS), help="only this kind of work")
    parser.add_argument("--steps", type=int, help="timed steps in a measurement (20480)")
    parser.add_argument("--repeats", type=int, help="measurements of each agent (5)")
    parser.add_argument("--device", default="cpu", help="of the table: cpu (default) or cuda")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--profile", action="store_true", help="parts of a step, with their floors")
    modes.add_argument("--endurance", action="store_true", help="runs of 500,000 and 1,000,000")
    modes.add_argument("--start-up", action="store_true", help="20 imports")
    parser.add_argument("--compile", action="store_true", help="of the profile or the endurance")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu" and (options.profile or options.endurance or options.start_up):
        parser.error("--device is of the table: the other measurements are made on the CPU")
    os.environ.update(ONE_THREAD)  # before anything is imported that counts threads
    steps = ROUND * math.ceil((options.steps or 16 * ROUND) / ROUND)
    if options.worker:
        agent = Agent(*json.loads(options.worker))
        print(json.dumps(measure(agent, WORKS[options.work], steps, options.device)))
        return
    print(versions())
    if options.profile:
        import step_parts

        step_parts.report(options.work or "defaults", steps, options.compile)
    elif options.endurance:
        import endurance

        endurance.report(options.steps or 500_000, options.compile, output_of)
    elif options.start_up:
        start_up(options.repeats or 20)
    else:
        names = [options.work] if options.work else list(WORKS)
        table(names, steps, options.repeats or 5, options.device)


if __name__ == "__main__":
    main()
