"""Bodies: from observations as they are stored to features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn
from torch.nn import functional

from sbdqn.errors import SpaceError
from sbdqn.networks.noisy import MakeLinear
from sbdqn.types import Array

READABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""The spaces that `Encoder` reads."""


def is_image(space: Space[Any]) -> bool:
    """Whether a space holds images, or stacks of them: uint8 from 0 to 255, three or more axes."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) >= 3
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


class Encoder(nn.Module):
    """Turns an observation into one flat float vector; has no weights.

    A Box is flattened, images divided by 255; each axis of a Discrete or a
    MultiDiscrete becomes one-hot, counted from the space's `start`; a
    MultiBinary becomes zeros and ones.

    Args:
        space: the observation space.
        normalize_images: whether images are divided by 255.

    Raises:
        SpaceError: for a space of another kind.
    """

    start: Tensor

    def __init__(self, space: Space[Any], normalize_images: bool = True) -> None:
        super().__init__()
        self.divisor = 255.0 if normalize_images and is_image(space) else 1.0
        counts, start = _categories(space)
        self.category_counts = [int(count) for count in counts]
        self.register_buffer("start", torch.as_tensor(start), persistent=False)
        self.features = sum(self.category_counts) or int(np.prod(space.shape or ()))

    def forward(self, obs: Tensor) -> Tensor:
        """Features (B, features) of observations (B, ...)."""
        if obs.ndim == 2 and obs.dtype is torch.float32 and not self.category_counts:
            return obs
        flat = obs.reshape(obs.shape[0], math.prod(obs.shape[1:]))
        if not self.category_counts:
            scaled = flat.float()
            return scaled if self.divisor == 1.0 else scaled / self.divisor
        columns = (flat.long() - self.start).unbind(dim=1)
        one_hot = [
            functional.one_hot(column, count)
            for column, count in zip(columns, self.category_counts, strict=True)
        ]
        return torch.cat(one_hot, dim=1).float()

    def is_identity_for(self, obs: Array) -> bool:
        """Whether observations (B, ...) are their own features."""
        return obs.ndim == 2 and obs.dtype == np.float32 and not self.category_counts


def _categories(space: Space[Any]) -> tuple[Sequence[int], Sequence[int]]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)], [int(space.start)]
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.reshape(-1).tolist(), space.start.reshape(-1).tolist()
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return [], []
    raise SpaceError(
        f"an MLP cannot read observations of {space}; it takes Box, Discrete, MultiDiscrete "
        f"and MultiBinary spaces; flatten others with gymnasium.wrappers.FlattenObservation"
    )


class Mlp(nn.Sequential):
    """Linear layers, each followed by layer norm if wanted, and an activation.

    The layers are applied without a module call each, which would take as long
    as a small layer itself: hooks belong on the whole, not on one layer.

    Args:
        inputs: width of what comes in.
        widths: width of each hidden layer; may be empty.
        activation_fn: the class of the activation.
        layer_norm: whether each linear layer is followed by layer norm.
        make_linear: makes a linear layer of the widths of what comes in and out.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool = False,
        make_linear: MakeLinear = nn.Linear,
    ) -> None:
        layers: list[nn.Module] = []
        for before, width in zip([inputs, *widths], widths, strict=False):
            layers.append(make_linear(before, width))
            if layer_norm:
                layers.append(nn.LayerNorm(width))
            layers.append(activation_fn())
        super().__init__(*layers)
        self.features = widths[-1] if widths else inputs

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, features) of features (B, inputs)."""
        for layer in self:
            features = layer.forward(features)
        return features
