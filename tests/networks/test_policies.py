"""A policy describes a network and its optimiser, and refuses what it cannot make."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn, optim

from sbdqn.encoding import SPECS, decode, encode
from sbdqn.errors import ConfigurationError, SpaceError
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.networks import (
    CnnPolicy,
    FlatParameters,
    Impala,
    MlpPolicy,
    MultiInputPolicy,
    Nature,
    NoisyLinear,
    QNetwork,
)
from sbdqn.protocols import Head, PolicySpec
from sbdqn.specs import policy_for, resolve_policy
from sbdqn.types import Prediction, Purpose

SPACE = spaces.Box(-1, 1, (3,), np.float32)


class Triple(Scalar):
    """A head that reads the mean of three outputs."""

    @property
    def width(self) -> int:
        return 3

    def q(self, prediction: Prediction) -> Tensor:
        return prediction.values.mean(dim=-1)


def built(policy: MlpPolicy, space: Space[Any] = SPACE, n_actions: int = 2) -> QNetwork:
    return policy.build(space, n_actions, Scalar())


def layer_names(network: QNetwork) -> list[str]:
    return [type(layer).__name__ for layer in network.trunk.children()]


def test_the_network_has_the_layers_that_were_described() -> None:
    network = built(MlpPolicy(net_arch=(5, 4), layer_norm=False), n_actions=6)
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    assert shapes == [(5, 3), (5,), (4, 5), (4,), (6, 4), (6,)]
    assert layer_names(network) == ["Linear", "ReLU", "Linear", "ReLU"]


def test_no_hidden_layer_makes_a_linear_network() -> None:
    shapes = [tuple(parameter.shape) for parameter in built(MlpPolicy(net_arch=())).parameters()]
    assert shapes == [(2, 3), (2,)]


def test_a_list_of_widths_equals_a_tuple() -> None:
    assert MlpPolicy(net_arch=[5, 4]) == MlpPolicy(net_arch=(5, 4))  # type: ignore[arg-type]


def test_widths_of_numpy_are_integers() -> None:
    policy = MlpPolicy(net_arch=tuple(np.array([5, 4])))
    assert [type(width) for width in policy.net_arch] == [int, int]
    assert policy == MlpPolicy(net_arch=(5, 4))


def test_the_head_decides_the_outputs_of_an_action() -> None:
    network = MlpPolicy(net_arch=(5,)).build(SPACE, 2, Triple())
    assert network.output.linear.weight.shape == (6, 5)
    assert network(torch.zeros(4, 3)).shape == (4, 2)


def test_layer_norm_is_there_where_it_is_wanted() -> None:
    with_norm = built(MlpPolicy(net_arch=(5, 4), layer_norm=True))
    assert layer_names(with_norm) == ["Linear", "LayerNorm", "ReLU"] * 2


@pytest.mark.parametrize("given", ["Tanh", nn.Tanh])
def test_an_activation_goes_by_its_name_or_its_class(given: Any) -> None:
    policy = MlpPolicy(net_arch=(5,), activation_fn=given, layer_norm=False)
    assert layer_names(built(policy)) == ["Linear", "Tanh"]


@pytest.mark.parametrize("given", ["Tangent", "functional", nn.Tanh(), torch.tanh, dict, 3])
def test_what_is_no_activation_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"activation_fn must be a subclass of nn\.Module"):
        MlpPolicy(activation_fn=given)


@pytest.mark.parametrize("given", ["Linear", nn.Bilinear])
def test_a_layer_that_needs_arguments_is_no_activation(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"made without arguments, .*, not (L|Bil)inear: "):
        MlpPolicy(activation_fn=given)


@pytest.mark.parametrize("name", ["layer_norm", "dueling", "noisy", "normalize_images"])
@pytest.mark.parametrize("given", [3, 1, "yes", None])
def test_a_switch_is_true_or_false(name: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be True or False, not {given!r}"):
        MlpPolicy(**{name: given})


@pytest.mark.parametrize(
    "given", [(0,), (64, -1), (64.0,), ("64",), 64, None, "64", [True], (64, False)]
)
def test_what_is_no_list_of_widths_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="net_arch must be a list of positive layer wid"):
        MlpPolicy(net_arch=given)


def test_so_many_layers_that_they_could_not_be_made_are_refused() -> None:
    assert len(MlpPolicy(net_arch=(1,) * 1_000).net_arch) == 1_000
    with pytest.raises(
        ConfigurationError, match="net_arch must have at most 1000 layers, not 1001"
    ):
        MlpPolicy(net_arch=(1,) * 1_001)


def test_weights_come_from_torchs_generator() -> None:
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(FlatParameters(built(MlpPolicy())).values)
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


def test_images_are_divided_once_on_the_whole_way() -> None:
    image = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    pixels = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).reshape(1, 2, 2, 1)
    sums = {}
    for normalize_images in (True, False):
        policy = MlpPolicy(net_arch=(), normalize_images=normalize_images)
        network = built(policy, image, n_actions=1)
        with torch.no_grad():
            network.output.linear.weight.fill_(1.0)
            network.output.linear.bias.zero_()
        sums[normalize_images] = network(pixels).item()
    assert sums[True] == pytest.approx(0.0 + 0.2 + 0.4 + 1.0)
    assert sums[False] == 408.0


class Doubling(nn.Module):
    """A user's body: two features, twice the first two numbers."""

    features = 2

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.space = space

    def forward(self, obs: Tensor) -> Tensor:
        return 2 * obs[:, :2]


