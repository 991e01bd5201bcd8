"""The Q-network: a body, an output, and the head that reads it."""

from __future__ import annotations

from torch import Tensor, nn

from sbdqn.networks.bodies import Encoder, Mlp
from sbdqn.networks.outputs import LinearOutput
from sbdqn.protocols import Head, Noisy
from sbdqn.types import Prediction, Purpose

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


class QNetwork(nn.Module):
    """Predicts, for every action, what a head can turn into an expected return.

    Args:
        encoder: from stored observations to flat features; has `.features`.
        trunk: from those to the features that the output reads.
        output: from features to values (B, A, N).
        head: what N means.
    """

    def __init__(self, encoder: nn.Module, trunk: nn.Module, output: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.trunk = trunk
        self.output = output
        self.head = head
        self.eval()
        layers = [layer for part in (encoder, trunk, output) for layer in part.modules()]
        self._noisy = [layer for layer in layers if isinstance(layer, Noisy)]
        self._has_modes = any(
            type(layer) not in _SAME_IN_TRAINING_AND_EVALUATION for layer in layers
        )

    def predict(self, obs: Tensor, purpose: Purpose) -> Prediction:
        """What the network says of observations (B, ...), for the head to read.

        Layers that behave otherwise in training (dropout, batch norm) do so
        when learning and at no other time.
        """
        if self._has_modes and self.training != (purpose is Purpose.LEARN):
            self.train(purpose is Purpose.LEARN)
        return Prediction(self.output(self.trunk(self.encoder(obs))))

    def q(self, obs: Tensor, purpose: Purpose) -> Tensor:
        """Expected returns (B, A)."""
        return self.head.q(self.predict(obs, purpose))

    def forward(self, obs: Tensor) -> Tensor:
        """Expected returns (B, A), as for evaluation."""
        return self.q(obs, Purpose.EVALUATE)

    def resample(self) -> None:
        """Draw fresh noise in every layer that has some."""
        for module in self._noisy:
            module.resample()
