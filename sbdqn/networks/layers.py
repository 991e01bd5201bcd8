"""Small layers in a row on the CPU, run and differentiated by NumPy.

A module call, the lookup of its weights and above all a pass of the autograd
engine take several times as long as the arithmetic of a small network, and so do
torch's operations on small tensors: they pass through more code than a processor's
caches hold. The layers known here are calculated on the weights' own memory, and
their gradients follow from the chain rule written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from sbdqn.types import FloatArray

_Result = TypeVar("_Result")
_QUIET = Context()  # to run in a copy of it takes a fraction of the time of `errstate`
_QUIET.run(np.seterr, divide="ignore", over="ignore", invalid="ignore")


def quietly(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function in which NumPy lets infinity and NaN arise without a warning, as torch does.

    Args:
        function: what to call.
        arguments: of it.
    """
    return _QUIET.copy().run(function, *arguments)


class _OnArrays(Protocol):
    """A layer whose weights are arrays on the same memory."""

    def run(self, inputs: FloatArray) -> tuple[FloatArray, Any]:
        """Outputs of inputs (B, F) or (F,), and what `differentiate` wants to have kept.

        May write to what a layer before it gave.
        """

    def differentiate(self, kept: Any, given: FloatArray, ones: FloatArray) -> FloatArray:
        """From the gradient of the outputs (B, ...) to that of the inputs.

        Overwrites the gradients of the layer's weights; may write to `given`.

        Args:
            kept: what `run` gave.
            given: the gradient.
            ones: (B,), to sum over rows by a product.
        """


