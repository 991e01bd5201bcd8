"""Policies: descriptions of a network and of its optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import Space
from torch import nn

from sbdqn.networks.base_policy import BasePolicy
from sbdqn.networks.bodies import Encoder


@dataclass(frozen=True)
class MlpPolicy(BasePolicy):
    """A multilayer perceptron over flattened observations.

    Where something stands between the shared layers and the output (dueling
    streams, a head that samples fractions), the last hidden layer stands behind
    it, and each dueling stream has one of its own.

    Attributes:
        net_arch: width of each hidden layer.
        activation_fn: class of the activation, or its name in `torch.nn`.
        layer_norm: whether layer norm follows every hidden linear layer.
        dueling: whether the output has a stream for the state's value and one
            for the advantages (Wang et al. 2016).
        noisy: whether every hidden linear layer and the output have noise in
            their weights (Fortunato et al. 2018): fresh at each update, the same
            between two of them, none in evaluation. Goes with
            `exploration="greedy"`.
        noisy_sigma: initial size of that noise.
        features_extractor: what takes the place of flattening: `"nature"` or
            `"impala"` for images, or a callable from the observation space to a
            module with `.features`.
        normalize_images: whether uint8 images are divided by 255; a callable of
            your own decides for itself.
        optimizer_class: `"Adam"`, `"AdamW"`, `"CenteredRMSprop"` (that of the
            original DQN), `"RMSprop"`, `"SGD"`, `"RAdam"`, or a subclass of
            `torch.optim.Optimizer`.
        optimizer_kwargs: keyword arguments of the optimiser but the learning
            rate.

    Example:
        >>> policy = MlpPolicy(net_arch=(256, 256), layer_norm=True)
    """

    def _encoder(self, space: Space[Any]) -> nn.Module:
        extractor = self.features_extractor
        if extractor is None:
            return Encoder(space, self.normalize_images)
        if isinstance(extractor, str):
            return self._named_body(space)
        return extractor(space)
