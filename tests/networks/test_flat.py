"""One tensor for all parameters trains exactly like the parameters themselves."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from sbdqn.networks import FlatParameters, MlpPolicy


class Layerwise(optim.Optimizer):
    """A user's optimiser whose step depends on the norm of each layer."""

    def __init__(self, params: Iterator[Tensor], lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                parameter -= group["lr"] * (1 + parameter.norm()) * gradient / gradient.norm()


def a_module(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2))


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 3, generator=generator), torch.randn(16, 2, generator=generator)


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (optim.Adam, {}),
        (optim.Adam, {"eps": 1.5e-4, "betas": (0.8, 0.99), "weight_decay": 0.01}),
        (optim.Adam, {"foreach": True, "amsgrad": True}),
        (optim.AdamW, {"weight_decay": 0.1}),
        (optim.RMSprop, {"alpha": 0.95, "eps": 0.01, "centered": True}),
        (optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (optim.RAdam, {}),
        (Layerwise, {}),
    ],
)
def test_training_through_views_equals_plain_torch(
    optimizer: type[optim.Optimizer], settings: dict[str, Any]
) -> None:
    ours, plain = a_module(), a_module()
    flat = FlatParameters(ours)
    policy = MlpPolicy(optimizer_class=optimizer, optimizer_kwargs=settings)
    our_optimizer = policy.build_optimizer(flat, 0.01)
    plain_optimizer = optimizer(plain.parameters(), lr=0.01, **settings)  # type: ignore[call-arg]
    begin = [parameter.detach().clone() for parameter in plain.parameters()]

    for step in range(50):
        obs, target = data(step)
        flat.gradient.zero_()
        (ours(obs) - target).square().mean().backward()
        our_norm = flat.clip_gradient(0.5)
        our_optimizer.step()
        plain_optimizer.zero_grad()
        (plain(obs) - target).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        plain_optimizer.step()
        assert our_norm.item() == pytest.approx(norm.item(), rel=1e-4)

    for mine, theirs, first in zip(ours.parameters(), plain.parameters(), begin, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
        assert not torch.allclose(mine, first, atol=1e-2)


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e9])
def test_torch_clips_a_gradient_as_numpy_does(max_norm: float | None) -> None:
    by_torch, by_numpy = FlatParameters(a_module()), FlatParameters(a_module())
    by_torch._gradient_array = None  # as on a GPU
    for flat in (by_torch, by_numpy):
        flat.gradient.copy_(torch.linspace(-3, 5, len(flat.gradient)))
    norms = [flat.clip_gradient(max_norm) for flat in (by_torch, by_numpy)]
    torch.testing.assert_close(*norms)
    torch.testing.assert_close(by_torch.gradient, by_numpy.gradient)


def test_parameters_and_gradients_are_views_of_one_tensor() -> None:
    module = a_module()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    flat = FlatParameters(module)

    assert flat.values.numel() == sum(each.numel() for each in before) == 66
    assert torch.equal(flat.values, torch.cat([each.reshape(-1) for each in before]))
    for parameter, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter, value)

    with torch.no_grad():
        flat.values.fill_(2.0)
    assert all((parameter == 2.0).all() for parameter in module.parameters())
    obs, target = data(0)
    (module(obs) - target).square().mean().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None for gradient in gradients)
    assert torch.equal(
        flat.gradient, torch.cat([g.reshape(-1) for g in gradients if g is not None])
    )
    assert flat.values.grad is flat.gradient
    assert flat.gradient.abs().sum() > 0


def test_loading_a_state_dict_fills_the_flat_tensor() -> None:
    module = a_module()
    flat = FlatParameters(module)
    other = a_module(seed=1)
    module.load_state_dict(other.state_dict())
    expected = torch.cat([parameter.detach().reshape(-1) for parameter in other.parameters()])
    assert torch.equal(flat.values.detach(), expected)


def test_what_is_not_trained_stays_out_of_the_flat_tensor() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    flat = FlatParameters(module)
    assert flat.values.numel() == 3 + 3 + 3 + 1
    shapes = sorted(tuple(other.shape) for other in flat.others)
    assert shapes == [(), (3,), (3,), (3,), (3, 2)]  # counter, mean, variance, bias, weight


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_blending_is_a_weighted_mean_and_copies_buffers(tau: float) -> None:
    source, target = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    source[0].requires_grad_(False)
    target[0].requires_grad_(False)
    before, other = copy.deepcopy(target), FlatParameters(source)
    flat = FlatParameters(target)
    with torch.no_grad():
        other.values.copy_(torch.arange(6.0))
        flat.values.copy_(torch.full((6,), 8.0))
    source(torch.randn(10, 2))  # moves the running statistics
    assert not torch.equal(source[1].running_mean, before[1].running_mean)

    flat.blend(other, tau)

    assert flat.values.tolist() == [tau * k + (1 - tau) * 8.0 for k in range(6)]
    assert torch.equal(target[1].running_mean, source[1].running_mean)
    assert torch.equal(target[1].running_var, source[1].running_var)
    assert target[1].num_batches_tracked == source[1].num_batches_tracked == 1
    assert torch.equal(target[0].weight, source[0].weight)  # frozen: copied, not blended


def test_a_copy_is_exact_to_the_last_bit() -> None:
    source, target = FlatParameters(a_module(1)), FlatParameters(a_module(2))
    target.blend(source, 1.0)
    assert torch.equal(target.values, source.values)
    assert target.values.data_ptr() != source.values.data_ptr()


@pytest.mark.parametrize(
    ("max_norm", "clipped"),
    [(10.0, [3.0, 4.0]), (5.0, [3.0, 4.0]), (1.0, [0.6, 0.8]), (None, [3.0, 4.0])],
)
def test_clipping_scales_down_to_the_norm_and_never_up(
    max_norm: float | None, clipped: list[float]
) -> None:
    flat = FlatParameters(nn.Linear(2, 1, bias=False))
    flat.gradient.copy_(torch.tensor([3.0, 4.0]))
    assert flat.clip_gradient(max_norm).item() == 5.0
    assert flat.gradient.tolist() == pytest.approx(clipped, rel=1e-5)


def test_clipping_leaves_a_gradient_of_zero_alone() -> None:
    flat = FlatParameters(nn.Linear(2, 1, bias=False))
    assert flat.clip_gradient(1.0).item() == 0.0
    assert flat.gradient.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
def test_a_gradient_elsewhere_is_clipped_by_torch_alike(max_norm: float | None) -> None:
    here, elsewhere = (FlatParameters(a_module()) for _ in range(2))
    elsewhere._gradient_array = None  # as on a GPU
    norms = []
    for flat in (here, elsewhere):
        flat.gradient.copy_(torch.linspace(-1.0, 2.0, len(flat.gradient)))
        norms.append(flat.clip_gradient(max_norm))
    torch.testing.assert_close(norms[0], norms[1])
    torch.testing.assert_close(here.gradient, elsewhere.gradient)
    if max_norm == 0.5:
        assert here.gradient.norm().item() == pytest.approx(0.5, rel=1e-5)
