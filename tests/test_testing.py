"""The checks pass what is right, and name the mistake in what is not."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from sbdqn.backups import Double, Greedy, Munchausen
from sbdqn.errors import SbdqnError, SpaceError
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.heads.quantile import quantile_loss
from sbdqn.networks import Encoder, Impala, MultiInput, Nature, NoisyLinear
from sbdqn.observations import parts_of
from sbdqn.protocols import ReplayLayout
from sbdqn.replay import Prioritized, Uniform
from sbdqn.schedules import Linear
from sbdqn.testing import CheckFailedError, check_backup, check_body, check_head, check_replay
from sbdqn.types import Batch, Bootstrap, Clock, Loss, Prediction, Purpose, Row


def failure_of(check: Any, *arguments: Any, named: str = "") -> str:
    with pytest.raises(CheckFailedError, match=f"(?s){named}") as caught:
        check(*arguments)
    message = str(caught.value)
    assert message.startswith(f"{check.__name__}(")
    for part in ("expected ", ", found ", "; "):  # what was, what is, what to do
        assert part in message
    return message


def test_a_failed_check_is_an_error_of_ours_and_an_assertion() -> None:
    assert issubclass(CheckFailedError, SbdqnError)
    assert issubclass(CheckFailedError, AssertionError)


# Heads


@pytest.mark.parametrize(
    "head",
    [
        Scalar(),
        Scalar("mse"),
        Categorical(),
        Categorical(atoms=21, low=-1.0, high=1.0),
        Categorical(atoms=2, low=100.0, high=200.0),
        Categorical(atoms=51, low=-1e6, high=1e6),
        Categorical(atoms=51, low=1e3, high=1.1e3),
        Categorical(atoms=3, low=-1e-3, high=1e-3),
        Quantile(),
        Quantile(quantiles=1),
        Quantile(quantiles=31, kappa=0.0),
        ImplicitQuantile(),
        ImplicitQuantile(samples=8, target_samples=4, acting_samples=2, cosines=16),
    ],
    ids=repr,
)
def test_our_heads_pass(head: Any) -> None:
    check_head(head)


@dataclass
class Thawed:
    width: int = 1


@dataclass(frozen=True)
class WithAList(Quantile):
    notes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class HalfWidth(Scalar):
    @property
    def width(self) -> Any:
        return 0.5


@dataclass(frozen=True)
class KeepsLastAxis(Scalar):
    def q(self, prediction: Prediction) -> Tensor:
        return prediction.values


@dataclass(frozen=True)
class SoftmaxOverActions(Categorical):
    def q(self, prediction: Prediction) -> Tensor:
        return prediction.values.softmax(dim=1) @ torch.linspace(self.low, self.high, self.atoms)


@dataclass(frozen=True)
class SumsOverTheBatch(Scalar):
    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        believed = (bootstrap.policy * (self.q(following) - bootstrap.penalty)).sum(dim=0)
        return batch.reward.mean() + bootstrap.bonus.mean() + believed


class OwnTarget(Scalar):
    """Computes the target from parts that subclasses get wrong."""

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        future = batch.discount * self.believed(bootstrap, self.q(following))
        return batch.reward + bootstrap.bonus + future

    def believed(self, bootstrap: Bootstrap, q: Tensor) -> Tensor:
        return (bootstrap.policy * (q - bootstrap.penalty)).sum(dim=1)


@dataclass(frozen=True)
class ForgetsTheDiscount(OwnTarget):
    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        return super().target(
            batch._replace(discount=torch.ones_like(batch.discount)), bootstrap, following
        )


@dataclass(frozen=True)
class DiscountsTwice(OwnTarget):
    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        return super().target(batch._replace(discount=batch.discount * 0.99), bootstrap, following)


@dataclass(frozen=True)
class UsesDone(OwnTarget):
    def target(self, batch: Any, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        return batch.reward + (1 - batch.done) * 0.99 * self.believed(bootstrap, self.q(following))


@dataclass(frozen=True)
class OwnGamma(OwnTarget):
    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        discount = 0.99 * (batch.discount > 0)
        return super().target(batch._replace(discount=discount), bootstrap, following)


@dataclass(frozen=True)
class ForgetsTheBonus(OwnTarget):
    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        nothing = torch.zeros_like(bootstrap.bonus)
        return super().target(batch, bootstrap._replace(bonus=nothing), following)


@dataclass(frozen=True)
class HugeWithoutBonus(Categorical):
    low: float = -1e6
    high: float = 1e6

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        nothing = torch.zeros_like(bootstrap.bonus)
        return super().target(batch, bootstrap._replace(bonus=nothing), following)


@dataclass(frozen=True)
class TinyWithPenaltyAdded(Categorical):
    low: float = -1e-3
    high: float = 1e-3

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        return super().target(batch, bootstrap._replace(penalty=-bootstrap.penalty), following)


@dataclass(frozen=True)
class AddsThePenalty(OwnTarget):
    def believed(self, bootstrap: Bootstrap, q: Tensor) -> Tensor:
        return (bootstrap.policy * (q + bootstrap.penalty)).sum(dim=1)


@dataclass(frozen=True)
class TakesTheMaximum(OwnTarget):
    def believed(self, bootstrap: Bootstrap, q: Tensor) -> Tensor:
        return (q - bootstrap.penalty).max(dim=1).values


@dataclass(frozen=True)
class PenalisesOutsideThePolicy(OwnTarget):
    def believed(self, bootstrap: Bootstrap, q: Tensor) -> Tensor:
        return (bootstrap.policy * q).sum(dim=1) - bootstrap.penalty.mean(dim=1)


class OwnLoss(Scalar):
    """Has a loss of its own."""

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        error = self.taken(prediction, action) - target
        return Loss(functional.huber_loss(error, 0 * error, reduction="none"), error.detach().abs())

    def taken(self, prediction: Prediction, action: Tensor) -> Tensor:
        return self.q(prediction).gather(1, action.unsqueeze(1)).squeeze(1)


@dataclass(frozen=True)
class MeanLoss(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        value, surprise = super().loss(prediction, action, target)
        return Loss(value.mean(), surprise)


@dataclass(frozen=True)
class SignedSurprise(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        error = self.taken(prediction, action) - target
        return Loss(error.square(), error.detach())


@dataclass(frozen=True)
class NoSurprise(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        value, surprise = super().loss(prediction, action, target)
        return Loss(value, 0 * surprise)


@dataclass(frozen=True)
class InverseSurprise(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        value, surprise = super().loss(prediction, action, target)
        return Loss(value, 1 / (1e-3 + surprise))


@dataclass(frozen=True)
class SurprisedFromAboveOnly(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        error = target - self.taken(prediction, action)
        return Loss(error.square(), error.detach().relu())


@dataclass(frozen=True)
class AttachedSurprise(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        error = self.taken(prediction, action) - target
        return Loss(error.square(), error.abs())


@dataclass(frozen=True)
class DetachedLoss(OwnLoss):
    def taken(self, prediction: Prediction, action: Tensor) -> Tensor:
        return super().taken(prediction, action).detach()


@dataclass(frozen=True)
class NormalisedByTheBatch(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        value, surprise = super().loss(prediction, action, target)
        return Loss(value, surprise / surprise.max())


@dataclass(frozen=True)
class LeaksIntoOtherActions(OwnLoss):
    def taken(self, prediction: Prediction, action: Tensor) -> Tensor:
        q = self.q(prediction)
        return super().taken(prediction, action) + 0.1 * (q - q.detach()).mean(dim=1)


@dataclass(frozen=True)
class LearnsAnotherAction(OwnLoss):
    def taken(self, prediction: Prediction, action: Tensor) -> Tensor:
        return super().taken(prediction, (action + 1) % 3)


@dataclass(frozen=True)
class ClampsTheError(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        error = (self.taken(prediction, action) - target).clamp(-1.0, 1.0)
        return Loss(error.square(), error.detach().abs())


@dataclass(frozen=True)
class Overflows(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        error = self.taken(prediction, action) - target
        return Loss(error.cosh().log(), error.detach().abs())


@dataclass(frozen=True)
class Ascends(OwnLoss):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        value, surprise = super().loss(prediction, action, target)
        return Loss(-value, surprise)


@dataclass(frozen=True)
class SumsQuantiles(Quantile):
    quantiles: int = 8

    def q(self, prediction: Prediction) -> Tensor:
        return prediction.values.sum(dim=2)


@dataclass(frozen=True)
class WrongGradient(Scalar):
    error: Any = "mse"

    def q(self, prediction: Prediction) -> Tensor:
        return super().q(prediction)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        return super().loss(prediction, action, target)

    def loss_and_gradient(
        self, prediction: Prediction, action: Tensor, target: Tensor
    ) -> tuple[Loss, Tensor]:
        loss, gradient = super().loss_and_gradient(prediction, action, target)
        return loss, gradient / 2


@dataclass(frozen=True)
class ChangesTheReward(OwnTarget):
    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        reward = batch.reward.clone()
        target = super().target(batch, bootstrap, following)
        batch.reward.copy_(reward.clamp(-0.3, 0.3))
        return target


@dataclass(frozen=True)
class EvenFractions(ImplicitQuantile):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        even = (torch.arange(self.samples) + 0.5) / self.samples
        return quantile_loss(prediction, even, action, target, self.kappa)


@dataclass(frozen=True)
class MirroredFractions(ImplicitQuantile):
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        assert prediction.fractions is not None
        return quantile_loss(prediction, 1 - prediction.fractions, action, target, self.kappa)


@dataclass(frozen=True)
class RandomInEvaluation(ImplicitQuantile):
    def fractions(self, rows: int, purpose: Purpose, device: torch.device) -> Tensor:
        return torch.rand(rows, 4)


@pytest.mark.parametrize(
    ("head", "mistake"),
    [
        (Thawed(), "a frozen dataclass"),
        (Scalar, "pass an object of it"),
        (WithAList(), "one hash"),
        (HalfWidth(), "width to be a positive int, found 0.5"),
        (RandomInEvaluation(), "nothing is random there"),
        (KeepsLastAxis(), r"q\(prediction\) to be a tensor of shape \(5, 3\)"),
        (SoftmaxOverActions(), "reduce dim=2, not the actions' dim=1"),
        (SumsOverTheBatch(), r"a target of shape \(5, ...\), found shape \(3,\)"),
        (ForgetsTheDiscount(), "terminal transitions ignore the future"),
        (DiscountsTwice(), "the discount counts once"),
        (OwnGamma(), "batch.discount and no other gamma"),
        (UsesDone(), "no attribute 'done'"),
        (ForgetsTheBonus(), "bonus adds like reward"),
        (AddsThePenalty(), "penalty is subtracted"),
        (TakesTheMaximum(), "the policy says which actions are followed"),
        (PenalisesOutsideThePolicy(), "penalties of actions without probability"),
        (MeanLoss(), r"loss.value to be a tensor of shape \(5,\)"),
        (SignedSurprise(), "a surprise of at least 0"),
        (NoSurprise(), "more surprise at a reward of .* return the absolute error"),
        (InverseSurprise(), "more surprise at a reward of .* return the absolute error"),
        (SurprisedFromAboveOnly(), "more surprise at a reward of -.* return the absolute error"),
        (AttachedSurprise(), "a surprise without gradient"),
        (DetachedLoss(), "a loss that can be differentiated"),
        (NormalisedByTheBatch(), r"loss.surprise of transition \d in a batch"),
        (LeaksIntoOtherActions(), "no gradient in the values of actions that were not taken"),
        (LearnsAnotherAction(), "no gradient in the values of actions that were not taken"),
        (ClampsTheError(), "clamping the loss zeroes it"),
        (Overflows(), "loss.value at rewards of .* to be finite"),
        (Ascends(), "q to reach .* compare signs and scales"),
        (SumsQuantiles(), "q to reach .* compare signs and scales"),
        (EvenFractions(), "targets above .* weigh errors by prediction.fractions"),
        (MirroredFractions(), "targets above .* weigh errors by prediction.fractions"),
        (HugeWithoutBonus(), "bonus adds like reward"),
        (TinyWithPenaltyAdded(), "penalty is subtracted"),
        (WrongGradient(), "the gradient of loss_and_gradient to be autograd's"),
        (ChangesTheReward(), "batch to stay as it was"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value),
)
def test_a_broken_head_is_told_its_mistake(head: Any, mistake: str) -> None:
    failure_of(check_head, head, named=mistake)


def test_what_lacks_a_method_is_told_its_name() -> None:
    @dataclass(frozen=True)
    class Headless:
        width: int = 1

    assert "no q, target, loss" in failure_of(check_head, Headless())


# Backups


@pytest.mark.parametrize(
    "backup", [Greedy(), Double(), Munchausen(), Munchausen(alpha=0.0, temperature=1.0)], ids=repr
)
def test_our_backups_pass(backup: Any) -> None:
    check_backup(backup)


class Thinking:
    """Believes in the softmax of some values, and adds or subtracts nothing."""

    def __call__(self, batch: Batch, following_q: Tensor, online: Any, target: Any) -> Any:
        policy = self.policy(batch, following_q, online)
        return Bootstrap(policy, torch.zeros(len(policy)), torch.zeros_like(policy))

    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return q.softmax(dim=1)


class Thawing(Thinking):
    pass


@dataclass(frozen=True)
class JustAPolicy(Thinking):
    def __call__(self, batch: Batch, following_q: Tensor, online: Any, target: Any) -> Any:
        return following_q.softmax(dim=1)


@dataclass(frozen=True)
class BonusPerAction(Thinking):
    def __call__(self, batch: Batch, following_q: Tensor, online: Any, target: Any) -> Any:
        return super().__call__(batch, following_q, online, target)._replace(bonus=following_q)


@dataclass(frozen=True)
class NotNormalised(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return q.sigmoid()


@dataclass(frozen=True)
class SoftmaxOverTheBatch(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return q.softmax(dim=0)


@dataclass(frozen=True)
class EveryMaximum(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return (q == q.max(dim=1, keepdim=True).values).float()


@dataclass(frozen=True)
class NegativeParts(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return 2 * q.softmax(dim=1) - 1 / 3


@dataclass(frozen=True)
class NaiveSoftmax(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return q.exp() / q.exp().sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Worst(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return functional.one_hot(q.argmin(dim=1), 3).float()


@dataclass(frozen=True)
class WrongObservation(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return functional.one_hot(online(batch.obs).argmax(dim=1), 3).float()


@dataclass(frozen=True)
class MixesRows(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return (q - q.mean(dim=0)).softmax(dim=1)


@dataclass(frozen=True, eq=False)
class Learned(Thinking):
    weight: Any = field(default_factory=lambda: nn.Parameter(torch.ones(3)))

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return (q * self.weight).softmax(dim=1)


@dataclass(frozen=True)
class InPlace(Thinking):
    def policy(self, batch: Batch, q: Tensor, online: Any) -> Tensor:
        return q.sub_(q.max(dim=1, keepdim=True).values).softmax(dim=1)


@pytest.mark.parametrize(
    ("backup", "mistake"),
    [
        (Thawing(), "a frozen dataclass"),
        (JustAPolicy(), r"a sbdqn.types.Bootstrap, found Tensor"),
        (BonusPerAction(), r"bonus to be a tensor of shape \(5,\)"),
        (NotNormalised(), "policy of common values to sum to 1"),
        (SoftmaxOverTheBatch(), "normalise over dim=1, the actions"),
        (EveryMaximum(), "policy of equal values to sum to 1, .* break ties"),
        (NegativeParts(), "probabilities of common values to be at least 0"),
        (NaiveSoftmax(), "policy of large values to be finite"),
        (Worst(), "not the argmin"),
        (WrongObservation(), "online and target with batch.next_obs"),
        (MixesRows(), r"policy of transition \d in a batch of 5 to be as in a batch of 1"),
        (Learned(), "policy without gradient"),
        (InPlace(), "q values to stay as they were"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_backup_is_told_its_mistake(backup: Any, mistake: str) -> None:
    failure_of(check_backup, backup, named=mistake)


# Bodies

CATEGORY = spaces.Discrete(3, start=5)
IMAGES = spaces.Box(0, 255, (36, 36, 3), np.uint8)
VECTORS = spaces.Box(-1.0, 1.0, (4,), np.float32)


@pytest.mark.parametrize(
    "space",
    [
        VECTORS,
        spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([[2, 3], [4, 2]]),
        spaces.MultiBinary(6),
        IMAGES,
    ],
    ids=repr,
)
def test_our_encoder_passes(space: Any) -> None:
    check_body(Encoder, space)


@pytest.mark.parametrize("body", [Nature, Impala, partial(Impala, spectral_norm=True)])
def test_our_bodies_for_images_pass(body: Any) -> None:
    check_body(body, IMAGES)


def test_a_space_that_cannot_be_stored_is_refused_as_everywhere() -> None:
    with pytest.raises(SpaceError, match="not supported"):
        check_body(Encoder, spaces.Text(3))


def test_the_space_of_the_caller_keeps_its_generator() -> None:
    space, same = (spaces.Box(-1.0, 1.0, (4,), np.float32, seed=3) for _ in range(2))
    check_body(Encoder, space)
    assert (space.sample() == same.sample()).all()


class Body(nn.Module):
    """A linear layer; subclasses get something wrong."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.features: Any = 8
        self.linear = self.layer(space.shape[0])

    def layer(self, inputs: int) -> nn.Module:
        return nn.Linear(inputs, 8)

    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs)