class Chain:
    """Layers in a row, with their gradients by hand; to be called `quietly`.

    Args:
        layers: of kinds that `Chain.knows`; the first one gives new arrays.

    Attributes:
        has_arrays: whether it may be run; to be assigned.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = list(layers)
        self._parameters: list[Any] = [layer._parameters for layer in layers]
        self._steps: list[_OnArrays] = []
        self._steps_are_of: list[int] = []
        self._ones = np.ones(0, np.float32)
        self.has_arrays = False

    @staticmethod
    def knows(layers: Sequence[nn.Module]) -> bool:
        """Whether all layers are of known kinds."""
        return all(type(layer) in _KINDS for layer in layers)

    def __getstate__(self) -> dict[str, Any]:
        """Without the steps on arrays, which are made when they are needed."""
        return {**self.__dict__, "_steps": [], "_steps_are_of": [], "has_arrays": False}

    def find_arrays(self) -> bool:
        """Use the weights, and their gradients, where they are now.

        Returns:
            Whether there are arrays of them: not so on another device.
        """
        weights = [each for own in self._parameters for each in own.values() if each is not None]
        where = list(map(Tensor.data_ptr, weights))
        gradients = [weight.grad for weight in weights]
        where += [0 if gradient is None else gradient.data_ptr() for gradient in gradients]
        if where != self._steps_are_of:  # they were moved, replaced or copied
            on_cpu = all(weight.is_cpu for weight in weights)
            self._steps = [_KINDS[type(layer)](layer) for layer in self._layers if on_cpu]
            self._steps_are_of = where
        return bool(self._steps)

    def run(self, inputs: FloatArray) -> tuple[FloatArray, list[Any]]:
        """Outputs of inputs (B, F) or (F,), and what `differentiate` wants to have."""
        outputs, kept = inputs, []
        for step in self._steps:
            outputs, needed = step.run(outputs)
            kept.append(needed)
        return outputs, kept

    def outputs_of_few(self, inputs: FloatArray) -> FloatArray:
        """Outputs of inputs (B, F), for acting."""
        if len(inputs) == 1:  # NumPy takes a third less time for a vector than for one row
            return self.run(inputs[0])[0][np.newaxis]
        return self.run(inputs)[0]

    def differentiate(self, kept: list[Any], gradient: FloatArray, share: FloatArray) -> None:
        """Overwrite `.grad` of all weights.

        Args:
            kept: what `run` gave.
            gradient: of each row's loss by the outputs (B, ...).
            share: (B,) of each row in the loss.
        """
        gradient = gradient * share[:, np.newaxis]
        rows = len(gradient)
        if len(self._ones) < rows:
            self._ones = np.ones(rows, np.float32)
        ones = self._ones[:rows]
        for i in reversed(range(len(self._steps))):
            gradient = self._steps[i].differentiate(kept[i], gradient, ones)


class _Linear:
    def __init__(self, layer: nn.Linear) -> None:
        self._weight, self._weight_gradient = _arrays(layer.weight)
        self._bias, self._bias_gradient = _arrays(layer.bias)
        self._transposed = self._weight.T

    def run(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        outputs: FloatArray = inputs.dot(self._transposed)  # for one row in half the time of @
        if self._bias is not None:
            outputs += self._bias
        return outputs, inputs

    def differentiate(self, inputs: FloatArray, given: FloatArray, ones: FloatArray) -> FloatArray:
        np.dot(given.T, inputs, out=self._weight_gradient)
        if self._bias is not None:
            np.dot(ones, given, out=self._bias_gradient)
        result: FloatArray = given.dot(self._weight)
        return result


class _LayerNorm:
    def __init__(self, layer: nn.LayerNorm) -> None:
        (width,) = layer.normalized_shape
        self._weight, self._weight_gradient = _arrays(layer.weight)
        self._bias, self._bias_gradient = _arrays(layer.bias)
        self._epsilon = layer.eps
        self._average = np.full((width, 1), 1.0 / width, np.float32)  # `mean` is slow

    def run(self, inputs: FloatArray) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
        normal: FloatArray = inputs - inputs.dot(self._average)
        scale = 1.0 / np.sqrt((normal * normal).dot(self._average) + self._epsilon)
        normal *= scale
        outputs = normal.copy() if self._weight is None else normal * self._weight
        if self._bias is not None:
            outputs += self._bias
        return outputs, (normal, scale)

    def differentiate(
        self, kept: tuple[FloatArray, FloatArray], given: FloatArray, ones: FloatArray
    ) -> FloatArray:
        normal, scale = kept
        along = given * normal
        if self._bias is not None:
            np.dot(ones, given, out=self._bias_gradient)
        if self._weight is not None:
            np.dot(ones, along, out=self._weight_gradient)
            given = given * self._weight
            along *= self._weight
        mean_along = along.dot(self._average)
        np.multiply(normal, mean_along, out=along)
        result: FloatArray = given - given.dot(self._average)
        result -= along
        result *= scale
        return result


class _ReLU:
    def __init__(self, layer: nn.ReLU) -> None:
        pass

    def run(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        outputs = np.maximum(inputs, _NOTHING, out=inputs)
        return outputs, outputs

    def differentiate(self, outputs: FloatArray, given: FloatArray, ones: FloatArray) -> FloatArray:
        given *= outputs > _NOTHING
        return given


class _Tanh:
    def __init__(self, layer: nn.Tanh) -> None:
        pass

    def run(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        outputs = np.tanh(inputs, out=inputs)
        return outputs, outputs

    def differentiate(self, outputs: FloatArray, given: FloatArray, ones: FloatArray) -> FloatArray:
        given *= 1.0 - outputs * outputs
        return given


def _arrays(weight: Tensor | None) -> tuple[Any, Any]:
    """A weight and its gradient, if it has one, on the same memory."""
    if weight is None:
        return None, None
    return weight.detach().numpy(), None if weight.grad is None else weight.grad.numpy()


_NOTHING = np.zeros((), np.float32)
_KINDS: dict[type[nn.Module], Any] = {
    nn.Linear: _Linear,
    nn.LayerNorm: _LayerNorm,
    nn.ReLU: _ReLU,
    nn.Tanh: _Tanh,
}
