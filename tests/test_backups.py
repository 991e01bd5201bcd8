"""Which next action a target believes in, in numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sbdqn.backups import Double, Greedy, Munchausen
from sbdqn.errors import ConfigurationError
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.protocols import Head
from sbdqn.types import Batch, Bootstrap, Prediction

FOLLOWING_Q = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 4.5]])  # target network: actions 1, 0
ONLINE_Q = torch.tensor([[0.0, -2.0, 0.1], [7.0, 8.0, 7.5]])  # online network: actions 2, 1

LN3, LN4 = math.log(3), math.log(4)
SURE_OF_THE_SECOND = torch.tensor([[5.0, 5.0 + 0.5 * LN3]] * 2)  # softmax(2 q) = 1/4, 3/4


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


def constant(q: Tensor) -> Any:
    return lambda obs: q


def test_munchausen_believes_the_softmax_of_the_target_networks_next_values() -> None:
    following_q = torch.tensor([[1.0, 1.0 + 0.5 * LN3], [-7.0 + 0.5 * LN4, -7.0]])

    bootstrap = Munchausen(temperature=0.5)(
        a_batch(), following_q, never_asked, constant(torch.zeros(2, 2))
    )

    torch.testing.assert_close(bootstrap.policy, torch.tensor([[0.25, 0.75], [0.8, 0.2]]))


def test_munchausens_penalty_is_the_log_policy_times_the_temperature() -> None:
    following_q = torch.tensor([[1.0, 1.0 + 0.5 * LN3], [-7.0 + 0.5 * LN4, -7.0]])

    bootstrap = Munchausen(temperature=0.5, clip=-0.1)(  # which clips the bonus alone
        a_batch(), following_q, never_asked, constant(torch.zeros(2, 2))
    )

    expected = 0.5 * torch.tensor([[0.25, 0.75], [0.8, 0.2]]).log()
    torch.testing.assert_close(bootstrap.penalty, expected)


def test_munchausens_soft_value_is_the_log_sum_of_exponentials() -> None:
    q = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    batch = a_batch()._replace(action=torch.zeros(50, dtype=torch.int64))

    believed = Munchausen(temperature=0.7)(batch, q, never_asked, constant(q))

    soft = (believed.policy * (q - believed.penalty)).sum(dim=1)
    torch.testing.assert_close(soft, 0.7 * (q / 0.7).logsumexp(dim=1))


@pytest.mark.parametrize(
    ("clip", "sure_of", "doubted"),
    [
        (-1.0, 0.5 * (LN3 - LN4), -0.5 * LN4),  # -0.144 and -0.693: neither is clipped
        (-0.5, 0.5 * (LN3 - LN4), -0.5),
        (-0.1, -0.1, -0.1),
        (0.0, 0.0, 0.0),
        (-math.inf, 0.5 * (LN3 - LN4), -0.5 * LN4),
    ],
)
def test_munchausens_bonus_is_a_share_of_the_clipped_log_policy_of_the_action_taken(
    clip: float, sure_of: float, doubted: float
) -> None:
    batch = a_batch()._replace(action=torch.tensor([1, 0]))

    bootstrap = Munchausen(alpha=0.9, temperature=0.5, clip=clip)(
        batch, torch.zeros(2, 2), never_asked, constant(SURE_OF_THE_SECOND)
    )

    assert bootstrap.bonus.shape == (2,)
    torch.testing.assert_close(bootstrap.bonus, 0.9 * torch.tensor([sure_of, doubted]))


def test_munchausens_defaults_are_the_papers() -> None:
    assert Munchausen() == Munchausen(alpha=0.9, temperature=0.03, clip=-1.0)
    # 0.03 * log(softmax((0, 10) / 0.03)) = 0 - 10, which is clipped to -1.
    bootstrap = Munchausen()(
        a_batch(), torch.zeros(2, 2), never_asked, constant(torch.tensor([[0.0, 10.0]] * 2))
    )
    torch.testing.assert_close(bootstrap.bonus, torch.tensor([-0.9, -0.9]))


def test_munchausen_asks_the_target_network_alone_for_the_values_of_the_observations() -> None:
    batch = a_batch()
    asked: list[Tensor] = []

    def target(obs: Tensor) -> Tensor:
        asked.append(obs)
        return FOLLOWING_Q

    Munchausen()(batch, FOLLOWING_Q, never_asked, target)

    assert len(asked) == 1
    assert asked[0] is batch.obs


def test_munchausens_next_values_have_no_say_in_the_bonus_nor_the_present_ones_elsewhere() -> None:
    def bootstrap(present: Tensor, following: Tensor) -> Bootstrap:
        return Munchausen()(a_batch(), following, never_asked, constant(present))

    plain, other = bootstrap(FOLLOWING_Q, ONLINE_Q), bootstrap(FOLLOWING_Q, -ONLINE_Q)
    assert torch.equal(plain.bonus, other.bonus)
    assert not torch.equal(plain.policy, other.policy)
    other = bootstrap(-FOLLOWING_Q, ONLINE_Q)
    assert torch.equal(plain.policy, other.policy)
    assert torch.equal(plain.penalty, other.penalty)
    assert not torch.equal(plain.bonus, other.bonus)


def test_without_alpha_munchausen_has_no_bonus() -> None:
    bootstrap = Munchausen(alpha=0.0)(a_batch(), FOLLOWING_Q, never_asked, constant(FOLLOWING_Q))
    assert bootstrap.bonus.abs().tolist() == [0.0, 0.0]


def test_towards_a_temperature_of_nothing_munchausen_is_greedy() -> None:
    best = torch.tensor([1, 0])
    batch = a_batch()._replace(
        action=best, reward=torch.tensor([1.0, -1.0]), discount=torch.tensor([0.9, 0.5])
    )
    cold = Munchausen(temperature=1e-6)(batch, FOLLOWING_Q, never_asked, constant(FOLLOWING_Q))
    greedy = Greedy()(batch, FOLLOWING_Q, never_asked, never_asked)

    torch.testing.assert_close(cold.policy, greedy.policy)
    torch.testing.assert_close(cold.bonus, greedy.bonus)  # it was sure of the action
    torch.testing.assert_close(cold.penalty.gather(1, best.unsqueeze(1)), torch.zeros(2, 1))
    following = Prediction(FOLLOWING_Q.unsqueeze(2))
    targets = [Scalar().target(batch, bootstrap, following) for bootstrap in (cold, greedy)]
    torch.testing.assert_close(*targets)


@pytest.mark.parametrize("temperature", [0.03, 1e-4, 10.0])
def test_munchausen_stays_finite_where_values_are_huge(temperature: float) -> None:
    huge = torch.tensor([[1e6, -1e6, 0.0], [1e6, 1e6 + 1.0, -1e6]])
    batch = a_batch()._replace(action=torch.tensor([1, 2]), discount=torch.ones(2))

    bootstrap = Munchausen(temperature=temperature)(batch, huge, never_asked, constant(huge))

    assert all(bool(part.isfinite().all()) for part in bootstrap)
    torch.testing.assert_close(bootstrap.policy.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(bootstrap.bonus, torch.tensor([-0.9, -0.9]))
    target = Scalar().target(batch, bootstrap, Prediction(huge.unsqueeze(2)))
    torch.testing.assert_close(target, torch.tensor([1e6, 1e6]), rtol=1e-5, atol=0.0)


def log(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor([probabilities]).log()


@pytest.mark.parametrize(
    ("head", "values", "expected"),
    [
        (Scalar(), torch.tensor([[[1.0], [2.0]]]), [2.0]),
        # The mixture of fractions is 0.75 below and 0.75 above its mean.
        (Quantile(2), torch.tensor([[[1.0, 1.0], [1.0, 3.0]]]), [[1.625, 2.375]]),
        (ImplicitQuantile(), torch.tensor([[[1.0, 1.0], [1.0, 3.0]]]), [[1.625, 2.375]]),
        # 1/4 at 2, and 3/8 each at 1.5 and 2.5, shared by the atoms 0, 1, 2, 3 and 4
        (
            Categorical(atoms=5, low=0.0, high=4.0),
            log([[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5, 0.0]]),
            [[0.0, 0.1875, 0.625, 0.1875, 0.0]],
        ),
    ],
)
def test_a_whole_munchausen_target_by_hand(head: Head, values: Tensor, expected: Any) -> None:
    # Here and in the next state the values are 1 and 2, which a temperature of 1 / ln 3 turns into
    # the policy 1/4, 3/4; its log times the temperature is 0 - ln 4 / ln 3 and 1 - ln 4 / ln 3.
    # The second action was taken: the bonus is half of the latter. The next state has the soft
    # value 1 + ln 4 / ln 3: 1 + 0.5 * (1 - ln 4 / ln 3) + 0.5 * (1 + ln 4 / ln 3) = 2.
    batch = Batch(
        obs=torch.zeros(1, 4),
        action=torch.tensor([1]),
        reward=torch.tensor([1.0]),
        next_obs=torch.ones(1, 4),
        discount=torch.tensor([0.5]),
        weight=torch.ones(1),
        index=torch.zeros(1, dtype=torch.int64),
    )
    following = Prediction(values)

    bootstrap = Munchausen(alpha=0.5, temperature=1 / LN3, clip=-10.0)(
        batch, head.q(following), never_asked, constant(torch.tensor([[1.0, 2.0]]))
    )

    target = head.target(batch, bootstrap, following)
    torch.testing.assert_close(target, torch.tensor(expected), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_a_share_of_the_log_policy_beyond_none_or_all_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigurationError, match=f"alpha must be .* from 0 to 1, not {alpha}"):
        Munchausen(alpha=alpha)


@pytest.mark.parametrize("temperature", [0.0, -0.03, math.inf, math.nan])
def test_a_temperature_that_is_not_above_zero_and_finite_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Munchausen(temperature=temperature)
    assert str(refusal.value) == (
        f"temperature must be a finite number above 0, not {temperature}; "
        f"use Greedy() for its limit at 0"
    )


@pytest.mark.parametrize("clip", [0.1, math.nan])
def test_clipping_a_log_policy_above_zero_is_refused(clip: float) -> None:
    with pytest.raises(ConfigurationError, match=f"clip must be a number of at most 0, not {clip}"):
        Munchausen(clip=clip)


def test_the_ends_of_munchausens_ranges_are_accepted() -> None:
    assert Munchausen(alpha=0.0, clip=0.0) != Munchausen(alpha=1.0, clip=0.0)
