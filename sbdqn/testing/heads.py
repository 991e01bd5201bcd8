"""Whether a head keeps the promises of `sbdqn.protocols.Head`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from sbdqn.networks import MlpPolicy, QNetwork
from sbdqn.protocols import Head, SampledHead, differentiated
from sbdqn.testing.steps import (
    expect,
    expect_finite,
    expect_frozen_dataclass,
    expect_methods,
    expect_tensor,
    is_close,
    is_same,
    largest_difference,
    rows_of,
    run_steps,
)
from sbdqn.types import Batch, Bootstrap, Loss, Prediction, Purpose

_B, _A = 5, 3
_TARGET_RULE = "the target is reward + bonus + discount * E_policy[next - penalty]"


def check_head(head: Head) -> None:
    """Check that a head can take part in every combination.

    It must be a frozen dataclass, read the outputs of a real network, make
    targets by the rule that all heads share, and have a loss that teaches the
    action taken, and no other, to expect what it is told.

    Args:
        head: an object of your class.

    Raises:
        CheckFailedError: if it breaks a law; the message names it.

    Example:
        >>> from sbdqn.heads import Scalar
        >>> from sbdqn.testing import check_head
        >>> check_head(Scalar())
    """
    run_steps("check_head", _STEPS, head, repr(head))


class _Case(NamedTuple):
    """Five transitions, and what a network with this head says of them."""

    online: Prediction
    following: Prediction
    batch: Batch
    bootstrap: Bootstrap

    @property
    def action(self) -> Tensor:
        """(B,) the actions taken."""
        return self.batch.action

    def rows(self, rows: Tensor) -> _Case:
        """Copies of some of the transitions."""
        return _Case(
            rows_of(self.online, rows),
            rows_of(self.following, rows),
            rows_of(self.batch, rows),
            rows_of(self.bootstrap, rows),
        )


def _network(head: Head) -> QNetwork:
    return MlpPolicy(net_arch=(8,)).build(spaces.Box(-1.0, 1.0, (4,)), _A, head)


def _case(head: Head) -> _Case:
    network = _network(head)
    obs, next_obs = torch.randn(2, _B, 4)
    with torch.no_grad():
        online = network.predict(obs, Purpose.LEARN)
        following = network.predict(next_obs, Purpose.TARGET)
    centre, spread = _range(head, online)
    discount = torch.linspace(0.5, 0.99, _B)
    batch = Batch(
        obs=obs,
        action=torch.arange(_B) % _A,
        reward=(1 - discount) * centre + spread * torch.linspace(-0.5, 0.5, _B),
        next_obs=next_obs,
        discount=discount,
        weight=torch.ones(_B),
        index=torch.arange(_B),
    )
    policy = torch.rand(_B, _A) + 0.1
    policy /= policy.sum(dim=1, keepdim=True)
    bonus, penalty = 0.1 * spread * torch.randn(_B), 0.1 * spread * torch.rand(_B, _A)
    return _Case(online, following, batch, Bootstrap(policy, bonus, penalty))


def _range(head: Head, like: Prediction) -> tuple[float, float]:
    """Where the returns lie that a head predicts, and how far apart: mean and deviation."""
    q = head.q(_spread(like))
    return float(q.mean()), float(q.std())


def _outside(head: Head, like: Prediction) -> tuple[Tensor, Tensor]:
    """Rewards (B,) far below and far above all that a head predicts."""
    centre, spread = _range(head, like)
    return torch.full((_B,), centre - 1e6 * spread), torch.full((_B,), centre + 1e6 * spread)


def _is_a_frozen_dataclass(head: Head) -> None:
    expect_frozen_dataclass(head)


def _has_the_methods_of_a_head(head: Head) -> None:
    expect_methods(head, ("width", "q", "target", "loss"))
    some = hasattr(head, "cosines") or hasattr(head, "fractions")
    advice = "a head that samples fractions needs both, any other neither"
    fits = not some or isinstance(head, SampledHead)
    expect(fits, "both cosines and fractions", "one of them alone", advice)


def _width_is_a_positive_integer(head: Head) -> None:
    width = head.width
    fits = isinstance(width, int) and not isinstance(width, bool) and width > 0
    advice = "it is N, the number of outputs that the network gives each action"
    expect(fits, "width to be a positive int", repr(width), advice)


def _fractions_are_from_0_to_1(head: Head) -> None:
    if not isinstance(head, SampledHead):
        return
    for purpose in Purpose:
        drawn = head.fractions(_B, purpose, torch.device("cpu"))
        expect_tensor(f"fractions for {purpose}", drawn, (_B, drawn.shape[-1]))
        inside = bool(((drawn >= 0) & (drawn <= 1)).all())
        expect(inside, "fractions from 0 to 1", drawn, "a fraction is a probability")
    again = [head.fractions(_B, Purpose.EVALUATE, torch.device("cpu")) for _ in range(2)]
    advice = "space them evenly for Purpose.EVALUATE: nothing is random there"
    expect(torch.equal(*again), "equal fractions in two evaluations", "different ones", advice)


def _q_is_one_number_for_each_action(head: Head) -> None:
    network = _network(head)
    with torch.no_grad():
        online = network.predict(torch.randn(_B, 4), Purpose.LEARN)
        expect_tensor("q(prediction)", head.q(online), (_B, _A))
        for purpose in Purpose:
            expect_tensor(f"q for {purpose}", network.q(torch.randn(_B, 4), purpose), (_B, _A))


def _q_of_an_action_depends_on_its_own_outputs_alone(head: Head) -> None:
    online = _case(head).online
    changed = online._replace(values=online.values.clone())
    changed.values[:, 0] += torch.randn_like(changed.values[:, 0])
    before, after = head.q(online)[:, 1:], head.q(changed)[:, 1:]
    expected = "q of actions 1 and 2 to stay when outputs of action 0 change"
    advice = "values are (B, A, N): reduce dim=2, not the actions' dim=1"
    expect(is_close(before, after), expected, largest_difference(before, after), advice)


def _target_has_one_row_for_each_transition(head: Head) -> None:
    case = _case(head)
    target = head.target(case.batch, case.bootstrap, case.following)
    shape = tuple(target.shape) if isinstance(target, Tensor) else ()
    advice = f"sum over the actions' axis, keep the batch's: {_TARGET_RULE}"
    expect(shape[:1] == (_B,), f"a target of shape ({_B}, ...)", f"shape {shape}", advice)
    expect_tensor("target", target, shape)
    expect(not target.requires_grad, "a target without gradient", "one", "a head has no weights")


def _transitions_do_not_depend_on_each_other(head: Head) -> None:
    case = _case(head)
    target = head.target(case.batch, case.bootstrap, case.following)
    loss = head.loss(case.online, case.action, target)
    whole = {"q": head.q(case.online), "target": target, **_named(loss)}
    for row in range(_B):
        only = torch.tensor([row])
        one = case.rows(only)
        target = head.target(one.batch, one.bootstrap, one.following)
        loss = head.loss(one.online, one.action, target)
        for name, found in {"q": head.q(one.online), "target": target, **_named(loss)}.items():
            expected = f"{name} of transition {row} in a batch of {_B} to be as in a batch of 1"
            difference = largest_difference(whole[name][only], found)
            advice = "reduce no batch axis, and avoid squeeze() without a dim"
            expect(is_close(whole[name][only], found), expected, difference, advice)


def _bonus_adds_like_reward(head: Head) -> None:
    online, following, batch, bootstrap = _case(head)
    more = _range(head, online)[1] * (0.25 * torch.rand(_B) + 0.1)
    by_bonus = bootstrap._replace(bonus=bootstrap.bonus + more)
    by_reward = batch._replace(reward=batch.reward + more)
    plain = head.target(batch, bootstrap, following)
    bonus = head.target(batch, by_bonus, following)
    reward = head.target(by_reward, bootstrap, following)
    expect(not is_close(plain, reward), "reward to change the target", "no change", _TARGET_RULE)
    expected = "the same target from a bonus as from so much more reward"
    expect(is_close(bonus, reward), expected, largest_difference(bonus, reward), _TARGET_RULE)


def _penalty_is_subtracted_and_the_discount_counts_once(head: Head) -> None:
    online, following, batch, bootstrap = _case(head)
    more = _range(head, online)[1] * (torch.rand(_B) + 0.5)
    by_penalty = bootstrap._replace(penalty=bootstrap.penalty + more.unsqueeze(1))
    by_reward = batch._replace(reward=batch.reward - batch.discount * more)
    penalty = head.target(batch, by_penalty, following)
    reward = head.target(by_reward, bootstrap, following)
    expected = "a penalty p of every action to be worth as much as discount * p less reward"
    advice = f"{_TARGET_RULE}, with batch.discount and no other gamma"
    expect(is_close(penalty, reward), expected, largest_difference(penalty, reward), advice)


def _terminal_transitions_ignore_the_future(head: Head) -> None:
    _, following, batch, bootstrap = _case(head)
    terminal = batch._replace(discount=torch.zeros(_B))
    other = following._replace(values=following.values + torch.randn_like(following.values))
    before = head.target(terminal, bootstrap, following)
    after = head.target(terminal, bootstrap, other)
    expected = "a target with discount 0 to stay when the next values change"
    advice = "multiply everything that comes next by batch.discount: it is 0 at termination"
    expect(is_close(before, after), expected, largest_difference(before, after), advice)


def _the_policy_says_which_actions_are_followed(head: Head) -> None:
    online, following, batch, bootstrap = _case(head)
    first, second = (_believing(bootstrap, action) for action in (0, 1))
    target = head.target(batch, first, following)
    advice = f"weigh the next actions by bootstrap.policy: {_TARGET_RULE}"
    expected = "another target when the policy is sure of another action"
    expect(not is_close(target, head.target(batch, second, following)), expected, "none", advice)
    values, penalty = following.values.clone(), first.penalty.clone()
    values[:, 1:] += torch.randn_like(values[:, 1:])
    penalty[:, 1:] += _range(head, online)[1]
    ignoring = head.target(
        batch, first._replace(penalty=penalty), following._replace(values=values)
    )
    expected = "values and penalties of actions without probability to change nothing"
    expect(is_close(target, ignoring), expected, largest_difference(target, ignoring), advice)
    order = torch.tensor([2, 0, 1])
    renamed = bootstrap._replace(
        policy=bootstrap.policy[:, order], penalty=bootstrap.penalty[:, order]
    )
    target = head.target(batch, bootstrap, following)
    found = head.target(batch, renamed, following._replace(values=following.values[:, order]))
    expected = "the same target when the actions are numbered in another order"
    expect(is_close(target, found), expected, largest_difference(target, found), advice)


def _loss_and_surprise_are_one_number_for_each_transition(head: Head) -> None:
    case = _case(head)
    online = case.online._replace(values=case.online.values.requires_grad_())
    value, surprise = _loss(head, case, online)
    expect_tensor("loss.value", value, (_B,))
    expect_tensor("loss.surprise", surprise, (_B,))
    advice = "it is the size of an error: take abs()"
    expect(bool((surprise >= 0).all()), "a surprise of at least 0", surprise, advice)
    advice = "it becomes a priority: detach() it"
    expect(not surprise.requires_grad, "a surprise without gradient", "one with", advice)
    advice = "do not detach the prediction, nor compute the loss without gradient"
    expect(value.requires_grad, "a loss that can be differentiated", "one without gradient", advice)


def _loss_teaches_the_action_taken_and_no_other(head: Head) -> None:
    case = _case(head)
    gradient = _gradient(head, case, case.online)
    others = gradient.clone()
    others[torch.arange(_B), case.action] = 0.0
    found = f"a gradient of up to {float(others.abs().max()):.3g}"
    advice = "read prediction.values[torch.arange(B), action] alone in the loss"
    expected = "no gradient in the values of actions that were not taken"
    expect(not bool(others.any()), expected, found, advice)


def _large_errors_are_finite_and_still_teach(head: Head) -> None:
    case = _case(head)
    below, above = _outside(head, case.online)
    reward = torch.where(torch.arange(_B) % 2 == 0, above, below)
    case = case._replace(batch=case.batch._replace(reward=reward))
    where = f"at rewards of {float(above[0]):.1g}"
    value, surprise = _loss(head, case, case.online)
    expect_finite(f"loss.value {where}", value)
    expect_finite(f"loss.surprise {where}", surprise)
    gradient = _gradient(head, case, case.online)
    expect_finite(f"the loss's gradient {where}", gradient)
    taught = gradient.flatten(1).abs().sum(dim=1)
    advice = "limit the gradient of the error, as Huber's loss does; clamping the loss zeroes it"
    expect(bool((taught > 0).all()), f"a gradient {where}", f"sizes {taught.tolist()}", advice)


def _values_learn_the_return_that_they_are_told_and_it_surprises_least(head: Head) -> None:
    case = _case(head)
    rows = torch.arange(_B)
    wanted = head.q(_spread(case.online))[rows, case.action].detach()
    values = _spread(case.online).values.requires_grad_()
    learning = case.online._replace(values=values)
    target = _told(head, case, wanted)
    optimizer = torch.optim.Adam([values])
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        head.loss(learning, case.action, target).value.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = head.q(learning)[rows, case.action].detach()
    error = float((found - wanted).abs().max())
    expected = f"q to reach {_listed(wanted)} by 300 gradient steps on that reward"
    advice = "the loss must be least where q equals the target: compare signs and scales of both"
    expect(error < 0.1 * float(wanted.max() - wanted.min()), expected, _listed(found), advice)
    known = head.loss(learning, case.action, target).surprise
    advice = "return the absolute error, or a distance that grows with it: it becomes a priority"
    for reward in _outside(head, case.online):
        surprise = head.loss(learning, case.action, _told(head, case, reward)).surprise
        expected = f"more surprise at a reward of {float(reward[0]):.1g} than at what was learned"
        compared = f"{_listed(surprise)}, and {_listed(known)} there"
        expect(bool((surprise > known).all()), expected, compared, advice)


def _loss_weighs_errors_by_the_fractions(head: Head) -> None:
    if not isinstance(head, SampledHead):
        return
    case = _case(head)
    fractions = case.online.fractions
    assert fractions is not None
    low, high = (
        case.online._replace(fractions=torch.full_like(fractions, level)) for level in (0.1, 0.9)
    )
    below, above = _outside(head, case.online)
    for reward, side, cheap, dear in ((above, "above", low, high), (below, "below", high, low)):
        target = _told(head, case, reward)
        less, more = (head.loss(each, case.action, target).value for each in (cheap, dear))
        order = "more" if dear is high else "less"
        expected = f"targets {side} the values to cost {order} at fraction 0.9 than at 0.1"
        found = f"costs of {_listed(more)} where they should be above {_listed(less)}"
        advice = "weigh errors by prediction.fractions, where the target is above, else by 1 - them"
        expect(bool((more > less).all()), expected, found, advice)


def _its_own_gradient_is_that_of_autograd(head: Head) -> None:
    knowing = differentiated(head)
    if knowing is None:
        return
    for scale in (0.1, 10.0):
        case = _case(head)
        case = case._replace(batch=case.batch._replace(reward=scale * case.batch.reward))
        loss = _loss(head, case, case.online)
        with torch.inference_mode():
            target = head.target(case.batch, case.bootstrap, case.following)
            own_loss, own = knowing.loss_and_gradient(case.online, case.action, target)
        for name, value in _named(loss).items():
            expected = f"loss_and_gradient to have the {name} of loss"
            difference = largest_difference(value, _named(own_loss)[name])
            expect(
                is_close(value, _named(own_loss)[name]), expected, difference, "compute it alike"
            )
        gradient = _gradient(head, case, case.online)
        expected = "the gradient of loss_and_gradient to be autograd's of loss.value.sum()"
        advice = "it is (B, A, N), 0 for actions that were not taken"
        difference = largest_difference(own, gradient)
        expect(is_close(own, gradient), expected, difference, advice)


def _inputs_are_left_as_they_are(head: Head) -> None:
    case = _case(head)
    before = case.rows(torch.arange(_B))
    head.q(case.online)
    target = head.target(case.batch, case.bootstrap, case.following)
    target_before = target.clone()
    head.loss(case.online, case.action, target)
    knowing = differentiated(head)
    if knowing is not None:
        knowing.loss_and_gradient(case.online, case.action, target)
    advice = "leave out operations in place (those ending in _) on what you are given"
    for name, one, other in zip(case._fields, before, case, strict=True):
        expect(is_same(one, other), f"{name} to stay as it was", "that it was changed", advice)
    unchanged = torch.equal(target, target_before)
    expect(unchanged, "the target to stay as it was", "that the loss changed it", advice)


def _loss(head: Head, case: _Case, online: Prediction) -> Loss:
    with torch.no_grad():
        target = head.target(case.batch, case.bootstrap, case.following)
    return head.loss(online, case.action, target)


def _told(head: Head, case: _Case, reward: Tensor) -> Tensor:
    """The target at an end with this reward (B,)."""
    batch = case.batch._replace(reward=reward, discount=torch.zeros(_B))
    nothing = torch.zeros(_B, _A)
    bootstrap = Bootstrap(case.bootstrap.policy, nothing[:, 0], nothing)
    return head.target(batch, bootstrap, case.following)


def _gradient(head: Head, case: _Case, online: Prediction) -> Tensor:
    """Of the sum of the losses by the values (B, A, N)."""
    values = online.values.detach().clone().requires_grad_()
    loss = _loss(head, case, online._replace(values=values))
    (gradient,) = torch.autograd.grad(loss.value.sum(), values)
    return gradient


def _believing(bootstrap: Bootstrap, action: int) -> Bootstrap:
    policy = torch.zeros_like(bootstrap.policy)
    policy[:, action] = 1.0
    return bootstrap._replace(policy=policy)


def _spread(like: Prediction) -> Prediction:
    """A prediction whose q differs from row to row, whatever the N outputs mean."""
    width = like.values.shape[2]
    level, slope = torch.randn(2, _B, _A, 1)
    noise = 0.1 * torch.randn_like(like.values)
    return like._replace(values=level + slope * torch.linspace(-1.0, 1.0, width) + noise)


def _named(loss: Loss) -> dict[str, Tensor]:
    return {"loss.value": loss.value, "loss.surprise": loss.surprise}


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.tolist())


_STEPS = (
    _is_a_frozen_dataclass,
    _has_the_methods_of_a_head,
    _width_is_a_positive_integer,
    _fractions_are_from_0_to_1,
    _q_is_one_number_for_each_action,
    _q_of_an_action_depends_on_its_own_outputs_alone,
    _target_has_one_row_for_each_transition,
    _loss_and_surprise_are_one_number_for_each_transition,
    _inputs_are_left_as_they_are,
    _transitions_do_not_depend_on_each_other,
    _terminal_transitions_ignore_the_future,
    _bonus_adds_like_reward,
    _penalty_is_subtracted_and_the_discount_counts_once,
    _the_policy_says_which_actions_are_followed,
    _loss_teaches_the_action_taken_and_no_other,
    _large_errors_are_finite_and_still_teach,
    _values_learn_the_return_that_they_are_told_and_it_surprises_least,
    _loss_weighs_errors_by_the_fractions,
    _its_own_gradient_is_that_of_autograd,
)