class Noise(Body):
    def layer(self, inputs: int) -> nn.Module:
        return nn.Sequential(NoisyLinear(inputs, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))


@pytest.mark.parametrize("body", [Body, Noise])
def test_a_body_with_noise_dropout_and_batch_norm_passes(body: Any) -> None:
    check_body(body, VECTORS)


class WrongFeatures(Body):
    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.features = 16


class FloatFeatures(Body):
    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.features = 8.0


class NotFlat(Body):
    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs).unsqueeze(1)


class BatchStatistics(Body):
    def forward(self, obs: Tensor) -> Tensor:
        return functional.batch_norm(self.linear(obs), None, None, training=True)


class CentresTheBatch(Body):
    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs - obs.mean(dim=0))


class Detaches(Body):
    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs).detach()


class UnusedLayer(Body):
    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.spare = nn.Linear(2, 2)


class FunctionalDropout(Body):
    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs) + torch.rand(8)


class HiddenState(Body):
    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.frequencies = torch.randn(8)

    def forward(self, obs: Tensor) -> Tensor:
        return torch.cos(self.linear(obs) * self.frequencies)


SHARED = nn.Linear(4, 8)


class SharedLayer(Body):
    def layer(self, inputs: int) -> nn.Module:
        return SHARED


class InPlaceScaling(Body):
    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs.mul_(2.0))


