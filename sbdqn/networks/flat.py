"""All parameters of a network as one tensor, all their gradients as another.

Clipping, the optimiser and the target blend are then one operation each,
whatever the number of layers.
"""

from __future__ import annotations

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
        others: parameters that are not trained, and buffers but for noise.
    """

    def __init__(self, module: nn.Module) -> None:
        self.trainable = [p for p in module.parameters() if p.requires_grad]
        frozen = [p for p in module.parameters() if not p.requires_grad]
        self.others: list[Tensor] = [*frozen, *_buffers(module)]
        self.values = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.trainable]))
        self.gradient = torch.zeros_like(self.values)
        self._gradient_row = self.gradient.view(1, -1)
        self._gradients: list[Tensor] = []
        offset = 0
        for parameter in self.trainable:
            here = slice(offset, offset + parameter.numel())
            parameter.data = self.values.data[here].view_as(parameter)
            self._gradients.append(self.gradient[here].view_as(parameter))
            offset = here.stop
        self.zero_gradient()

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
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        if max_norm is not None:
            self._gradient_row.renorm_(2, 0, max_norm)
        return norm


def _buffers(module: nn.Module) -> list[Tensor]:
    """All buffers, but the noise of layers that draw their own: what they do not save."""
    return [
        buffer
        for layer in module.modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
        and not (isinstance(layer, Noisy) and name in layer._non_persistent_buffers_set)
    ]
