"""Observations of several parts: which body reads which, and in what order."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn.backups import Double, Munchausen
from sbdqn.errors import ConfigurationError, SpaceError
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.learner import Learner
from sbdqn.networks import Encoder, Impala, MultiInput, MultiInputPolicy, Nature, QNetwork
from sbdqn.protocols import Head
from sbdqn.types import Batch, Purpose, Tensors

NUMBERS = spaces.Box(-9, 9, (2,), np.float32)
CATEGORY = spaces.Discrete(3, start=5)
LINEAR = MultiInputPolicy(net_arch=(), features_extractor=None)


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def built(policy: MultiInputPolicy, space: Space[Any], head: Head | None = None) -> QNetwork:
    torch.manual_seed(0)
    return policy.build(space, 2, Scalar() if head is None else head)


def features(policy: MultiInputPolicy, space: Space[Any], **obs: Any) -> list[list[float]]:
    encoder = built(policy, space).encoder
    encoded: Tensor = encoder({name: torch.as_tensor(part) for name, part in obs.items()})
    assert encoded.dtype == torch.float32
    assert encoded.shape[1] == encoder.features
    return encoded.tolist()


def bodies(network: QNetwork) -> dict[str, nn.Module]:
    encoder = network.encoder
    assert isinstance(encoder, MultiInput)
    return dict(zip(encoder.names, encoder.bodies, strict=True))


# -- the order of the parts -------------------------------------------------------------


def test_the_parts_stand_in_a_row_each_in_its_own_encoding() -> None:
    space = spaces.Dict(
        {"a": NUMBERS, "b": CATEGORY, "c": spaces.MultiBinary(2), "d": image(1, 2, 1)}
    )
    row = features(
        LINEAR,
        space,
        a=torch.tensor([[1.5, -2.0], [3.0, 4.0]]),
        b=torch.tensor([7, 5]),
        c=torch.tensor([[1, 0], [0, 1]], dtype=torch.int8),
        d=torch.tensor([[[[51], [255]]], [[[0], [102]]]], dtype=torch.uint8),
    )
    assert row == [
        pytest.approx([1.5, -2.0, 0, 0, 1, 1, 0, 0.2, 1.0]),
        pytest.approx([3.0, 4.0, 1, 0, 0, 0, 1, 0.0, 0.4]),
    ]


def test_the_order_is_that_of_the_names_not_of_the_space_nor_of_the_dict() -> None:
    space = spaces.Dict(OrderedDict(b=CATEGORY, a=NUMBERS))
    assert list(space) == ["b", "a"]
    row = features(LINEAR, space, b=torch.tensor([6]), a=torch.tensor([[1.0, 2.0]]))
    assert row == [[1.0, 2.0, 0, 1, 0]]


def test_the_parts_of_a_tuple_are_counted() -> None:
    space = spaces.Tuple([spaces.Box(0, 99, (1,), np.float32) for _ in range(12)])
    obs = {str(index): torch.tensor([[10.0 + index]]) for index in reversed(range(12))}
    assert features(LINEAR, space, **obs) == [[10.0 + index for index in range(12)]]


def test_nested_parts_are_read_by_the_way_to_them() -> None:
    space = spaces.Dict(
        {"z": NUMBERS, "a": spaces.Tuple([CATEGORY, spaces.Dict({"inner": NUMBERS})])}
    )
    obs = {
        "z": torch.tensor([[5.0, 6.0]]),
        "a/0": torch.tensor([5]),
        "a/1/inner": torch.tensor([[7.0, 8.0]]),
    }
    assert features(LINEAR, space, **obs) == [[1, 0, 0, 7.0, 8.0, 5.0, 6.0]]


def test_spaces_that_are_equal_make_equal_networks_whose_weights_fit() -> None:
    policy = MultiInputPolicy(features_extractor="impala")
    parts = {"a": NUMBERS, "left": image(5, 5, 3), "right": image(5, 5, 3), "z": NUMBERS}
    one, other = (
        spaces.Dict(OrderedDict(items)) for items in (parts.items(), reversed(parts.items()))
    )
    assert one == other
    assert list(one) != list(other)
    obs: Tensors = {
        "a": torch.randn(3, 2),
        "left": pictures(3, 5, 5, 3),
        "right": pictures(3, 5, 5, 3, seed=1),
        "z": torch.randn(3, 2),
    }
    network, same = built(policy, one), built(policy, other)
    assert torch.equal(network(obs), same(obs))
    torch.manual_seed(1)
    another = policy.build(other, 2, Scalar())
    assert not torch.equal(network(obs), another(obs))
    another.load_state_dict(network.state_dict())
    assert torch.equal(network(obs), another(obs))
    swapped = {**obs, "left": obs["right"], "right": obs["left"]}
    assert not torch.allclose(network(obs), network(swapped), atol=1e-4)


@pytest.mark.parametrize("name", ["a.b", "", "keys", "forward", "a/b.c", "0.weight", "ß ", "²"])
def test_a_part_may_have_any_name(name: str) -> None:
    space = spaces.Dict({name: image(5, 5, 3), "other": NUMBERS})
    network = built(MultiInputPolicy(features_extractor="impala"), space)
    obs = {name: pictures(2, 5, 5, 3), "other": torch.ones(2, 2)}
    assert network(obs).shape == (2, 2)
    network.load_state_dict(network.state_dict())


# -- images -----------------------------------------------------------------------------


def test_images_have_bodies_of_their_own_and_what_is_none_is_flattened() -> None:
    space = spaces.Dict(
        {
            "image": image(36, 36, 3),
            "first": image(3, 36, 36),
            "stack": image(2, 36, 36, 3),
            "matrix": image(36, 36),
            "floats": spaces.Box(0, 1, (36, 36, 3), np.float32),
            "counts": spaces.Box(0, 9, (36, 36, 3), np.uint8),
            "numbers": NUMBERS,
        }
    )
    network = built(MultiInputPolicy(), space)
    kinds = {name: type(body) for name, body in bodies(network).items()}
    assert {name for name, kind in kinds.items() if kind is Nature} == {"image", "first", "stack"}
    assert all(kind in (Nature, Encoder) for kind in kinds.values())
    assert network.encoder.features == 3 * 64 + 36 * 36 * 7 + 2
    flattened = built(LINEAR, space)
    assert {type(body) for body in bodies(flattened).values()} == {Encoder}


def test_the_features_are_those_of_each_body_alone() -> None:
    space = spaces.Dict({"a": image(5, 6, 3), "b": image(4, 7, 7), "c": NUMBERS})
    network = built(MultiInputPolicy(features_extractor="impala"), space)
    alone = bodies(network)
    obs = {"a": pictures(2, 5, 6, 3), "b": pictures(2, 4, 7, 7), "c": torch.randn(2, 2)}
    expected = torch.cat([alone["a"](obs["a"]), alone["b"](obs["b"]), obs["c"]], dim=1)
    assert torch.equal(network.encoder(obs), expected)
    first, second = (next(iter(alone[name].parameters())) for name in "ab")
    assert first.data_ptr() != second.data_ptr()


@pytest.mark.parametrize("body", ["nature", "impala"])
def test_an_image_is_valued_alike_in_every_layout(body: str) -> None:
    policy = MultiInputPolicy(net_arch=(8,), features_extractor=body)
    last, first = (
        built(policy, spaces.Dict({"image": space, "numbers": NUMBERS}))
        for space in (image(36, 40, 2), image(2, 36, 40))
    )
    pixels, numbers = pictures(3, 36, 40, 2), torch.randn(3, 2)
    torch.testing.assert_close(
        last({"image": pixels, "numbers": numbers}),
        first({"image": pixels.permute(0, 3, 1, 2), "numbers": numbers}),
    )


@pytest.mark.parametrize("body", ["nature", "impala", None])
@pytest.mark.parametrize("shape", [(36, 36, 3), (2, 36, 36, 1)])
def test_bytes_of_images_are_divided_by_255_once_or_not_at_all(
    body: str | None, shape: tuple[int, ...]
) -> None:
    obs = pictures(2, *shape)
    floats = spaces.Box(0, 1, shape, np.float32)
    for normalize, divisor in ((True, 255), (False, 1)):
        policy = MultiInputPolicy(features_extractor=body, normalize_images=normalize)
        encoder = built(policy, spaces.Dict({"x": image(*shape)})).encoder
        if body is None:
            expected = obs.flatten(1) / divisor
        else:
            torch.manual_seed(0)
            alone = {"nature": Nature, "impala": Impala}[body](floats)
            expected = alone(obs / divisor)
        torch.testing.assert_close(encoder({"x": obs}), expected, rtol=0, atol=0)


def test_bytes_that_are_no_image_are_not_divided() -> None:
    space = spaces.Dict({"codes": image(2), "matrix": image(1, 2)})
    obs = {"codes": [[7, 255]], "matrix": [[[9, 51]]]}
    assert features(MultiInputPolicy(), space, **obs) == [[7.0, 255.0, 9.0, 51.0]]


def test_the_keyword_arguments_reach_the_body_of_every_image() -> None:
    policy = MultiInputPolicy(
        features_extractor="impala", features_extractor_kwargs={"width": 2, "pool": 1}
    )
    network = built(
        policy, spaces.Dict({"a": image(5, 5, 3), "b": image(9, 9), "c": image(7, 7, 1)})
    )
    assert network.encoder.features == 64 + 81 + 64


# -- a body of one's own ------------------------------------------------------------------


class Combined(nn.Module):
    """As SB3's extractors of Dict observations."""

    features = 1

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.space = space

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return obs["a"].sum(dim=1, keepdim=True) + obs["inner/b"].float().unsqueeze(1)


