"""The one update that every member of the family goes through."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, optim

from sbdqn.compiled import CannotCompileError, CompiledUpdates
from sbdqn.errors import ConfigurationError, NonFiniteError
from sbdqn.networks import (
    FlatParameters,
    QNetwork,
    direct_step,
    functional_step,
    has_state,
    quietly,
    seeded,
    takes_its_own_steps,
)
from sbdqn.protocols import Backup, DifferentiatedHead, Head, differentiated
from sbdqn.types import Batch, Loss
from sbdqn.update import Rules, UpdateRecord, compare, share_in_mean, target_of

_log = logging.getLogger(__name__)

_MOST_IN_ONE_GRAPH = 8  # more take longer to compile, and gain little


class Learner:
    """Turns batches into better weights.

    Args:
        online: the network that learns.
        target: the network that targets come from; `online` itself for none.
        head: what the networks' outputs mean.
        backup: which next action a target believes in.
        max_gradient_norm: gradients are scaled down to it; None for never.
        compile: whether updates are compiled with `torch.compile`.
        seed: of all that is random in an update: noise, dropout, sampled fractions.

    Attributes:
        n_updates: gradient steps made.
    """

    def __init__(
        self,
        online: QNetwork,
        target: QNetwork,
        head: Head,
        backup: Backup,
        max_gradient_norm: float | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        self.online = online
        self.target = target
        self.backup = backup
        self.max_gradient_norm = max_gradient_norm
        self.flat = FlatParameters(online)
        has_target = target is not online
        self._target_flat = FlatParameters(target) if has_target else self.flat
        self._compiled: CompiledUpdates | None = None
        if compile:
            behind = (target, self._target_flat) if has_target else None
            self._compiled = CompiledUpdates((online, self.flat), behind)
        self.head = head
        self.n_updates = 0
        self.seed = seed
        self._last: UpdateRecord | None = None
        self.sync(1.0)

    @property
    def head(self) -> Head:
        """What the networks' outputs mean."""
        return self._head

    @head.setter
    def head(self, head: Head) -> None:
        self._head = head
        self._differentiated = differentiated(head)

    @property
    def seed(self) -> int:
        """With the number of an update, it says what is random there; may be assigned."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = seed
        with self._randomness_of(self.n_updates):
            self._resample()

    def set_optimizer(self, optimizer: optim.Optimizer) -> None:
        """Learn with this optimiser of `flat`'s parameters from now on."""
        self.optimizer = optimizer
        self._step = direct_step(optimizer)
        self._functional_step = functional_step(optimizer)
        self._learning_rate = float(optimizer.param_groups[0]["lr"])

    @property
    def learning_rate(self) -> float:
        """The step size of the next update."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if rate != self._learning_rate:
            if not rate >= 0:
                raise ConfigurationError(f"the learning rate must be at least 0, not {rate!r}")
            self._learning_rate = rate
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    @property
    def last(self) -> UpdateRecord | None:
        """What the last update saw; None before the first."""
        if self._last is None:
            return None
        q, loss, weight, norm = self._last
        return UpdateRecord(_usable(q), Loss(*map(_usable, loss)), weight, _usable(norm))

    def update(self, batch: Batch) -> Loss:
        """Make one gradient step on a batch."""
        (loss,) = self.update_several([batch], [0.0])
        return Loss(*map(_usable, loss))

    def update_several(self, batches: Sequence[Batch], shares: Sequence[float]) -> list[Loss]:
        """Make a gradient step on each of these batches, one after the other.

        Args:
            batches: of one size.
            shares: of the online network that the target network takes on after each
                step, 0 for none, as for `sync`.

        Returns:
            Their losses, to be read and not to be written to.
        """
        rules = Rules(self._head, self.backup, self.max_gradient_norm)
        # From here on nobody can change the networks.
        learns = self.flat.learns()
        is_plain = self.online.check() and self.target.check()
        losses: list[Loss] = []
        while len(losses) < len(batches):
            done = len(losses)
            if self._compiled is not None and learns and self._compiles(is_plain):
                records = self._update_compiled(rules, batches[done:], shares[done:])
            else:
                by_hand = learns and self.online.has_arrays and self.target.has_arrays
                records = [self._update_eagerly(rules, batches[done], shares[done], by_hand)]
            if records:
                self.n_updates += len(records)
                self._last = records[-1]
            losses += [record.loss for record in records]
        return losses

    def sync(self, tau: float) -> None:
        """Blend the online network into the target network.

        Args:
            tau: share of the online network; 1 copies it.
        """
        if self._target_flat is not self.flat:
            self._target_flat.blend(self.flat, tau)

    def require_finite(self) -> None:
        """Check the last update; this waits for the device.

        Raises:
            NonFiniteError: if its loss or its gradient was NaN or infinite.
        """
        if self._last is None:
            return
        loss, norm = float(self._last.loss.value.mean()), float(self._last.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteError(
                f"not finite in update {self.n_updates}: the loss is {loss}, the norm of its "
                f"gradient {norm}; the weights are not to be trusted. Look for NaN in the "
                f"observations, and at the scale of rewards, the learning rate and max_grad_norm"
            )

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser and counter."""
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_class": type(self.optimizer).__name__,
            "n_updates": self.n_updates,
            "seed": self.seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described.

        The optimiser keeps its own settings, and takes over what it had
        accumulated if it is of the same class.
        """
        self.online.load_state_dict(state["online"])
        if self.target is not self.online:
            self.target.load_state_dict(state["target"])
        if state["optimizer_class"] == type(self.optimizer).__name__:
            groups = self.optimizer.state_dict()["param_groups"]
            self.load_optimizer({"state": state["optimizer"]["state"], "param_groups": groups})
        self.n_updates = int(state["n_updates"])
        self.seed = int(state["seed"])

    def load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Become what the optimiser's `state_dict` described."""
        self.optimizer.load_state_dict(copy.deepcopy(dict(state)))  # torch would share it
        self._learning_rate = float(self.optimizer.param_groups[0]["lr"])

    def _update_eagerly(
        self, rules: Rules, batch: Batch, share: float, by_hand: bool
    ) -> UpdateRecord:
        head = self._differentiated
        if by_hand and head is not None:
            record = quietly(self._update_by_hand, rules, batch, head)
        else:
            with self._randomness_of(self.n_updates + 1):
                self._resample()
                record = self._update_by_autograd(rules, batch)
        if share:
            self.sync(share)
        return record

    def _update_by_autograd(self, rules: Rules, batch: Batch) -> UpdateRecord:
        self.flat.zero_gradient()
        q, loss = compare(rules, batch, self.online.predict, self.target.predict)
        torch.autograd.backward(loss.value, share_in_mean(batch.weight))
        norm = self.flat.clip_gradient(rules.max_gradient_norm)
        self._step()
        return UpdateRecord(q, Loss(loss.value.detach(), loss.surprise), batch.weight, norm)

    def _update_by_hand(self, rules: Rules, batch: Batch, head: DifferentiatedHead) -> UpdateRecord:
        """The same without autograd, which takes longer than a small network itself."""
        with torch.inference_mode():
            target = target_of(rules, batch, self.online.predict_plain, self.target.predict_plain)
            prediction, kept = self.online.record(batch.obs)
            loss, gradient = head.loss_and_gradient(prediction, batch.action, target)
            self.online.differentiate(kept, gradient, share_in_mean(batch.weight.numpy()))
            norm = self.flat.clip_gradient(rules.max_gradient_norm)
            q = head.q(prediction)
        self._step()
        return UpdateRecord(q, loss, batch.weight, norm)

    def _compiles(self, is_plain: bool) -> bool:
        """Whether the graph is one of the networks and the optimiser as they are now."""
        if self.online.was_plain and not is_plain:
            return False
        # The first step of an optimiser makes its state.
        return self._functional_step is None or has_state(self.optimizer)

    def _update_compiled(
        self, rules: Rules, batches: Sequence[Batch], shares: Sequence[float]
    ) -> list[UpdateRecord]:
        """Make the first of these updates in one call, and more where that is possible."""
        assert self._compiled is not None
        step = None if takes_its_own_steps(self.optimizer) else self._functional_step
        is_alone = step is None or self.online.is_random
        count = 1 if is_alone else _in_one_graph(shares)
        has_target = self._target_flat is not self.flat
        blends = has_target and not is_alone and 0 < shares[0] < 1
        try:
            with self._randomness_of(self.n_updates + 1):
                self._resample()
                records = self._compiled(
                    rules, self.optimizer, step, batches[:count], shares[:count] if blends else ()
                )
        except CannotCompileError as error:
            self._compiled = None
            _log.warning("updates are not compiled: %s", error)
            return []
        if step is None:
            self._step()
        if shares[count - 1] and not blends:
            self.sync(shares[count - 1])
        return records

    def _randomness_of(self, update: int) -> AbstractContextManager[None]:
        """What all that is random draws from: this update's own generator, not the user's."""
        if not self.online.is_random:
            return nullcontext()
        return seeded(self._seed + update, self.flat.values.device)

    def _resample(self) -> None:
        """Draw fresh noise, independent in the two networks."""
        self.online.resample()
        if self.target is not self.online:
            self.target.resample()


def _usable(tensor: Tensor) -> Tensor:
    """One of inference mode could neither be written to nor be differentiated."""
    return tensor.clone() if tensor.is_inference() else tensor


def _in_one_graph(shares: Sequence[float]) -> int:
    """How many updates, followed by these shares, are made in one call.

    The target network is blended in the graph, but copied outside: copies are rare.
    """
    blends = 0 < shares[0] < 1
    for count, share in enumerate(shares[:_MOST_IN_ONE_GRAPH], start=1):
        if share == 1:
            return count
        if (share > 0) != blends:
            return count - 1
    return min(len(shares), _MOST_IN_ONE_GRAPH)
