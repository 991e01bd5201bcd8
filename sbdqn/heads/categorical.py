"""Probabilities of fixed returns for each action: C51."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbdqn.errors import is_number, require, require_count
from sbdqn.types import Batch, Bootstrap, Loss, Prediction

MOST_ATOMS = 1 << 16


@dataclass(frozen=True)
class Categorical:
    """N logits over N evenly spaced returns, the atoms.

    Bellemare et al. 2017, "A Distributional Perspective on Reinforcement
    Learning", Algorithm 1. Returns beyond the atoms count as the nearest one, so
    `low` and `high` must hold the discounted returns of the task.

    Attributes:
        atoms: N, from 2 to 65536.
        low: the lowest return, in units of the return.
        high: the highest.

    Example:
        >>> head = Categorical(atoms=3, low=0.0, high=2.0)
        >>> head.q(Prediction(torch.zeros(1, 1, 3)))
        tensor([[1.]])
    """

    atoms: int = 51
    low: float = -10.0
    high: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what is no support."""
        require_count("atoms", self.atoms, lowest=2)
        fits = self.atoms <= MOST_ATOMS
        require(fits, "atoms", self.atoms, f"at most {MOST_ATOMS}")
        bounds = (self.low, self.high)
        is_interval = all(map(is_number, bounds)) and self.low < self.high
        require(is_interval, "(low, high)", bounds, "two finite numbers, the lower one first")
        support = torch.linspace(self.low, self.high, self.atoms, dtype=torch.float64)
        gaps = support.float().diff()
        require(
            bool((gaps > 0).all() and gaps.sum().isfinite()),
            "(low, high)",
            bounds,
            f"apart enough for {self.atoms} different numbers of float32, and within its range",
        )

    @property
    def width(self) -> int:
        """N."""
        return self.atoms

    def q(self, prediction: Prediction) -> Tensor:
        """Expected returns (B, A)."""
        probabilities = prediction.values.softmax(dim=2)
        return probabilities @ self._support(probabilities)

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        """Probabilities (B, N) of the atoms to regress on."""
        atoms = self._support(batch.reward)
        follows = atoms - bootstrap.penalty.unsqueeze(2)  # (B, A, N)
        arrives = batch.discount.view(-1, 1, 1) * follows
        arrives = arrives + (batch.reward + bootstrap.bonus).view(-1, 1, 1)
        mass = bootstrap.policy.unsqueeze(2) * following.values.softmax(dim=2)
        return self._project(arrives.flatten(1), mass.flatten(1))

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        """The cross-entropy, and the Kullback-Leibler divergence as the surprise.

        They differ by the entropy of the target alone. Hessel et al. 2018,
        "Rainbow", prioritise by the latter.
        """
        rows = torch.arange(action.shape[0], device=action.device)
        predicted = prediction.values[rows, action].log_softmax(dim=1)  # (B, N)
        value = -(target * predicted).sum(dim=1)
        negative_entropy = torch.special.xlogy(target, target).sum(dim=1)
        surprise = (value.detach() + negative_entropy).clamp_min(0.0)
        return Loss(value, surprise)

    def _support(self, like: Tensor) -> Tensor:
        """The atoms (N,)."""
        return torch.linspace(self.low, self.high, self.atoms, dtype=like.dtype, device=like.device)

    def _project(self, returns: Tensor, mass: Tensor) -> Tensor:
        """Share the mass (B, M) of returns (B, M) among the two nearest atoms each."""
        spacing = (self.high - self.low) / (self.atoms - 1)
        position = (returns - self.low) / spacing
        # A position exactly on an atom gives it all; the last has none above itself.
        lower = position.floor().clamp(0, self.atoms - 2)
        above = (position - lower).clamp(0.0, 1.0)  # 0 and 1 beyond the atoms
        index = lower.nan_to_num().long()  # NaN is to arrive in the loss, where it is reported
        projected = mass.new_zeros(mass.shape[0], self.atoms)
        projected.scatter_add_(1, index, mass * (1.0 - above))
        return projected.scatter_add_(1, index + 1, mass * above)
