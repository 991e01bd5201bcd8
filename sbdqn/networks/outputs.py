"""Outputs: from features to values (B, A, N)."""

from __future__ import annotations

from torch import Tensor, nn

from sbdqn.networks.bodies import Mlp
from sbdqn.networks.noisy import MakeLinear


class LinearOutput(nn.Module):
    """One linear layer for all actions and all their N outputs.

    Args:
        features: width of the features.
        n_actions: A, the number of actions.
        width: N, the number of outputs for each action.
        make_linear: makes the layer, of the widths of what comes in and goes out.
    """

    def __init__(
        self, features: int, n_actions: int, width: int, make_linear: MakeLinear = nn.Linear
    ) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.width = width
        self.linear = make_linear(features, n_actions * width)

    def forward(self, features: Tensor) -> Tensor:
        """Values (B, A, N) of features (B, F)."""
        values: Tensor = self.linear(features)
        return values.view(values.shape[0], self.n_actions, self.width)


class DuelingOutput(nn.Module):
    """A stream for the value of a state and one for the advantages of its actions.

    Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement
    Learning", Eq. 9. With a distribution, the mean over actions is subtracted
    from each of its N outputs. The paper also multiplies the gradient by
    1 / sqrt(2) where the streams meet; here it is as it comes.

    Args:
        value: hidden layers of the value's stream.
        advantage: hidden layers of the advantages' stream.
        n_actions: A, the number of actions.
        width: N, the number of outputs for each action.
        make_linear: makes the last layers, of the widths of what comes in and
            goes out.
    """

    def __init__(
        self,
        value: Mlp,
        advantage: Mlp,
        n_actions: int,
        width: int,
        make_linear: MakeLinear = nn.Linear,
    ) -> None:
        super().__init__()
        self.value = nn.Sequential(value, LinearOutput(value.features, 1, width, make_linear))
        self.advantage = nn.Sequential(
            advantage, LinearOutput(advantage.features, n_actions, width, make_linear)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Values (B, A, N) of features (B, F)."""
        advantage: Tensor = self.advantage(features)
        value: Tensor = self.value(features)  # (B, 1, N)
        return value + advantage - advantage.mean(dim=1, keepdim=True)
