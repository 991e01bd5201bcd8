"""The network: its modes, its noise, and what the head reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn.heads import Scalar
from sbdqn.networks import MlpPolicy, QNetwork
from sbdqn.types import Purpose

SPACE = spaces.Box(-1, 1, (4,), np.float32)
NOT_LEARNING = [purpose for purpose in Purpose if purpose is not Purpose.LEARN]


class Body(nn.Module):
    """A user's body with a layer that has modes."""

    features = 4

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.layer(obs)
        return features


def network_with(layer: nn.Module) -> QNetwork:
    policy = MlpPolicy(net_arch=(), features_extractor=lambda space: Body(layer))
    network = policy.build(SPACE, 4, Scalar())
    with torch.no_grad():
        network.output.linear.weight.copy_(torch.eye(4))
        network.output.linear.bias.zero_()
    return network


@pytest.mark.parametrize("purpose", NOT_LEARNING)
def test_dropout_drops_only_when_learning(purpose: Purpose) -> None:
    torch.manual_seed(0)
    network = network_with(nn.Dropout(0.5))
    obs = torch.ones(64, 4)
    assert (network.q(obs, purpose) == 1.0).all()
    assert set(network.q(obs, Purpose.LEARN).unique().tolist()) == {0.0, 2.0}
    assert (network.q(obs, purpose) == 1.0).all()


@pytest.mark.parametrize("purpose", NOT_LEARNING)
def test_batch_norm_uses_and_moves_the_batchs_statistics_only_when_learning(
    purpose: Purpose,
) -> None:
    layer = nn.BatchNorm1d(4, momentum=0.5, eps=1e-12, affine=False)
    network = network_with(layer)
    obs = torch.tensor([[3.0] * 4, [5.0] * 4])  # mean 4, variance 1 (2 without bias)
    assert network.q(obs, purpose)[:, 0].tolist() == pytest.approx([3.0, 5.0])
    assert layer.running_mean.tolist() == [0.0] * 4
    assert network.q(obs, Purpose.LEARN)[:, 0].tolist() == pytest.approx([-1.0, 1.0])
    assert layer.running_mean.tolist() == [2.0] * 4
    assert layer.running_var.tolist() == [1.5] * 4
    q = network.q(obs, purpose)[:, 0].tolist()
    assert q == pytest.approx([1.0 / 1.5**0.5, 3.0 / 1.5**0.5])


def test_calling_the_network_is_evaluation() -> None:
    network = network_with(nn.Dropout(0.5))
    network.predict(torch.ones(2, 4), Purpose.LEARN)
    assert (network(torch.ones(64, 4)) == 1.0).all()


def test_a_layer_of_ones_own_making_may_have_modes() -> None:
    class Scaled(nn.Module):
        def forward(self, obs: Tensor) -> Tensor:
            return obs * (2.0 if self.training else 1.0)

    network = network_with(Scaled())
    obs = torch.ones(1, 4)
    for purpose, value in [*((each, 1.0) for each in NOT_LEARNING), (Purpose.LEARN, 2.0)]:
        assert network.q(obs, purpose).tolist() == [[value] * 4]


def test_a_network_without_such_layers_stays_in_evaluation_mode() -> None:
    network = MlpPolicy(layer_norm=True).build(SPACE, 2, Scalar())
    assert not any(module.training for module in network.modules())
    network.predict(torch.zeros(1, 4), Purpose.LEARN)
    assert not any(module.training for module in network.modules())


def test_a_prediction_is_values_for_the_head_to_read() -> None:
    network = network_with(nn.Identity())
    obs = torch.arange(8.0).reshape(2, 4)
    prediction = network.predict(obs, Purpose.TARGET)
    assert prediction.values.shape == (2, 4, 1)
    assert prediction.fractions is None
    assert network.q(obs, Purpose.TARGET).tolist() == obs.tolist()


def test_layers_that_keep_noise_are_told_to_draw_it_afresh() -> None:
    class Noise(nn.Module):
        draws = 0

        def resample(self) -> None:
            self.draws += 1

        def forward(self, obs: Tensor) -> Tensor:
            return obs

    inner, outer = Noise(), Noise()
    network = network_with(nn.Sequential(inner, nn.Sequential(outer)))
    network.predict(torch.zeros(1, 4), Purpose.LEARN)
    assert (inner.draws, outer.draws) == (0, 0)
    network.resample()
    network.resample()
    assert (inner.draws, outer.draws) == (2, 2)


def test_the_gradient_flows_through_the_whole_network() -> None:
    def body(space: Space[Any]) -> nn.Module:
        return Body(nn.Linear(4, 4))

    torch.manual_seed(0)
    network = MlpPolicy(net_arch=(8,), features_extractor=body).build(SPACE, 2, Scalar())
    network.q(torch.randn(32, 4), Purpose.LEARN).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
