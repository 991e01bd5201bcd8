"""What an update computes, whoever differentiates it: targets, loss, and a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from sbdqn.protocols import Backup, Head
from sbdqn.types import Batch, FloatArray, Loss, Prediction, Purpose, Tensors

_Weights = TypeVar("_Weights", Tensor, FloatArray)
Predict: TypeAlias = Callable[[Tensors, Purpose], Prediction]
"""What a network says of observations (B, ...)."""


class Rules(NamedTuple):
    """What tells one member of the family from another in an update.

    Attributes:
        head: what the networks' outputs mean.
        backup: which next action a target believes in.
        max_gradient_norm: gradients are scaled down to it; None for never.
    """

    head: Head
    backup: Backup
    max_gradient_norm: float | None


class UpdateRecord(NamedTuple):
    """What an update saw, kept as tensors until somebody asks.

    Attributes:
        q: (B, A) expected returns of the batch before the update.
        loss: the batch's outcome.
        weight: (B,) importance weights.
        gradient_norm: () before clipping.
    """

    q: Tensor
    loss: Loss
    weight: Tensor
    gradient_norm: Tensor


def target_of(rules: Rules, batch: Batch, online: Predict, target: Predict) -> Tensor:
    """What the online network is to say of the batch, in the head's own algebra."""
    head = rules.head
    following = target(batch.next_obs, Purpose.TARGET)
    bootstrap = rules.backup(
        batch,
        head.q(following),
        lambda obs: head.q(online(obs, Purpose.TARGET)),
        lambda obs: head.q(target(obs, Purpose.TARGET)),
    )
    return head.target(batch, bootstrap, following)


def compare(rules: Rules, batch: Batch, online: Predict, target: Predict) -> tuple[Tensor, Loss]:
    """Expected returns (B, A) of the batch, and the loss that is to be differentiated."""
    with torch.no_grad():
        wanted = target_of(rules, batch, online, target)
    prediction = online(batch.obs, Purpose.LEARN)
    loss = rules.head.loss(prediction, batch.action, wanted)
    return rules.head.q(prediction).detach(), loss


def share_in_mean(weight: _Weights) -> _Weights:
    """The gradient of the weighted mean of the losses by each of them (B,)."""
    share: _Weights = weight / weight.shape[0]
    return share
