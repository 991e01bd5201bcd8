"""Outputs: from features to values (B, A, N)."""

from __future__ import annotations

from torch import Tensor, nn


class LinearOutput(nn.Module):
    """One linear layer for all actions and all their N outputs.

    Args:
        features: width of the features.
        n_actions: A, the number of actions.
        width: N, the number of outputs for each action.
    """

    def __init__(self, features: int, n_actions: int, width: int) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.width = width
        self.linear = nn.Linear(features, n_actions * width)

    def forward(self, features: Tensor) -> Tensor:
        """Values (B, A, N) of features (B, F)."""
        return self.shaped(self.linear(features))

    def shaped(self, values: Tensor) -> Tensor:
        """What the linear layer says (B, A * N) as values (B, A, N)."""
        return values.view(values.shape[0], self.n_actions, self.width)
