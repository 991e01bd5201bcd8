"""Breakout of MinAtar: 10 x 10 pixels, learned on one core within minutes.

The body is that of Young & Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and
Reproducible Reinforcement Learning Experiments": one convolution. Needs `pip install minatar`.
"""

import gymnasium
from gymnasium import Space
from minatar.gym import register_envs
from returns import Returns, arguments
from torch import Tensor, nn

from sbdqn import DQN, CnnPolicy, evaluate_policy

register_envs()


class Small(nn.Module):
    def __init__(self, space: Space, maps: int = 16) -> None:
        super().__init__()
        height, width, channels = space.shape  # paddle, ball, trail and bricks
        self.convolution = nn.Conv2d(channels, maps, kernel_size=3)
        self.features = maps * (height - 2) * (width - 2)

    def forward(self, obs: Tensor) -> Tensor:
        images = obs.permute(0, 3, 1, 2).float()  # (B, channels, height, width)
        return self.convolution(images).relu().flatten(1)


def make_env() -> gymnasium.Env:
    # The game itself has no end for one who never misses the ball.
    return gymnasium.make("MinAtar/Breakout-v1", max_episode_steps=5_000)


def make_model(seed: int) -> DQN:
    return DQN(
        CnnPolicy((128,), features_extractor=Small),
        make_env,
        n_envs=8,
        learning_starts=1_000,
        n_steps=3,
        train_freq=8,
        target_update_interval=1_000,
        exploration_fraction=0.05,
        exploration_final_eps=0.01,
        seed=seed,
    )


def main() -> None:
    options = arguments(__doc__, timesteps=750_000).parse_args()
    returns = Returns(options.episodes)
    model = make_model(options.seed).learn(options.timesteps, callback=returns)
    print(f"Greedy mean of 20 episodes: {evaluate_policy(model, make_env, 20)[0]:.1f}")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
