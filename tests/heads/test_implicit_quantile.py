"""The implicit quantile head, IQN, in numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sbdqn.errors import ConfigurationError
from sbdqn.heads import ImplicitQuantile, Quantile, Scalar
from sbdqn.types import Bootstrap, Loss, Prediction, Purpose
from tests.heads.test_scalar import batch, believing

CPU = torch.device("cpu")
SAMPLED = [Purpose.LEARN, Purpose.TARGET]
EVEN = [Purpose.ACT, Purpose.EVALUATE]


def loss_of(
    head: ImplicitQuantile, predicted: list[float], fractions: list[float], target: list[float]
) -> Loss:
    prediction = Prediction(torch.tensor([[[9.0] * len(predicted), predicted]]), rows(fractions))
    return head.loss(prediction, torch.tensor([1]), rows(target))


def rows(*given: list[float]) -> torch.Tensor:
    return torch.tensor(given)


@pytest.mark.parametrize(("purpose", "n"), [(Purpose.LEARN, 3), (Purpose.TARGET, 5)])
def test_every_observation_is_learned_from_at_uniform_fractions_of_its_own(
    purpose: Purpose, n: int
) -> None:
    torch.manual_seed(0)
    fractions = ImplicitQuantile(samples=3, target_samples=5, acting_samples=7).fractions(
        2000, purpose, CPU
    )
    assert fractions.shape == (2000, n)
    assert len(fractions.unique()) > 1990 * n  # shared neither by rows nor by columns
    uniform = torch.linspace(0.0, 1.0, 2000 * n)
    torch.testing.assert_close(fractions.flatten().sort().values, uniform, rtol=0.0, atol=0.03)


@pytest.mark.parametrize("purpose", SAMPLED)
def test_sampled_fractions_come_from_torchs_global_generator(purpose: Purpose) -> None:
    head = ImplicitQuantile()
    torch.manual_seed(1)
    first, second = head.fractions(4, purpose, CPU), head.fractions(4, purpose, CPU)
    torch.manual_seed(1)
    again = head.fractions(4, purpose, CPU)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("purpose", EVEN)
def test_acting_takes_the_midpoints_of_equal_parts_and_nothing_random(purpose: Purpose) -> None:
    before = torch.get_rng_state()
    fractions = ImplicitQuantile(samples=3, target_samples=5, acting_samples=4).fractions(
        2, purpose, CPU
    )
    assert fractions.tolist() == [[0.125, 0.375, 0.625, 0.875]] * 2
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_has_one_output_for_each_action_and_fraction() -> None:
    assert ImplicitQuantile().width == 1
    assert ImplicitQuantile(cosines=7).cosines == 7


def test_the_expected_return_is_the_mean_over_however_many_fractions_there_are() -> None:
    values = torch.tensor([[[1.0, 3.0, 8.0], [0.0, 0.0, 6.0]]])
    assert ImplicitQuantile().q(Prediction(values, rows([0.1, 0.2, 0.3]))).tolist() == [[4.0, 2.0]]
    assert ImplicitQuantile().q(Prediction(values[:, :, :1], rows([0.1]))).tolist() == [[1.0, 0.0]]


def test_a_soft_policy_mixes_fraction_by_fraction_with_the_penalty_of_each_action() -> None:
    # 0.25 * (0 - 2) + 0.75 * (8 - 4) = 2.5, and 0.25 * (4 - 2) + 0.75 * (16 - 4) = 9.5
    target = ImplicitQuantile().target(
        batch([1.0], [0.5]),
        believing([[0.25, 0.75]], bonus=[0.5], penalty=[[2.0, 4.0]]),
        Prediction(torch.tensor([[[0.0, 4.0], [8.0, 16.0]]]), rows([0.3, 0.6])),
    )
    assert target.tolist() == [[1.5 + 0.5 * 2.5, 1.5 + 0.5 * 9.5]]


def test_a_terminal_state_ignores_the_future() -> None:
    target = ImplicitQuantile().target(
        batch([1.5], [0.0]),
        believing([[0.0, 1.0]]),
        Prediction(torch.tensor([[[1e30, 1e30], [-1e30, 1e30]]]), rows([0.3, 0.6])),
    )
    assert target.tolist() == [[1.5, 1.5]]


def test_the_mean_of_a_target_is_the_scalar_heads_target() -> None:
    generator = torch.Generator().manual_seed(0)
    head, n = ImplicitQuantile(), 50
    following = Prediction(3 * torch.randn(n, 4, 7, generator=generator), torch.rand(n, 7))
    reward, discount = torch.randn(n, generator=generator), torch.rand(n, generator=generator)
    transitions = batch(reward.tolist(), discount.tolist())
    policy = torch.randn(n, 4, generator=generator).softmax(dim=1)
    bonus, penalty = torch.randn(n, generator=generator), torch.randn(n, 4, generator=generator)
    bootstrap = Bootstrap(policy, bonus, penalty)

    target = head.target(transitions, bootstrap, following)

    q = Prediction(head.q(following).unsqueeze(2))
    assert target.shape == (n, 7)
    torch.testing.assert_close(target.mean(dim=1), Scalar().target(transitions, bootstrap, q))


@pytest.mark.parametrize(
    ("kappa", "error", "size"),
    [
        (1.0, 0.0, 0.0),
        (1.0, 0.5, 0.125),
        (1.0, 1.0, 0.5),
        (1.0, 3.0, 2.5),
        (2.0, 1.0, 0.25),  # square / 2 / kappa
        (2.0, 2.0, 1.0),
        (2.0, 5.0, 4.0),  # size - kappa / 2
        (0.0, 0.25, 0.25),
        (0.0, 3.0, 3.0),
    ],
)
def test_the_loss_weighs_an_error_by_its_fraction_and_side(
    kappa: float, error: float, size: float
) -> None:
    head = ImplicitQuantile(kappa=kappa)
    assert loss_of(head, [1.0], [0.125], [1.0 + error]).value.tolist() == [0.125 * size]
    assert loss_of(head, [1.0], [0.125], [1.0 - error]).value.tolist() == [0.875 * size]


def test_the_loss_is_a_sum_over_predicted_and_a_mean_over_target_quantiles() -> None:
    # Three predictions against two targets: errors 1 and 3, 0 and 2, -2 and 0.
    loss = loss_of(ImplicitQuantile(kappa=0.0), [0.0, 1.0, 3.0], [0.25, 0.5, 0.125], [1.0, 3.0])
    assert loss.value.tolist() == [0.25 * 2.0 + 0.5 * 1.0 + 0.875 * 1.0]


def test_the_fractions_of_a_loss_belong_to_the_prediction_in_their_order() -> None:
    # 0.125 * 2 + 0.75 * 1, and 0.75 * 2 + 0.125 * 1
    head = ImplicitQuantile(kappa=0.0)
    assert loss_of(head, [0.0, 1.0], [0.125, 0.75], [2.0, 2.0]).value.tolist() == [1.0]
    assert loss_of(head, [0.0, 1.0], [0.75, 0.125], [2.0, 2.0]).value.tolist() == [1.625]


def test_each_entry_is_compared_at_fractions_of_its_own() -> None:
    values = torch.zeros(2, 1, 2)
    prediction = Prediction(values, rows([0.125, 0.25], [0.5, 1.0]))
    loss = ImplicitQuantile(kappa=0.0).loss(prediction, torch.tensor([0, 0]), rows([2.0], [2.0]))
    assert loss.value.tolist() == [0.75, 3.0]


def test_the_fractions_of_the_next_states_value_do_not_matter() -> None:
    values = torch.tensor([[[2.0, 1.0]]])
    one, other = (
        ImplicitQuantile().target(
            batch([1.0], [0.5]), believing([[1.0]]), Prediction(values, rows(fractions))
        )
        for fractions in ([0.1, 0.2], [0.9, 0.3])
    )
    assert one.tolist() == other.tolist() == [[2.0, 1.5]]


def test_the_gradient_is_that_of_the_action_taken() -> None:
    # Errors 0.5 and -3: -0.125 * 0.5, and |0.75 - 1| * 1
    values = torch.tensor([[[0.0, 3.5], [9.0, 9.0]]], requires_grad=True)
    prediction = Prediction(values, rows([0.125, 0.75]))
    ImplicitQuantile().loss(prediction, torch.tensor([0]), rows([0.5])).value.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[[-0.0625, 0.25], [0.0, 0.0]]]


def test_at_the_midpoints_it_is_the_quantile_head() -> None:
    generator = torch.Generator().manual_seed(0)
    values = 2 * torch.randn(30, 3, 8, generator=generator)
    target = 2 * torch.randn(30, 5, generator=generator)
    action = torch.randint(0, 3, (30,), generator=generator)
    fractions = ImplicitQuantile(acting_samples=8).fractions(30, Purpose.ACT, CPU)

    implicit = ImplicitQuantile(kappa=0.7).loss(Prediction(values, fractions), action, target)

    explicit = Quantile(8, kappa=0.7).loss(Prediction(values), action, target)
    torch.testing.assert_close(implicit.value, explicit.value)
    torch.testing.assert_close(implicit.surprise, explicit.surprise)


def test_the_surprise_is_the_error_of_the_expected_return_and_carries_no_gradient() -> None:
    values = torch.tensor([[[0.0, 4.0], [9.0, 9.0]], [[9.0, 9.0], [1.0, 5.0]]], requires_grad=True)
    prediction = Prediction(values, rows([0.1, 0.2], [0.3, 0.4]))
    loss = ImplicitQuantile().loss(
        prediction, torch.tensor([0, 1]), rows([2.0, 5.0, 8.0], [-9.0, 3.0, 3.0])
    )
    assert loss.surprise.tolist() == [3.0, 4.0]
    assert not loss.surprise.requires_grad
    assert loss.value.requires_grad


@pytest.mark.parametrize("name", ["samples", "target_samples", "acting_samples", "cosines"])
@pytest.mark.parametrize("given", [0, -1, 8.0, True])
def test_what_is_no_number_of_fractions_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        ImplicitQuantile(**{name: given})
    assert str(refusal.value) == f"{name} must be an integer of at least 1, not {given!r}"


@pytest.mark.parametrize("kappa", [-0.1, 1e-40, math.inf, math.nan, "1", True])
def test_an_error_at_which_no_loss_can_bend_is_refused(kappa: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"kappa must be 0 or .*, not {kappa!r}"):
        ImplicitQuantile(kappa=kappa)


def test_one_fraction_of_each_kind_is_enough() -> None:
    head = ImplicitQuantile(samples=1, target_samples=1, acting_samples=1, cosines=1)
    assert head.fractions(3, Purpose.LEARN, CPU).shape == (3, 1)
    assert head.fractions(3, Purpose.EVALUATE, CPU).tolist() == [[0.5]] * 3
