"""From features to values (B, A, N)."""

from __future__ import annotations

import torch

from sbdqn.networks import LinearOutput


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
