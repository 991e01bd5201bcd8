"""A body of your own: random Fourier features of the observation.

Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency Functions in Low
Dimensional Domains": sines and cosines of random projections, in which a small network sees
differences that it would smooth over. The projections are drawn once and not learned.
"""

from functools import partial
from math import prod

import torch
from gymnasium import Space
from returns import Returns, arguments
from torch import Tensor, nn

from sbdqn import DQN, MlpPolicy, evaluate_policy
from sbdqn.testing import check_body


class Fourier(nn.Module):
    """The observation itself, and `waves` sines and cosines with a frequency of about `scale`."""

    def __init__(self, space: Space, waves: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        inputs = prod(space.shape)
        # A buffer, so that it is saved with the model and copied to the target network.
        self.register_buffer("frequencies", scale * torch.randn(inputs, waves))
        self.features = inputs + 2 * waves

    def forward(self, obs: Tensor) -> Tensor:
        flat = obs.flatten(1).float()
        waves = flat @ self.frequencies
        return torch.cat([flat, waves.sin(), waves.cos()], dim=1)  # (B, features)


def main() -> None:
    parser = arguments(__doc__, timesteps=20_000)
    parser.add_argument("--scale", type=float, default=0.5, help="of the frequencies (0.5)")
    options = parser.parse_args()
    body = partial(Fourier, scale=options.scale)
    policy = MlpPolicy(net_arch=(64,), features_extractor=body)
    model = DQN(policy, "CartPole-v1", seed=options.seed)
    check_body(body, model.observation_space)
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    print(f"Greedy mean of 10 episodes: {evaluate_policy(model, 'CartPole-v1')[0]:.1f}")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