def test_a_callable_gets_the_whole_space_and_its_body_all_parts() -> None:
    space = spaces.Dict({"a": NUMBERS, "inner": spaces.Dict({"b": CATEGORY})})
    network = built(MultiInputPolicy(net_arch=(), features_extractor=Combined), space)
    assert network.encoder.space is space
    with torch.no_grad():
        network.output.linear.weight.copy_(torch.tensor([[1.0], [2.0]]))
        network.output.linear.bias.zero_()
    q = network({"a": torch.tensor([[1.0, 2.0]]), "inner/b": torch.tensor([6])})
    assert q.tolist() == [[9.0, 18.0]]


def test_a_callable_may_read_parts_that_we_cannot() -> None:
    space = spaces.Dict({"a": NUMBERS, "text": spaces.Text(3)})
    assert built(MultiInputPolicy(features_extractor=Combined), space).encoder.space is space


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "instead"),
    [
        (NUMBERS, "MlpPolicy"),
        (CATEGORY, "MlpPolicy"),
        (image(36, 36, 3), "CnnPolicy"),
        (image(4, 36, 36, 3), "CnnPolicy"),
    ],
)
@pytest.mark.parametrize("extractor", ["nature", None, Combined])
def test_a_single_part_is_for_another_policy(
    space: Space[Any], instead: str, extractor: Any
) -> None:
    with pytest.raises(SpaceError, match=f"Dict and Tuple .*, not .*; use {instead}$"):
        built(MultiInputPolicy(features_extractor=extractor), space)


