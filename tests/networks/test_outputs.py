"""From features to values (B, A, N)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sbdqn.heads import Categorical
from sbdqn.networks import DuelingOutput, LinearOutput, Mlp
from sbdqn.networks.noisy import MakeLinear
from sbdqn.types import Prediction


def test_the_n_outputs_of_an_action_stand_together() -> None:
    output = LinearOutput(features=2, n_actions=3, width=2)
    with torch.no_grad():
        # The outputs are 0, 1, ... 5 of the first feature, and 10 of the second.
        output.linear.weight.copy_(torch.tensor([[float(k), 10.0] for k in range(6)]))
        output.linear.bias.zero_()

    values = output(torch.tensor([[1.0, 0.0], [2.0, 1.0]]))

    assert values.tolist() == [
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
        [[10.0, 12.0], [14.0, 16.0], [18.0, 20.0]],
    ]


def test_a_single_observation_keeps_its_batch_axis() -> None:
    assert LinearOutput(4, 1, 1)(torch.zeros(1, 4)).shape == (1, 1, 1)


def dueling(n_actions: int, width: int, value: list[float], advantage: list[float]) -> Tensor:
    """The values (1, A, N) where the streams say this, by weights of one feature."""
    output = DuelingOutput(Mlp(1, ()), Mlp(1, ()), n_actions, width)
    with torch.no_grad():
        for stream, outputs in ((output.value, value), (output.advantage, advantage)):
            stream[-1].linear.weight.copy_(torch.tensor(outputs)[:, None])
            stream[-1].linear.bias.zero_()
        values: Tensor = output(torch.ones(1, 1))
    return values


def test_advantages_are_measured_from_their_mean_over_actions() -> None:
    values = dueling(3, 1, value=[10.0], advantage=[1.0, 3.0, 8.0])
    assert values.tolist() == [[[10.0 + 1.0 - 4.0], [10.0 + 3.0 - 4.0], [10.0 + 8.0 - 4.0]]]


def test_each_output_of_a_distribution_has_a_mean_of_its_own() -> None:
    # Advantages (1, 2), (3, 5) and (8, 11): their mean over actions is (4, 6).
    values = dueling(3, 2, value=[10.0, 20.0], advantage=[1.0, 2.0, 3.0, 5.0, 8.0, 11.0])
    assert values.tolist() == [[[7.0, 16.0], [9.0, 19.0], [14.0, 25.0]]]


def test_streams_meet_before_the_softmax() -> None:
    logits = dueling(3, 2, value=[1.0, 2.0], advantage=[0.1, 0.2, 0.3, 0.5, 0.8, 1.1])
    # Two atoms, at 0 and 1: the expected return is the logistic of the logits' difference.
    q = Categorical(atoms=2, low=0.0, high=1.0).q(Prediction(logits))
    differences = [1.0 + (0.1 - 0.2), 1.0 + (0.2 - 0.2), 1.0 + (0.3 - 0.2)]
    expected = [1 / (1 + math.exp(-difference)) for difference in differences]
    assert q.tolist()[0] == pytest.approx(expected)


def test_the_streams_have_layers_of_their_own_over_the_same_features() -> None:
    torch.manual_seed(0)
    value, advantage = Mlp(4, (6,)), Mlp(4, (5,))
    output = DuelingOutput(value, advantage, n_actions=3, width=2)
    features = torch.randn(8, 4)
    v = output.value[-1].linear(value(features)).view(8, 1, 2)
    a = output.advantage[-1].linear(advantage(features)).view(8, 3, 2)
    values = output(features)
    assert values.shape == (8, 3, 2)
    torch.testing.assert_close(values, v + (a - a.mean(1, keepdim=True)))
    torch.testing.assert_close(values.mean(1, keepdim=True), v)


def test_a_single_action_is_worth_what_the_state_is() -> None:
    assert dueling(1, 2, value=[3.0, 4.0], advantage=[7.0, 9.0]).tolist() == [[[3.0, 4.0]]]


def test_a_plain_output_subtracts_nothing() -> None:
    output = LinearOutput(1, n_actions=3, width=1)
    with torch.no_grad():
        output.linear.weight.copy_(torch.tensor([[1.0], [3.0], [8.0]]))
        output.linear.bias.fill_(10.0)
    assert output(torch.ones(1, 1)).tolist() == [[[11.0], [13.0], [18.0]]]


class Counted(nn.Linear):
    """A linear layer of another kind."""


@pytest.mark.parametrize("make_linear", [nn.Linear, Counted])
def test_the_last_layers_are_made_as_is_said(make_linear: MakeLinear) -> None:
    plain = LinearOutput(4, 3, 2, make_linear)
    output = DuelingOutput(Mlp(4, ()), Mlp(4, ()), 3, 2, make_linear)
    layers = [plain.linear, output.value[-1].linear, output.advantage[-1].linear]
    assert [type(layer) for layer in layers] == [make_linear] * 3
    assert [tuple(layer.weight.shape) for layer in layers] == [(6, 4), (2, 4), (6, 4)]
