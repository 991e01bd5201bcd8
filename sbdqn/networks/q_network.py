"""The Q-network: a body, an output, and the head that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sbdqn.networks.bodies import Encoder, Mlp
from sbdqn.networks.embedding import FractionEmbedding
from sbdqn.networks.layers import Chain, quietly
from sbdqn.networks.outputs import LinearOutput
from sbdqn.observations import apply
from sbdqn.protocols import Head, Noisy, SampledHead
from sbdqn.types import Array, Arrays, FloatArray, Prediction, Purpose, Tensors

_SAME_IN_TRAINING_AND_EVALUATION = (
    nn.Linear,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.Flatten,
    nn.Sequential,
    nn.ModuleList,
    nn.ReLU,
    nn.Tanh,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.LeakyReLU,
    nn.Sigmoid,
    nn.Identity,
)

_FEW = 2048  # rows times width; beyond, NumPy gains little or nothing on torch


class _Plain(NamedTuple):
    """The parts of a network that is a chain of common layers.

    Attributes:
        encoder: from observations to features.
        chain: from those to what the output gives a shape.
        shape: (A, N), which the output gives to a row.
        children: of the network and its parts by name, as they are now.
        built: the same as they were built.
        hooks: theirs; filled when somebody registers one.
        width: of the widest layer.
    """

    encoder: Encoder
    chain: Chain
    shape: tuple[int, int]
    children: list[dict[str, nn.Module]]
    built: list[dict[str, nn.Module]]
    hooks: list[Mapping[int, Any]]
    width: int


class QNetwork(nn.Module):
    """Predicts, for every action, what a head can turn into an expected return.

    Args:
        encoder: from stored observations to flat features; has `.features`.
        trunk: from those to the features that the output reads.
        output: from features to values (B, A, N).
        head: what N means.
        embedding: between trunk and output, for a head that samples fractions.

    Attributes:
        has_modes: whether a layer may behave otherwise in training.
        is_random: whether a prediction that is learned from is, in any part.
    """

    def __init__(
        self,
        encoder: nn.Module,
        trunk: nn.Module,
        output: nn.Module,
        head: Head,
        embedding: FractionEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.trunk = trunk
        self.output = output
        self.embedding = embedding
        self.head = head
        self._plain = _plain_parts(self)
        self._head_of_reading: Head | None = None
        self._reads_as_it_is = False
        self.eval()
        layers = [layer for part in self.children() for layer in part.modules()]
        self._noisy = [layer for layer in layers if isinstance(layer, Noisy)]
        self.has_modes = any(map(_may_have_modes, layers))
        self.is_random = self.has_modes or bool(self._noisy) or embedding is not None

    def predict(self, obs: Tensors, purpose: Purpose) -> Prediction:
        """What the network says of observations (B, ...), for the head to read.

        Observations of several parts are a dict, as the replay stores them.

        Layers that behave otherwise in training (dropout, batch norm) do so
        when learning and at no other time. Noise is left out in evaluation.
        """
        if self.has_modes and self.training != (purpose is Purpose.LEARN):
            self.train(purpose is Purpose.LEARN)
        if not self._noisy or purpose is not Purpose.EVALUATE:
            return self._predict(obs, purpose)
        self._silence(True)
        try:
            return self._predict(obs, purpose)
        finally:
            self._silence(False)

    def _predict(self, obs: Tensors, purpose: Purpose) -> Prediction:
        features = self.trunk(self.encoder(obs))
        if self.embedding is None:
            return Prediction(self.output(features))
        head = self.head
        assert isinstance(head, SampledHead)
        fractions = head.fractions(features.shape[0], purpose, features.device)  # (B, N)
        embedded = self.embedding(features, fractions).flatten(0, 1)  # (B * N, F)
        values = self.output(embedded).squeeze(2).unflatten(0, fractions.shape)  # (B, N, A)
        return Prediction(values.transpose(1, 2), fractions)

    def _silence(self, is_silent: bool) -> None:
        for layer in self._noisy:
            layer.is_silent = is_silent

    @property
    def is_plain(self) -> bool:
        """Whether it is an MLP of common layers, as it was built.

        Not so if somebody has exchanged or hooked a part.
        """
        plain = self._plain
        return plain is not None and plain.children == plain.built and not any(plain.hooks)

    @property
    def was_plain(self) -> bool:
        """Whether `is_plain` held when the network was built."""
        return self._plain is not None

    @property
    def has_arrays(self) -> bool:
        """Whether, at the last `check`, it was plain and on the CPU."""
        return self._plain is not None and self._plain.chain.has_arrays

    def check(self) -> bool:
        """Find out whether it `is_plain`, and whether `record` says what `predict` does.

        Until the next check, acting and `record` rely on what this one found.

        Returns:
            Whether it is plain. `has_arrays` says whether it is on the CPU too.
        """
        if self._plain is None:
            return False
        is_plain = self.is_plain
        # Not an attribute of the network itself: a module's are slow to assign.
        self._plain.chain.has_arrays = is_plain and self._plain.chain.find_arrays()
        return is_plain

    def record(self, obs: Tensors) -> tuple[Prediction, list[Any]]:
        """`predict`, and what `differentiate` wants; of a network that `has_arrays`."""
        assert self._plain is not None
        assert self.has_arrays
        assert isinstance(obs, Tensor)
        features = self._plain.encoder.forward(obs)  # no hooks: it is plain
        outputs, kept = self._plain.chain.run(features.numpy())
        return Prediction(torch.from_numpy(outputs.reshape(-1, *self._plain.shape))), kept

    def predict_plain(self, obs: Tensors, purpose: Purpose) -> Prediction:
        """`predict`, of a network that `has_arrays`, for which the purpose changes nothing."""
        return self.record(obs)[0]

    def differentiate(self, kept: list[Any], gradient: Tensor, share: FloatArray) -> None:
        """Overwrite the weights' `.grad`, of a network that `has_arrays`.

        Args:
            kept: what `record` gave.
            gradient: of each row's loss by the values (B, A, N).
            share: (B,) of each row in the loss.
        """
        assert self._plain is not None
        by_outputs = gradient.numpy().reshape(len(gradient), -1)
        self._plain.chain.differentiate(kept, by_outputs, share)

    def q(self, obs: Tensors, purpose: Purpose) -> Tensor:
        """Expected returns (B, A)."""
        return self.head.q(self.predict(obs, purpose))

    def q_of_few(self, obs: Arrays, purpose: Purpose) -> FloatArray | None:
        """Expected returns (B, A) of observations (B, ...) as stored, on the CPU.

        None where NumPy cannot do it, or is no faster.
        """
        plain = self._plain
        if plain is None or isinstance(obs, dict) or not plain.encoder.is_identity_for(obs):
            return None
        if len(obs) * plain.width > _FEW:
            return None
        if not (self.has_arrays and purpose is Purpose.ACT):
            self.check()
            if not self.has_arrays:
                return None
        values = quietly(plain.chain.outputs_of_few, obs)
        if self.head is not self._head_of_reading:
            self._head_of_reading = self.head
            self._reads_as_it_is = _reads_as_it_is(self.head)
        if self._reads_as_it_is:
            return values
        q = self.head.q(Prediction(torch.from_numpy(values.reshape(-1, *plain.shape))))
        of_head: FloatArray = q.numpy()
        return of_head

    def forward(self, obs: Tensors) -> Tensor:
        """Expected returns (B, A), as for evaluation."""
        return self.q(obs, Purpose.EVALUATE)

    def resample(self) -> None:
        """Draw fresh noise in every layer that has some."""
        for module in self._noisy:
            module.resample()


def q_of(network: QNetwork, obs: Arrays, purpose: Purpose) -> FloatArray:
    """Expected returns (B, A) of observations (B, ...) as stored, wherever the network is."""
    values = network.q_of_few(obs, purpose)
    if values is None:
        device = next(network.output.parameters()).device
        with torch.inference_mode():
            values = network.q(_sent(obs, device), purpose).cpu().numpy()
    return values


def _sent(obs: Arrays, device: torch.device) -> Tensors:
    return apply(lambda part: _tensor_of(part).to(device), obs)


def _tensor_of(part: Array) -> Tensor:
    # torch takes neither negative strides nor arrays that cannot be written to.
    return torch.from_numpy(np.require(part, requirements=["C", "W"]))


def _reads_as_it_is(head: Head) -> bool:
    """Whether a head takes a network's only output for an action for its expected return."""
    values = torch.zeros(3, 2, head.width)
    q = head.q(Prediction(values))
    return head.width == 1 and q.data_ptr() == values.data_ptr() and q.stride() == (2, 1)


def _may_have_modes(layer: nn.Module) -> bool:
    kind = type(layer)
    is_ours = kind.__module__.startswith("sbdqn.networks.")
    return not is_ours and kind not in _SAME_IN_TRAINING_AND_EVALUATION


def _children(module: nn.Module) -> list[Any]:
    return list(module._modules.values())  # `children()` leaves out what is there twice


def _plain_parts(network: nn.Module) -> _Plain | None:
    """The parts, if they are our own and `Chain` knows all layers with weights."""
    encoder, trunk, output, *layers = _children(network)
    layers += [*_children(trunk), *_children(output)]
    if not Chain.knows(layers):
        return None
    if type(encoder) is Encoder and type(trunk) is Mlp and type(output) is LinearOutput:
        modules = [encoder, trunk, output, *layers]
        children: Any = [module._modules for module in (network, *modules)]
        built = [dict(each) for each in children]
        width = max(layer.out_features for layer in layers if isinstance(layer, nn.Linear))
        shape = (output.n_actions, output.width)
        return _Plain(encoder, Chain(layers), shape, children, built, _hooks(modules), width)
    return None


def _hooks(modules: list[nn.Module]) -> list[Mapping[int, Any]]:
    return [
        hooks
        for module in modules
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    ]