def test_an_image_that_is_too_small_for_its_body_is_named_with_the_ways_out() -> None:
    space = spaces.Dict({"image": image(7, 7, 3), "direction": spaces.Discrete(4)})
    told = (
        r"the part 'image': images of 7 x 7 pixels are too small for Nature, .*"
        r"features_extractor='impala', which takes any size, .*features_extractor=None flattens"
    )
    with pytest.raises(SpaceError, match=told):
        built(MultiInputPolicy(), space)
    for body, width in (("impala", 32), (None, 147)):
        network = built(MultiInputPolicy(features_extractor=body), space)
        assert network.encoder.features == width + 4


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((40, 40, 40), "which axis holds the channels"),
        ((2, 2, 36, 36, 3), r"need a Box of shape \(H, W\)"),
    ],
)
def test_a_stack_that_no_body_can_read_is_named(shape: tuple[int, ...], told: str) -> None:
    space = spaces.Tuple([NUMBERS, image(*shape)])
    with pytest.raises(SpaceError, match=f"the part '1': .*{told}"):
        built(MultiInputPolicy(), space)


class MissionSpace(Space[str]):
    """As MiniGrid's."""

    def __repr__(self) -> str:
        return "MissionSpace()"


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (
            spaces.Dict({"image": image(7, 7, 3), "mission": MissionSpace()}),
            r"'mission', which is MissionSpace\(\); .*FilterObservation\(env, \['image'\]\)$",
        ),
        (
            spaces.Tuple([spaces.Text(2), NUMBERS, CATEGORY]),
            r"the part '0', which is Text.*FilterObservation\(env, \[1, 2\]\)$",
        ),
        (
            spaces.Dict({"a": spaces.Dict({"b": NUMBERS, "c": spaces.Text(2)}), "d": NUMBERS}),
            r"the part 'a/c', which is Text.*FilterObservation\(env, \['d'\]\)$",
        ),
        (spaces.Dict({"a": spaces.Sequence(NUMBERS)}), r"'a', which is Seq.*FilterObservation$"),
    ],
)
@pytest.mark.parametrize("body", ["impala", None])
def test_a_part_that_is_no_array_is_to_be_left_out(space: Space[Any], told: str, body: Any) -> None:
    with pytest.raises(SpaceError, match=told):
        built(MultiInputPolicy(features_extractor=body), space)


