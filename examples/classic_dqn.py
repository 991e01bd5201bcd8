"""System C, classic: epsilon is multiplied at every step, the score of every episode plotted.

Ours: Adam's rate, the sizes of memory and batch, epsilon's decay and minimum, and the number
of episodes.
"""

from returns import Returns, arguments

from sbdqn import DQN, MlpPolicy
from sbdqn.exploration import EpsilonGreedy
from sbdqn.schedules import Multiplicative


def main() -> None:
    options = arguments(__doc__, episodes=500).parse_args()
    model = DQN(
        MlpPolicy((24, 24), "ReLU", layer_norm=False, optimizer_class="Adam"),
        "CartPole-v1",
        learning_rate=0.001,
        exploration=EpsilonGreedy(Multiplicative(1.0, 0.01, factor=0.995)),
        backup="greedy",
        n_steps=1,
        target_update_interval=None,
        loss="mse",
        max_grad_norm=None,
        gamma=0.95,
        buffer_size=100_000,
        batch_size=20,
        learning_starts=20,
        train_freq=1,
        seed=options.seed,
    )
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
