"""The Q-network: a body, an output, and the head that reads it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sbdqn.networks.bodies import Encoder, Mlp
from sbdqn.networks.layers import Chain
from sbdqn.networks.outputs import LinearOutput
from sbdqn.protocols import Head, Noisy
from sbdqn.types import Array, FloatArray, Prediction, Purpose

_SAME_IN_TRAINING_AND_EVALUATION = (
    Encoder,
    Mlp,
    LinearOutput,
    nn.Linear,
    nn.Conv2d,
    nn.LayerNorm,
    nn.Flatten,
    nn.Sequential,
    nn.ReLU,
    nn.Tanh,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.LeakyReLU,
    nn.Sigmoid,
    nn.Identity,
)

_FEW = 8
"""Up to so many observations NumPy is faster than torch on a small network."""


class QNetwork(nn.Module):
    """Predicts, for every action, what a head can turn into an expected return.

    Args:
        encoder: from stored observations to flat features; has `.features`.
        trunk: from those to the features that the output reads.
        output: from features to values (B, A, N).
        head: what N means.

    Attributes:
        has_modes: whether a layer may behave otherwise in training.
    """

    def __init__(self, encoder: nn.Module, trunk: nn.Module, output: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.trunk = trunk
        self.output = output
        self.head = head
        self._plain = _plain(encoder, trunk, output)
        self.eval()
        layers = [layer for part in (encoder, trunk, output) for layer in part.modules()]
        self._noisy = [layer for layer in layers if isinstance(layer, Noisy)]
        self.has_modes = any(
            type(layer) not in _SAME_IN_TRAINING_AND_EVALUATION for layer in layers
        )

    def predict(self, obs: Tensor, purpose: Purpose) -> Prediction:
        """What the network says of observations (B, ...), for the head to read.

        Layers that behave otherwise in training (dropout, batch norm) do so
        when learning and at no other time. Forward hooks of the parts are
        called by `forward` alone where the network `is_plain`.
        """
        return self.record(obs)[0] if self.is_plain else self._call(obs, purpose)

    @property
    def is_plain(self) -> bool:
        """Whether it is an MLP of common layers, so that `differentiate` does for autograd."""
        return self._plain is not None

    def record(self, obs: Tensor) -> tuple[Prediction, list[Any]]:
        """`predict` for learning, and what `differentiate` wants; if `is_plain`."""
        assert self._plain is not None
        encoder, chain, output = self._plain
        outputs, kept = chain.run(encoder(obs))
        return Prediction(output.shaped(outputs)), kept

    def differentiate(self, kept: list[Any], gradient: Tensor) -> None:
        """Overwrite the weights' `.grad`, given the gradient of the values (B, A, N)."""
        assert self._plain is not None
        self._plain[1].differentiate(kept, gradient.flatten(1))

    def q(self, obs: Tensor, purpose: Purpose) -> Tensor:
        """Expected returns (B, A)."""
        return self.head.q(self.predict(obs, purpose))

    def q_of(self, obs: Array, purpose: Purpose) -> FloatArray:
        """Expected returns (B, A) of an array (B, ...) of observations as stored."""
        if self._plain is not None and len(obs) <= _FEW:
            encoder, chain, output = self._plain
            values = chain.run_on_array(obs) if encoder.is_identity_for(obs) else None
            if values is not None:
                shaped = output.shaped(torch.from_numpy(values))
                return _as_array(self.head.q(Prediction(shaped)))
        device = next(self.output.parameters()).device
        with torch.inference_mode():
            return _as_array(self.q(torch.from_numpy(obs).to(device), purpose))

    def forward(self, obs: Tensor) -> Tensor:
        """Expected returns (B, A), as for evaluation."""
        return self.head.q(self._call(obs, Purpose.EVALUATE))

    def resample(self) -> None:
        """Draw fresh noise in every layer that has some."""
        for module in self._noisy:
            module.resample()

    def _call(self, obs: Tensor, purpose: Purpose) -> Prediction:
        if self.has_modes and self.training != (purpose is Purpose.LEARN):
            self.train(purpose is Purpose.LEARN)
        return Prediction(self.output(self.trunk(self.encoder(obs))))


def _as_array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.cpu().numpy()
    return array


def _plain(
    encoder: nn.Module, trunk: nn.Module, output: nn.Module
) -> tuple[Encoder, Chain, LinearOutput] | None:
    """The parts, if they are our own and `Chain` knows all layers with weights."""
    layers = [*trunk.children(), *output.children()]
    if type(trunk) is Mlp and type(encoder) is Encoder and type(output) is LinearOutput:
        return (encoder, Chain(layers), output) if Chain.knows(layers) else None
    return None
