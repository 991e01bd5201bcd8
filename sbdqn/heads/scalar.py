"""One expected return for each action: the head of the original DQN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sbdqn.errors import ConfigurationError
from sbdqn.types import Batch, Bootstrap, Loss, Prediction


@dataclass(frozen=True)
class Scalar:
    """N = 1: the expected return itself.

    Attributes:
        error: `"huber"`, quadratic up to an error of 1 and linear beyond, which
            is what clipping the gradient of the error means (Mnih et al. 2015),
            or `"mse"`, the plain square.
    """

    error: Literal["huber", "mse"] = "huber"

    def __post_init__(self) -> None:
        """Refuse an unknown error."""
        if self.error not in ("huber", "mse"):
            raise ConfigurationError(f"error must be 'huber' or 'mse', not {self.error!r}")

    @property
    def width(self) -> int:
        """N."""
        return 1

    def q(self, prediction: Prediction) -> Tensor:
        """Expected returns (B, A)."""
        return prediction.values.squeeze(-1)

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        """Expected returns (B,) to regress on."""
        believed = (bootstrap.policy * (self.q(following) - bootstrap.penalty)).sum(dim=1)
        return torch.addcmul(batch.reward + bootstrap.bonus, batch.discount, believed)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        """The error of the actions taken, and its absolute size."""
        predicted = self.q(prediction).gather(1, action.unsqueeze(1)).squeeze(1)  # (B,)
        compare = functional.huber_loss if self.error == "huber" else functional.mse_loss
        value = compare(predicted, target, reduction="none")
        return Loss(value, surprise=(predicted - target).detach().abs())

    def loss_and_gradient(
        self, prediction: Prediction, action: Tensor, target: Tensor
    ) -> tuple[Loss, Tensor]:
        """`loss`, and the gradient (B, A, 1) of its values by the prediction's."""
        values = prediction.values
        place = action.view(-1, 1, 1)
        difference = values.gather(1, place) - target.view(-1, 1, 1)  # (B, 1, 1)
        surprise = difference.abs()
        if self.error == "huber":
            slope = difference.clamp(-1.0, 1.0)
            value = slope * torch.sub(difference, slope, alpha=0.5)
        else:
            slope = 2.0 * difference
            value = difference * difference
        gradient = torch.zeros_like(values).scatter_(1, place, slope)
        return Loss(value.view(-1), surprise.view(-1)), gradient
