"""The categorical head, C51, in numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from sbdqn.errors import ConfigurationError
from sbdqn.heads import Categorical, Scalar
from sbdqn.heads.categorical import MOST_ATOMS
from sbdqn.types import Batch, Bootstrap, Prediction
from tests.heads.test_scalar import batch, believing

HEAD = Categorical(atoms=4, low=-2.0, high=4.0)  # the atoms -2, 0, 2 and 4

LANDINGS = [
    (-2.0, [1.0, 0.0, 0.0, 0.0]),  # exactly on an atom, which keeps it all
    (0.0, [0.0, 1.0, 0.0, 0.0]),
    (2.0, [0.0, 0.0, 1.0, 0.0]),
    (4.0, [0.0, 0.0, 0.0, 1.0]),
    (-1.0, [0.5, 0.5, 0.0, 0.0]),  # halfway
    (1.0, [0.0, 0.5, 0.5, 0.0]),
    (3.0, [0.0, 0.0, 0.5, 0.5]),
    (0.5, [0.0, 0.75, 0.25, 0.0]),  # nearer to one
    (3.5, [0.0, 0.0, 0.25, 0.75]),
    (-2.5, [1.0, 0.0, 0.0, 0.0]),  # beyond an end
    (4.5, [0.0, 0.0, 0.0, 1.0]),
    (-1e6, [1.0, 0.0, 0.0, 0.0]),
    (1e6, [0.0, 0.0, 0.0, 1.0]),
]


def holding(*probabilities: list[list[float]]) -> Prediction:
    """A prediction of these probabilities (B, A, N)."""
    return Prediction(torch.tensor(probabilities).log() + 3.0)  # softmax forgets what is common


def soft(rows: int, actions: int, generator: torch.Generator) -> Bootstrap:
    return Bootstrap(
        torch.randn(rows, actions, generator=generator).softmax(dim=1),
        torch.randn(rows, generator=generator).clamp(-1.0, 1.0),
        torch.randn(rows, actions, generator=generator).clamp(-1.0, 1.0),
    )


def test_the_expected_return_is_the_mean_of_the_atoms() -> None:
    head = Categorical(atoms=3, low=-1.0, high=3.0)  # the atoms -1, 1 and 3
    weighed = torch.tensor([[[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]], [[3.0, 1.0, 0.0], [1.0, 1.0, 1.0]]])

    q = head.q(Prediction(weighed.log()))  # (-1 + 2 + 15) / 8, (-1 + 1 + 6) / 4, (-3 + 1) / 4, 1

    assert head.width == 3
    assert q.shape == (2, 2)
    torch.testing.assert_close(q, torch.tensor([[2.0, 1.5], [-0.5, 1.0]]))


@pytest.mark.parametrize(("place", "expected"), LANDINGS)
def test_a_return_is_shared_by_the_atoms_next_to_it(place: float, expected: list[float]) -> None:
    target = HEAD.target(  # the next state is worth 2 for sure
        batch([place - 2.0], [1.0]),
        believing([[0.0, 1.0]]),
        holding([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
    )
    torch.testing.assert_close(target, torch.tensor([expected]))


@pytest.mark.parametrize(("place", "expected"), LANDINGS)
def test_a_terminal_state_puts_all_mass_at_the_clipped_reward(
    place: float, expected: list[float]
) -> None:
    target = HEAD.target(
        batch([place], [0.0]),
        believing([[0.5, 0.5]]),
        holding([[0.25, 0.25, 0.25, 0.25], [0.125, 0.5, 0.125, 0.25]]),
    )
    torch.testing.assert_close(target, torch.tensor([expected]))


def test_the_discount_draws_the_atoms_together() -> None:
    # 1 + 0.5 * (-2, 0, 2, 4) = 0, 1, 2, 3
    target = HEAD.target(
        batch([1.0], [0.5]), believing([[1.0]]), holding([[0.125, 0.25, 0.125, 0.5]])
    )
    torch.testing.assert_close(target, torch.tensor([[0.0, 0.25, 0.5, 0.25]]))


def test_each_entry_has_a_reward_a_discount_and_a_policy_of_its_own() -> None:
    target = HEAD.target(
        batch([0.0, 1.0], [1.0, 0.0]),
        believing([[1.0, 0.0], [0.0, 1.0]]),
        holding(
            [[0.25, 0.0, 0.0, 0.75], [1.0, 0.0, 0.0, 0.0]],
            [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]],
        ),
    )
    torch.testing.assert_close(target, torch.tensor([[0.25, 0.0, 0.0, 0.75], [0.0, 0.5, 0.5, 0.0]]))


def test_a_penalty_moves_the_returns_of_its_action_alone() -> None:
    # The first action: 0.5 + 0.5 + 0.5 * (0 - 1) = 0.5, with a probability of 0.25.
    # The second: 1 + 0.5 * (2 + 1) = 2.5.
    target = HEAD.target(
        batch([0.5], [0.5]),
        believing([[0.25, 0.75]], bonus=[0.5], penalty=[[1.0, -1.0]]),
        holding([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
    )
    first, second = 0.25 * torch.tensor([0, 0.75, 0.25, 0]), 0.75 * torch.tensor([0, 0, 0.75, 0.25])
    torch.testing.assert_close(target, (first + second).unsqueeze(0))


def test_every_atom_of_the_default_support_keeps_what_falls_on_it() -> None:
    atoms = torch.linspace(-10.0, 10.0, 51).tolist()
    target = Categorical().target(
        batch(atoms, [0.0] * 51), believing([[1.0]] * 51), Prediction(torch.zeros(51, 1, 51))
    )
    torch.testing.assert_close(target, torch.eye(51), rtol=0.0, atol=1e-4)


def test_no_reward_and_no_discounting_leave_the_distribution_alone() -> None:
    following = torch.randn(20, 1, 51, generator=torch.Generator().manual_seed(0))
    target = Categorical().target(
        batch([0.0] * 20, [1.0] * 20), believing([[1.0]] * 20), Prediction(following)
    )
    torch.testing.assert_close(target, following[:, 0].softmax(dim=1), rtol=0.0, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    rewards=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
    discount=st.floats(0.0, 1.0, width=32),
    atoms=st.integers(2, 60),
    low=st.integers(-100, 100),
    extent=st.sampled_from([0.1, 1.0, 7.0, 500.0]),
    seed=st.integers(0, 1000),
)
def test_probabilities_sum_to_one_whatever_the_reward(
    rewards: list[float], discount: float, atoms: int, low: int, extent: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = len(rewards)
    target = Categorical(atoms, low, low + extent).target(
        batch(rewards, [discount] * n),
        soft(n, 3, generator),
        Prediction(5 * torch.randn(n, 3, atoms, generator=generator)),
    )
    assert target.shape == (n, atoms)
    assert bool((target >= 0.0).all())
    torch.testing.assert_close(target.sum(dim=1), torch.ones(n), rtol=0.0, atol=1e-5)


def algorithm_1(
    head: Categorical, batch: Batch, bootstrap: Bootstrap, probabilities: Tensor
) -> list[list[float]]:
    """Bellemare et al. 2017, Algorithm 1, one atom after the other."""
    spacing = (head.high - head.low) / (head.atoms - 1)
    projected = []
    for b in range(len(batch.reward)):
        m = [0.0] * head.atoms
        for a, policy in enumerate(bootstrap.policy[b].tolist()):
            for j in range(head.atoms):
                follows = head.low + j * spacing - float(bootstrap.penalty[b, a])
                now = float(batch.reward[b]) + float(bootstrap.bonus[b])
                arrives = min(max(now + float(batch.discount[b]) * follows, head.low), head.high)
                position = min(max((arrives - head.low) / spacing, 0.0), head.atoms - 1.0)
                lower, upper = math.floor(position), math.ceil(position)
                mass = policy * float(probabilities[b, a, j])
                if lower == upper:
                    m[lower] += mass
                else:
                    m[lower] += mass * (upper - position)
                    m[upper] += mass * (position - lower)
        projected.append(m)
    return projected


@pytest.mark.parametrize("seed", range(30))
def test_the_target_is_that_of_the_papers_algorithm(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    atoms, actions, n = 2 + seed, 1 + seed % 4, 3
    head = Categorical(atoms, low=-1.0 - seed % 5, high=2.0 + seed % 3)
    following = 2 * torch.randn(n, actions, atoms, generator=generator)
    reward = (2 * torch.randn(n, generator=generator)).tolist()
    reward[0] = float(seed % 3)
    transitions = batch(reward, [1.0 if seed % 2 else 0.9, 0.97**3, 0.0])
    bootstrap = soft(n, actions, generator)
    if seed % 3 == 0:
        bootstrap = believing([[1.0] + [0.0] * (actions - 1)] * n)

    target = head.target(transitions, bootstrap, Prediction(following))

    expected = algorithm_1(head, transitions, bootstrap, following.double().softmax(dim=2))
    torch.testing.assert_close(target, torch.tensor(expected), rtol=0.0, atol=1e-5)


def test_the_mean_of_a_target_within_the_support_is_the_scalar_heads_target() -> None:
    generator = torch.Generator().manual_seed(0)
    head, n = Categorical(atoms=41, low=-20.0, high=20.0), 50
    logits = 2 * torch.randn(n, 3, 41, generator=generator)
    logits[:, :, torch.linspace(-20.0, 20.0, 41).abs() > 8.0] = -math.inf
    reward = (3 * torch.randn(n, generator=generator)).clamp(-6.0, 6.0)
    discount = torch.rand(n, generator=generator)
    transitions = batch(reward.tolist(), discount.tolist())
    bootstrap = soft(n, 3, generator)

    target = head.target(transitions, bootstrap, Prediction(logits))

    q = head.q(Prediction(logits))
    expected = Scalar().target(transitions, bootstrap, Prediction(q.unsqueeze(2)))
    mean = head.q(Prediction(target.log().unsqueeze(1))).squeeze(1)
    torch.testing.assert_close(mean, expected, rtol=0.0, atol=1e-5)


def test_the_loss_is_the_cross_entropy_and_the_surprise_the_divergence() -> None:
    # The action taken has the probabilities 1/8, 2/8 and 5/8; the target has 1/2, 1/2 and 0:
    # cross-entropy (ln 8 + ln 4) / 2, entropy ln 2.
    head = Categorical(atoms=3)
    prediction = holding([[0.5, 0.25, 0.25], [0.125, 0.25, 0.625]], [[0.25, 0.5, 0.25], [0, 1, 0]])
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])

    loss = head.loss(prediction, torch.tensor([1, 0]), target)

    ln2 = math.log(2)
    torch.testing.assert_close(loss.value, torch.tensor([2.5 * ln2, ln2]))
    torch.testing.assert_close(loss.surprise, torch.tensor([1.5 * ln2, ln2]))


def test_the_gradient_is_the_predicted_minus_the_target_probabilities_of_the_action_taken() -> None:
    head = Categorical(atoms=3)
    logits = torch.tensor([[[1.0, 1.0, 2.0], [1.0, 2.0, 5.0]], [[3.0, 1.0, 4.0], [1.0, 1.0, 1.0]]])
    logits = logits.log().requires_grad_()
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])

    head.loss(Prediction(logits), torch.tensor([1, 0]), target).value.sum().backward()

    expected = torch.zeros(2, 2, 3)
    expected[0, 1] = torch.tensor([0.125 - 0.5, 0.25 - 0.5, 0.625])
    expected[1, 0] = torch.tensor([0.375, 0.125 - 0.25, 0.5 - 0.75])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)


def test_the_surprise_is_nothing_where_the_target_is_what_was_predicted() -> None:
    logits = 3 * torch.randn(1000, 1, 51, generator=torch.Generator().manual_seed(0))
    target = logits[:, 0].softmax(dim=1)

    loss = Categorical().loss(Prediction(logits), torch.zeros(1000, dtype=torch.int64), target)

    assert float(loss.surprise.max()) < 1e-5
    assert float(loss.surprise.min()) >= 0.0  # rounding alone would make some of them negative
    assert float(loss.value.min()) > 0.0


def test_the_surprise_is_above_zero_where_the_target_is_another() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 1, 51, generator=generator)
    target = torch.randn(200, 51, generator=generator).softmax(dim=1)

    loss = Categorical().loss(Prediction(logits), torch.zeros(200, dtype=torch.int64), target)

    divergence = (target * (target.log() - logits[:, 0].log_softmax(dim=1))).sum(dim=1)
    assert float(divergence.min()) > 0.1
    torch.testing.assert_close(loss.surprise, divergence, rtol=0.0, atol=1e-5)


def test_the_surprise_carries_no_gradient_and_the_loss_does() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    target = torch.tensor([[0.5, 0.5, 0.0]])
    loss = Categorical(atoms=3).loss(Prediction(logits), torch.tensor([0]), target)
    assert loss.value.requires_grad
    assert not loss.surprise.requires_grad


def test_importance_weights_change_neither_the_target_nor_the_surprise() -> None:
    following = holding([[0.25, 0.25, 0.25, 0.25]])
    plain = batch([1.0], [0.5])
    weighted = plain._replace(weight=torch.tensor([0.1]))
    targets = [HEAD.target(each, believing([[1.0]]), following) for each in (plain, weighted)]
    losses = [HEAD.loss(following, torch.tensor([0]), target) for target in targets]
    assert torch.equal(*targets)
    assert torch.equal(losses[0].surprise, losses[1].surprise)
    assert torch.equal(losses[0].value, losses[1].value)


@pytest.mark.parametrize("atoms", [1, 0, -51, 51.0, True, None])
def test_fewer_than_two_atoms_are_refused(atoms: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"atoms must be .* at least 2, not {atoms}"):
        Categorical(atoms)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 1.0), (2.0, 1.0), (-math.inf, 1.0), (0.0, math.inf), (math.nan, 1.0), (0.0, math.nan)],
)
def test_a_support_without_extent_or_end_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Categorical(low=low, high=high)
    assert str(refusal.value) == (
        f"(low, high) must be two finite numbers, the lower one first, not ({low}, {high})"
    )


def test_the_smallest_support_has_two_atoms() -> None:
    target = Categorical(atoms=2, low=0.0, high=1.0).target(
        batch([0.25, 1.0], [0.0, 0.0]), believing([[1.0]] * 2), Prediction(torch.zeros(2, 1, 2))
    )
    assert target.tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_nan_goes_through_to_where_it_is_reported() -> None:
    nowhere = believing([[1.0, 0.0]], bonus=[math.nan])
    target = HEAD.target(batch([0.0], [1.0]), nowhere, holding([[1.0, 0.0, 0.0, 0.0]] * 2))
    assert target.isnan().any()


@pytest.mark.parametrize(("low", "high"), [(1e8, 1e8 + 1), (-3e38, 3e38), (-1e39, 1e39), ("a", 1)])
def test_atoms_that_float32_cannot_tell_apart_or_hold_are_refused(low: Any, high: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\(low, high\) must be "):
        Categorical(51, low, high)


def test_atoms_are_bounded_before_any_is_made() -> None:
    assert Categorical(atoms=MOST_ATOMS).width == MOST_ATOMS
    for atoms in (MOST_ATOMS + 1, 10**12):
        with pytest.raises(ConfigurationError, match=f"atoms must be at most {MOST_ATOMS}"):
            Categorical(atoms=atoms)
