"""Noisy linear layers, in numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sbdqn.networks import NoisyLinear
from sbdqn.protocols import Noisy

# As the layer keeps it: f(4) = 2 and f(-9) = -3 come in, f(1) = 1 and f(-0.25) = -0.5 go out.
NOISE_IN = torch.tensor([2.0, -3.0])
NOISE_OUT = torch.tensor([1.0, -0.5])
FEATURES = torch.tensor([[1.0, 1.0], [10.0, 0.0]])


def by_hand() -> NoisyLinear:
    """Two inputs, two outputs, and nothing left to chance."""
    layer = NoisyLinear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.weight_sigma.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
        layer.bias.copy_(torch.tensor([10.0, 20.0]))
        layer.bias_sigma.copy_(torch.tensor([0.5, 6.0]))
        layer.noise_in.copy_(NOISE_IN)
        layer.noise_out.copy_(NOISE_OUT)
    return layer


def effective_noise(layer: NoisyLinear) -> tuple[Tensor, Tensor]:
    """What the layer adds to its weights and its biases, in units of sigma."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight_sigma.fill_(1.0)
        layer.bias_sigma.zero_()
        weight = layer(torch.eye(layer.weight.shape[1])).T
        layer.weight_sigma.zero_()
        layer.bias_sigma.fill_(1.0)
        bias = layer(torch.zeros(1, layer.weight.shape[1]))[0]
    return weight, bias


def test_the_output_is_that_of_the_noisy_weights_and_biases() -> None:
    # Noise of the weights: [[1 * 2, 1 * -3], [-0.5 * 2, -0.5 * -3]]; weights with it:
    # [[1 + 0.1 * 2, 2 + 0.2 * -3], [3 + 0.3 * -1, 4 + 0.4 * 1.5]] = [[1.2, 1.4], [2.7, 4.6]].
    # Biases: [10 + 0.5 * 1, 20 + 6 * -0.5] = [10.5, 17].
    expected = torch.tensor([[1.2 + 1.4 + 10.5, 2.7 + 4.6 + 17.0], [12.0 + 10.5, 27.0 + 17.0]])
    torch.testing.assert_close(by_hand()(FEATURES), expected)


def test_a_silent_layer_is_its_means_and_nothing_else() -> None:
    layer = by_hand()
    noisy = layer(FEATURES)
    layer.is_silent = True
    assert layer(FEATURES).tolist() == [[13.0, 27.0], [20.0, 50.0]]
    layer.is_silent = False
    assert torch.equal(layer(FEATURES), noisy)


def test_the_gradients_are_those_of_the_noisy_weights() -> None:
    layer = by_hand()
    slope = torch.tensor([[1.0, 0.0], [0.0, 100.0]])  # of the loss by each output
    (layer(FEATURES) * slope).sum().backward()
    # By the weights: output 0 saw the first row of features, output 1 the second, 100 times.
    gradient = torch.tensor([[1.0, 1.0], [1000.0, 0.0]])
    noise = torch.tensor([[2.0, -3.0], [-1.0, 1.5]])
    torch.testing.assert_close(layer.weight.grad, gradient)
    torch.testing.assert_close(layer.weight_sigma.grad, gradient * noise)
    torch.testing.assert_close(layer.bias.grad, torch.tensor([1.0, 100.0]))
    torch.testing.assert_close(layer.bias_sigma.grad, torch.tensor([1.0, -50.0]))


def test_a_silent_layer_leaves_the_size_of_its_noise_alone() -> None:
    layer = by_hand()
    layer.is_silent = True
    layer(FEATURES).sum().backward()
    assert layer.weight_sigma.grad is layer.bias_sigma.grad is None
    assert layer.weight.grad.tolist() == [[11.0, 1.0]] * 2


def test_one_vector_for_each_side_makes_the_noise_of_all_weights() -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(7, 5)
    weight, bias = effective_noise(layer)
    assert torch.linalg.matrix_rank(weight) == 1
    torch.testing.assert_close(weight, layer.noise_out[:, None] * layer.noise_in)
    torch.testing.assert_close(bias, layer.noise_out)  # not another draw


def test_noise_is_the_signed_root_of_what_torchs_generator_draws() -> None:
    layer = NoisyLinear(7, 5)
    torch.manual_seed(3)
    layer.resample()
    torch.manual_seed(3)
    for noise, size in ((layer.noise_in, 7), (layer.noise_out, 5)):
        drawn = torch.randn(size)
        assert (drawn < 0).any()
        assert (drawn > 0).any()
        torch.testing.assert_close(noise, torch.sign(drawn) * torch.sqrt(drawn.abs()))


def test_noise_has_the_moments_of_the_root_of_a_normal_variable() -> None:
    torch.manual_seed(0)
    noise = NoisyLinear(200_000, 1).noise_in
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    # The square is the size of a normal variable, its own square has mean 1 (a normal one: 3).
    assert noise.square().mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)
    assert noise.pow(4).mean().item() == pytest.approx(1.0, abs=0.02)


def test_weights_and_biases_start_uniform_within_the_root_of_the_inputs() -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(16, 4_000)
    for mean in (layer.weight, layer.bias):
        assert mean.abs().max().item() <= 0.25
        assert mean.min().item() == pytest.approx(-0.25, abs=0.001)
        assert mean.max().item() == pytest.approx(0.25, abs=0.001)
        assert mean.var().item() == pytest.approx(0.5**2 / 12, rel=0.05)


@pytest.mark.parametrize(("sigma", "start"), [(0.5, 0.125), (2.0, 0.5)])
def test_the_noise_of_weights_and_of_biases_starts_by_the_inputs(
    sigma: float, start: float
) -> None:
    layer = NoisyLinear(16, 3, sigma)
    assert layer.weight_sigma.shape == (3, 16)
    assert (layer.weight_sigma == start).all()
    assert layer.bias_sigma.tolist() == [start] * 3


def test_sigma_is_a_half_if_not_said_otherwise() -> None:
    assert NoisyLinear(1, 1).bias_sigma.item() == 0.5


def test_a_new_layer_has_noise_at_once() -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(2, 2)
    noisy = layer(FEATURES)
    layer.is_silent = True
    assert not torch.isclose(layer(FEATURES), noisy).any()


def test_noise_stays_until_it_is_drawn_afresh() -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(2, 2)
    first = layer(FEATURES)
    torch.rand(5)
    assert torch.equal(layer(FEATURES), first)
    before = [layer.noise_in.clone(), layer.noise_out.clone()]
    layer.resample()
    for noise, old in zip((layer.noise_in, layer.noise_out), before, strict=True):
        assert (noise != old).all()
    assert not torch.isclose(layer(FEATURES), first).any()


def test_noise_is_no_part_of_the_state() -> None:
    assert list(NoisyLinear(2, 2).state_dict()) == [
        "weight",
        "bias",
        "weight_sigma",
        "bias_sigma",
    ]
    assert len(list(NoisyLinear(2, 2).parameters())) == 4


def test_the_layer_is_what_the_network_asks_to_resample() -> None:
    assert isinstance(NoisyLinear(2, 2), Noisy)
