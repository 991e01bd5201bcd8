"""How a network is told which quantile fraction it is asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FractionEmbedding(nn.Module):
    """Multiplies features by a learned function of the quantile fraction.

    Dabney et al. 2018, "Implicit Quantile Networks for Distributional
    Reinforcement Learning", Eq. 4.

    Args:
        features: width of the features.
        cosines: how many cosines a fraction is described by.
    """

    frequencies: Tensor

    def __init__(self, features: int, cosines: int) -> None:
        super().__init__()
        frequencies = math.pi * torch.arange(cosines, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.linear = nn.Linear(cosines, features)

    def forward(self, features: Tensor, fractions: Tensor) -> Tensor:
        """Features (B, N, F) of features (B, F) at fractions (B, N)."""
        cosines = torch.cos(fractions.unsqueeze(-1) * self.frequencies)  # (B, N, C)
        return features.unsqueeze(1) * torch.relu(self.linear(cosines))