@pytest.mark.parametrize(
    ("make", "mistake"),
    [
        (lambda space: Body, "pass the class itself"),
        (WrongFeatures, r"shape \(16, 16\) .* found shape \(16, 8\)"),
        (FloatFeatures, ".features to be a positive int, found 8.0"),
        (NotFlat, r"found shape \(16, 1, 8\)"),
        (BatchStatistics, "no statistics of the batch"),
        (CentresTheBatch, "no statistics of the batch"),
        (Detaches, "none in linear.weight, linear.bias"),
        (UnusedLayer, "none in spare.weight, spare.bias"),
        (FunctionalDropout, "draw nothing at random"),
        (HiddenState, "register_buffer"),
        (SharedLayer, "share linear.weight, linear.bias"),
        (InPlaceScaling, "the observations to stay as they were"),
    ],
)
def test_a_broken_body_is_told_its_mistake(make: Any, mistake: str) -> None:
    failure_of(check_body, make, VECTORS, named=mistake)


SEVERAL = spaces.Dict(
    {"image": spaces.Box(0, 255, (4, 4, 3), np.uint8), "in": spaces.Tuple([VECTORS, CATEGORY])}
)


def side_by_side(space: spaces.Space[Any]) -> nn.Module:
    parts = parts_of(space)
    assert parts is not None
    return MultiInput(parts, lambda name, part: (Impala if name == "image" else Encoder)(part))