def test_a_features_extractor_takes_the_place_of_flattening() -> None:
    network = built(MlpPolicy(net_arch=(), features_extractor=Doubling))
    assert network.encoder.space is SPACE
    with torch.no_grad():
        network.output.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        network.output.linear.bias.zero_()
    assert network(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[2.0, 4.0]]


def test_a_features_extractor_may_read_a_space_that_flattening_cannot() -> None:
    network = built(MlpPolicy(features_extractor=Doubling), spaces.Dict({"a": SPACE}))
    assert network.encoder.space == spaces.Dict({"a": SPACE})


@pytest.mark.parametrize(
    "factory", [lambda space: nn.Flatten(), lambda space: Doubling, lambda space: None]
)
def test_a_features_extractor_without_features_is_refused(factory: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"return an nn.Module with an integer \.features"):
        built(MlpPolicy(features_extractor=factory))


@pytest.mark.parametrize("given", ["foo", 3, nn.Flatten(), {}])
def test_what_makes_no_features_is_refused_at_once(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"features_extractor must be .*, a callable from"):
        MlpPolicy(features_extractor=given)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "SGD", "RAdam"])
def test_an_optimiser_goes_by_its_name_or_its_class(name: str) -> None:
    flat = FlatParameters(built(MlpPolicy()))
    by_name = MlpPolicy(optimizer_class=name).build_optimizer(flat, 0.125)
    by_class = MlpPolicy(optimizer_class=getattr(optim, name)).build_optimizer(flat, 0.125)
    assert type(by_name) is type(by_class) is getattr(optim, name)
    for optimizer in (by_name, by_class):
        (group,) = optimizer.param_groups
        assert group["lr"] == 0.125
        assert group["params"] == [flat.values]


def test_the_default_optimiser_is_adam_in_one_fused_operation() -> None:
    optimizer = MlpPolicy().build_optimizer(FlatParameters(built(MlpPolicy())), 1e-3)
    assert type(optimizer) is optim.Adam
    assert optimizer.param_groups[0]["fused"] is True


@pytest.mark.parametrize("choice", [{"fused": False}, {"foreach": True}, {"foreach": False}])
def test_the_users_choice_of_implementation_stands(choice: dict[str, bool]) -> None:
    policy = MlpPolicy(optimizer_kwargs=choice)
    optimizer = policy.build_optimizer(FlatParameters(built(policy)), 1e-3)
    assert {name: optimizer.param_groups[0][name] for name in choice} == choice
    assert not optimizer.param_groups[0]["fused"]


