"""Observations become features: every space in numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from sbdqn.errors import SpaceError
from sbdqn.networks import Encoder, Mlp
from sbdqn.networks.bodies import is_image

IMAGE = spaces.Box(0, 255, (2, 2, 1), np.uint8)


def features(space: spaces.Space[Any], *observations: Any, **options: Any) -> list[list[float]]:
    encoder = Encoder(space, **options)
    obs = torch.from_numpy(np.stack([np.asarray(each, space.dtype) for each in observations]))
    encoded: Tensor = encoder(obs)
    assert encoded.dtype == torch.float32
    assert encoded.shape == (len(observations), encoder.features)
    return encoded.tolist()


def test_a_discrete_becomes_one_hot() -> None:
    assert features(spaces.Discrete(3), 0, 2) == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("start", [5, -2])
def test_a_discrete_is_counted_from_its_start(start: int) -> None:
    space = spaces.Discrete(3, start=start)
    assert features(space, start, start + 1, start + 2) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_each_axis_of_a_multi_discrete_becomes_one_hot() -> None:
    assert features(spaces.MultiDiscrete([2, 3]), [0, 2], [1, 0]) == [
        [1, 0, 0, 0, 1],
        [0, 1, 1, 0, 0],
    ]


def test_a_multi_discrete_is_counted_from_its_start() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[1, -1])
    assert features(space, [2, 1], [1, -1]) == [[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]


def test_a_multi_discrete_of_several_axes_is_read_row_by_row() -> None:
    space = spaces.MultiDiscrete(np.array([[2, 3], [1, 2]]))
    assert features(space, [[1, 2], [0, 1]]) == [[0, 1, 0, 0, 1, 1, 0, 1]]


@pytest.mark.parametrize("shape", [4, [2, 2]])
def test_a_multi_binary_becomes_zeros_and_ones(shape: Any) -> None:
    obs = np.array([1, 0, 0, 1]).reshape(shape)
    assert features(spaces.MultiBinary(shape), obs) == [[1, 0, 0, 1]]


def test_a_box_is_flattened_and_otherwise_left_alone() -> None:
    space = spaces.Box(-1e3, 1e3, (2, 2), np.float32)
    assert features(space, [[1, -2], [300, 0.5]]) == [[1, -2, 300, 0.5]]


def test_a_box_without_axes_is_one_feature() -> None:
    assert features(spaces.Box(0, 9, (), np.float32), 2.5, 3.5) == [[2.5], [3.5]]


def test_images_are_divided_by_255() -> None:
    pixels = [[[0], [51]], [[102], [255]]]
    assert features(IMAGE, pixels) == [pytest.approx([0.0, 0.2, 0.4, 1.0])]


def test_stacks_of_images_are_divided_by_255_too() -> None:
    stack = spaces.Box(0, 255, (2, 2, 1, 1), np.uint8)
    pixels = [[[[0]], [[51]]], [[[102]], [[255]]]]
    assert features(stack, pixels) == [pytest.approx([0.0, 0.2, 0.4, 1.0])]


def test_images_are_left_alone_where_that_is_wanted() -> None:
    pixels = [[[0], [51]], [[102], [255]]]
    assert features(IMAGE, pixels, normalize_images=False) == [[0, 51, 102, 255]]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (2, 2), np.uint8),  # no channels: counts, not pixels
        spaces.Box(0, 9, (2, 2, 1), np.uint8),
        spaces.Box(1, 255, (2, 2, 1), np.uint8),
        spaces.Box(0, 255, (2, 2, 1), np.float32),
    ],
)
def test_what_is_no_image_is_not_divided(space: spaces.Box) -> None:
    assert not is_image(space)
    assert features(space, np.full(space.shape, 5)) == [[5, 5, 5, 5]]


def test_an_image_has_three_axes_of_bytes_and_a_stack_more() -> None:
    assert is_image(IMAGE)
    assert is_image(spaces.Box(0, 255, (4, 2, 2, 1), np.uint8))
    assert not is_image(spaces.Discrete(3))


def test_another_space_is_refused_with_the_way_out() -> None:
    with pytest.raises(SpaceError, match=r"cannot read observations of Tuple.*FlattenObservation"):
        Encoder(spaces.Tuple([spaces.Discrete(2)]))


def test_an_encoder_has_nothing_to_learn_or_to_save() -> None:
    encoder = Encoder(spaces.MultiDiscrete([2, 3], start=[1, -1]))
    assert list(encoder.parameters()) == []
    assert encoder.state_dict() == {}


def layers(mlp: Mlp) -> list[str]:
    return [type(layer).__name__ for layer in mlp]


def test_an_mlp_is_linear_layers_each_followed_by_an_activation() -> None:
    mlp = Mlp(3, (5, 4))
    assert layers(mlp) == ["Linear", "ReLU", "Linear", "ReLU"]
    assert [tuple(p.shape) for p in mlp.parameters()] == [(5, 3), (5,), (4, 5), (4,)]
    assert mlp.features == 4


def test_an_mlp_takes_another_activation() -> None:
    assert layers(Mlp(3, (5,), nn.Tanh)) == ["Linear", "Tanh"]


def test_layer_norm_follows_every_linear_layer() -> None:
    torch.manual_seed(0)
    mlp = Mlp(3, (5, 4), layer_norm=True)
    assert layers(mlp) == ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU"]
    before_activation = mlp[1](mlp[0](100 * torch.randn(7, 3)))
    assert before_activation.mean(dim=1).tolist() == pytest.approx([0.0] * 7, abs=1e-5)
    assert before_activation.var(dim=1, correction=0).tolist() == pytest.approx([1.0] * 7, abs=1e-3)


def test_an_mlp_without_layers_passes_its_input_on() -> None:
    mlp = Mlp(3, ())
    obs = torch.randn(2, 3)
    assert mlp.features == 3
    assert mlp(obs) is obs
