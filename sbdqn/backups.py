"""Target rules: which next action a target believes in.

A backup returns a policy, a bonus and a penalty instead of a value, so every
head can use every backup in its own algebra.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbdqn.errors import is_number, require
from sbdqn.protocols import QFunction
from sbdqn.types import Batch, Bootstrap


@dataclass(frozen=True)
class Greedy:
    """The action that the target network itself finds best.

    Mnih et al. 2015, "Human-level control through deep reinforcement
    learning".
    """

    def __call__(
        self, batch: Batch, following_q: Tensor, online: QFunction, target: QFunction
    ) -> Bootstrap:
        """The target network's greedy policy."""
        return _believe_best(following_q)


@dataclass(frozen=True)
class Double:
    """The online network chooses the action, the target network values it.

    van Hasselt et al. 2016, "Deep Reinforcement Learning with Double
    Q-learning", Eq. 4.
    """

    def __call__(
        self, batch: Batch, following_q: Tensor, online: QFunction, target: QFunction
    ) -> Bootstrap:
        """The online network's greedy policy."""
        return _believe_best(online(batch.next_obs))


@dataclass(frozen=True)
class Munchausen:
    """A softmax policy, rewarded for what it was already sure of.

    Vieillard et al. 2020, "Munchausen Reinforcement Learning", Eq. 2 and 3. The
    policy, its entropy and the bonus are all the target network's. With returns
    of n steps the bonus of the first action alone is added; the paper has n = 1.

    Attributes:
        alpha: share of the log-policy that is added to the reward, 0 to 1.
        temperature: above 0, in units of the return.
        clip: at most 0; the log-policy times the temperature counts as no less.

    Example:
        >>> soft = Munchausen(alpha=0.0)  # a soft Q-learning without the bonus
    """

    alpha: float = 0.9
    temperature: float = 0.03
    clip: float = -1.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        alpha, temperature, clip = self.alpha, self.temperature, self.clip
        require(is_number(alpha) and 0 <= alpha <= 1, "alpha", alpha, "a number from 0 to 1")
        require(
            is_number(temperature) and temperature > 0,
            "temperature",
            temperature,
            "a finite number above 0",
            "use Greedy() for its limit at 0",
        )
        is_clip = is_number(clip) or clip == float("-inf")  # which clips nothing
        require(is_clip and clip <= 0, "clip", clip, "a number of at most 0")

    def __call__(
        self, batch: Batch, following_q: Tensor, online: QFunction, target: QFunction
    ) -> Bootstrap:
        """The target network's softmax policy, with its entropy and the bonus."""
        penalty = self._scaled_log_policy(following_q)  # (B, A)
        taken = batch.action.unsqueeze(1)
        log_taken = self._scaled_log_policy(target(batch.obs)).gather(1, taken).squeeze(1)
        bonus = self.alpha * log_taken.clamp(self.clip, 0.0)
        return Bootstrap((following_q / self.temperature).softmax(dim=1), bonus, penalty)

    def _scaled_log_policy(self, q: Tensor) -> Tensor:
        """The log-policy (B, A) times the temperature."""
        return self.temperature * (q / self.temperature).log_softmax(dim=1)


def _believe_best(q: Tensor) -> Bootstrap:
    nothing = torch.zeros_like(q)
    policy = nothing.scatter(1, q.argmax(dim=1, keepdim=True), 1.0)
    return Bootstrap(policy, bonus=nothing.select(1, 0), penalty=nothing)