def test_the_keyword_arguments_reach_the_optimiser() -> None:
    policy = MlpPolicy(optimizer_class="RMSprop", optimizer_kwargs={"alpha": 0.95, "eps": 0.01})
    (group,) = policy.build_optimizer(FlatParameters(built(policy)), 1e-3).param_groups
    assert (group["alpha"], group["eps"]) == (0.95, 0.01)
    assert policy.optimizer_kwargs == {"alpha": 0.95, "eps": 0.01}


def test_another_class_gets_the_layers_one_by_one() -> None:
    policy = MlpPolicy(net_arch=(5,), layer_norm=False, optimizer_class=optim.Adadelta)
    flat = FlatParameters(built(policy))
    (group,) = policy.build_optimizer(flat, 1e-3).param_groups
    assert [tuple(each.shape) for each in group["params"]] == [(5, 3), (5,), (2, 5), (2,)]


@pytest.mark.parametrize("given", ["Adagrad", "adam", "Optimizer", nn.Linear, optim, None])
def test_what_is_no_optimiser_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="optimizer_class must be one of Adam, "):
        MlpPolicy(optimizer_class=given)


def test_the_learning_rate_has_its_own_parameter() -> None:
    with pytest.raises(ConfigurationError, match="must not hold 'lr'; use the parameter learning_"):
        MlpPolicy(optimizer_kwargs={"lr": 1e-3})


@pytest.mark.parametrize("given", [3, None, ["eps"], "eps", {1: 2}])
def test_what_is_no_dict_of_keyword_arguments_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="optimizer_kwargs must be a dict of keyword arg"):
        MlpPolicy(optimizer_kwargs=given)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"eps": -1.0}])
def test_keyword_arguments_that_the_optimiser_does_not_take_are_named(
    settings: dict[str, float],
) -> None:
    policy = MlpPolicy(optimizer_kwargs=settings)
    with pytest.raises(ConfigurationError, match=f"{next(iter(settings))}.* do not fit Adam: "):
        policy.build_optimizer(FlatParameters(built(policy)), 1e-3)


# -- dueling streams, sampled fractions, noise -----------------------------------------


def linear_layers(part: nn.Module | None) -> list[nn.Module]:
    modules = () if part is None else part.modules()
    return [layer for layer in modules if isinstance(layer, (nn.Linear, NoisyLinear))]


def widths(part: nn.Module | None) -> list[tuple[int, int]]:
    """What comes in and goes out of each linear layer."""
    shapes = [layer.weight.shape for layer in linear_layers(part)]
    return [(inputs, outputs) for outputs, inputs in shapes]


def network_of(head: Head, **policy: Any) -> QNetwork:
    return MlpPolicy(**{"layer_norm": False, **policy}).build(SPACE, 2, head)


DISTRIBUTIONS: list[Head] = [Scalar(), Categorical(atoms=7), Quantile(quantiles=9)]
SAMPLED = ImplicitQuantile(cosines=6, samples=5, acting_samples=3)


@pytest.mark.parametrize("head", DISTRIBUTIONS)
def test_nothing_stands_between_the_shared_layers_and_a_plain_output(head: Head) -> None:
    network = network_of(head, net_arch=(5, 4))
    assert widths(network.trunk) == [(3, 5), (5, 4)]
    assert widths(network.output) == [(4, 2 * head.width)]
    assert network.embedding is None


@pytest.mark.parametrize("head", DISTRIBUTIONS)
def test_each_dueling_stream_has_a_last_hidden_layer_of_its_own(head: Head) -> None:
    network = network_of(head, net_arch=(6, 5, 4), dueling=True)
    assert widths(network.trunk) == [(3, 6), (6, 5)]
    assert widths(network.output.value) == [(5, 4), (4, head.width)]
    assert widths(network.output.advantage) == [(5, 4), (4, 2 * head.width)]
    assert network.embedding is None
    value, advantage = (linear_layers(stream)[0] for stream in network.output.children())
    assert value.weight is not advantage.weight


def test_fractions_come_in_before_the_last_hidden_layer() -> None:
    network = network_of(SAMPLED, net_arch=(6, 5, 4))
    assert widths(network.trunk) == [(3, 6), (6, 5)]
    assert widths(network.embedding) == [(6, 5)]
    assert widths(network.output) == [(5, 4), (4, 2)]
    assert [type(layer).__name__ for layer in network.output[0]] == ["Linear", "ReLU"]


