"""What holds for every member of the family: laws over the whole product of the axes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from sbdqn import backups, heads
from sbdqn.learner import Learner
from sbdqn.networks import MlpPolicy
from sbdqn.protocols import Backup, Head, ObservationPart, ReplayLayout, SampledHead
from sbdqn.replay import Prioritized, RingReplay, Uniform
from sbdqn.types import Batch, Bootstrap, Clock, Loss, Prediction, Purpose, Row

SPACE = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS, ENVS, SIZE = 3, 2, 16
NOW = Clock(0)

HEADS: list[Head] = [
    heads.Scalar("huber"),
    heads.Scalar("mse"),
    heads.Categorical(atoms=21, low=-5.0, high=5.0),
    heads.Quantile(quantiles=7),
    heads.ImplicitQuantile(samples=6, target_samples=5, acting_samples=4, cosines=8),
]
BACKUPS: list[Backup] = [backups.Greedy(), backups.Double(), backups.Munchausen()]
REPLAYS = [Uniform(), Prioritized(alpha=0.6, beta=0.5)]


@dataclass(frozen=True)
class Member:
    """A member of the family, but for the replay and the length of its returns."""

    head: Head
    backup: Backup
    dueling: bool
    noisy: bool

    def __str__(self) -> str:
        network = "dueling" * self.dueling + "noisy" * self.noisy or "plain"
        return f"{self.head}-{type(self.backup).__name__}-{network}"

    def learner(self, head: Head | None = None, compiles: bool = False) -> Learner:
        """A fresh learner, always the same."""
        head = head or self.head
        policy = MlpPolicy(
            net_arch=(8, 8), layer_norm=False, dueling=self.dueling, noisy=self.noisy
        )
        torch.manual_seed(0)
        online, target = (policy.build(SPACE, ACTIONS, head) for _ in range(2))
        learner = Learner(online, target, head, self.backup, 10.0, compiles, seed=1)
        learner.set_optimizer(policy.build_optimizer(learner.flat, 1e-2))
        with torch.no_grad():  # otherwise a target that read the online network would go unseen
            learner.target.output.get_parameter(last_bias(self.dueling, head)).add_(0.1)
        return learner


def last_bias(dueling: bool, head: Head) -> str:
    if dueling:
        return "advantage.1.linear.bias"
    return "1.linear.bias" if isinstance(head, SampledHead) else "linear.bias"


FAMILY = [
    Member(head, backup, dueling, noisy)
    for head, backup, dueling, noisy in itertools.product(HEADS, BACKUPS, *[[False, True]] * 2)
]
each_member = pytest.mark.parametrize("member", FAMILY, ids=str)


def filled(spec: Any, n_steps: int) -> RingReplay:
    """A replay of random episodes of two environments, with surprises of its own."""
    layout = ReplayLayout(
        obs=ObservationPart((3,), np.dtype(np.float32)),
        n_envs=ENVS,
        capacity=60,
        n_steps=n_steps,
        gamma=0.9,
        device=torch.device("cpu"),
        seed=np.random.SeedSequence(n_steps),
    )
    replay: RingReplay = spec.build(layout)
    rng = np.random.default_rng(0)
    first = np.ones(ENVS, np.bool_)
    obs = rng.uniform(-1, 1, (ENVS, 3)).astype(np.float32)
    for _ in range(80):
        following = rng.uniform(-1, 1, (ENVS, 3)).astype(np.float32)
        terminated, truncated = rng.random((2, ENVS)) < 0.1
        ended = terminated | truncated
        action, reward = rng.integers(ACTIONS, size=ENVS), rng.normal(size=ENVS)
        always = np.ones(ENVS, np.bool_)
        replay.add(Row(obs, action, reward, following, terminated, truncated, first, always))
        fresh = rng.uniform(-1, 1, (ENVS, 3)).astype(np.float32)
        obs, first = np.where(ended[:, None], fresh, following), ended
    batch = replay.sample(SIZE, NOW)
    replay.feedback(batch.index, torch.arange(SIZE) / 4)
    return replay


def batches() -> Iterator[Batch]:
    for spec, n_steps in itertools.product(REPLAYS, (1, 3)):
        batch = filled(spec, n_steps).sample(SIZE, NOW)
        assert (batch.discount == 0).any()
        assert (batch.discount > 0).any()
        assert (batch.weight.unique().numel() > 1) == isinstance(spec, Prioritized)
        yield batch


BATCHES = list(batches())


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learner.online.state_dict().items()}


@each_member
def test_one_update_changes_all_online_parameters_and_nothing_else(member: Member) -> None:
    for batch in BATCHES:
        learner = member.learner()
        before, target = weights(learner), copy.deepcopy(learner.target.state_dict())
        given = copy.deepcopy(batch)

        learner.update(batch)

        after = weights(learner)
        assert [name for name in before if torch.equal(before[name], after[name])] == []
        assert all(torch.equal(target[k], v) for k, v in learner.target.state_dict().items())
        assert all(map(torch.equal, given, batch))


@each_member
def test_a_discount_of_zero_ignores_the_future(member: Member) -> None:
    for batch in BATCHES:
        outcomes: list[tuple[Tensor, ...]] = []
        for next_obs in (batch.next_obs, -5 * batch.next_obs):
            learner = member.learner()
            ended = batch._replace(next_obs=next_obs, discount=torch.zeros(SIZE))
            outcomes.append((*learner.update(ended), learner.flat.gradient))
        # C51's probabilities sum to one but for their rounding, which differs.
        torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-5, atol=1e-6)


@each_member
def test_a_discount_above_zero_looks_at_the_future(member: Member) -> None:
    for batch in BATCHES:
        losses = [
            member.learner().update(batch._replace(next_obs=next_obs)).value
            for next_obs in (batch.next_obs, -5 * batch.next_obs)
        ]
        assert torch.equal((losses[0] - losses[1]).abs() > 1e-5, batch.discount > 0)


@each_member
def test_the_mean_target_is_the_scalar_target(member: Member) -> None:
    head = member.head
    if isinstance(head, heads.Categorical):  # wide enough for nothing to be cut off
        head = heads.Categorical(atoms=61, low=-30.0, high=30.0)
    learner = member.learner(head)
    for batch in BATCHES:
        with torch.no_grad():
            following = learner.target.predict(batch.next_obs, Purpose.TARGET)
            bootstrap = member.backup(
                batch,
                head.q(following),
                lambda obs: head.q(learner.online.predict(obs, Purpose.TARGET)),
                lambda obs: head.q(learner.target.predict(obs, Purpose.TARGET)),
            )
            worth = (bootstrap.policy * (head.q(following) - bootstrap.penalty)).sum(dim=1)
            scalar = batch.reward + bootstrap.bonus + batch.discount * worth
            target = head.target(batch, bootstrap, following)
        torch.testing.assert_close(mean_of(head, target), scalar, rtol=0, atol=2e-4)


def mean_of(head: Head, target: Tensor) -> Tensor:
    if isinstance(head, heads.Categorical):
        assert target.sum(dim=1).tolist() == pytest.approx([1.0] * SIZE)
        return target @ torch.linspace(head.low, head.high, head.atoms)
    return target if target.ndim == 1 else target.mean(dim=1)


@dataclass(frozen=True)
class Watched:
    """A head that looks at what it is given to compare, as autograd sees it."""

    inner: Any

    @property
    def width(self) -> int:
        return int(self.inner.width)

    def q(self, prediction: Prediction) -> Tensor:
        return self.inner.q(prediction)  # type: ignore[no-any-return]

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        assert not following.values.requires_grad
        assert not any(each.requires_grad for each in bootstrap)
        return self.inner.target(batch, bootstrap, following)  # type: ignore[no-any-return]

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        assert prediction.values.requires_grad
        assert not target.requires_grad
        loss: Loss = self.inner.loss(prediction, action, target)
        assert loss.value.requires_grad
        assert not loss.surprise.requires_grad
        return loss


@dataclass(frozen=True)
class WatchedSamples(Watched):
    @property
    def cosines(self) -> int:
        return int(self.inner.cosines)

    def fractions(self, *arguments: Any) -> Tensor:
        return self.inner.fractions(*arguments)  # type: ignore[no-any-return]


@each_member
def test_the_gradient_flows_through_the_prediction_alone(member: Member) -> None:
    is_sampled = isinstance(member.head, heads.ImplicitQuantile)
    watched = (WatchedSamples if is_sampled else Watched)(member.head)
    for batch in BATCHES:
        learner, plain = member.learner(watched), member.learner()
        for parameter in learner.target.parameters():
            parameter.grad = None
        learner.update(batch)
        plain.update(batch)
        assert [p.grad for p in learner.target.parameters() if p.grad is not None] == []
        # Watching changed nothing, be it differentiated by autograd or by hand.
        torch.testing.assert_close(learner.flat.values, plain.flat.values)


@each_member
def test_a_batch_of_weight_zero_changes_nothing(member: Member) -> None:
    for batch in BATCHES:
        learner = member.learner()
        before = weights(learner)
        loss = learner.update(batch._replace(weight=torch.zeros(SIZE)))
        assert all(torch.equal(before[name], value) for name, value in weights(learner).items())
        assert float(loss.value.sum()) > 0  # which was not there to be seen in the weights


@each_member
def test_rewards_of_a_million_leave_everything_finite(member: Member) -> None:
    for batch in BATCHES:
        learner = member.learner()
        sign = torch.where(torch.arange(SIZE) % 2 == 0, 1e6, -1e6)
        for _ in range(3):
            loss = learner.update(batch._replace(reward=sign))
            assert loss.value.isfinite().all()
            assert loss.surprise.isfinite().all()
            assert (loss.surprise >= 0).all()
        assert learner.flat.values.isfinite().all()
        learner.require_finite()


@each_member
def test_updates_on_one_batch_make_it_less_surprising(member: Member) -> None:
    batch = BATCHES[-1]
    learner = member.learner()
    surprises = [float(learner.update(batch).surprise.mean()) for _ in range(120)]
    assert np.mean(surprises[-20:]) < 0.85 * np.mean(surprises[:10])


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
@pytest.mark.parametrize(
    "head",
    [*(pytest.param(head, marks=pytest.mark.slow) for head in HEADS[:-1]), HEADS[-1]],
    ids=str,
)
def test_a_compiled_update_is_one_graph_with_the_same_outcome(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **_: compile_(f, backend="eager", fullgraph=True)
    )
    member = Member(head, backups.Munchausen(), dueling=True, noisy=True)
    eager, compiled = member.learner(), member.learner(compiles=True)
    for batch in BATCHES:
        eager.update(batch)
        compiled.update(batch)
    torch.testing.assert_close(compiled.flat.values, eager.flat.values, rtol=0, atol=1e-5)
