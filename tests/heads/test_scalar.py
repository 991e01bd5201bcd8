"""The scalar head in numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sbdqn.errors import ConfigurationError
from sbdqn.heads import Scalar
from sbdqn.types import Batch, Bootstrap, Prediction


def batch(reward: list[float], discount: list[float]) -> Batch:
    n = len(reward)
    return Batch(
        obs=torch.zeros(n, 1),
        action=torch.zeros(n, dtype=torch.int64),
        reward=torch.tensor(reward),
        next_obs=torch.zeros(n, 1),
        discount=torch.tensor(discount),
        weight=torch.ones(n),
        index=torch.arange(n),
    )


def values(*rows: list[float]) -> Prediction:
    return Prediction(torch.tensor(rows).unsqueeze(-1))  # (B, A, 1)


def believing(
    policy: list[list[float]],
    bonus: list[float] | None = None,
    penalty: list[list[float]] | None = None,
) -> Bootstrap:
    chosen = torch.tensor(policy)
    return Bootstrap(
        chosen,
        torch.zeros(len(policy)) if bonus is None else torch.tensor(bonus),
        torch.zeros_like(chosen) if penalty is None else torch.tensor(penalty),
    )


def loss_and_gradient(error: str, predicted: float, target: float) -> tuple[float, float]:
    prediction = torch.tensor([[[predicted], [99.0]]], requires_grad=True)
    head = Scalar(error)  # type: ignore[arg-type]
    loss = head.loss(Prediction(prediction), torch.tensor([0]), torch.tensor([target]))
    loss.value.sum().backward()
    assert prediction.grad is not None
    assert prediction.grad[0, 1, 0] == 0.0  # the action that was not taken learns nothing
    return float(loss.value.detach()), float(prediction.grad[0, 0, 0])


@pytest.mark.parametrize("error", ["huber", "mse"])
def test_loss_and_gradient_are_what_autograd_makes_of_the_loss(error: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    values = 3 * torch.randn(200, 4, 1, generator=generator)
    action = torch.randint(0, 4, (200,), generator=generator)
    target = 3 * torch.randn(200, generator=generator)
    head = Scalar(error)

    leaf = values.clone().requires_grad_()
    expected = head.loss(Prediction(leaf), action, target)
    expected.value.sum().backward()
    loss, gradient = head.loss_and_gradient(Prediction(values), action, target)

    assert leaf.grad is not None
    torch.testing.assert_close(gradient, leaf.grad)
    torch.testing.assert_close(loss.value, expected.value.detach())
    assert torch.equal(loss.surprise, expected.surprise)
    assert int((gradient != 0).sum()) == 200  # of the actions taken alone
    assert loss.value.shape == loss.surprise.shape == (200,)


def test_one_output_an_action_is_its_expected_return() -> None:
    assert Scalar().width == 1
    assert Scalar().q(values([1.0, 2.0], [3.0, 4.0])).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_q_keeps_its_shape_for_one_observation_and_for_one_action() -> None:
    assert Scalar().q(Prediction(torch.zeros(1, 5, 1))).shape == (1, 5)
    assert Scalar().q(Prediction(torch.zeros(4, 1, 1))).shape == (4, 1)


def test_the_target_is_the_reward_and_the_discounted_value_of_the_believed_action() -> None:
    target = Scalar().target(
        batch([2.0, -1.0], [0.5, 0.25]),
        believing([[0.0, 1.0], [1.0, 0.0]]),
        values([10.0, 3.0], [8.0, 100.0]),
    )
    assert target.tolist() == [2.0 + 0.5 * 3.0, -1.0 + 0.25 * 8.0]


def test_a_policy_that_mixes_actions_mixes_their_values() -> None:
    target = Scalar().target(batch([0.0], [1.0]), believing([[0.25, 0.75]]), values([4.0, 8.0]))
    assert target.tolist() == [7.0]


def test_the_bonus_joins_the_reward_and_the_penalty_the_next_value() -> None:
    # 1 + 0.5 + 0.5 * (0.25 * (4 - 2) + 0.75 * (8 - 4)) = 1.5 + 0.5 * 3.5
    target = Scalar().target(
        batch([1.0], [0.5]),
        believing([[0.25, 0.75]], bonus=[0.5], penalty=[[2.0, 4.0]]),
        values([4.0, 8.0]),
    )
    assert target.tolist() == [3.25]


def test_a_terminal_state_ignores_the_future() -> None:
    target = Scalar().target(batch([1.5], [0.0]), believing([[0.0, 1.0]]), values([1e30, -1e30]))
    assert target.tolist() == [1.5]


def test_the_target_multiplies_by_the_discount_alone_because_gamma_is_in_it() -> None:
    # Three steps of gamma 0.5 have the discount 0.125, whatever else there is.
    target = Scalar().target(batch([0.0], [0.125]), believing([[1.0, 0.0]]), values([8.0, 0.0]))
    assert target.tolist() == [1.0]


@pytest.mark.parametrize(
    ("target", "value", "gradient"),
    [
        (2.0, 0.0, 0.0),
        (2.5, 0.125, -0.5),
        (1.25, 0.28125, 0.75),
        (3.0, 0.5, -1.0),
        (5.0, 2.5, -1.0),  # clamping the loss would make this gradient 0
        (-98.0, 99.5, 1.0),
        (1002.0, 999.5, -1.0),
    ],
)
def test_huber_is_quadratic_near_and_linear_far(
    target: float, value: float, gradient: float
) -> None:
    assert loss_and_gradient("huber", 2.0, target) == (value, gradient)


@pytest.mark.parametrize(
    ("target", "value", "gradient"), [(2.0, 0.0, 0.0), (2.5, 0.25, -1.0), (-98.0, 10_000.0, 200.0)]
)
def test_mse_is_the_plain_square(target: float, value: float, gradient: float) -> None:
    assert loss_and_gradient("mse", 2.0, target) == (value, gradient)


@pytest.mark.parametrize(
    ("error", "value", "slopes"),
    [
        ("huber", [0.125, 0.0, 1.5], [2.0 * -0.5, 0.0, 0.25 * 1.0]),
        ("mse", [0.25, 0.0, 4.0], [2.0 * -1.0, 0.0, 0.25 * 4.0]),
    ],
)
def test_each_entry_has_a_loss_of_its_own_that_a_weight_multiplies(
    error: str, value: list[float], slopes: list[float]
) -> None:
    prediction = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]]], requires_grad=True)
    head = Scalar(error)  # type: ignore[arg-type]

    loss = head.loss(Prediction(prediction), torch.tensor([1, 0, 1]), torch.tensor([2.5, 3.0, 4.0]))
    (torch.tensor([2.0, 1.0, 0.25]) * loss.value).sum().backward()

    assert loss.value.tolist() == value
    assert prediction.grad is not None
    assert prediction.grad.squeeze(-1).tolist() == [[0.0, slopes[0]], [0.0, 0.0], [0.0, slopes[2]]]


@pytest.mark.parametrize("error", ["huber", "mse"])
def test_surprise_is_the_absolute_error_and_carries_no_gradient(error: str) -> None:
    prediction = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]], requires_grad=True)
    head = Scalar(error)  # type: ignore[arg-type]

    surprise: Tensor = head.loss(
        Prediction(prediction), torch.tensor([0, 1]), torch.tensor([0.5, 14.0])
    ).surprise

    assert surprise.tolist() == [0.5, 10.0]
    assert not surprise.requires_grad


def test_an_unknown_error_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="error must be 'huber' or 'mse', not 'mae'"):
        Scalar("mae")  # type: ignore[arg-type]