def test_fractions_come_in_before_the_dueling_streams() -> None:
    network = network_of(SAMPLED, net_arch=(6, 5, 4), dueling=True)
    assert widths(network.trunk) == [(3, 6), (6, 5)]
    assert widths(network.embedding) == [(6, 5)]
    assert widths(network.output.value) == [(5, 4), (4, 1)]
    assert widths(network.output.advantage) == [(5, 4), (4, 2)]


@pytest.mark.parametrize("dueling", [False, True])
def test_a_single_hidden_layer_stands_behind_what_is_between(dueling: bool) -> None:
    network = network_of(SAMPLED, net_arch=(4,), dueling=dueling)
    assert widths(network.trunk) == []
    assert widths(network.embedding) == [(6, 3)]
    assert widths(network.output) == (
        [(3, 4), (4, 1), (3, 4), (4, 2)] if dueling else [(3, 4), (4, 2)]
    )


@pytest.mark.parametrize("head", [*DISTRIBUTIONS, SAMPLED])
@pytest.mark.parametrize("dueling", [False, True])
def test_networks_of_every_kind_do_without_hidden_layers(head: Head, dueling: bool) -> None:
    network = network_of(head, net_arch=(), dueling=dueling)
    assert widths(network.trunk) == []
    ends = [(3, head.width), (3, 2 * head.width)]
    assert widths(network.output) == (ends if dueling else ends[1:])
    assert widths(network.embedding) == ([(6, 3)] if head is SAMPLED else [])
    assert network(torch.zeros(4, 3)).shape == (4, 2)


@pytest.mark.parametrize("head", [*DISTRIBUTIONS, SAMPLED])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_norm_and_activation_follow_every_hidden_layer_wherever_it_is(
    head: Head, dueling: bool, layer_norm: bool
) -> None:
    network = network_of(
        head, net_arch=(6, 5, 4), dueling=dueling, layer_norm=layer_norm, activation_fn="Tanh"
    )
    streams = 2 if dueling else 1
    hidden = [6, 5, *[4] * streams]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.LayerNorm)]
    assert [norm.normalized_shape[0] for norm in norms] == (hidden if layer_norm else [])
    assert sum(isinstance(layer, nn.Tanh) for layer in network.modules()) == len(hidden)


@pytest.mark.parametrize("head", [*DISTRIBUTIONS, SAMPLED])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("net_arch", [(), (4,), (16, 4)])
def test_all_linear_layers_are_noisy_but_that_of_the_fractions(
    head: Head, dueling: bool, net_arch: tuple[int, ...]
) -> None:
    network = network_of(head, net_arch=net_arch, dueling=dueling, noisy=True, noisy_sigma=0.7)
    layers = linear_layers(network)
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert plain == ([] if network.embedding is None else [network.embedding.linear])
    noisy = [layer for layer in layers if isinstance(layer, NoisyLinear)]
    assert len(noisy) == len(net_arch) + 1 + dueling * (1 + bool(net_arch))
    for layer in noisy:
        expected = torch.tensor(0.7 / layer.weight.shape[1] ** 0.5)
        torch.testing.assert_close(layer.weight_sigma, expected.expand_as(layer.weight))
        torch.testing.assert_close(layer.bias_sigma, expected.expand_as(layer.bias))


def test_noise_starts_at_a_half_and_is_absent_if_not_asked_for() -> None:
    for layer in linear_layers(network_of(Scalar(), net_arch=(4,), noisy=True)):
        assert isinstance(layer, NoisyLinear)
        assert layer.bias_sigma[0].item() == pytest.approx(0.5 / layer.weight.shape[1] ** 0.5)
    layers = linear_layers(network_of(Scalar(), net_arch=(4,), dueling=True))
    assert {type(layer) for layer in layers} == {nn.Linear}


