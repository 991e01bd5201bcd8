"""A head of your own: two critics for each action, of which the lower one is believed.

Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods" (TD3),
for discrete actions: an error of one critic that is too high is not believed. Both critics
share the network's hidden layers here and regress on the same target.
"""

from dataclasses import dataclass

import torch
from returns import Returns, arguments
from torch import Tensor
from torch.nn.functional import huber_loss

from sbdqn import DQN, evaluate_policy
from sbdqn.testing import check_head
from sbdqn.types import Batch, Bootstrap, Loss, Prediction


@dataclass(frozen=True)
class Cautious:
    critics: int = 2

    @property
    def width(self) -> int:
        return self.critics

    def q(self, prediction: Prediction) -> Tensor:
        return prediction.values.amin(dim=2)  # (B, A)

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        worth = self.q(following) - bootstrap.penalty
        believed = (bootstrap.policy * worth).sum(dim=1)
        return batch.reward + bootstrap.bonus + batch.discount * believed  # (B,)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        critics = prediction.values[torch.arange(len(action)), action]  # (B, N)
        target = target.unsqueeze(1).expand_as(critics)
        value = huber_loss(critics, target, reduction="none").sum(dim=1)
        return Loss(value, surprise=(critics - target).detach().abs().mean(dim=1))


def main() -> None:
    options = arguments(__doc__, timesteps=20_000).parse_args()
    check_head(Cautious())
    model = DQN("MlpPolicy", "CartPole-v1", head=Cautious(), seed=options.seed)
    returns = Returns(options.episodes)
    model.learn(options.timesteps, callback=returns)
    print(f"Greedy mean of 10 episodes: {evaluate_policy(model, 'CartPole-v1')[0]:.1f}")
    returns.plot(options.plot, window=100)


if __name__ == "__main__":
    main()