@pytest.mark.parametrize(
    "space", [SEVERAL, spaces.Tuple([VECTORS, CATEGORY])], ids=["dict", "tuple"]
)
def test_our_body_for_several_parts_passes(space: spaces.Space[Any]) -> None:
    check_body(side_by_side, space)


class Combined(nn.Module):
    """A body for several parts, by hand."""

    features = 8

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        assert isinstance(space, spaces.Dict)
        self.image = nn.Linear(4 * 4 * 3, 4)
        self.vector = nn.Linear(4, 4)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        image = self.image(obs["image"].flatten(1) / 255.0)
        return torch.cat([image, self.vector(obs["in/0"])], dim=1)


class ForgetsAPart(Combined):
    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return super().forward({**obs, "in/0": torch.zeros_like(obs["in/0"])})


class ScalesAPartInPlace(Combined):
    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        obs["in/0"].mul_(2.0)
        return super().forward(obs)


class TakesAPartAway(Combined):
    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        features = super().forward(obs)
        obs.pop("in/1", None)
        return features


class WrongWidth(Combined):
    features = 9


def test_a_body_for_several_parts_passes() -> None:
    check_body(Combined, SEVERAL)


@pytest.mark.parametrize(
    ("make", "mistake"),
    [
        (ForgetsAPart, "found none in vector.weight"),
        (ScalesAPartInPlace, "the observations to stay as they were"),
        (TakesAPartAway, "the observations to stay as they were"),
        (WrongWidth, r"observations 'image' \(16, 4, 4, 3\) of torch.uint8, 'in/0' \(16, 4\) of"),
        (Encoder, "cannot read observations of Dict"),
    ],
)
def test_a_broken_body_for_several_parts_is_told_its_mistake(make: Any, mistake: str) -> None:
    failure_of(check_body, make, SEVERAL, named=mistake)


