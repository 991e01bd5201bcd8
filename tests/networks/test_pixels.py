"""Images become features: the published networks, whatever the layout."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.wrappers import FrameStackObservation
from torch import Tensor, nn

from sbdqn import DQN
from sbdqn.errors import ConfigurationError, SpaceError
from sbdqn.heads import Scalar
from sbdqn.networks import FlatParameters, MlpPolicy
from sbdqn.networks.pixels import Impala, MinAtar, Nature

BODIES = pytest.mark.parametrize("body", [Nature, Impala])


def image_space(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def unit_space(*shape: int) -> spaces.Box:
    return spaces.Box(0, 1, shape, np.float32)


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def seeded(body: Any, space: Space[Any], **options: Any) -> Any:
    """A body whose weights are the same for all spaces of as many channels."""
    torch.manual_seed(0)
    return body(space, **options)


def n_parameters(body: nn.Module) -> int:
    return sum(parameter.numel() for parameter in body.parameters())


def convolutions(body: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in body.modules() if isinstance(layer, nn.Conv2d)]


@torch.no_grad()
def pass_on(convolution: nn.Conv2d, factor: float = 1.0) -> None:
    """Make each map that comes out a map that comes in, times a factor."""
    convolution.weight.zero_()
    convolution.bias.zero_()
    for outgoing in range(convolution.out_channels):
        convolution.weight[outgoing, outgoing % convolution.in_channels, 1, 1] = factor


class SideEnv(gym.Env[Any, Any]):
    """One half of the image is bright: the left asks for action 0, the right for 1."""

    def __init__(self, *shape: int) -> None:
        self.observation_space = image_space(*shape)
        self.action_space = spaces.Discrete(2)

    def view(self, side: int) -> Any:
        image = np.zeros(self.observation_space.shape, np.uint8)
        half = image.shape[1] // 2
        image[:, half * side : half * (side + 1)] = 255
        return image

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.side = int(self.np_random.integers(2))
        return self.view(self.side), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.view(self.side), float(action == self.side), True, False, {}


def test_nature_has_the_published_size() -> None:
    body = Nature(image_space(84, 84, 4))
    # 4 * 32 * 8 * 8 + 32, 32 * 64 * 4 * 4 + 64, 64 * 64 * 3 * 3 + 64
    sizes = [layer.weight.numel() + layer.bias.numel() for layer in convolutions(body)]
    assert sizes == [8224, 32832, 36928]
    assert n_parameters(body) == 77_984
    # (84 - 8) / 4 + 1 = 20, (20 - 4) / 2 + 1 = 9, (9 - 3) / 1 + 1 = 7, 64 * 7 * 7
    assert body.features == 3136
    assert body(images(2, 84, 84, 4)).shape == (2, 3136)


def test_impala_has_the_published_size() -> None:
    body = Impala(image_space(84, 84, 4))
    # a section: 9 * before * maps + maps, and four times 9 * maps * maps + maps
    sections = [592 + 4 * 2320, 4640 + 4 * 9248, 9248 + 4 * 9248]
    assert n_parameters(body) == sum(sections) == 97_744
    assert len(convolutions(body)) == 15
    assert body.features == 32 * 11 * 11  # 84, 42, 21, 11
    assert body(images(2, 84, 84, 4)).shape == (2, 3872)


def test_minatar_has_the_published_size() -> None:
    body = MinAtar(spaces.Box(0, 1, (10, 10, 4), bool))
    assert n_parameters(body) == 4 * 16 * 9 + 16
    assert body.features == 16 * 8 * 8
    ones = torch.ones(2, 10, 10, 4, dtype=torch.bool)
    (convolution,) = convolutions(body)
    with torch.no_grad():
        convolution.weight.fill_(0.5)
        convolution.bias.fill_(-10.0)
    assert body(ones).tolist() == [[36 * 0.5 - 10.0] * 1024] * 2
    assert body(~ones).tolist() == [[0.0] * 1024] * 2


def test_minatar_is_told_where_ten_channels_are() -> None:
    space = spaces.Box(0, 1, (10, 10, 10), bool)
    assert MinAtar(space, channels_last=True)[0].shape == (10, 10, 10)
    with pytest.raises(SpaceError, match="channels_last"):
        MinAtar(space)
    with pytest.raises(SpaceError, match=r"too small for MinAtar.*; let MlpPolicy flatten them"):
        MinAtar(image_space(2, 3, 1))


def test_with_the_policys_layers_nature_is_the_published_network() -> None:
    policy = MlpPolicy(features_extractor=Nature, net_arch=(512,), layer_norm=False)
    network = policy.build(image_space(84, 84, 4), 6, Scalar())
    assert n_parameters(network) == 77_984 + 3136 * 512 + 512 + 512 * 6 + 6
    assert network(images(3, 84, 84, 4)).shape == (3, 6)


def test_the_features_of_nature_are_sums_over_what_its_windows_see() -> None:
    body = Nature(unit_space(44, 36, 1))
    with torch.no_grad():
        for convolution in convolutions(body):
            convolution.weight.fill_(1.0)
            convolution.bias.zero_()
    # 8 * 8 ones; 32 maps of 4 * 4 of those; 64 maps of 3 * 3 of those
    expected = 64 * (32 * 16) * (64 * 9)
    assert body.features == 64 * 2  # 44, 10, 4, 2 rows and 36, 8, 3, 1 columns
    assert body(torch.ones(1, 44, 36, 1)).tolist() == [[expected] * 128]
    assert body(-torch.ones(1, 44, 36, 1)).tolist() == [[0] * 128]


@pytest.mark.parametrize(("factor", "expected"), [(0.0, 3.0), (1.0, 3.0 * 2**6)])
def test_impala_takes_maxima_and_each_of_its_six_blocks_adds(
    factor: float, expected: float
) -> None:
    body = Impala(unit_space(8, 8, 1))
    for convolution in convolutions(body):
        pass_on(convolution, factor)
    for section in (1, 5, 9):
        pass_on(body[section])
    image = torch.full((1, 8, 8, 1), -1.0)
    assert body(image).tolist() == [[0.0] * 32]
    for row, column in [(0, 0), (3, 4), (7, 7)]:
        bright = image.clone()
        bright[0, row, column] = 3.0
        assert body(bright).tolist() == [[expected] * 32]


def test_a_width_multiplies_the_maps_of_impala() -> None:
    body = Impala(image_space(16, 16, 3), width=2)
    assert [layer.out_channels for layer in convolutions(body)] == [32] * 5 + [64] * 10
    assert body.features == 64 * 2 * 2


@pytest.mark.parametrize("side", [41, 64, 84])
def test_a_pool_makes_the_features_independent_of_the_size(side: int) -> None:
    body = Impala(image_space(side, side + 9, 3), pool=6)
    assert body.features == 32 * 6 * 6
    assert body(images(2, side, side + 9, 3)).shape == (2, 1152)


def test_a_pool_keeps_the_maxima() -> None:
    whole = seeded(Impala, image_space(32, 32, 3))
    pooled = seeded(Impala, image_space(32, 32, 3), pool=1)
    maps = whole(images(2, 32, 32, 3)).view(2, 32, 16)
    assert torch.equal(pooled(images(2, 32, 32, 3)), maps.amax(dim=2))


def test_layer_norm_stands_before_every_relu_of_impala() -> None:
    body = seeded(Impala, image_space(16, 16, 3), layer_norm=True)
    seen: list[Tensor] = []
    for layer in body.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    body(images(2, 16, 16, 3))
    assert len(seen) == 13  # two in each of six blocks, and the last
    for each in seen:
        assert each.mean(dim=1).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
        assert each.var(dim=1, correction=0).tolist() == pytest.approx([1.0, 1.0], abs=1e-2)


@BODIES
def test_the_layout_of_an_image_does_not_change_its_features(body: Any) -> None:
    obs = images(2, 36, 40, 3)
    last = seeded(body, image_space(36, 40, 3))
    first = seeded(body, image_space(3, 36, 40))
    assert torch.allclose(last(obs), first(obs.permute(0, 3, 1, 2)), atol=1e-6)
    assert not torch.allclose(last(obs), last(obs.flip(1)), atol=1e-3)


@BODIES
def test_an_image_of_two_axes_has_one_channel(body: Any) -> None:
    obs = images(2, 36, 40)
    gray, one_channel = seeded(body, image_space(36, 40)), seeded(body, image_space(36, 40, 1))
    assert torch.allclose(gray(obs), one_channel(obs.unsqueeze(3)), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((2, 3), [[0, 1, 2, 3, 4, 5]]),
        ((3, 3, 2), [[0, 2, 4, 6, 8, 10, 12, 14, 16], [1, 3, 5, 7, 9, 11, 13, 15, 17]]),
        ((1, 2, 2), [[0, 1, 2, 3]]),
        ((2, 2, 2, 1), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((2, 1, 2, 2), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((1, 3, 3, 2), [[0, 2, 4, 6, 8, 10, 12, 14, 16], [1, 3, 5, 7, 9, 11, 13, 15, 17]]),
        (
            (2, 2, 3, 3),
            [list(range(9)), list(range(9, 18)), list(range(18, 27)), list(range(27, 36))],
        ),
    ],
)
def test_images_and_channels_of_a_stack_become_channels(
    shape: tuple[int, ...], channels: list[list[int]]
) -> None:
    first_layer = Impala(spaces.Box(-99, 99, shape, np.int16))[0]
    numbers = torch.arange(np.prod(shape), dtype=torch.int16).reshape(1, *shape)
    converted = first_layer(torch.cat([numbers, -numbers]))
    assert converted.dtype == torch.float32
    assert converted.shape[1:] == first_layer.shape
    assert converted.flatten(2).tolist() == [channels, [[-n for n in c] for c in channels]]


def test_a_stack_of_colour_images_keeps_the_colours_of_an_image_together() -> None:
    first_layer = Impala(image_space(2, 5, 6, 3), normalize_images=False)[0]
    obs = torch.zeros(1, 2, 5, 6, 3, dtype=torch.uint8)
    obs[0, 1, 4, 0, 2] = 7
    converted = first_layer(obs)
    assert converted.shape == (1, 6, 5, 6)
    assert converted[0, 1 * 3 + 2, 4, 0] == converted.sum() == 7


@pytest.mark.parametrize(("shape", "channels"), [((36, 36), 4), ((36, 36, 3), 12)])
def test_frame_stacks_of_gymnasium_are_read(shape: tuple[int, ...], channels: int) -> None:
    env = FrameStackObservation(SideEnv(*shape), 4)
    obs, _ = env.reset(seed=0)
    body = Nature(env.observation_space)
    assert body[1].in_channels == channels
    assert body(torch.from_numpy(obs).unsqueeze(0)).shape == (1, 64)


@pytest.mark.parametrize("shape", [(1, 3), (3, 3, 1), (1, 3, 3), (2, 3, 3, 1)])
def test_bytes_are_divided_by_255_exactly_once(shape: tuple[int, ...]) -> None:
    first_layer = Impala(image_space(*shape))[0]
    for byte, expected in [(0, 0.0), (51, 0.2), (102, 0.4), (255, 1.0)]:
        converted = first_layer(torch.full((1, *shape), byte, dtype=torch.uint8))
        assert converted.unique().tolist() == [pytest.approx(expected)]


@BODIES
def test_bytes_and_their_255th_parts_have_the_same_features(body: Any) -> None:
    obs = images(2, 36, 40, 3)
    of_bytes, of_floats = (seeded(body, kind(36, 40, 3)) for kind in (image_space, unit_space))
    assert torch.equal(of_bytes(obs), of_floats(obs.float() / 255))


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (unit_space(3, 3, 1), {}),
        (spaces.Box(0, 255, (3, 3, 1), np.float32), {}),
        (spaces.Box(0, 9, (3, 3, 1), np.uint8), {}),
        (spaces.Box(0, 1, (3, 3, 1), np.bool_), {}),
        (image_space(3, 3, 1), {"normalize_images": False}),
    ],
)
def test_other_pixels_are_left_alone(space: spaces.Box, options: dict[str, Any]) -> None:
    obs = torch.from_numpy(np.ones((2, 3, 3, 1), space.dtype))
    assert Impala(space, **options)[0](obs).tolist() == [[[[1.0] * 3] * 3]] * 2


def test_an_observation_is_not_changed() -> None:
    for space in (image_space(5, 5, 1), unit_space(5, 5, 1)):
        obs = torch.ones(1, 5, 5, 1).to(torch.uint8 if space.dtype == np.uint8 else torch.float32)
        Impala(space)(obs)
        assert torch.equal(obs, torch.ones_like(obs))


def test_floats_for_a_space_of_bytes_are_divided_but_not_changed() -> None:
    first_layer = Impala(image_space(3, 3, 2))[0]
    obs = torch.full((2, 3, 3, 2), 51.0)
    assert first_layer(obs).unique().tolist() == [pytest.approx(0.2)]
    assert obs.unique().tolist() == [51.0]


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6), (2, 5, 6, 3), (5, 6)])
@pytest.mark.parametrize("space", [image_space, unit_space])
def test_the_channels_of_a_pixel_are_neighbours_on_the_cpu(
    shape: tuple[int, ...], space: Any
) -> None:
    first_layer = Impala(space(*shape))[0]
    obs = images(2, *shape).to(torch.uint8 if space is image_space else torch.float32)
    assert first_layer(obs).is_contiguous(memory_format=torch.channels_last)


def strided(obs: Tensor) -> Tensor:
    """Equal to a tensor, but every other row of a longer one."""
    return obs.repeat_interleave(2, dim=0)[::2]


def overlapping(obs: Tensor) -> Tensor:
    """A stack whose frames are windows into one row of frames, as a replay may hold them."""
    frames = obs[0, :, :, :].repeat(2, 1, 1)
    return frames.as_strided(obs.shape, (obs[0, 0].numel(), *obs[0].stride()))


def repeated(obs: Tensor) -> Tensor:
    """One frame, seen as many."""
    return obs[:, :1].expand_as(obs)


@BODIES
@pytest.mark.parametrize("view", [strided, overlapping, repeated])
def test_views_have_the_features_of_what_they_show(body: Any, view: Any) -> None:
    obs = view(images(3, 4, 36, 40))
    assert not obs.is_contiguous()
    read = seeded(body, image_space(4, 36, 40))
    assert torch.equal(read(obs), read(obs.contiguous()))


@BODIES
def test_gradients_are_views_of_one_tensor_whatever_the_layout(body: Any) -> None:
    policy = MlpPolicy(features_extractor=body, net_arch=())
    network = policy.build(image_space(4, 36, 36), 2, Scalar())
    flat = FlatParameters(network)
    network(images(2, 4, 36, 36)).square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert torch.equal(flat.gradient, torch.cat([each.flatten() for each in gradients]))
    begin = flat.gradient.data_ptr()
    offsets = [(each.data_ptr() - begin) // 4 for each in gradients]
    sizes = [each.numel() for each in gradients]
    assert offsets == [sum(sizes[:i]) for i in range(len(sizes))]
    assert all(each.is_contiguous() for each in gradients)


@BODIES
@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.MultiBinary([36, 36, 3]),
        spaces.Box(0, 255, (1296,), np.uint8),
        spaces.Box(0, 255, (), np.uint8),
        spaces.Box(0, 255, (2, 2, 36, 36, 3), np.uint8),
        spaces.Dict({"image": image_space(36, 36, 3)}),
    ],
)
def test_what_is_no_image_is_refused_with_the_way_out(body: Any, space: Space[Any]) -> None:
    with pytest.raises(
        SpaceError,
        match=r"need a Box of shape \(H, W\), .*, not .*; let MlpPolicy .*ReshapeObservation",
    ):
        body(space)


@BODIES
@pytest.mark.parametrize(
    "shape", [(40, 40, 40), (36, 36, 50), (36, 3, 40), (3, 40, 3), (2, 40, 40, 40)]
)
def test_a_shape_that_does_not_tell_the_channels_is_refused(
    body: Any, shape: tuple[int, ...]
) -> None:
    told = (
        rf"of shape \({', '.join(map(str, shape[-3:]))}\) do not tell .*\{{'channels_last': True\}}"
    )
    with pytest.raises(SpaceError, match=told):
        body(image_space(*shape))


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [
        ((10, 10, 10), True, (10, 10, 10)),
        ((7, 8, 20), True, (20, 7, 8)),
        ((7, 8, 20), False, (7, 8, 20)),
        ((8, 9, 3), False, (8, 9, 3)),
        ((2, 7, 8, 20), True, (40, 7, 8)),
        ((2, 7, 8, 20), False, (14, 8, 20)),
        ((7, 8), True, (1, 7, 8)),
        ((7, 8), False, (1, 7, 8)),
    ],
)
def test_where_the_channels_are_may_be_said(
    shape: tuple[int, ...], channels_last: bool, expected: tuple[int, int, int]
) -> None:
    body = Impala(image_space(*shape), channels_last=channels_last)
    assert body[0].shape == expected
    assert body(images(2, *shape)).shape == (2, body.features)


def test_36_pixels_are_the_fewest_that_nature_takes() -> None:
    assert Nature(image_space(36, 36, 3)).features == 64
    for shape in [(35, 36, 3), (3, 36, 35), (4, 36, 35, 1)]:
        with pytest.raises(
            SpaceError,
            match=r"3\d x 3\d pixels are too small for Nature, .* 36 x 36 and larger; use "
            r"features_extractor='impala', which takes any size, or .*\.ResizeObservation",
        ):
            Nature(image_space(*shape))


def test_impala_takes_the_smallest_images() -> None:
    assert Impala(image_space(1, 1)).features == 32
    assert Impala(image_space(2, 2, 1), pool=1).features == 32


def test_a_pool_larger_than_the_maps_is_refused() -> None:
    assert Impala(image_space(41, 41, 3), pool=6).features == 1152
    with pytest.raises(
        SpaceError,
        match=r"41 x 40 .* for Impala with pool=6, .* 41 x 41 and larger; use a smaller pool, or",
    ):
        Impala(image_space(41, 40, 3), pool=6)


@pytest.mark.parametrize("name", ["width", "pool"])
@pytest.mark.parametrize("given", [0, -1, 1.5, "2", True])
def test_what_is_no_count_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be an integer of at least 1"):
        Impala(image_space(16, 16, 3), **{name: given})


@pytest.mark.parametrize("name", ["layer_norm", "channels_last"])
@pytest.mark.parametrize("given", [0, "yes", 1.0])
def test_what_is_no_switch_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be True.* False.*, not {given!r}"):
        Impala(image_space(16, 16, 3), **{name: given})


@pytest.mark.parametrize("side", [36, 43, 44, 83, 84, 100])
def test_the_features_of_nature_are_as_many_as_it_says(side: int) -> None:
    body = Nature(image_space(side, 36, 1))
    assert body(images(1, side, 36, 1)).shape == (1, body.features)


@pytest.mark.parametrize("side", [1, 2, 3, 8, 9, 16, 17])
def test_the_features_of_impala_are_as_many_as_it_says(side: int) -> None:
    body = Impala(image_space(side, 5, 1), channels_last=True)
    assert body(images(1, side, 5, 1)).shape == (1, body.features)


@pytest.mark.parametrize(
    "body", [Nature, Impala, MinAtar, partial(Impala, width=2, layer_norm=True, pool=2)]
)
def test_gradients_reach_every_parameter(body: Any) -> None:
    torch.manual_seed(0)
    policy = MlpPolicy(features_extractor=body, net_arch=(16,))
    network = policy.build(image_space(36, 36, 3), 4, Scalar())
    network(images(8, 36, 36, 3)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("body", "side"), [(Nature, 36), (Impala, 8)])
def test_a_model_learns_from_pixels(body: Any, side: int) -> None:
    env = SideEnv(side, side, 3)
    model = DQN(
        "MlpPolicy",
        env,
        policy_kwargs={"features_extractor": body, "net_arch": (32,)},
        buffer_size=500,
        learning_starts=50,
        batch_size=16,
        train_freq=2,
        gradient_steps=1,
        learning_rate=1e-3,
        seed=0,
    ).learn(250)
    assert isinstance(model.q_net.encoder, body)
    assert [model.predict(env.view(asked))[0] for asked in (0, 1)] == [0, 1]
    assert model.q_values(env.view(1)).tolist() == pytest.approx([0.0, 1.0], abs=0.3)
