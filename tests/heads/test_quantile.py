"""The quantile head, QR-DQN, in numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sbdqn.errors import ConfigurationError
from sbdqn.heads import Quantile, Scalar
from sbdqn.types import Bootstrap, Prediction
from tests.heads.test_scalar import batch, believing


def loss_and_gradient(
    head: Quantile, predicted: list[float], target: list[float]
) -> tuple[float, list[float]]:
    prediction = torch.tensor([[[99.0] * len(predicted), predicted]], requires_grad=True)
    loss = head.loss(Prediction(prediction), torch.tensor([1]), torch.tensor([target]))
    loss.value.sum().backward()
    assert prediction.grad is not None
    assert not prediction.grad[0, 0].any()  # the action that was not taken learns nothing
    return float(loss.value.detach()), prediction.grad[0, 1].tolist()


def test_the_expected_return_is_the_mean_of_the_quantiles() -> None:
    values = torch.tensor([[[1.0, 3.0, 8.0], [0.0, 0.0, 6.0]], [[-3.0, 0.0, 3.0], [5.0, 5.0, 5.0]]])
    assert Quantile(3).width == 3
    assert Quantile(3).q(Prediction(values)).tolist() == [[4.0, 2.0], [0.0, 5.0]]


def test_each_quantile_of_the_believed_action_is_discounted_and_joined_by_the_reward() -> None:
    target = Quantile(2).target(
        batch([2.0, -1.0], [0.5, 0.25]),
        believing([[0.0, 1.0], [1.0, 0.0]]),
        Prediction(torch.tensor([[[9.0, 9.0], [3.0, 4.0]], [[8.0, -8.0], [7.0, 7.0]]])),
    )
    assert target.tolist() == [[3.5, 4.0], [1.0, -3.0]]


def test_a_soft_policy_mixes_quantile_by_quantile_with_the_penalty_of_each_action() -> None:
    # low: 0.25 * (0 - 2) + 0.75 * (8 - 4) = 2.5; high: 0.25 * (4 - 2) + 0.75 * (16 - 4) = 9.5
    target = Quantile(2).target(
        batch([1.0], [0.5]),
        believing([[0.25, 0.75]], bonus=[0.5], penalty=[[2.0, 4.0]]),
        Prediction(torch.tensor([[[0.0, 4.0], [8.0, 16.0]]])),
    )
    assert target.tolist() == [[1.5 + 0.5 * 2.5, 1.5 + 0.5 * 9.5]]


def test_a_terminal_state_ignores_the_future() -> None:
    target = Quantile(2).target(
        batch([1.5], [0.0]),
        believing([[0.0, 1.0]], bonus=[0.25]),
        Prediction(torch.tensor([[[1e30, 1e30], [-1e30, 1e30]]])),
    )
    assert target.tolist() == [[1.75, 1.75]]


def test_the_mean_of_a_target_is_the_scalar_heads_target() -> None:
    generator = torch.Generator().manual_seed(0)
    head, n = Quantile(7), 50
    following = Prediction(3 * torch.randn(n, 4, 7, generator=generator))
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
    ("kappa", "target", "value", "gradient"),
    [
        (1.0, 0.0, 0.0, [0.0, 0.0]),
        (1.0, 0.5, 0.125, [-0.125, -0.375]),  # within kappa, the target above
        (1.0, -0.5, 0.125, [0.375, 0.125]),  # and below
        (1.0, 1.0, 0.5, [-0.25, -0.75]),  # exactly at kappa
        (1.0, -1.0, 0.5, [0.75, 0.25]),
        (1.0, 3.0, 2.5, [-0.25, -0.75]),  # beyond: the slope is that of the plain loss
        (1.0, -3.0, 2.5, [0.75, 0.25]),
        (2.0, 1.0, 0.25, [-0.125, -0.375]),  # square / 2 / kappa
        (2.0, -1.0, 0.25, [0.375, 0.125]),
        (2.0, 1.5, 0.5625, [-0.1875, -0.5625]),
        (2.0, 2.0, 1.0, [-0.25, -0.75]),
        (2.0, 5.0, 4.0, [-0.25, -0.75]),  # size - kappa / 2
        (2.0, -5.0, 4.0, [0.75, 0.25]),
        (0.5, 0.25, 0.0625, [-0.125, -0.375]),
        (0.5, 0.5, 0.25, [-0.25, -0.75]),
        (0.5, 0.75, 0.5, [-0.25, -0.75]),
        (0.5, -3.0, 2.75, [0.75, 0.25]),
        (0.125, 0.0625, 0.015625, [-0.125, -0.375]),
        (0.0, 0.0, 0.0, [0.0, 0.0]),  # the plain loss
        (0.0, 0.25, 0.25, [-0.25, -0.75]),
        (0.0, -2.0, 2.0, [0.75, 0.25]),
        (0.0, 2.0, 2.0, [-0.25, -0.75]),
    ],
)
def test_the_loss_is_quadratic_up_to_kappa_and_linear_beyond(
    kappa: float, target: float, value: float, gradient: list[float]
) -> None:
    # Both quantiles, of fractions 0.25 and 0.75, predict 0; their slopes sum to 1.
    assert loss_and_gradient(Quantile(2, kappa), [0.0, 0.0], [target]) == (value, gradient)


def test_a_low_quantile_pays_for_being_too_high_and_a_high_one_for_being_too_low() -> None:
    # 0.25 * huber(1) for the low quantile, |0.75 - 1| * huber(-3) for the high one
    value, gradient = loss_and_gradient(Quantile(2), [0.0, 4.0], [1.0])
    assert value == 0.25 * 0.5 + 0.25 * 2.5
    assert gradient == [-0.25, 0.25]
    # |0.25 - 1| * huber(-1), 0.75 * huber(3)
    value, gradient = loss_and_gradient(Quantile(2), [0.0, -4.0], [-1.0])
    assert value == 0.75 * 0.5 + 0.75 * 2.5
    assert gradient == [0.75, -0.75]


def test_the_loss_is_a_sum_over_predicted_and_a_mean_over_target_quantiles() -> None:
    four = Quantile(4, kappa=0.0)  # the fractions 1/8, 3/8, 5/8 and 7/8 sum to 2
    assert loss_and_gradient(four, [0.0] * 4, [2.0])[0] == 4.0
    assert loss_and_gradient(four, [0.0] * 4, [1.0, 3.0])[0] == 4.0
    assert loss_and_gradient(four, [0.0] * 4, [1.0, 3.0] * 4)[0] == 4.0
    # low: (0.25 * 0.5 + 0.25 * 3.5) / 2; high: (0.25 * 2.5 + 0) / 2; gradients alike
    value, gradient = loss_and_gradient(Quantile(2), [0.0, 4.0], [1.0, 4.0])
    assert value == 0.5 + 0.3125
    assert gradient == [-0.25, 0.125]


def test_each_entry_has_a_loss_and_an_action_of_its_own() -> None:
    prediction = torch.tensor([[[0.0, 0.0], [5.0, 5.0]], [[1.0, 1.0], [7.0, 7.0]]])
    loss = Quantile(2, kappa=0.0).loss(
        Prediction(prediction), torch.tensor([1, 0]), torch.tensor([[6.0], [-1.0]])
    )
    assert loss.value.tolist() == [1.0, 2.0]
    assert loss.surprise.tolist() == [1.0, 2.0]


def test_the_plain_loss_rests_at_the_quantiles_of_the_target() -> None:
    # Of 0 to 7 a quarter lies below 1.5, and three quarters lie below 5.5.
    target = [float(each) for each in range(8)]
    assert loss_and_gradient(Quantile(2, 0.0), [1.5, 5.5], target)[1] == [0.0, 0.0]
    assert loss_and_gradient(Quantile(2, 0.0), [0.5, 4.5], target)[1] == [-0.125, -0.125]  # up
    assert loss_and_gradient(Quantile(2, 0.0), [2.5, 6.5], target)[1] == [0.125, 0.125]  # down


def test_the_surprise_is_the_error_of_the_expected_return_and_carries_no_gradient() -> None:
    # Means 2 and 5, 3 and -1; the quantiles themselves differ otherwise.
    prediction = torch.tensor([[[0.0, 4.0], [9.0, 9.0]], [[9.0, 9.0], [1.0, 5.0]]])
    prediction.requires_grad_()
    target = torch.tensor([[2.0, 5.0, 8.0], [-9.0, 3.0, 3.0]])

    loss = Quantile(2).loss(Prediction(prediction), torch.tensor([0, 1]), target)

    assert loss.surprise.tolist() == [3.0, 4.0]
    assert not loss.surprise.requires_grad
    assert loss.value.requires_grad


def test_a_spread_that_leaves_the_mean_alone_is_no_surprise() -> None:
    loss = Quantile(2).loss(
        Prediction(torch.tensor([[[2.0, 2.0]]])), torch.tensor([0]), torch.tensor([[-3.0, 7.0]])
    )
    assert loss.surprise.tolist() == [0.0]
    assert float(loss.value) > 0.0


@pytest.mark.parametrize("quantiles", [0, -1, 200.0, True, "200"])
def test_what_is_no_number_of_quantiles_is_refused(quantiles: Any) -> None:
    message = f"quantiles must be an integer of at least 1, not {quantiles!r}"
    with pytest.raises(ConfigurationError, match=message):
        Quantile(quantiles)


@pytest.mark.parametrize("kappa", [-0.1, 1e-40, math.inf, math.nan, "1", True])
def test_an_error_at_which_no_loss_can_bend_is_refused(kappa: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"kappa must be 0 or .*, not {kappa!r}"):
        Quantile(kappa=kappa)


def test_one_quantile_is_the_median() -> None:
    assert loss_and_gradient(Quantile(1), [0.0], [3.0]) == (1.25, [-0.5])
    assert loss_and_gradient(Quantile(1), [0.0], [-3.0]) == (1.25, [0.5])
