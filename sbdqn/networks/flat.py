"""All parameters of a network as one tensor, all their gradients as another.

Clipping, the optimiser and the target blend are then one operation each,
whatever the number of layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sbdqn.protocols import Noisy


class FlatParameters:
    """Moves a module's trainable parameters into one contiguous tensor.

    The module keeps working as before: its parameters, and their gradients, are
    views of `values` and `values.grad`.

    Args:
        module: the module, on its final device. Moving it elsewhere afterwards
            would cut the views.

    Attributes:
        values: (P,) the trainable parameters; its `.grad` is always present.
        trainable: those parameters as the module has them.
        frozen: the other parameters.
        buffers: all but noise.
    """

    def __init__(self, module: nn.Module) -> None:
        named = dict(module.named_parameters())
        trainable = {name: p for name, p in named.items() if p.requires_grad}
        frozen = {name: p for name, p in named.items() if not p.requires_grad}
        buffers = dict(_buffers(module))
        self.trainable = list(trainable.values())
        self.frozen: list[Tensor] = list(frozen.values())
        self.buffers = list(buffers.values())
        self._names = [*trainable, *frozen, *buffers]
        self._shapes = [p.shape for p in self.trainable]
        self._sizes = [p.numel() for p in self.trainable]
        self.values = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.trainable]))
        self.gradient = torch.zeros_like(self.values)
        self._gradient_row = self.gradient.view(1, -1)
        self._gradient_array = self.gradient.numpy() if self.gradient.is_cpu else None
        self._gradients: list[Tensor] = []
        offset = 0
        for parameter in self.trainable:
            here = slice(offset, offset + parameter.numel())
            parameter.data = self.values.data[here].view_as(parameter)
            self._gradients.append(self.gradient[here].view_as(parameter))
            offset = here.stop
        self.zero_gradient()

    @property
    def others(self) -> list[Tensor]:
        """What is not trained: `frozen` and `buffers`."""
        return [*self.frozen, *self.buffers]

    def learns(self) -> bool:
        """Whether all of `trainable` still learn, and from their gradients as they are.

        Those whose `.grad` somebody has dropped get it back.
        """
        self.values.grad = self.gradient
        for parameter, gradient in zip(self.trainable, self._gradients, strict=True):
            if not parameter.requires_grad or parameter._backward_hooks:
                return False
            if parameter.grad is not gradient:
                parameter.grad = gradient
        return True

    def named(self, values: Tensor, others: Sequence[Tensor]) -> dict[str, Tensor]:
        """The module's parameters and buffers by name, made of these instead.

        Args:
            values: (P,) in the place of `values`.
            others: in the place of `others`.
        """
        parts = torch.split(values, self._sizes)
        views = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return dict(zip(self._names, [*views, *others], strict=True))

    def zero_gradient(self) -> None:
        """Begin a gradient, with `.grad` everywhere, though somebody may have dropped it."""
        self.gradient.zero_()
        self.values.grad = self.gradient
        for parameter, gradient in zip(self.trainable, self._gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def blend(self, source: FlatParameters, tau: float) -> None:
        """Become `tau * source + (1 - tau) * self`; copy what is not trained."""
        if tau == 1.0:
            self.values.copy_(source.values)
        else:
            self.values.lerp_(source.values, tau)
        for mine, theirs in zip(self.others, source.others, strict=True):
            mine.copy_(theirs)

    def clip_gradient(self, max_norm: float | None) -> Tensor:
        """Scale the gradient down to `max_norm`, and return its norm before."""
        if self._gradient_array is None:
            norm: Tensor = torch.linalg.vector_norm(self.gradient)
            if max_norm is not None:
                self._gradient_row.renorm_(2, 0, max_norm)
            return norm
        length = math.sqrt(self._gradient_array.dot(self._gradient_array))
        if max_norm is not None and length > max_norm:
            self.gradient.mul_(max_norm / length)
        return torch.from_numpy(np.array(length, np.float32))


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All buffers by name, but the noise of layers that draw their own: what they do not save."""
    for prefix, layer in module.named_modules():
        unsaved = layer._non_persistent_buffers_set
        for name, buffer in layer._buffers.items():
            is_noise = isinstance(layer, Noisy) and name in unsaved
            if buffer is not None and not is_noise:
                yield f"{prefix}.{name}" if prefix else name, buffer
