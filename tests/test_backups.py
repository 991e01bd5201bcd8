"""Which next action a target believes in, in numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sbdqn.backups import Double, Greedy
from sbdqn.types import Batch, Bootstrap

FOLLOWING_Q = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 4.5]])  # target network: actions 1, 0
ONLINE_Q = torch.tensor([[0.0, -2.0, 0.1], [7.0, 8.0, 7.5]])  # online network: actions 2, 1


def a_batch() -> Batch:
    two = torch.zeros(2)
    return Batch(
        obs=torch.zeros(2, 4),
        action=torch.zeros(2, dtype=torch.int64),
        reward=two,
        next_obs=torch.arange(8.0).reshape(2, 4),
        discount=two,
        weight=two,
        index=torch.arange(2),
    )


def never_asked(obs: Tensor) -> Tensor:
    raise AssertionError("this network has no say here")


def assert_bonus_and_penalty_are_nothing(bootstrap: Bootstrap) -> None:
    assert bootstrap.bonus.tolist() == [0.0, 0.0]
    assert bootstrap.penalty.tolist() == [[0.0] * 3] * 2


def test_greedy_believes_the_target_network_alone() -> None:
    bootstrap = Greedy()(a_batch(), FOLLOWING_Q, never_asked, never_asked)
    assert bootstrap.policy.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert_bonus_and_penalty_are_nothing(bootstrap)


def test_double_believes_the_action_that_the_online_network_chooses() -> None:
    batch = a_batch()
    asked: list[Tensor] = []

    def online(obs: Tensor) -> Tensor:
        asked.append(obs)
        return ONLINE_Q

    bootstrap = Double()(batch, FOLLOWING_Q, online, never_asked)

    assert bootstrap.policy.tolist() == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert_bonus_and_penalty_are_nothing(bootstrap)
    assert len(asked) == 1
    assert asked[0] is batch.next_obs


@pytest.mark.parametrize("backup", [Greedy(), Double()])
def test_a_tie_goes_to_one_action_only(backup: Any) -> None:
    equal = torch.full((2, 3), 0.5)
    bootstrap = backup(a_batch(), equal, lambda obs: equal, never_asked)
    assert bootstrap.policy.sum(dim=1).tolist() == [1.0, 1.0]
    assert bootstrap.policy.max(dim=1).values.tolist() == [1.0, 1.0]


def test_a_backup_leaves_the_values_it_was_given_alone() -> None:
    given = FOLLOWING_Q.clone()
    Greedy()(a_batch(), given, never_asked, never_asked)
    assert torch.equal(given, FOLLOWING_Q)


@pytest.mark.parametrize("backup", [Greedy(), Double()])
def test_a_single_action_is_believed_in(backup: Any) -> None:
    only = torch.tensor([[3.0], [-3.0]])
    bootstrap = backup(a_batch(), only, lambda obs: only, never_asked)
    assert bootstrap.policy.tolist() == [[1.0], [1.0]]
    assert bootstrap.bonus.tolist() == [0.0, 0.0]
    assert bootstrap.penalty.tolist() == [[0.0], [0.0]]


def test_backups_are_values_that_compare() -> None:
    assert Double() == Double() != Greedy()
    assert repr(Double()) == "Double()"
