"""System A, basic: a network that chases its own targets, until Ctrl-C.

CartPole goes on for up to 2 000 steps here. The returns rise far above those of random play
(22.6), with sudden drops: nothing holds the targets still while the network moves (see
double_dqn.py). At the end it prints its speed and the Q function that it has learned.

Ours: the first 64 steps, which fill a batch, are random, and RMSprop is as torch has it.
"""

import time
import warnings

from returns import Returns, arguments

from sbdqn import DQN, MlpPolicy
from sbdqn.exploration import EpsilonGreedy
from sbdqn.schedules import Exponential

STATES = {  # cart position, cart velocity, pole angle in radians, its velocity
    "upright, at rest": [0.0, 0.0, 0.0, 0.0],
    "leaning left": [0.0, 0.0, -0.1, 0.0],
    "leaning right": [0.0, 0.0, 0.1, 0.0],
    "near the right edge": [2.3, 0.5, 0.0, 0.0],
}


def main() -> None:
    options = arguments(__doc__).parse_args()
    warnings.filterwarnings("ignore", ".*CartPole-v0 is out of date", DeprecationWarning)
    model = DQN(
        MlpPolicy((64,), "ReLU", layer_norm=False, optimizer_class="RMSprop"),
        "CartPole-v0",
        env_kwargs={"max_episode_steps": 2_000},
        learning_rate=0.00025,
        exploration=EpsilonGreedy(Exponential(1.0, 0.01, rate=0.001)),
        backup="greedy",
        n_steps=1,
        target_update_interval=None,
        loss="mse",
        max_grad_norm=None,
        gamma=0.99,
        buffer_size=100_000,
        batch_size=64,
        learning_starts=64,
        train_freq=1,
        seed=options.seed,
    )
    returns = Returns(options.episodes)
    started = time.perf_counter()
    model.learn(options.timesteps, callback=returns)
    speed = model.num_timesteps / (time.perf_counter() - started)
    print(f"\n{speed:.0f} steps/s\n\n{'Q of':<22}    left   right")
    for name, (left, right) in zip(STATES, model.q_values(list(STATES.values())), strict=True):
        print(f"{name:<22}{left:8.2f}{right:8.2f}")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
