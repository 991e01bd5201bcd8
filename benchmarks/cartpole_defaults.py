"""Does the final policy of `DQN("MlpPolicy", "CartPole-v1").learn(50_000)` hold?

For each seed: train with the defaults, then play 20 greedy episodes with the
final weights, not with the best ones on the way. Evaluations on the way are
printed too: they show whether what is learned is kept.

    pip install -e .
    python benchmarks/cartpole_defaults.py
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

SOLVED = 475.0


class Outcome(NamedTuple):
    """One seed's result."""

    seed: int
    on_the_way: list[float]
    final: float


def train(seed: int, timesteps: int) -> Outcome:
    """Train with the defaults and evaluate the final policy."""
    import torch

    from sbdqn import DQN, evaluate_policy
    from sbdqn.callbacks import EvalCallback

    torch.set_num_threads(1)
    model = DQN("MlpPolicy", "CartPole-v1", seed=seed)
    evaluation = EvalCallback("CartPole-v1", n_eval_episodes=10, eval_freq=5_000, verbose=0, seed=1)
    model.learn(timesteps, callback=evaluation)
    final, _ = evaluate_policy(model, "CartPole-v1", n_eval_episodes=20, seed=2)
    on_the_way = [sum(rewards) / len(rewards) for rewards in evaluation.evaluations_results]
    return Outcome(seed, on_the_way, final)


def main() -> None:
    """Train all seeds, print a table, exit 1 if fewer than 9 of 10 hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timesteps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to this, exclusive")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    print("| seed | mean return every 5 000 steps (10 episodes) | final (20 episodes) |")
    print("|---|---|---|")
    held = 0
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(train, seed, options.timesteps) for seed in range(options.seeds)]
        for run in runs:
            outcome = run.result()
            held += outcome.final >= SOLVED
            on_the_way = " ".join(f"{mean:.0f}" for mean in outcome.on_the_way)
            print(f"| {outcome.seed} | {on_the_way} | {outcome.final:.1f} |", flush=True)
    print(f"\n{held} of {options.seeds} seeds end at {SOLVED:.0f} or more")
    sys.exit(held < 0.9 * options.seeds)


if __name__ == "__main__":
    main()
