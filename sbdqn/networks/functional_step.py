"""The steps of common optimisers as functions of tensors, to be part of a compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, optim
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from sbdqn.networks.centered_rmsprop import CenteredRMSprop

FunctionalStep: TypeAlias = Callable[
    [Tensor, Tensor, Mapping[str, Any], Mapping[str, Any], Tensor], None
]
"""Changes values and state: of (values, gradient, state, settings, learning rate)."""


def functional_step(optimizer: optim.Optimizer) -> FunctionalStep | None:
    """What changes values and state as `optimizer.step()` does; None for other classes.

    It needs the state that the optimiser's own first step makes (`has_state`), and an
    optimiser that does no more than its class says (`takes_its_own_steps`).
    """
    return _STEPS.get(type(optimizer))


def has_state(optimizer: optim.Optimizer) -> bool:
    """Whether the optimiser has all the state that it will ever have."""
    settings = optimizer.param_groups[0]
    has_none = type(optimizer) is optim.SGD and settings["momentum"] == 0
    return has_none or bool(optimizer.state.get(settings["params"][0]))


def _adam_like(function: Callable[..., None]) -> FunctionalStep:
    def step(
        values: Tensor,
        gradient: Tensor,
        state: Mapping[str, Any],
        settings: Mapping[str, Any],
        rate: Tensor,
    ) -> None:
        beta1, beta2 = settings["betas"]
        function(
            [values],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [state["max_exp_avg_sq"]] if settings["amsgrad"] else [],
            [state["step"]],
            foreach=False,
            fused=False,
            capturable=state["step"].is_cuda,  # torch does not compile it on a GPU without
            amsgrad=settings["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=settings["weight_decay"],
            eps=settings["eps"],
            maximize=settings["maximize"],
        )

    return step


def _sgd_step(
    values: Tensor,
    gradient: Tensor,
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    rate: Tensor,
) -> None:
    sgd(
        [values],
        [gradient],
        [state.get("momentum_buffer")],
        foreach=False,
        fused=False,
        weight_decay=settings["weight_decay"],
        momentum=settings["momentum"],
        lr=rate,  # type: ignore[arg-type]
        dampening=settings["dampening"],
        nesterov=settings["nesterov"],
        maximize=settings["maximize"],
    )


def _rmsprop_step(
    values: Tensor,
    gradient: Tensor,
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    rate: Tensor,
) -> None:
    rmsprop(
        [values],
        [gradient],
        [state["square_avg"]],
        [state["grad_avg"]] if settings["centered"] else [],
        [state["momentum_buffer"]] if settings["momentum"] > 0 else [],
        [state["step"]],
        foreach=False,
        capturable=state["step"].is_cuda,
        maximize=settings["maximize"],
        lr=rate,  # type: ignore[arg-type]
        alpha=settings["alpha"],
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        momentum=settings["momentum"],
        centered=settings["centered"],
    )


_STEPS: dict[type[optim.Optimizer], FunctionalStep] = {
    optim.Adam: _adam_like(adam),
    optim.AdamW: _adam_like(adamw),
    optim.RMSprop: _rmsprop_step,
    optim.SGD: _sgd_step,
    CenteredRMSprop: CenteredRMSprop.functional_step,
}