def test_a_part_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(SpaceError, match="not supported"):
        check_body(Combined, spaces.Dict({"a": VECTORS, "b": spaces.Text(3)}))


def test_a_body_that_expects_floats_of_images_is_told_so() -> None:
    class Floats(Body):
        def layer(self, inputs: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(36 * 36 * 3, 8))

    assert "found RuntimeError" in failure_of(check_body, Floats, IMAGES)


# Replays


@pytest.mark.parametrize(
    "spec", [Uniform(), Prioritized(), Prioritized(1.0, Linear(0.0, 1.0, 10))], ids=repr
)
def test_our_replays_pass(spec: Any) -> None:
    check_replay(spec)


@dataclass(frozen=True)
class Listing:
    """A slow replay of Python lists, with one mistake or none."""

    mistake: str = ""

    def nbytes(self, layout: ReplayLayout) -> Any:
        return 0.5 if self.mistake == "half a byte" else 1

    def build(self, layout: ReplayLayout) -> Any:
        return ListReplay(layout, self.mistake)


class ListReplay:
    """Keeps steps (obs, action, reward, next_obs, terminated, ended) by environment."""

    def __init__(self, layout: ReplayLayout, mistake: str) -> None:
        self.layout, self.mistake = layout, mistake
        self.gamma = layout.gamma
        self.columns: list[list[list[Any]]] = [[] for _ in range(layout.n_envs)]
        self.seed(layout.seed)

    def seed(self, seed: np.random.SeedSequence) -> None:
        fixed = self.mistake == "ignores the seed"
        self.rng = np.random.default_rng(0 if fixed else seed)

    @property
    def stored(self) -> int:
        return sum(map(len, self.columns))

    @property
    def sampleable(self) -> int:
        if self.mistake == "counts open windows":
            return self.stored
        return len(self.windows())

    def add(self, row: Row) -> None:
        for env, column in enumerate(self.columns):
            if not row.valid[env] and self.mistake != "stores invalid rows":
                continue
            sees_resets = self.mistake not in ("misses a reset", "crosses episodes")
            if row.first[env] and column and sees_resets:
                column[-1][-1] = True  # a reset that nothing has announced
            copied = (lambda obs: obs) if self.mistake == "keeps views" else np.copy
            ended = bool(row.terminated[env] | row.truncated[env])
            step = [copied(row.obs[env]), int(row.action[env]), float(row.reward[env])]
            step += [copied(row.next_obs[env]), bool(row.terminated[env]), ended]
            if self.mistake == "truncation terminates":
                step[4] = ended
            if self.mistake == "crosses episodes":
                step[5] = False
            column.append(step)
            share = -(-self.layout.capacity // self.layout.n_envs)
            if self.mistake == "holds half":
                share //= 2
            if self.mistake == "tears rows" and len(column) > share:
                column[-1][0] = column[0][0]  # all but the observation is overwritten
            if self.mistake != "forgets nothing":
                del column[: max(0, len(column) - share)]

    def windows(self) -> list[list[list[Any]]]:
        found = []
        n_steps = self.layout.n_steps
        for column in self.columns:
            for start in range(len(column)):
                window = []
                for step in column[start : start + n_steps]:
                    window.append(step)
                    if step[5]:
                        break
                complete = len(window) == n_steps
                if window[-1][5] and self.mistake != "drops tails":
                    complete = True
                if self.mistake == "draws open windows" or complete:
                    found.append(window)
        return found

    def sample(self, batch_size: int, clock: Clock) -> Batch:
        windows = self.windows()
        if self.mistake == "draws globally":
            index = np.array([random.randrange(len(windows)) for _ in range(batch_size)])
        else:
            index = self.rng.integers(len(windows), size=batch_size)
        drawn = [windows[place] for place in index]
        gamma = self.layout.gamma if self.mistake == "keeps gamma" else self.gamma
        totals = [sum(gamma**k * step[2] for k, step in enumerate(w)) for w in drawn]
        discounts = [0.0 if w[-1][4] else gamma ** len(w) for w in drawn]
        if self.mistake == "same discount":
            discounts = [0.0 if w[-1][4] else gamma**self.layout.n_steps for w in drawn]
        last = 0 if self.mistake == "near successor" else -1
        weight = torch.full((batch_size,), 2.0 if self.mistake == "large weights" else 1.0)
        action = torch.tensor([w[0][1] for w in drawn])
        return Batch(
            obs=torch.from_numpy(np.stack([w[0][0] for w in drawn])),
            action=action.int() if self.mistake == "short actions" else action,
            reward=torch.tensor(totals),
            next_obs=torch.from_numpy(np.stack([w[last][3] for w in drawn])),
            discount=torch.tensor(discounts),
            weight=weight,
            index=torch.from_numpy(index),
        )

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        if self.mistake == "forgets at feedback":
            for column in self.columns:
                column[0][2] = 0.0

    def state_dict(self) -> dict[str, Any]:
        steps = [[[s[0].tolist(), *s[1:3], s[3].tolist(), *s[4:]] for s in c] for c in self.columns]
        if self.mistake == "saves arrays":
            return {"columns": np.zeros(3)}
        if self.mistake == "loses the newest":
            steps[0].pop()
        return {"columns": steps, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.columns = [[list(step) for step in column] for column in state["columns"]]
        for step in (step for column in self.columns for step in column):
            step[0] = np.array(step[0], self.layout.parts[""].dtype)
            step[3] = np.array(step[3], self.layout.parts[""].dtype)
        if self.mistake != "forgets the rng":
            self.rng.bit_generator.state = state["rng"]


def test_a_replay_of_another_kind_passes() -> None:
    check_replay(Listing())


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("half a byte", "nbytes .* positive int, found 0.5"),
        ("stores invalid rows", "entry that is not valid is none"),
        ("counts open windows", "leave out transitions whose n-step window is open"),
        ("forgets nothing", "overwrite the oldest"),
        ("holds half", "from 33 to 50 stored, of a capacity of 50, found stored = 25"),
        ("short actions", r"action .* torch.int64, found .* torch.int32"),
        ("tears rows", "what is drawn has happened: expected action"),
        ("crosses episodes", "window stops at the first end, and crosses neither episodes"),
        ("misses a reset", "crosses neither episodes|complete window"),
        ("truncation terminates", "truncation does not cut it"),
        ("same discount", "expected discount .* found"),
        ("near successor", "expected next_obs"),
        ("draws open windows", "at most .* sampleable, found"),
        ("large weights", "weights above 0 and at most 1"),
        ("forgets at feedback", "after feedback too: expected reward"),
        ("drops tails", "the last 2 steps of an episode, found none"),
        ("keeps views", "rows are copied: .* copy what add is given"),
        ("keeps gamma", "gamma may be assigned"),
        ("draws globally", "from no global generator"),
        ("ignores the seed", "other draws from another seed"),
        ("saves arrays", "turn arrays into tensors with torch.from_numpy"),
        ("forgets the rng", "must hold the generator's state"),
        ("loses the newest", r"to the last bit: expected stored, sampleable"),
    ],
)
def test_a_broken_replay_is_told_its_mistake(mistake: str, named: str) -> None:
    failure_of(check_replay, Listing(mistake), named=named)


