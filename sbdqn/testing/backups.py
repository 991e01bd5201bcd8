"""Whether a backup keeps the promises of `sbdqn.protocols.Backup`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbdqn.protocols import Backup, QFunction
from sbdqn.testing.steps import (
    copy_of,
    expect,
    expect_finite,
    expect_frozen_dataclass,
    expect_tensor,
    is_close,
    is_same,
    largest_difference,
    rows_of,
    run_steps,
)
from sbdqn.types import Batch, Bootstrap, Tensors

_B, _A = 5, 3


def check_backup(backup: Backup) -> None:
    """Check that every head can make a target of what a backup returns.

    It must be a frozen dataclass that returns a `Bootstrap`: probabilities of
    the actions at the next observations, a bonus and penalties, each transition
    for itself.

    Args:
        backup: an object of your class.

    Raises:
        CheckFailedError: if it breaks a law; the message names it.

    Example:
        >>> from sbdqn.backups import Double
        >>> from sbdqn.testing import check_backup
        >>> check_backup(Double())
    """
    run_steps("check_backup", _STEPS, backup, repr(backup))


class _Case(NamedTuple):
    """Five transitions, and the values of two networks that differ."""

    batch: Batch
    online: QFunction
    target: QFunction

    def bootstrap(self, backup: Backup) -> Bootstrap:
        """What a backup says of them."""
        return backup(self.batch, self.target(self.batch.next_obs), self.online, self.target)


def _case(scale: float = 1.0) -> _Case:
    online, target = scale * torch.randn(2, 4, _A)
    batch = Batch(
        obs=torch.randn(_B, 4),
        action=torch.arange(_B) % _A,
        reward=torch.randn(_B),
        next_obs=torch.randn(_B, 4),
        discount=torch.linspace(0.0, 0.99, _B),
        weight=torch.ones(_B),
        index=torch.arange(_B),
    )
    return _Case(batch, _linear(online), _linear(target))


def _is_a_frozen_dataclass(backup: Backup) -> None:
    expect_frozen_dataclass(backup)


def _can_be_called(backup: Backup) -> None:
    advice = "write __call__(self, batch, following_q, online, target)"
    expect(callable(backup), "an object that can be called", repr(backup), advice)


def _returns_a_policy_a_bonus_and_a_penalty(backup: Backup) -> None:
    bootstrap = _case().bootstrap(backup)
    advice = "return Bootstrap(policy, bonus, penalty)"
    kind = type(bootstrap).__name__
    expect(isinstance(bootstrap, Bootstrap), "a sbdqn.types.Bootstrap", kind, advice)
    expect_tensor("policy", bootstrap.policy, (_B, _A))
    expect_tensor("bonus", bootstrap.bonus, (_B,))
    expect_tensor("penalty", bootstrap.penalty, (_B, _A))


def _probabilities_of_the_policy_sum_to_one(backup: Backup) -> None:
    for values, scale in (("common", 1.0), ("equal", 0.0), ("large", 1e4)):
        policy = _case(scale).bootstrap(backup).policy
        expect_finite(f"policy of {values} values", policy)
        expected = f"probabilities of {values} values to be at least 0"
        expect(bool((policy >= 0).all()), expected, policy, "a policy has no negative parts")
        total = policy.sum(dim=1)
        expected = f"each row of the policy of {values} values to sum to 1"
        advice = "normalise over dim=1, the actions; share or break ties"
        expect(is_close(total, torch.ones(_B)), expected, total.tolist(), advice)


def _large_values_are_finite(backup: Backup) -> None:
    bootstrap = _case(1e4).bootstrap(backup)
    for name, value in bootstrap._asdict().items():
        expect_finite(f"{name} of values of 1e4", value)


def _better_actions_are_not_believed_in_less(backup: Backup) -> None:
    case = _case()
    best = torch.tensor([0.0, 100.0, 0.0])
    online, target = (_shifted(q, best) for q in (case.online, case.target))
    policy = _Case(case.batch, online, target).bootstrap(backup).policy
    expected = f"a probability of at least 1/{_A} for an action that is better by 100"
    advice = "take the argmax over the actions' axis, not the argmin"
    found = policy[:, 1].tolist()
    expect(bool((policy[:, 1] > 1 / _A - 1e-4).all()), expected, found, advice)


def _policy_and_penalty_are_of_the_next_observations(backup: Backup) -> None:
    case = _case()
    before = case.bootstrap(backup)
    action = (case.batch.action + 1) % _A
    batch = case.batch._replace(obs=torch.randn(_B, 4), action=action)
    after = case._replace(batch=batch).bootstrap(backup)
    for name in ("policy", "penalty"):
        one, other = getattr(before, name), getattr(after, name)
        expected = f"the {name} to stay when batch.obs and batch.action change"
        advice = "call online and target with batch.next_obs for it"
        expect(is_close(one, other), expected, largest_difference(one, other), advice)


def _transitions_do_not_depend_on_each_other(backup: Backup) -> None:
    case = _case()
    whole = case.bootstrap(backup)
    for row in range(_B):
        only = slice(row, row + 1)
        one = case._replace(batch=rows_of(case.batch, only)).bootstrap(backup)
        for name, value in one._asdict().items():
            known = getattr(whole, name)[only]
            expected = f"{name} of transition {row} in a batch of {_B} to be as in a batch of 1"
            advice = "reduce no batch axis, and avoid squeeze() without a dim"
            difference = largest_difference(known, value)
            expect(is_close(known, value), expected, difference, advice)


def _nothing_has_a_gradient(backup: Backup) -> None:
    for name, value in _case().bootstrap(backup)._asdict().items():
        advice = "a target is no function of weights: keep parameters out of a backup"
        expect(not value.requires_grad, f"{name} without gradient", "one with", advice)


def _inputs_are_left_as_they_are(backup: Backup) -> None:
    case = _case()
    kept: list[Tensor] = []
    copies: list[Tensor] = []

    def watched(q: QFunction) -> QFunction:
        def remember(obs: Tensors) -> Tensor:
            kept.append(q(obs))
            copies.append(kept[-1].clone())
            return kept[-1]

        return remember

    batch = copy_of(case.batch)
    _Case(case.batch, watched(case.online), watched(case.target)).bootstrap(backup)
    advice = "leave out operations in place (those ending in _) on what you are given"
    found = "that it was changed"
    expect(is_same(batch, case.batch), "the batch to stay as it was", found, advice)
    expect(is_same(tuple(copies), tuple(kept)), "q values to stay as they were", found, advice)


def _linear(weight: Tensor) -> QFunction:
    def q(obs: Tensors) -> Tensor:
        assert isinstance(obs, Tensor)
        return obs @ weight

    return q


def _shifted(q: QFunction, by: Tensor) -> QFunction:
    return lambda obs: q(obs) + by


_STEPS = (
    _is_a_frozen_dataclass,
    _can_be_called,
    _returns_a_policy_a_bonus_and_a_penalty,
    _nothing_has_a_gradient,
    _inputs_are_left_as_they_are,
    _probabilities_of_the_policy_sum_to_one,
    _large_values_are_finite,
    _transitions_do_not_depend_on_each_other,
    _policy_and_penalty_are_of_the_next_observations,
    _better_actions_are_not_believed_in_less,
)
