"""Bodies like SB3's features extractors, next to the same made of torch's layers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from sbdqn.errors import SpaceError
from sbdqn.networks import SB3Features


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def pixels(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def by_hand(body: nn.Module, channels_first: Tensor) -> Tensor:
    """SB3's NatureCNN with the weights of a body of ours."""
    convolutions = [each for each in body.modules() if isinstance(each, nn.Conv2d)]
    (linear,) = (each for each in body.modules() if isinstance(each, nn.Linear))
    for convolution in convolutions:
        channels_first = convolution(channels_first).relu()
    features: Tensor = linear(channels_first.flatten(1)).relu()
    return features


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("channels_first", [True, False])
def test_a_linear_layer_and_a_relu_stand_behind_the_convolutions(
    normalized: bool, channels_first: bool
) -> None:
    obs = pixels(5, 3, 36, 44)
    given = obs if channels_first else obs.permute(0, 2, 3, 1)
    body: Any = SB3Features((("", 7),), normalized)(image(*given.shape[1:]))
    expected = by_hand(body, obs.float() / (255 if normalized else 1))
    assert body.features == 7
    torch.testing.assert_close(body(given), expected)


def test_floats_have_their_channels_first_as_sb3_takes_them() -> None:
    space = spaces.Box(0, 1, (40, 36, 37), np.float32)
    body = SB3Features((("", 7),), normalize_images=False)(space)
    obs = torch.rand(2, 40, 36, 37)
    torch.testing.assert_close(body(obs), by_hand(body, obs))


def test_a_stack_of_images_is_one_of_many_channels() -> None:
    body = SB3Features((("", 7),))(image(4, 36, 36, 1))
    obs = pixels(2, 4, 36, 36, 1)
    torch.testing.assert_close(body(obs), by_hand(body, obs[..., 0] / 255))


@pytest.mark.parametrize(("normalized", "divisor"), [(True, 255), (False, 1)])
def test_an_image_is_flattened_channels_first(normalized: bool, divisor: int) -> None:
    body: Any = SB3Features((("", None),), normalized)(image(2, 3, 1))
    obs = pixels(4, 2, 3, 1)
    assert body.features == 6
    torch.testing.assert_close(body(obs), obs.permute(0, 3, 1, 2).flatten(1) / divisor)
    first: Any = SB3Features((("", None),), normalized)(image(1, 2, 3))
    torch.testing.assert_close(first(obs.view(4, 1, 2, 3)), obs.flatten(1) / divisor)


@pytest.mark.parametrize("space", [image(1, 2, 2, 3), spaces.Box(0, 9, (1, 2, 3), np.uint8)])
def test_what_is_no_image_to_sb3_is_flattened_as_it_is(space: spaces.Box) -> None:
    body = SB3Features((("", None),))(space)
    obs = torch.as_tensor(space.sample())[None]
    assert body(obs).tolist() == [obs.flatten().float().tolist()]


def test_parts_stand_in_the_order_that_is_given() -> None:
    space = spaces.Dict(
        {"a": spaces.Discrete(2), "b": image(3, 36, 36), "c": spaces.Box(0, 1, (2,))}
    )
    body: Any = SB3Features((("c", None), ("b", 5), ("a", None)))(space)
    obs = {"a": torch.tensor([1]), "b": pixels(1, 3, 36, 36), "c": torch.tensor([[0.25, 0.5]])}
    features = body(obs)[0].tolist()
    assert body.features == len(features) == 2 + 5 + 2
    assert features[:2] + features[-2:] == [0.25, 0.5, 0.0, 1.0]
    torch.testing.assert_close(body(obs)[:, 2:7], by_hand(body, obs["b"] / 255))


@pytest.mark.parametrize(
    "space", [image(3, 36, 36), spaces.Dict({"a": image(3, 36, 36), "b": spaces.Discrete(2)})]
)
def test_a_space_of_other_parts_is_refused(space: Any) -> None:
    with pytest.raises(SpaceError, match=r"the parts must be \['a'\]"):
        SB3Features((("a", 7),))(space)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(SpaceError, match="too small"):
        SB3Features((("", 7),))(image(3, 30, 36))