def test_images_as_they_are_for_a_callable_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="normalize_images=False would have no effect"):
        MultiInputPolicy(features_extractor=Combined, normalize_images=False)


# -- with the rest of the family --------------------------------------------------------


HEADS = [Scalar(), Categorical(), Quantile(8), ImplicitQuantile(8, 8, 8, cosines=16)]
SPACE = spaces.Dict({"image": image(5, 5, 3), "category": CATEGORY, "numbers": NUMBERS})


def observations(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": pictures(count, 5, 5, 3, seed=seed),
        "category": torch.randint(5, 8, (count,), generator=generator),
        "numbers": torch.randn(count, 2, generator=generator),
    }


def batch() -> Batch:
    return Batch(
        obs=observations(8, 0),
        action=torch.arange(8) % 2,
        reward=torch.linspace(-1, 1, 8),
        next_obs=observations(8, 1),
        discount=torch.full((8,), 0.9),
        weight=torch.ones(8),
        index=torch.arange(8),
    )


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("options", [{}, {"dueling": True}])
@pytest.mark.parametrize("backup", [Double(), Munchausen()], ids=str)
def test_every_head_learns_from_several_parts(
    head: Head, options: dict[str, Any], backup: Any
) -> None:
    policy = MultiInputPolicy(net_arch=(16,), features_extractor="impala", **options)
    online, target = (built(policy, SPACE, head) for _ in range(2))
    learner = Learner(online, target, head, backup)
    learner.set_optimizer(policy.build_optimizer(learner.flat, 3e-3))
    surprises = [float(learner.update(batch()).surprise.mean()) for _ in range(60)]
    assert np.mean(surprises[-10:]) < 0.8 * np.mean(surprises[:5])
    assert online(observations(4, 2)).shape == (4, 2)
    assert online(observations(0, 2)).shape == (0, 2)


def test_every_weight_of_every_part_learns() -> None:
    network = built(MultiInputPolicy(features_extractor="impala"), SPACE)
    network.predict(observations(8, 0), Purpose.LEARN).values.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_network_of_several_parts_has_no_modes_and_nothing_random() -> None:
    network = built(MultiInputPolicy(features_extractor="impala"), SPACE)
    assert not network.has_modes
    assert not network.is_random
    assert not network.is_plain


def test_an_observation_of_several_parts_is_for_torch() -> None:
    obs = {name: part.numpy() for name, part in observations(1, 0).items()}
    assert (
        built(MultiInputPolicy(features_extractor=None), SPACE).q_of_few(obs, Purpose.ACT) is None
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_a_compiled_update_is_one_graph_with_the_same_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **_: compile_(f, backend="eager", fullgraph=True)
    )
    values = []
    for compile in (False, True):
        policy = MultiInputPolicy(net_arch=(8,), features_extractor="impala", dueling=True)
        online, target = (built(policy, SPACE) for _ in range(2))
        learner = Learner(online, target, Scalar(), Munchausen(), compile=compile)
        learner.set_optimizer(policy.build_optimizer(learner.flat, 1e-3))
        for _ in range(3):
            learner.update(batch())
        values.append(learner.flat.values)
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-5)
