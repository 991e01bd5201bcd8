"""One expected return for each action: the head of the original DQN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
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
        values = prediction.values.numpy().reshape(-1)
        n_rows, n_actions = prediction.values.shape[:2]
        place = np.arange(0, n_rows * n_actions, n_actions) + action.numpy()
        difference = values[place] - target.numpy()
        if self.error == "huber":
            slope = np.minimum(np.maximum(difference, -_BEND), _BEND)
            value = slope * (difference - _HALF * slope)
        else:
            slope = difference + difference
            value = difference * difference
        gradient = np.zeros(values.shape, np.float32)
        gradient[place] = slope
        loss = Loss(torch.from_numpy(value), torch.from_numpy(np.abs(difference)))
        return loss, torch.from_numpy(gradient.reshape(n_rows, n_actions, 1))


_BEND, _HALF = np.ones((), np.float32), np.full((), 0.5, np.float32)
