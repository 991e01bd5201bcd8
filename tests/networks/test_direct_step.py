"""A direct step changes weights and state exactly as the optimiser's own step."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from sbdqn.networks import direct_step

SETTINGS: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    (optim.Adam, {"fused": True}),
    (optim.Adam, {"fused": True, "betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adam, {"fused": True, "maximize": True}),
    (optim.Adam, {"fused": True, "amsgrad": True}),
    (optim.Adam, {"foreach": True}),
    (optim.AdamW, {"fused": True}),
    (optim.AdamW, {"fused": True, "weight_decay": 0.3}),
    (optim.RMSprop, {}),
    (optim.SGD, {"fused": True, "momentum": 0.9}),
    (optim.RAdam, {}),
]
if "decoupled_weight_decay" in inspect.signature(optim.Adam).parameters:  # since torch 2.6
    SETTINGS.append(
        (optim.Adam, {"fused": True, "weight_decay": 0.3, "decoupled_weight_decay": True})
    )


def weights() -> Tensor:
    return nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))


def give_gradient(parameter: Tensor, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    parameter.grad = 10 ** (step % 5 - 3) * torch.randn(50, generator=generator)


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
@pytest.mark.parametrize("grad", [True, False])
def test_thirty_steps_are_the_same_to_the_bit(
    kind: Any, settings: dict[str, Any], grad: bool
) -> None:
    mine, theirs = weights(), weights()
    my_optimizer, their_optimizer = (kind([each], lr=0.01, **settings) for each in (mine, theirs))
    step = direct_step(my_optimizer)
    for count in range(30):
        give_gradient(mine, count)
        give_gradient(theirs, count)
        for optimizer in (my_optimizer, their_optimizer):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + count)
        with torch.set_grad_enabled(grad):
            step()
            their_optimizer.step()
        assert torch.equal(mine, theirs)
    state, expected = my_optimizer.state[mine], their_optimizer.state[theirs]
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_a_loaded_state_is_the_one_that_is_continued() -> None:
    first, second = weights(), weights()
    optimizers = [optim.Adam([each], lr=0.01, fused=True) for each in (first, second)]
    steps = [direct_step(each) for each in optimizers]
    for count in range(10):
        give_gradient(first, count)
        steps[0]()
    give_gradient(second, 99)
    steps[1]()
    steps[1]()
    with torch.no_grad():
        second.copy_(first)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for parameter, step in zip((first, second), steps, strict=True):
        give_gradient(parameter, 11)
        step()
    assert torch.equal(first, second)


def stepped_twice() -> tuple[Tensor, optim.Adam, Callable[[], None]]:
    parameter = weights()
    optimizer = optim.Adam([parameter], lr=0.01, fused=True)
    step = direct_step(optimizer)
    give_gradient(parameter, 0)
    step()
    step()
    return parameter, optimizer, step


@pytest.mark.parametrize(
    "register",
    [
        optim.Adam.register_step_pre_hook,
        optim.Adam.register_step_post_hook,
        lambda _, hook: register_optimizer_step_pre_hook(hook),
        lambda _, hook: register_optimizer_step_post_hook(hook),
    ],
)
def test_hooks_are_called_as_ever(register: Any) -> None:
    _, optimizer, step = stepped_twice()
    called: list[Any] = []
    handle = register(optimizer, lambda *_: called.append(1))
    try:
        step()
    finally:
        handle.remove()
    step()
    assert len(called) == 1


def test_a_learning_rate_scheduler_sees_every_step() -> None:
    _, optimizer, step = stepped_twice()
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1)
    step()
    scheduler.step()  # warns if there was no step
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_settings_that_come_later_count() -> None:
    mine, optimizer, step = stepped_twice()
    theirs, other, _ = stepped_twice()
    for each in (optimizer, other):
        state = each.state_dict()
        state["param_groups"][0]["amsgrad"] = True
        state["state"][0]["max_exp_avg_sq"] = torch.full((50,), 100.0)
        each.load_state_dict(state)
    step()
    other.step()
    assert torch.equal(mine, theirs)


def test_a_dropped_gradient_is_no_step() -> None:
    parameter, optimizer, step = stepped_twice()
    optimizer.zero_grad()
    before = parameter.detach().clone()
    step()
    assert torch.equal(parameter, before)


@pytest.mark.parametrize("n_groups", [1, 2])
def test_several_tensors_are_the_optimisers_own_business(n_groups: int) -> None:
    parameters = [weights(), weights()]
    groups: Any = parameters if n_groups == 1 else [{"params": [each]} for each in parameters]
    optimizer = optim.Adam(groups, lr=0.01, fused=True)
    step = direct_step(optimizer)
    for parameter in parameters:
        give_gradient(parameter, 0)
    step()
    halfway = parameters[1].detach().clone()
    step()
    assert not torch.equal(parameters[1], halfway)
    assert torch.equal(*parameters)
