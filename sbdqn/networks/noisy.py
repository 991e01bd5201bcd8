"""Linear layers that explore by noise in their weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

MakeLinear: TypeAlias = Callable[[int, int], nn.Module]
"""From the widths of what comes in and what goes out to a linear layer."""


class NoisyLinear(nn.Module):
    """A linear layer whose weights and biases are noisy, with a learned size.

    Fortunato et al. 2018, "Noisy Networks for Exploration", with factorised
    noise: Eq. 10 and 11. One vector of noise for the inputs and one for the
    outputs make the noise of all weights. The paper draws before every action;
    here a network draws once an update, and acts with that draw in all
    environments until the next.

    Args:
        inputs: width of what comes in.
        outputs: width of what goes out.
        sigma: initial size of the noise, before division by the square root of
            `inputs`.

    Attributes:
        is_silent: whether the noise is left out, so that the means alone act.
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        self.is_silent = False
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.empty(inputs), persistent=False)
        self.register_buffer("noise_out", torch.empty(outputs), persistent=False)
        self.resample()

    def resample(self) -> None:
        """Draw fresh noise from torch's global generator."""
        for noise in (self.noise_in, self.noise_out):
            drawn = torch.randn_like(noise)
            noise.copy_(drawn.sign() * drawn.abs().sqrt())

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, outputs) of features (B, inputs)."""
        if self.is_silent:
            return functional.linear(features, self.weight, self.bias)
        noise = torch.outer(self.noise_out, self.noise_in)
        weight = torch.addcmul(self.weight, self.weight_sigma, noise)
        bias = torch.addcmul(self.bias, self.bias_sigma, self.noise_out)
        return functional.linear(features, weight, bias)
