"""Quantiles of the return at sampled fractions: IQN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbdqn.errors import require_count
from sbdqn.heads.quantile import quantile_loss, quantile_target, require_kappa
from sbdqn.types import Batch, Bootstrap, Loss, Prediction, Purpose


@dataclass(frozen=True)
class ImplicitQuantile:
    """The quantile at any fraction that the network is asked for.

    Dabney et al. 2018, "Implicit Quantile Networks for Distributional
    Reinforcement Learning". Differences from the paper: acting and evaluating
    take evenly spaced fractions, so the same observation gives the same action;
    and a target's action is chosen by the fractions that value it.

    Attributes:
        samples: fractions of an online prediction that is learned from.
        target_samples: fractions of a prediction that a target is made of.
        acting_samples: fractions that expected returns are the mean over when
            actions are chosen.
        cosines: width of the cosine embedding of a fraction.
        kappa: as in `Quantile`.

    Example:
        >>> head = ImplicitQuantile(acting_samples=2)
        >>> head.fractions(1, Purpose.ACT, torch.device("cpu"))
        tensor([[0.2500, 0.7500]])
    """

    samples: int = 64
    target_samples: int = 64
    acting_samples: int = 32
    cosines: int = 64
    kappa: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        for name in ("samples", "target_samples", "acting_samples", "cosines"):
            require_count(name, getattr(self, name))
        require_kappa(self.kappa)

    @property
    def width(self) -> int:
        """1: the network gives one output for each action at one fraction."""
        return 1

    def fractions(self, rows: int, purpose: Purpose, device: torch.device) -> Tensor:
        """Fractions (rows, N): uniform draws to learn, evenly spaced to act."""
        if purpose is Purpose.LEARN:
            return torch.rand(rows, self.samples, device=device)
        if purpose is Purpose.TARGET:
            return torch.rand(rows, self.target_samples, device=device)
        steps = torch.arange(self.acting_samples, device=device)
        return ((steps + 0.5) / self.acting_samples).expand(rows, -1)

    def q(self, prediction: Prediction) -> Tensor:
        """Expected returns (B, A)."""
        return prediction.values.mean(dim=2)

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        """Returns (B, N') at the fractions of `following`."""
        return quantile_target(batch, bootstrap, following)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        """The quantile Huber loss, and the error of the expected return (B,)."""
        assert prediction.fractions is not None
        return quantile_loss(prediction, prediction.fractions, action, target, self.kappa)
