"""Small layers in a row, run and differentiated without torch's machinery.

A module call, the lookup of its weights and above all a pass of the autograd
engine take several times as long as the arithmetic of a small network. The
layers known here are applied directly, their gradients follow from the chain
rule written out, and for a few observations NumPy does in a third of the time
what torch would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sbdqn.types import Array, FloatArray

_QUIET = Context()  # to run in a copy of it takes a fraction of the time of `errstate`
_QUIET.run(np.seterr, divide="ignore", over="ignore", invalid="ignore")  # as torch does

_OnArray = Callable[[FloatArray], FloatArray]


class _Rule(NamedTuple):
    """How to run a layer and how to differentiate it.

    Attributes:
        run: outputs of inputs, and what `differentiate` wants to have kept.
        differentiate: from the gradient of the outputs to that of the inputs;
            writes the gradients of the layer's weights. The last argument says
            whether that of the inputs is wanted.
        on_array: makes `run` for arrays (B, F) or (F,), with the layer's weights as arrays on
            the same memory; may write to what a layer before it gave.
    """

    run: Callable[[Any, Tensor], tuple[Tensor, Any]]
    differentiate: Callable[[Any, Any, Tensor, bool], Tensor]
    on_array: Callable[[Any], _OnArray]


class Chain:
    """Layers in a row, with their gradients by hand.

    Args:
        layers: of kinds that `Chain.knows`.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = [(layer, _RULES[type(layer)]) for layer in layers]
        self._parameters: list[Any] = [layer._parameters for layer in layers]
        self._weights: list[Tensor] = []
        self._steps: list[_OnArray] = []
        self._steps_are_of: list[int] = []

    @staticmethod
    def knows(layers: Sequence[nn.Module]) -> bool:
        """Whether all layers are of known kinds."""
        return all(type(layer) in _RULES for layer in layers)

    def __getstate__(self) -> dict[str, Any]:
        """Without the steps on arrays, which are made when they are needed."""
        return {**self.__dict__, "_weights": [], "_steps": [], "_steps_are_of": []}

    def run(self, inputs: Tensor) -> tuple[Tensor, list[Any]]:
        """Outputs of inputs (B, F), and what `differentiate` wants to have."""
        kept = []
        for layer, rule in self._layers:
            inputs, needed = rule.run(layer, inputs)
            kept.append(needed)
        return inputs, kept

    def differentiate(self, kept: list[Any], gradient: Tensor) -> None:
        """Overwrite `.grad` of all weights, given the gradient of the outputs (B, ...).

        Only where the chain `learns`.
        """
        for i in reversed(range(len(self._layers))):
            layer, rule = self._layers[i]
            gradient = rule.differentiate(layer, kept[i], gradient, i > 0)

    @property
    def learns(self) -> bool:
        """Whether the weights found all learn, and from their gradients as they are."""
        for weight in self._weights:
            if not weight.requires_grad or weight.grad is None or weight._backward_hooks:
                return False
        return True

    def find_arrays(self) -> None:
        """Let `run_on_array` and `learns` use the weights where they are now."""
        parameters = self._parameters
        weights = [weight for own in parameters for weight in own.values() if weight is not None]
        self._weights = weights
        where = [weight.data_ptr() for weight in weights]
        if where != self._steps_are_of:  # they were moved, replaced or copied
            on_cpu = all(weight.is_cpu for weight in weights)
            self._steps = [rule.on_array(layer) for layer, rule in self._layers if on_cpu]
            self._steps_are_of = where

    def run_on_array(self, inputs: FloatArray) -> FloatArray | None:
        """Outputs of inputs (B, F); None where torch has to do it."""
        if not self._steps:
            return None
        run = _QUIET.copy().run
        if len(inputs) == 1:  # NumPy takes a third less time for a vector than for one row
            return run(self._run_steps, inputs[0])[np.newaxis]
        return run(self._run_steps, inputs)

    def _run_steps(self, outputs: FloatArray) -> FloatArray:
        for step in self._steps:
            outputs = step(outputs)
        return outputs


def _run_linear(layer: nn.Linear, inputs: Tensor) -> tuple[Tensor, Tensor]:
    own: Any = layer._parameters  # an attribute of a module is slow to look up
    return functional.linear(inputs, own["weight"], own["bias"]), inputs