@dataclass(frozen=True)
class Resurrecting(Prioritized):
    """Gives overwritten places a priority, if feedback to them comes late."""

    def build(self, layout: ReplayLayout) -> Any:
        replay = super().build(layout)
        tree = replay._rule._tree  # type: ignore[attr-defined]

        def feedback(index: Tensor, surprise: Tensor) -> None:
            tree.set(index.numpy(), surprise.double().numpy() + 1e-6)

        replay.feedback = feedback  # type: ignore[method-assign]
        return replay


def test_late_feedback_that_resurrects_what_is_overwritten_is_found_out() -> None:
    failure_of(check_replay, Resurrecting(), named="feedback may come late: .* leave places alone")


@dataclass(frozen=True)
class Viewing(Uniform):
    """Gives a view of its ring where it can: the same rows each time."""

    def build(self, layout: ReplayLayout) -> Any:
        replay = super().build(layout)
        read = replay.storage.read
        ring = replay.storage._parts[""]._block.first(replay.storage.size)

        def viewing(index: Any, weight: Any = None) -> Batch:
            start = next(i for i in count(int(index[0])) if replay.storage._span[i] > 0)
            batch = read(np.full(len(index), start))
            return batch._replace(obs=ring[start : start + 1].expand(batch.obs.shape))

        replay.storage.read = viewing  # type: ignore[method-assign]
        return replay