def test_a_features_extractor_of_ones_own_stays_without_noise() -> None:
    def body(space: Space[Any]) -> nn.Module:
        layer = nn.Linear(3, 4)
        layer.features = 4  # type: ignore[assignment]
        return layer

    network = network_of(Scalar(), net_arch=(5,), noisy=True, features_extractor=body)
    assert [type(layer) for layer in linear_layers(network)] == [nn.Linear] + [NoisyLinear] * 2


@pytest.mark.parametrize("given", [0, 0.0, -0.5, float("inf"), float("nan"), "0.5", True, None])
def test_what_is_no_size_of_noise_is_refused(given: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=f"noisy_sigma must be a number above 0, not {given!r}"
    ):
        MlpPolicy(noisy=True, noisy_sigma=given)


def test_a_size_of_noise_that_would_have_no_effect_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"noisy_sigma=0\.7 would have no effect with noisy"
    ):
        MlpPolicy(noisy_sigma=0.7)
    assert MlpPolicy(noisy_sigma=0.5) == MlpPolicy()
    assert MlpPolicy(noisy=True, noisy_sigma=2).noisy_sigma == 2


@pytest.mark.parametrize("head", [*DISTRIBUTIONS, SAMPLED])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_every_weight_of_every_kind_of_network_learns(
    head: Head, dueling: bool, noisy: bool
) -> None:
    torch.manual_seed(0)
    network = network_of(head, net_arch=(16, 16), dueling=dueling, noisy=noisy, layer_norm=True)
    network.predict(torch.randn(64, 3), Purpose.LEARN).values.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("name", "body"), [("nature", Nature), ("impala", Impala)])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_body_for_images_goes_by_its_name(name: str, body: Any, normalize: bool) -> None:
    space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    network = MlpPolicy(features_extractor=name, normalize_images=normalize).build(
        space, 2, Scalar()
    )
    assert type(network.encoder) is body
    assert network.encoder[0].divisor == (255.0 if normalize else 1.0)


def test_images_as_they_are_for_a_callable_that_sees_them_so_anyway_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="normalize_images=False would have no effect"):
        MlpPolicy(features_extractor=Nature, normalize_images=False)


# -- keyword arguments of a named body --------------------------------------------------


def test_the_keyword_arguments_reach_the_body_that_is_named() -> None:
    space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    chosen = {"width": 2, "layer_norm": True, "spectral_norm": True, "pool": 1}
    networks = []
    for policy in (
        MlpPolicy(features_extractor="impala", features_extractor_kwargs=chosen),
        MlpPolicy(features_extractor=partial(Impala, **chosen)),  # type: ignore[arg-type]
    ):
        torch.manual_seed(0)
        networks.append(built(policy, space))
    assert networks[0].encoder.features == 64
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    obs = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(networks[0](obs), networks[1](obs))


@pytest.mark.parametrize("kind", [MlpPolicy, CnnPolicy, MultiInputPolicy])
@pytest.mark.parametrize(
    ("name", "given", "accepted"),
    [
        ("nature", {"width": 2}, "channels_last, not 'width'"),
        (
            "impala",
            {"depth": 2, "space": 1, "pool": 2},
            "width, layer_norm, spectral_norm, pool, channels_last, not 'depth', 'space'",
        ),
        ("impala", {"normalize_images": False}, ".*, not 'normalize_images'"),
    ],
)
def test_a_body_says_what_it_takes(
    kind: Any, name: str, given: dict[str, Any], accepted: str
) -> None:
    told = f"features_extractor_kwargs of {name!r} must be among {accepted}$"
    with pytest.raises(ConfigurationError, match=told):
        kind(features_extractor=name, features_extractor_kwargs=given)


@pytest.mark.parametrize(
    "given",
    [{"width": 0}, {"width": True}, {"layer_norm": 1}, {"spectral_norm": None}, {"pool": 1.5}],
)
def test_values_that_a_body_does_not_take_are_refused_at_once(given: dict[str, Any]) -> None:
    told = f"do not fit 'impala': {next(iter(given))} must be "
    with pytest.raises(ConfigurationError, match=told):
        CnnPolicy(features_extractor="impala", features_extractor_kwargs=given)


