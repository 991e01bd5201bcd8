"""The network: its modes, its noise, and what the head reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.networks import MlpPolicy, NoisyLinear, QNetwork, q_of
from sbdqn.protocols import Head
from sbdqn.types import Prediction, Purpose

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
        is_silent = False
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


OBSERVED: dict[str, Space[Any]] = {
    "floats": SPACE,
    "a matrix": spaces.Box(-1, 1, (2, 3), np.float32),
    "bytes": spaces.Box(0, 255, (4,), np.uint8),
    "categories": spaces.MultiDiscrete([3, 4], start=[1, -2]),
    "one category": spaces.Discrete(5, start=-1),
    "bits": spaces.MultiBinary(6),
}


@pytest.mark.parametrize("name", OBSERVED)
@pytest.mark.parametrize("n", [0, 1, 9])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_an_array_is_read_as_a_tensor_is(name: str, n: int, layer_norm: bool) -> None:
    torch.manual_seed(0)
    space = OBSERVED[name]
    space.seed(0)
    network = MlpPolicy(net_arch=(8,), layer_norm=layer_norm).build(space, 3, Scalar())
    obs = np.array([space.sample() for _ in range(n)], space.dtype).reshape(n, *(space.shape or ()))
    values = q_of(network, obs, Purpose.ACT)
    assert (values.shape, values.dtype) == ((n, 3), np.float32)
    expected = network(torch.from_numpy(obs)).detach().numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert network.check()
    predicted, recorded = (
        each.values.detach()
        for each in (
            network.predict(torch.from_numpy(obs), Purpose.TARGET),
            network.record(torch.from_numpy(obs))[0],
        )
    )
    torch.testing.assert_close(recorded, predicted)


def test_categories_are_one_hot_whatever_dtype_they_come_in() -> None:
    space = OBSERVED["categories"]
    network = MlpPolicy(net_arch=(8,), layer_norm=False).build(space, 3, Scalar())
    whole = np.array([[2, -1]])
    np.testing.assert_array_equal(
        q_of(network, whole.astype(np.float32), Purpose.ACT), q_of(network, whole, Purpose.ACT)
    )


def plain(**changes: Any) -> QNetwork:
    torch.manual_seed(0)
    policy = MlpPolicy(**{"net_arch": (8,), "layer_norm": False, **changes})
    network = policy.build(SPACE, 3, Scalar())
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    return network


def exchange_trunk(network: QNetwork) -> None:
    network.trunk = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid())


def exchange_a_layer(network: QNetwork) -> None:
    network.trunk[0] = nn.Linear(4, 8)  # type: ignore[index,operator]


def exchange_output(network: QNetwork) -> None:
    network.output.linear = nn.Linear(8, 3)


class Tenfold(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 10 * weight


def parametrize_a_layer(network: QNetwork) -> None:
    nn.utils.parametrize.register_parametrization(network.trunk[0], "weight", Tenfold())


def hook_encoder(network: QNetwork) -> None:
    network.encoder.register_forward_hook(lambda *given: 10 * given[2])


def hook_trunk_before(network: QNetwork) -> None:
    network.trunk.register_forward_pre_hook(lambda *given: (10 * given[1][0],))


def hook_linear(network: QNetwork) -> None:
    network.output.linear.register_forward_hook(lambda *given: given[2] + 10)


def hook_backward(network: QNetwork) -> None:
    network.trunk.register_full_backward_hook(lambda *given: None)


@pytest.mark.parametrize(
    "touch",
    [
        *(exchange_trunk, exchange_a_layer, exchange_output, parametrize_a_layer),
        *(hook_encoder, hook_trunk_before, hook_linear, hook_backward),
    ],
)
def test_a_network_that_was_touched_is_one_network_still(touch: Any) -> None:
    network = plain()
    assert network.check()
    obs = np.ones((1, 4), np.float32)
    before = q_of(network, obs, Purpose.ACT)
    touch(network)
    assert not network.check()
    after = q_of(network, obs, Purpose.ACT)
    np.testing.assert_allclose(
        after, network(torch.from_numpy(obs)).detach().numpy(), rtol=1e-5, atol=1e-6
    )
    assert (touch is hook_backward) == np.allclose(before, after)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"layer_norm": True}, True),
        ({"activation_fn": "Tanh"}, True),
        ({"activation_fn": "GELU"}, False),
        ({"features_extractor": lambda space: Body(nn.Linear(4, 4))}, False),
    ],
)
def test_which_networks_are_plain(changes: dict[str, Any], expected: bool) -> None:
    assert plain(**changes).check() is expected


@pytest.mark.parametrize("purpose", NOT_LEARNING)
def test_an_array_is_read_in_the_mode_of_its_purpose(purpose: Purpose) -> None:
    network = network_with(nn.Dropout(0.5))
    obs = np.ones((5, 4), np.float32)
    assert (q_of(network, obs, purpose) == 1.0).all()


# -- noise -------------------------------------------------------------------------------


class Failing(nn.Module):
    """A user's body that fails when it is told to."""

    features = 4
    fails = False

    def forward(self, obs: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("a body that fails")
        return obs


SAMPLED = ImplicitQuantile(samples=5, target_samples=3, acting_samples=4, cosines=6)
HEADS: list[Head] = [Scalar(), Categorical(atoms=7), Quantile(quantiles=5), SAMPLED]
NOT_EVALUATING = [purpose for purpose in Purpose if purpose is not Purpose.EVALUATE]


def network_of(head: Head, space: Space[Any] = SPACE, **policy: Any) -> QNetwork:
    torch.manual_seed(0)
    return MlpPolicy(**{"net_arch": (16, 8), **policy}).build(space, 3, head)


def predicted(network: QNetwork, purpose: Purpose) -> Prediction:
    """What is said of the same observations; sampled fractions are the same too."""
    torch.manual_seed(5)
    return network.predict(torch.randn(6, 4), purpose)


@torch.no_grad()
def denoised(network: QNetwork) -> QNetwork:
    """The network with noise of size 0."""
    for layer in network.modules():
        if isinstance(layer, NoisyLinear):
            layer.weight_sigma.zero_()
            layer.bias_sigma.zero_()
    return network


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dueling", [False, True])
def test_evaluation_is_silent_and_all_else_has_the_noise(head: Head, dueling: bool) -> None:
    network = network_of(head, noisy=True, dueling=dueling)
    with_noise = {purpose: predicted(network, purpose).values for purpose in Purpose}
    network.resample()
    with_other_noise = {purpose: predicted(network, purpose).values for purpose in Purpose}
    denoised(network)
    for purpose in Purpose:
        means = predicted(network, purpose).values
        for values in (with_noise, with_other_noise):
            assert torch.allclose(values[purpose], means) == (purpose is Purpose.EVALUATE)
        same = torch.equal(with_noise[purpose], with_other_noise[purpose])
        assert same == (purpose is Purpose.EVALUATE)


@pytest.mark.parametrize("head", HEADS)
def test_noise_is_the_same_until_it_is_drawn_afresh(head: Head) -> None:
    network = network_of(head, noisy=True)
    for purpose in Purpose:
        first = predicted(network, purpose)
        for other in Purpose:
            predicted(network, other)
        assert torch.equal(predicted(network, purpose).values, first.values)


@pytest.mark.parametrize("head", HEADS[:-1])
def test_acting_and_learning_see_the_same_noisy_network(head: Head) -> None:
    network = network_of(head, noisy=True)
    values = [predicted(network, purpose).values for purpose in NOT_EVALUATING]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_draws_nothing_from_torchs_generator(head: Head) -> None:
    network = network_of(head, noisy=True)
    before = torch.get_rng_state()
    for purpose in (Purpose.EVALUATE, Purpose.ACT):
        network.predict(torch.zeros(2, 4), purpose)
    network(torch.zeros(2, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_back_after_evaluation_even_if_it_failed() -> None:
    network = network_of(Scalar(), noisy=True, features_extractor=lambda space: Failing())
    acting = predicted(network, Purpose.ACT).values
    network.encoder.fails = True
    with pytest.raises(RuntimeError, match="a body that fails"):
        predicted(network, Purpose.EVALUATE)
    network.encoder.fails = False
    assert torch.equal(predicted(network, Purpose.ACT).values, acting)
    assert not torch.allclose(predicted(network, Purpose.EVALUATE).values, acting)


def test_silence_reaches_noise_within_a_users_own_body() -> None:
    class Loud(nn.Module):
        is_silent = False

        def resample(self) -> None:
            pass

        def forward(self, obs: Tensor) -> Tensor:
            return obs + (0.0 if self.is_silent else 100.0)

    network = network_with(nn.Sequential(nn.Identity(), Loud()))
    obs = torch.ones(1, 4)
    for purpose in Purpose:
        offset = 0.0 if purpose is Purpose.EVALUATE else 100.0
        assert network.q(obs, purpose).tolist() == [[1.0 + offset] * 4]
    assert network(obs).tolist() == [[1.0] * 4]


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_one_observation_as_an_array_has_the_noise_of_its_purpose(head: Head, noisy: bool) -> None:
    network = network_of(head, noisy=noisy, dueling=True)
    obs = np.ones((1, 4), np.float32)
    for purpose in (Purpose.ACT, Purpose.EVALUATE):
        with torch.no_grad():
            expected = network.q(torch.from_numpy(obs), purpose).numpy()
        np.testing.assert_array_equal(q_of(network, obs, purpose), expected)
    acting, evaluating = (
        q_of(network, obs, purpose) for purpose in (Purpose.ACT, Purpose.EVALUATE)
    )
    assert np.array_equal(acting, evaluating) is not noisy


# -- sampled fractions ---------------------------------------------------------------------


NUMBER_OF_FRACTIONS = {
    Purpose.LEARN: SAMPLED.samples,
    Purpose.TARGET: SAMPLED.target_samples,
    Purpose.ACT: SAMPLED.acting_samples,
    Purpose.EVALUATE: SAMPLED.acting_samples,
}


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("net_arch", [(), (16, 8)])
def test_each_value_belongs_to_its_fraction(
    purpose: Purpose, dueling: bool, net_arch: tuple[int, ...]
) -> None:
    network = network_of(SAMPLED, net_arch=net_arch, dueling=dueling)
    obs = torch.randn(6, 4)
    prediction = network.predict(obs, purpose)
    n = NUMBER_OF_FRACTIONS[purpose]
    assert prediction.fractions is not None
    assert prediction.fractions.shape == (6, n)
    assert prediction.values.shape == (6, 3, n)
    for b in range(6):
        features = network.trunk(network.encoder(obs[b : b + 1]))
        for i in range(n):
            fraction = prediction.fractions[b, i].view(1, 1)
            alone = network.output(network.embedding(features, fraction)[:, 0])  # (1, A, 1)
            torch.testing.assert_close(prediction.values[b, :, i], alone[0, :, 0])
    # The test would prove nothing if fractions, actions or observations did not matter.
    for axis in range(3):
        assert prediction.values.std(dim=axis).max() > 1e-2


@pytest.mark.parametrize("purpose", [Purpose.LEARN, Purpose.TARGET])
def test_fractions_are_drawn_afresh_for_every_observation_and_prediction(purpose: Purpose) -> None:
    network = network_of(SAMPLED)
    first, second = (network.predict(torch.zeros(2, 4), purpose).fractions for _ in range(2))
    assert first is not None
    assert second is not None
    assert len(torch.cat([first, second]).unique()) == 4 * NUMBER_OF_FRACTIONS[purpose]


@pytest.mark.parametrize("purpose", [Purpose.ACT, Purpose.EVALUATE])
def test_fractions_to_act_by_are_midpoints(purpose: Purpose) -> None:
    fractions = network_of(SAMPLED).predict(torch.zeros(2, 4), purpose).fractions
    assert fractions is not None
    assert fractions.tolist() == [[0.125, 0.375, 0.625, 0.875]] * 2


def test_only_a_head_that_samples_gets_fractions() -> None:
    for head in HEADS[:-1]:
        assert network_of(head).predict(torch.zeros(1, 4), Purpose.LEARN).fractions is None


# FAILS, a bug of QNetwork._predict: view(..., -1) cannot tell A where B is 0.
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("options", [{}, {"dueling": True}, {"noisy": True}])
def test_no_observations_have_no_values(head: Head, options: dict[str, bool]) -> None:
    network = network_of(head, **options)
    assert network(torch.zeros(0, 4)).shape == (0, 3)


# -- what is random -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "policy", "expected"),
    [
        (Scalar(), {}, False),
        (Categorical(), {"dueling": True}, False),
        (Quantile(), {"layer_norm": True}, False),
        (Scalar(), {"noisy": True}, True),
        (Scalar(), {"noisy": True, "net_arch": ()}, True),
        (SAMPLED, {}, True),
        (SAMPLED, {"noisy": True, "dueling": True}, True),
        (Scalar(), {"features_extractor": lambda space: Body(nn.Dropout(0.5))}, True),
    ],
)
def test_a_network_knows_whether_chance_plays_a_part_in_learning(
    head: Head, policy: dict[str, Any], expected: bool
) -> None:
    network = network_of(head, **policy)
    assert network.is_random is expected
    torch.manual_seed(1)
    obs = torch.ones(64, 4)
    before = torch.get_rng_state()
    network.resample()
    network.predict(obs, Purpose.LEARN)
    assert torch.equal(torch.get_rng_state(), before) is not expected


@pytest.mark.parametrize("head", [*HEADS[1:], Scalar()])
@pytest.mark.parametrize("policy", [{"dueling": True}, {"noisy": True}, {}])
def test_only_a_chain_of_common_layers_is_plain(head: Head, policy: dict[str, bool]) -> None:
    network = network_of(head, **policy)
    assert network.check() is (head is not SAMPLED and not policy)
    if network.has_arrays:
        obs = torch.randn(5, 4)
        recorded, predicted = network.record(obs)[0], network.predict(obs, Purpose.LEARN)
        torch.testing.assert_close(recorded.values, predicted.values)


@pytest.mark.parametrize("head", HEADS)
def test_our_own_layers_are_the_same_in_training_and_evaluation(head: Head) -> None:
    for options in ({}, {"dueling": True}, {"noisy": True}, {"noisy": True, "dueling": True}):
        network = network_of(head, layer_norm=True, **options)
        assert not network.has_modes
        network.predict(torch.zeros(1, 4), Purpose.LEARN)
        assert not any(module.training for module in network.modules())