@dataclass(frozen=True)
class Together(Uniform):
    """Draws several batches at once, and not as it draws single ones."""

    mistake: str

    def build(self, layout: ReplayLayout) -> Any:
        replay = super().build(layout)
        several = replay.sample_several

        def sample_several(batch_size: int, count: int, clock: Clock) -> list[Batch]:
            batches = several(batch_size, count, clock)
            return batches[::-1] if self.mistake == "reverses" else batches[1:]

        replay.sample_several = sample_several  # type: ignore[method-assign]
        return replay


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("reverses", "batch 0 of 5, 0 rows later, as `sample` gives it"),
        ("drops one", "as many batches as asked for, found 4"),
    ],
)
def test_batches_at_once_that_are_not_those_of_single_draws_are_found_out(
    mistake: str, named: str
) -> None:
    failure_of(check_replay, Together(mistake), named=named)


def test_a_batch_that_is_a_view_of_the_ring_is_found_out() -> None:
    assert "a slice of it is a view" in failure_of(check_replay, Viewing())


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_head, (ImplicitQuantile(),)),
        (check_backup, (Munchausen(),)),
        (check_body, (Body, VECTORS)),
        (check_replay, (Prioritized(),)),
    ],
)
def test_a_check_leaves_the_global_generators_alone(
    monkeypatch: pytest.MonkeyPatch, check: Any, arguments: Any
) -> None:
    monkeypatch.setattr(torch, "manual_seed", None)  # it would reseed all CUDA devices
    torch_state, state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    check(*arguments)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == state
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]  # noqa: NPY002
