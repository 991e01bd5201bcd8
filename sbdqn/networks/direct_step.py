"""Adam's step without the bookkeeping of torch's optimisers around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

_FUSED: dict[type[optim.Optimizer], Any] = {
    optim.Adam: torch._fused_adam_,
    optim.AdamW: torch._fused_adamw_,
}


def direct_step(optimizer: optim.Optimizer) -> Callable[[], None]:
    """What steps an optimiser, to the same effect as its `step()`.

    Adam and AdamW on one tensor are one fused operation. torch spends several
    times as long around it, on grouping tensors and on records for its
    profiler; this calls it alone. The optimiser keeps its state and settings,
    and takes every other step itself: the first, which makes the state, and all
    where hooks, other settings or another class ask for it.

    Args:
        optimizer: any.
    """
    operation = _FUSED.get(type(optimizer))
    parameter = optimizer.param_groups[0]["params"][0]
    values: Tensor = parameter.detach()

    def step() -> None:
        state, settings = optimizer.state.get(parameter), optimizer.param_groups[0]
        if operation is None or not state or not _is_common(optimizer):
            optimizer.step()
            return
        state["step"].add_(1)
        beta1, beta2 = settings["betas"]
        operation(
            [values],
            [parameter.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=settings["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=settings["weight_decay"],
            eps=settings["eps"],
            amsgrad=False,
            maximize=settings["maximize"],
        )

    return step


def _is_common(optimizer: optim.Optimizer) -> bool:
    """Whether it steps as `_FUSED` does; all of this may change at any time."""
    settings = optimizer.param_groups[0]
    return settings["fused"] and not settings["amsgrad"] and not takes_its_own_steps(optimizer)


def takes_its_own_steps(optimizer: optim.Optimizer) -> bool:
    """Whether a step is more than its class says; all of this may change at any time."""
    settings = optimizer.param_groups[0]
    return bool(
        len(optimizer.param_groups) > 1
        or len(settings["params"]) > 1
        or settings["params"][0].grad is None
        or (type(optimizer) is optim.Adam and settings.get("decoupled_weight_decay", False))
        or "step" in vars(optimizer)  # learning rate schedulers wrap it
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
