"""System D, simple: it learns, forgets, learns again, and forgets again.

Solved is a mean return of 475 over 100 episodes of CartPole-v1. Its author asked what fixes
the forgetting. The defaults of this library do: a target network, double DQN, returns over
several steps, layer norm, the Huber loss, and fewer updates:

    DQN("MlpPolicy", "CartPole-v1").learn(50_000)

Ours: an update at every step, and epsilon minus 0.001 after every episode; the text of the
original has lost its indentation. The first 32 steps, which fill a batch, are random.
"""

from returns import Returns, arguments

from sbdqn import DQN, MlpPolicy
from sbdqn.exploration import EpsilonGreedy
from sbdqn.schedules import Linear


def main() -> None:
    options = arguments(__doc__, episodes=1_500).parse_args()
    model = DQN(
        MlpPolicy((64, 32), "ReLU", layer_norm=False, optimizer_class="Adam"),
        "CartPole-v1",
        learning_rate=0.001,
        exploration=EpsilonGreedy(Linear(1.0, 0.01, duration=990, per="episode")),
        backup="greedy",
        n_steps=1,
        target_update_interval=None,
        loss="mse",
        max_grad_norm=None,
        gamma=0.99,
        buffer_size=100_000,
        batch_size=32,
        learning_starts=32,
        train_freq=1,
        seed=options.seed,
    )
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    means = returns.means(window=100)
    if len(means) >= 100:
        best = max(means[99:])
        print(f"Best mean of 100 episodes: {best:.1f}; of the last 100: {means[-1]:.1f}")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