def _differentiate_linear(layer: nn.Linear, inputs: Tensor, given: Tensor, wanted: bool) -> Tensor:
    own: Any = layer._parameters
    torch.mm(given.t(), inputs, out=own["weight"].grad)
    if own["bias"] is not None:
        torch.sum(given, 0, out=own["bias"].grad)
    return given.mm(own["weight"]) if wanted else given


def _linear_on_array(layer: nn.Linear) -> _OnArray:
    weight: Array = layer.weight.detach().numpy().T
    if layer.bias is None:
        return lambda inputs: np.dot(inputs, weight)
    bias: Array = layer.bias.detach().numpy()

    def run(inputs: FloatArray) -> FloatArray:
        outputs: FloatArray = inputs.dot(weight)  # takes half as long as @ for one row
        outputs += bias
        return outputs

    return run


def _run_layer_norm(
    layer: nn.LayerNorm, inputs: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    own: Any = layer._parameters
    outputs, mean, rstd = torch.native_layer_norm(
        inputs, layer.normalized_shape, own["weight"], own["bias"], layer.eps
    )
    return outputs, (inputs, mean, rstd)


def _differentiate_layer_norm(
    layer: nn.LayerNorm, kept: tuple[Tensor, Tensor, Tensor], given: Tensor, wanted: bool
) -> Tensor:
    own: Any = layer._parameters
    weight, bias = own["weight"], own["bias"]
    mask = [wanted, weight is not None, bias is not None]
    result, for_weight, for_bias = torch.ops.aten.native_layer_norm_backward.default(
        given, kept[0], layer.normalized_shape, kept[1], kept[2], weight, bias, mask
    )
    if weight is not None:
        weight.grad.copy_(for_weight)
    if bias is not None:
        bias.grad.copy_(for_bias)
    outcome: Tensor = result
    return outcome


def _layer_norm_on_array(layer: nn.LayerNorm) -> _OnArray:
    (width,), epsilon = layer.normalized_shape, layer.eps
    average = np.full((width, 1), 1.0 / width, np.float32)  # `mean` takes several times as long
    weight = np.ones(width, np.float32) if layer.weight is None else layer.weight.detach().numpy()
    bias = np.zeros(width, np.float32) if layer.bias is None else layer.bias.detach().numpy()

    def run(inputs: FloatArray) -> FloatArray:
        outputs: FloatArray = inputs - inputs.dot(average)
        variance = (outputs * outputs).dot(average)
        outputs /= np.sqrt(variance + epsilon)
        outputs *= weight
        outputs += bias
        return outputs

    return run


def _run_relu(layer: nn.ReLU, inputs: Tensor) -> tuple[Tensor, Tensor]:
    outputs = torch.relu_(inputs)  # which nobody else keeps: no rule keeps its outputs but this one
    return outputs, outputs


def _differentiate_relu(layer: nn.ReLU, outputs: Tensor, given: Tensor, wanted: bool) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward.default(given, outputs, 0)
    return result


def _relu_on_array(layer: nn.ReLU) -> _OnArray:
    nothing = np.zeros((), np.float32)
    return lambda inputs: np.maximum(inputs, nothing, out=inputs)


def _run_tanh(layer: nn.Tanh, inputs: Tensor) -> tuple[Tensor, Tensor]:
    outputs = torch.tanh(inputs)
    return outputs, outputs


def _differentiate_tanh(layer: nn.Tanh, outputs: Tensor, given: Tensor, wanted: bool) -> Tensor:
    result: Tensor = torch.ops.aten.tanh_backward.default(given, outputs)
    return result


def _tanh_on_array(layer: nn.Tanh) -> _OnArray:
    return lambda inputs: np.tanh(inputs, out=inputs)


_RULES: dict[type[nn.Module], _Rule] = {
    nn.Linear: _Rule(_run_linear, _differentiate_linear, _linear_on_array),
    nn.LayerNorm: _Rule(_run_layer_norm, _differentiate_layer_norm, _layer_norm_on_array),
    nn.ReLU: _Rule(_run_relu, _differentiate_relu, _relu_on_array),
    nn.Tanh: _Rule(_run_tanh, _differentiate_tanh, _tanh_on_array),
}