@pytest.mark.parametrize(
    ("extractor", "way_out"),
    [(Impala, r"functools\.partial"), (None, "'nature', 'impala', 'minatar'$")],
)
def test_keyword_arguments_of_no_named_body_are_refused(extractor: Any, way_out: str) -> None:
    with pytest.raises(ConfigurationError, match=f"would have no effect with .*{way_out}"):
        MlpPolicy(features_extractor=extractor, features_extractor_kwargs={"width": 2})


@pytest.mark.parametrize("given", [3, None, ["width"], {1: 2}])
def test_what_are_no_keyword_arguments_of_a_body_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="features_extractor_kwargs must be a dict of key"):
        CnnPolicy(features_extractor_kwargs=given)


# -- convolutions ---------------------------------------------------------------------


def pictures(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def of_images(policy: PolicySpec, *shape: int, dtype: Any = np.uint8, high: float = 255) -> Any:
    torch.manual_seed(0)
    return policy.build(spaces.Box(0, high, shape, dtype), 2, Scalar())


def test_a_cnn_policy_is_the_published_network() -> None:
    network = of_images(CnnPolicy(layer_norm=False), 84, 84, 4)
    same = of_images(
        MlpPolicy(features_extractor="nature", net_arch=(512,), layer_norm=False), 84, 84, 4
    )
    assert type(network.encoder) is Nature
    assert sum(each.numel() for each in network.parameters()) == 77_984 + 1_606_144 + 1026
    for name, value in network.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])


@pytest.mark.parametrize("body", ["nature", "impala"])
def test_a_cnn_policy_values_an_image_alike_in_every_layout(body: str) -> None:
    policy = CnnPolicy(net_arch=(8,), features_extractor=body)
    obs = pictures(3, 36, 40, 2)
    last, first = of_images(policy, 36, 40, 2), of_images(policy, 2, 36, 40)
    torch.testing.assert_close(last(obs), first(obs.permute(0, 3, 1, 2)))
    assert last(obs).std(dim=0).max() > 1e-3  # images matter


@pytest.mark.parametrize("body", ["nature", "impala"])
def test_a_cnn_policy_divides_bytes_by_255_once_or_not_at_all(body: str) -> None:
    obs = pictures(2, 36, 36, 3)
    of_floats = of_images(CnnPolicy(features_extractor=body), 36, 36, 3, dtype=np.float32, high=1)
    for normalize, seen in ((True, obs.float() / 255), (False, obs.float())):
        policy = CnnPolicy(features_extractor=body, normalize_images=normalize)
        assert torch.equal(of_images(policy, 36, 36, 3)(obs), of_floats(seen))


def test_a_byte_of_51_is_a_fifth_where_weights_are_ones() -> None:
    network = of_images(CnnPolicy(net_arch=(), features_extractor="impala"), 1, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for section in (1, 5, 9):  # each map is the first map that comes in
            network.encoder[section].weight[:, 0, 1, 1] = 1.0
        network.output.linear.weight[1] = 1.0
    q = network(torch.tensor([[[51]], [[255]]], dtype=torch.uint8))
    assert q.tolist() == [[0.0, pytest.approx(32 * 0.2)], [0.0, 32.0]]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (SPACE, r"CnnPolicy reads images, not observations of Box.*; use MlpPolicy$"),
        (spaces.Discrete(3), r"CnnPolicy reads images, .*Discrete\(3\); use MlpPolicy$"),
        (spaces.MultiBinary([9, 9]), "CnnPolicy reads images, .*; use MlpPolicy$"),
        (spaces.Dict({"a": SPACE}), "one array, not Dict.*; use MultiInputPolicy$"),
        (spaces.Tuple([SPACE]), "one array, not Tuple.*; use MultiInputPolicy$"),
        (
            spaces.Box(0, 255, (35, 36, 3), np.uint8),
            "35 x 36 pixels are too small for Nature, .* use features_extractor='impala', which",
        ),
        (
            spaces.Box(0, 255, (2, 2, 36, 36, 3), np.uint8),
            r"need a Box of shape .*, not Box.*ReshapeObservation",
        ),
        (
            spaces.Box(0, 255, (40, 40, 40), np.uint8),
            r"which axis holds the channels.*features_extractor_kwargs=\{'channels_last': True\}",
        ),
    ],
)
def test_a_cnn_policy_says_what_to_use_instead(space: Space[Any], told: str) -> None:
    with pytest.raises(SpaceError, match=told):
        CnnPolicy().build(space, 2, Scalar())


