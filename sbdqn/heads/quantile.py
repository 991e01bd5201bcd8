"""Evenly spaced quantiles of the return for each action: QR-DQN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbdqn.errors import is_number, require, require_count
from sbdqn.types import Batch, Bootstrap, Loss, Prediction


@dataclass(frozen=True)
class Quantile:
    """N quantiles, at the midpoints of N equal parts of the distribution.

    Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile
    Regression". A policy that is not greedy mixes the quantiles of its actions
    fraction by fraction, as Vieillard et al. 2020 do.

    Attributes:
        quantiles: N, at least 1.
        kappa: error at which the Huber loss turns from quadratic to linear, in
            units of the return; 0 for the plain quantile loss.

    Example:
        >>> head = Quantile(quantiles=2)
        >>> head.q(Prediction(torch.tensor([[[1.0, 3.0]]])))
        tensor([[2.]])
    """

    quantiles: int = 200
    kappa: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        require_count("quantiles", self.quantiles)
        require_kappa(self.kappa)

    @property
    def width(self) -> int:
        """N."""
        return self.quantiles

    def q(self, prediction: Prediction) -> Tensor:
        """Expected returns (B, A)."""
        return prediction.values.mean(dim=2)

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        """Quantiles (B, N) to regress on."""
        return quantile_target(batch, bootstrap, following)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        """The quantile Huber loss, and the error of the expected return (B,)."""
        steps = torch.arange(self.quantiles, device=target.device)
        midpoints = (steps.to(target.dtype) + 0.5) / self.quantiles
        return quantile_loss(prediction, midpoints, action, target, self.kappa)


def quantile_target(batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
    """Returns (B, N) that the next quantiles (B, A, N) lead to."""
    worth = following.values - bootstrap.penalty.unsqueeze(2)  # (B, A, N)
    believed = (bootstrap.policy.unsqueeze(2) * worth).sum(dim=1)  # (B, N)
    now = (batch.reward + bootstrap.bonus).unsqueeze(1)
    return torch.addcmul(now, batch.discount.unsqueeze(1), believed)


def quantile_loss(
    prediction: Prediction, fractions: Tensor, action: Tensor, target: Tensor, kappa: float
) -> Loss:
    """Sum over predicted and mean over target quantiles of the Huber quantile loss.

    Dabney et al. 2018, Eq. 10, divided by kappa as in its successor on implicit
    quantiles, Eq. 3: so kappa moves the bend and leaves the slope beyond it.

    Args:
        prediction: values (B, A, N).
        fractions: (N,) or (B, N), of the predicted quantiles.
        action: (B,) from 0.
        target: (B, M).
        kappa: where the loss turns linear.

    Returns:
        The loss, and the absolute error of the expected return as the surprise.
    """
    rows = torch.arange(action.shape[0], device=action.device)
    predicted = prediction.values[rows, action]  # (B, N)
    error = target.unsqueeze(1) - predicted.unsqueeze(2)  # (B, N, M)
    size = error.abs()
    if kappa:
        size = torch.where(size <= kappa, 0.5 * error.square() / kappa, size - 0.5 * kappa)
    slope = (fractions.unsqueeze(-1) - (error.detach() < 0).to(error.dtype)).abs()
    value = (slope * size).mean(dim=2).sum(dim=1)
    surprise = (target.mean(dim=1) - predicted.detach().mean(dim=1)).abs()
    return Loss(value, surprise)


def require_kappa(given: object) -> None:
    """Refuse what is no error at which a loss could bend.

    Raises:
        ConfigurationError: if it is negative, so small that dividing by it
            overflows, infinite or NaN.
    """
    fits = is_number(given) and (given == 0 or given >= _SMALLEST_KAPPA)
    require(fits, "kappa", given, f"0 or a finite number of at least {_SMALLEST_KAPPA}")


_SMALLEST_KAPPA = 1e-6
