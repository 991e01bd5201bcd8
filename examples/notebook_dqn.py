"""System E, notebook: 1 000 episodes, a checkpoint, a plot, and ten test episodes.

The model that plays the test episodes is the one that was read back from the checkpoint.
"""

import warnings

from returns import Returns, arguments

from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.exploration import EpsilonGreedy
from sbdqn.schedules import Exponential


def main() -> None:
    parser = arguments(__doc__, episodes=1_000)
    text = "where the model goes (%(default)s)"
    parser.add_argument("--checkpoint", metavar="FILE", default="notebook_dqn.zip", help=text)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*CartPole-v0 is out of date", DeprecationWarning)
    model = DQN(
        MlpPolicy((64, 64), "ReLU", layer_norm=False, optimizer_class="Adam"),
        "CartPole-v0",
        learning_rate=0.0001,
        exploration=EpsilonGreedy(Exponential(1.0, 0.01, rate=0.0001)),
        backup="greedy",
        n_steps=1,
        target_update_interval=None,
        loss="mse",
        max_grad_norm=None,
        gamma=0.99,
        buffer_size=10_000,
        batch_size=20,
        learning_starts=20,
        train_freq=1,
        seed=options.seed,
    )
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    model.save(options.checkpoint)
    saved = DQN.load(options.checkpoint)
    played, _ = evaluate_policy(saved, "CartPole-v0", 10, return_episode_rewards=True)
    print(f"Test episodes: {' '.join(f'{value:.0f}' for value in played)}")
    returns.plot(options.plot, window=10)


if __name__ == "__main__":
    main()
