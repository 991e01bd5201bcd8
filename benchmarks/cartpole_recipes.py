"""Which recipes for small tasks solve CartPole-v1 within 50 000 steps?

Each `_classic` recipe is trained on seeds 0 to 4 with no other parameter, then
plays 20 greedy episodes with the final weights. 475 counts as solved.

    pip install -e .
    python benchmarks/cartpole_recipes.py
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

SOLVED = 475.0


def train(name: str, seed: int, timesteps: int) -> float:
    """Train by a recipe and evaluate the final policy."""
    import torch

    from sbdqn import DQN, evaluate_policy, recipes

    torch.set_num_threads(1)
    recipe = recipes.by_name()[name]
    model = DQN("MlpPolicy", "CartPole-v1", **recipe, seed=seed, device="cpu").learn(timesteps)
    return evaluate_policy(model, "CartPole-v1", n_eval_episodes=20, seed=2)[0]


def main() -> None:
    """Train all recipes, print a table, exit 1 if one solves fewer than 4 of 5 seeds."""
    from sbdqn import recipes

    classic = [name for name in recipes.by_name() if name.endswith("_classic")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=classic, metavar="RECIPE")
    parser.add_argument("--timesteps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to this, exclusive")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    print("| recipe | final mean return by seed (20 episodes) | solved |")
    print("|---|---|---|")
    failed = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        runs = {
            name: [pool.submit(train, name, s, options.timesteps) for s in range(options.seeds)]
            for name in options.recipes
        }
        for name, of_seeds in runs.items():
            returns = [run.result() for run in of_seeds]
            solved = sum(mean >= SOLVED for mean in returns)
            if solved < 0.8 * options.seeds:
                failed.append(name)
            means = " ".join(f"{mean:.1f}" for mean in returns)
            print(f"| `{name}` | {means} | {solved} of {options.seeds} |", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