def test_a_cnn_policy_has_convolutions() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'minatar', a callable .* not None; MlpPolicy fla"
    ):
        CnnPolicy(features_extractor=None)


def test_a_cnn_policy_leaves_images_to_a_callable() -> None:
    network = built(CnnPolicy(net_arch=(), features_extractor=Doubling))
    assert network.encoder.space is SPACE
    with pytest.raises(SpaceError, match="use MultiInputPolicy"):
        built(CnnPolicy(features_extractor=Doubling), spaces.Dict({"a": SPACE}))


@pytest.mark.parametrize("body", [None, "nature", "impala"])
@pytest.mark.parametrize("space", [spaces.Dict({"a": SPACE}), spaces.Tuple([SPACE, SPACE])])
def test_an_mlp_policy_says_what_reads_several_parts(body: Any, space: Space[Any]) -> None:
    with pytest.raises(SpaceError, match=r"MlpPolicy reads .* one array, .*; use MultiInputPolicy"):
        built(MlpPolicy(features_extractor=body), space)


@pytest.mark.parametrize("kind", [MlpPolicy, CnnPolicy, MultiInputPolicy])
def test_a_policy_goes_by_its_name(kind: Any) -> None:
    chosen = {"features_extractor": "impala", "features_extractor_kwargs": {"width": 2}}
    resolved = resolve_policy({"policy": kind.__name__, "policy_kwargs": chosen})
    assert type(resolved) is kind
    assert resolved == kind(**chosen)
    with pytest.raises(ConfigurationError, match=f"policy_kwargs of {kind.__name__} must be among"):
        resolve_policy({"policy": kind.__name__, "policy_kwargs": {"width": 2}})


def test_the_policies_differ_in_their_defaults() -> None:
    defaults = [
        (policy.net_arch, policy.features_extractor)
        for policy in (MlpPolicy(), CnnPolicy(), MultiInputPolicy())
    ]
    assert defaults == [((64, 64), None), ((512,), "nature"), ((64, 64), "nature")]


# -- what is saved ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MlpPolicy, CnnPolicy, MultiInputPolicy])
def test_a_policy_is_saved_without_pickle(kind: Any) -> None:
    policy = kind(
        features_extractor="impala",
        features_extractor_kwargs={"width": np.int64(2), "spectral_norm": True, "pool": None},
    )
    description = encode(policy)
    assert description["$spec"] == f"networks.{kind.__name__}"
    loaded = decode(description)
    assert type(loaded) is kind
    assert loaded == policy


def test_a_policy_that_was_saved_before_a_field_existed_has_its_default() -> None:
    description = encode(MlpPolicy(net_arch=(5,)))
    pairs = description["arguments"]["$dict"]
    pairs[:] = [pair for pair in pairs if pair[0] != "features_extractor_kwargs"]
    assert decode(description) == MlpPolicy(net_arch=(5,))


def test_what_the_policies_share_is_no_policy() -> None:
    names = {name for name in SPECS if name.startswith("networks.")} - {"networks.SB3Features"}
    assert names == {"networks.MlpPolicy", "networks.CnnPolicy", "networks.MultiInputPolicy"}


PICTURES = spaces.Box(0, 255, (4, 84, 84), np.uint8)


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        (PICTURES, "CnnPolicy"),
        (spaces.Dict({"image": PICTURES}), "MultiInputPolicy"),
        (spaces.Tuple([PICTURES]), "MultiInputPolicy"),
        (spaces.Box(0, 1, (4, 84, 84), np.float32), "MlpPolicy"),
        (spaces.Discrete(3), "MlpPolicy"),
    ],
)
def test_the_policy_is_one_that_reads_what_the_environment_shows(space: Any, wanted: str) -> None:
    assert policy_for(space) == wanted
