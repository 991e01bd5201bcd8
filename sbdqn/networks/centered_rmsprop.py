"""The optimiser of the original DQN."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, optim


class CenteredRMSprop(optim.Optimizer):
    """RMSprop that divides by the standard deviation of the gradient.

    As DeepMind's DQN has it (Graves 2013, "Generating Sequences With Recurrent
    Neural Networks", Eq. 38 to 41, without momentum). torch's own
    `RMSprop(centered=True)` adds epsilon to the root instead of below it, and
    becomes NaN where rounding makes the variance of a constant gradient
    negative.

    Args:
        params: what to optimise.
        lr: step size.
        alpha: share of the past in the running means.
        eps: added to the variance, in units of the squared gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2.5e-4,
        alpha: float = 0.95,
        eps: float = 0.01 / 32**2,
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)
        return loss

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        deviation = _deviation(gradient, state, group)
        parameter.addcdiv_(gradient, deviation, value=-group["lr"])

    @staticmethod
    def functional_step(
        values: Tensor,
        gradient: Tensor,
        state: Mapping[str, Any],
        settings: Mapping[str, Any],
        rate: Tensor,
    ) -> None:
        """See `sbdqn.networks.functional_step`."""
        values.sub_(rate * (gradient / _deviation(gradient, state, settings)))


def _deviation(gradient: Tensor, state: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """The standard deviation of the gradient, this one taken in."""
    alpha = settings["alpha"]
    mean = state["mean"].lerp_(gradient, 1.0 - alpha)
    square = state["square"].mul_(alpha).addcmul_(gradient, gradient, value=1.0 - alpha)
    variance = torch.addcmul(square, mean, mean, value=-1.0).clamp_min_(0.0)
    return variance.add_(settings["eps"]).sqrt_()
