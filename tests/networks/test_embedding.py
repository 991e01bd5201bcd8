"""Fractions become cosines, and cosines factors of the features."""

from __future__ import annotations

import math

import pytest
import torch

from sbdqn.networks import FractionEmbedding


def by_hand() -> FractionEmbedding:
    """Two features, three cosines."""
    embedding = FractionEmbedding(features=2, cosines=3)
    with torch.no_grad():
        embedding.linear.weight.copy_(torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, -1.0]]))
        embedding.linear.bias.copy_(torch.tensor([0.5, 0.25]))
    return embedding


def test_features_are_multiplied_by_a_rectified_layer_over_cosines() -> None:
    features = torch.tensor([[10.0, 100.0], [1.0, -1.0]])
    fractions = torch.tensor([[0.0, 0.5, 1.0], [1 / 3, 0.25, 2 / 3]])
    root = math.sqrt(0.5)
    # cos(0), cos(pi * tau) and cos(2 * pi * tau), by fraction:
    # 0: (1, 1, 1), a half: (1, 0, -1), 1: (1, -1, 1);
    # a third: (1, 0.5, -0.5), a quarter: (1, root, 0), two thirds: (1, -0.5, -0.5).
    expected = [
        [
            [10 * (1 + 2 + 4 + 0.5), 100 * (1 - 1 + 0.25)],
            [10 * 0.0, 100 * (0 + 1 + 0.25)],  # 1 + 0 - 4 + 0.5 is below 0
            [10 * (1 - 2 + 4 + 0.5), 100 * 0.0],  # -1 - 1 + 0.25 is below 0
        ],
        [
            [1 + 1 - 2 + 0.5, -(0.5 + 0.5 + 0.25)],
            [1 + 2 * root + 0.5, -(root + 0.25)],
            [0.0, -0.25],  # 1 - 1 - 2 + 0.5 is below 0; -0.5 + 0.5 + 0.25 is not
        ],
    ]
    embedded = by_hand()(features, fractions)
    assert embedded.shape == (2, 3, 2)  # (B, N, F)
    torch.testing.assert_close(embedded, torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_the_first_cosine_is_constant() -> None:
    frequencies = FractionEmbedding(features=1, cosines=5).frequencies
    assert frequencies.tolist() == pytest.approx([math.pi * i for i in range(5)])


def test_a_single_cosine_knows_nothing_of_the_fraction() -> None:
    embedding = FractionEmbedding(features=4, cosines=1)
    embedded = embedding(torch.ones(2, 4), torch.rand(2, 3))
    assert (embedded == embedded[:1, :1]).all()


def test_frequencies_are_no_part_of_the_state_and_are_not_learned() -> None:
    embedding = by_hand()
    assert list(embedding.state_dict()) == ["linear.weight", "linear.bias"]
    assert len(list(embedding.parameters())) == 2


def test_the_gradient_reaches_features_and_weights() -> None:
    embedding = by_hand()
    features = torch.tensor([[10.0, 100.0]], requires_grad=True)
    embedding(features, torch.tensor([[0.0, 0.5]])).sum().backward()
    # Factors 7.5 and 0 of the first feature, 0.25 and 1.25 of the second.
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.tensor([[7.5, 1.5]]))
    # What is rectified has no slope: the first feature learns at the first fraction alone.
    expected = torch.tensor([[10.0, 10.0, 10.0], [200.0, 100.0, 0.0]])
    torch.testing.assert_close(embedding.linear.weight.grad, expected, rtol=1e-5, atol=1e-4)
