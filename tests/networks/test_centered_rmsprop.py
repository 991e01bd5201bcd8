"""The optimiser of the original DQN, by hand and where rounding could ruin it."""

from __future__ import annotations

import math

import pytest
import torch

from sbdqn.networks import CenteredRMSprop, MlpPolicy


def test_two_steps_by_hand() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = CenteredRMSprop([parameter], lr=0.5, alpha=0.75, eps=0.25)
    parameter.grad = torch.tensor([2.0])
    optimizer.step()  # mean 0.5, square 1, variance 0.75
    assert parameter.item() == pytest.approx(1.0 - 0.5 * 2.0 / math.sqrt(0.75 + 0.25))
    parameter.grad = torch.tensor([-1.0])
    optimizer.step()  # mean 0.125, square 1
    expected = 0.0 + 0.5 / math.sqrt(1.0 - 0.125**2 + 0.25)
    assert parameter.item() == pytest.approx(expected)


def test_a_constant_gradient_stays_finite_for_ever() -> None:
    gradient = 10.0 ** torch.linspace(-6, 6, 1_000)
    parameter = torch.nn.Parameter(torch.zeros(1_000))
    optimizer = CenteredRMSprop([parameter], eps=1e-12)
    for _ in range(1_000):
        parameter.grad = gradient
        optimizer.step()
    assert parameter.isfinite().all()


def test_a_parameter_without_a_gradient_stays_and_a_closure_gives_the_loss() -> None:
    moved, kept = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = CenteredRMSprop([moved, kept], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = moved.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0
    assert moved.item() < 1.0
    assert kept.item() == 1.0


def test_a_policy_takes_it_by_name() -> None:
    policy = MlpPolicy(optimizer_class="CenteredRMSprop", optimizer_kwargs={"alpha": 0.9})
    assert policy._optimizer_class() is CenteredRMSprop
