"""The one update that every member of the family goes through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, optim

from sbdqn.errors import ConfigurationError, NonFiniteError
from sbdqn.networks import FlatParameters, QNetwork, direct_step, seeded
from sbdqn.protocols import Backup, DifferentiatedHead, Head, differentiated
from sbdqn.types import Batch, Loss, Prediction, Purpose, Tensors

_Predict: TypeAlias = Callable[[Tensors], Prediction]
_Compare: TypeAlias = Callable[[Batch], tuple[Tensor, Loss]]


class UpdateRecord(NamedTuple):
    """What the last update saw, kept as tensors until somebody asks.

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


class Learner:
    """Turns batches into better weights.

    Args:
        online: the network that learns.
        target: the network that targets come from; `online` itself for none.
        head: what the networks' outputs mean.
        backup: which next action a target believes in.
        max_gradient_norm: gradients are scaled down to it; None for never.
        compile: whether targets and loss are compiled with `torch.compile`.
        seed: of all that is random in an update: noise, dropout, sampled fractions.

    Attributes:
        n_updates: gradient steps made.
        last: what the last update saw, None before the first.
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
        self._target_flat = self.flat if target is online else FlatParameters(target)
        self._is_eager = not compile
        self.head = head
        self.n_updates = 0
        self.seed = seed
        self.last: UpdateRecord | None = None
        self._compare = _compiled(self._compare_eagerly) if compile else self._compare_eagerly
        self.sync(1.0)

    @property
    def head(self) -> Head:
        """What the networks' outputs mean."""
        return self._head

    @head.setter
    def head(self, head: Head) -> None:
        self._head = head
        self._differentiated = differentiated(head) if self._is_eager else None

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

    def update(self, batch: Batch) -> Loss:
        """Make one gradient step on a batch."""
        head = self._differentiated
        if head is not None and self._knows_its_gradient:
            self.last = self._update_by_hand(batch, head)
        else:
            with self._randomness_of(self.n_updates + 1):
                self._resample()
                self.last = self._update(batch)
        self.n_updates += 1
        return self.last.loss

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
        if self.last is None:
            return
        loss, norm = float(self.last.loss.value.mean()), float(self.last.gradient_norm)
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
        self.optimizer.load_state_dict(dict(state))
        self._learning_rate = float(self.optimizer.param_groups[0]["lr"])

    def _update(self, batch: Batch) -> UpdateRecord:
        self.flat.zero_gradient()
        q, loss = self._compare(batch)
        torch.autograd.backward(loss.value, _share_in_mean(batch.weight))
        norm = self.flat.clip_gradient(self.max_gradient_norm)
        self._step()
        loss = Loss(loss.value.detach(), loss.surprise)
        return UpdateRecord(q, loss, batch.weight, norm)

    @property
    def _knows_its_gradient(self) -> bool:
        return self.online.check() and self.target.is_plain and self.flat.values.grad is not None

    def _update_by_hand(self, batch: Batch, head: DifferentiatedHead) -> UpdateRecord:
        """`_update` without autograd, which takes longer than a small network itself."""
        with torch.inference_mode():
            target = self._target(batch, _recorded(self.online), _recorded(self.target))
            prediction, kept = self.online.record(batch.obs)
            loss, gradient = head.loss_and_gradient(prediction, batch.action, target)
            gradient.mul_(_share_in_mean(batch.weight).view(-1, 1, 1))
            self.online.differentiate(kept, gradient)
            norm = self.flat.clip_gradient(self.max_gradient_norm)
        self._step()
        # Tensors of inference mode could neither be written to nor be differentiated.
        loss = Loss(loss.value.clone(), loss.surprise.clone())
        return UpdateRecord(head.q(prediction).clone(), loss, batch.weight, norm.clone())

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

    def _compare_eagerly(self, batch: Batch) -> tuple[Tensor, Loss]:
        with torch.no_grad():
            target = self._target(batch, _predicted(self.online), _predicted(self.target))
        prediction = self.online.predict(batch.obs, Purpose.LEARN)
        loss = self.head.loss(prediction, batch.action, target)
        return self.head.q(prediction).detach(), loss

    def _target(self, batch: Batch, online: _Predict, target: _Predict) -> Tensor:
        head = self.head
        following = target(batch.next_obs)
        bootstrap = self.backup(
            batch,
            head.q(following),
            lambda obs: head.q(online(obs)),
            lambda obs: head.q(target(obs)),
        )
        return head.target(batch, bootstrap, following)


def _compiled(compare: _Compare) -> _Compare:
    # Sampled fractions and dropout are to be those of the update that is not compiled.
    return torch.compile(compare, options={"fallback_random": True})


def _predicted(network: QNetwork) -> _Predict:
    return lambda obs: network.predict(obs, Purpose.TARGET)


def _recorded(network: QNetwork) -> _Predict:
    return lambda obs: network.record(obs)[0]


def _share_in_mean(weight: Tensor) -> Tensor:
    """The gradient of the weighted mean of the losses by each of them (B,)."""
    return weight / weight.shape[0]
