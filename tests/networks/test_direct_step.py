"""A direct step changes weights and state exactly as the optimiser's own step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim.optimizer import register_optimizer_step_post_hook

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


def test_hooks_are_called_as_ever() -> None:
    parameter, called = weights(), []
    optimizer = optim.Adam([parameter], lr=0.01, fused=True)
    step = direct_step(optimizer)
    give_gradient(parameter, 0)
    step()
    step()
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    step()
    assert called == ["before", "after"]
    handle = register_optimizer_step_post_hook(lambda *_: called.append("all"))
    try:
        step()
    finally:
        handle.remove()
    assert sorted(called) == ["after", "after", "all", "before", "before"]


def test_several_tensors_are_the_optimisers_own_business() -> None:
    parameters = [weights(), weights()]
    optimizer = optim.Adam(parameters, lr=0.01, fused=True)
    step = direct_step(optimizer)
    for parameter in parameters:
        give_gradient(parameter, 0)
    step()
    step()
    assert all(not torch.equal(parameter, weights()) for parameter in parameters)
