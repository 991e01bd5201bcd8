"""How do the agents of `examples/` learn Breakout of MinAtar, and MiniGrid's DoorKey?

Each seed is trained with no other parameter than the example's, then plays 100
greedy episodes with the final weights. Every process has one thread.

    pip install -e ".[examples]"
    python benchmarks/games.py breakout --plot breakout.svg
    python benchmarks/games.py doorkey
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "examples"))

EPISODES = 100
POINTS = 10


@dataclass(frozen=True)
class Game:
    """An example, for how long it trains, and what is counted of a return."""

    example: str
    timesteps: int
    counted: str
    count: Callable[[np.ndarray], np.ndarray]


def as_it_is(returns: np.ndarray) -> np.ndarray:
    return returns


def percent_above_0(returns: np.ndarray) -> np.ndarray:
    return 100.0 * (returns > 0)


GAMES = {
    "breakout": Game("minatar_breakout", 750_000, "mean return", as_it_is),
    "doorkey": Game("minigrid_dict", 100_000, "% that reach the goal", percent_above_0),
}


@dataclass(frozen=True)
class Run:
    """What came of one seed."""

    steps: np.ndarray  # (episodes,) at which each ended
    scores: np.ndarray  # (episodes,)
    random: float  # before training, all actions random
    greedy: float  # after it
    cpu_seconds: float  # of training

    def curve(self) -> np.ndarray:
        """For each episode, the mean of the last 100 up to it."""
        sums = np.concatenate([[0.0], np.cumsum(self.scores)])
        ends = np.arange(1, len(sums))
        first = np.maximum(ends - EPISODES, 0)
        return (sums[ends] - sums[first]) / (ends - first)


def train(game: Game, seed: int, timesteps: int) -> Run:
    """Train the example's agent, and let it play before and after."""
    import torch

    from sbdqn import evaluate_policy

    torch.set_num_threads(1)
    example = importlib.import_module(game.example)
    model = example.make_model(seed)
    ended: list[tuple[int, float]] = []

    def follow(step: dict, _: dict) -> None:
        ended.extend((model.num_timesteps, episode.reward) for episode in step["episodes"])

    def play(deterministic: bool) -> float:
        returns, _ = evaluate_policy(
            model,
            example.make_env,
            EPISODES,
            deterministic=deterministic,
            return_episode_rewards=True,
            seed=1_000_000 + seed,
        )
        return float(game.count(np.array(returns)).mean())

    random = play(deterministic=False)  # epsilon is 1
    started = time.process_time()
    model.learn(timesteps, callback=follow)
    cpu_seconds = time.process_time() - started
    steps, returns = np.array(ended).T
    return Run(steps, game.count(returns), random, play(deterministic=True), cpu_seconds)


def draw(runs: list[Run], game: Game, file: str) -> None:
    """Draw the curves of all seeds into a file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "sbdqn"  # the same file for the same curves
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for seed, run in enumerate(runs):
        thin = np.linspace(0, len(run.steps) - 1, 400).astype(int)
        axes.plot(run.steps[thin], run.curve()[thin], linewidth=1.2, label=f"seed {seed}")
    random = np.mean([run.random for run in runs])
    axes.axhline(random, color="grey", linestyle="--", linewidth=1, label="random play")
    axes.set(xlabel="transitions", ylabel=f"{game.counted}, last {EPISODES} episodes")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend()
    figure.savefig(file, metadata={"Date": None} if file.endswith(".svg") else None)


def main() -> None:
    """Train all seeds, print a table, and draw the curves if there is a file for them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("game", choices=GAMES)
    parser.add_argument("--timesteps", type=int, help="of training (the example's)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this, exclusive")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves there, with matplotlib")
    options = parser.parse_args()
    game = GAMES[options.game]
    timesteps = options.timesteps or game.timesteps
    marks = np.linspace(0, timesteps, POINTS + 1)[1:]
    print(
        f"| seed | {game.counted} of the last {EPISODES} episodes, every {marks[0]:,.0f} "
        f"transitions | random | greedy | CPU minutes |\n|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(train, game, seed, timesteps) for seed in range(options.seeds)]
        for seed, run in enumerate(each.result() for each in pending):
            places = np.searchsorted(run.steps, marks, side="right") - 1
            curve = " ".join(f"{value:.1f}" for value in run.curve()[places])
            print(
                f"| {seed} | {curve} | {run.random:.1f} | {run.greedy:.1f} "
                f"| {run.cpu_seconds / 60:.1f} |",
                flush=True,
            )
    if options.plot:
        draw([each.result() for each in pending], game, options.plot)


if __name__ == "__main__":
    main()
