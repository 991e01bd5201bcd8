"""The seams: what a head, a backup, a body, a replay and an exploration are.

The core is written against these alone. A class of your own needs no base
class from here: having the methods is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from sbdqn.memory import Memory
from sbdqn.types import (
    Array,
    Batch,
    BoolArray,
    Bootstrap,
    Clock,
    FloatArray,
    IntArray,
    Loss,
    Prediction,
    Purpose,
    Row,
    Tensors,
)

QFunction: TypeAlias = Callable[[Tensors], Tensor]
"""From observations (B, ...) to expected returns (B, A)."""


@runtime_checkable
class Schedule(Protocol):
    """A value that depends on the clock."""

    def at(self, clock: Clock) -> float:
        """The value at this moment."""


def value_at(value: float | Schedule, clock: Clock) -> float:
    """The value that a number or a schedule has at this moment."""
    return value if isinstance(value, (int, float)) else value.at(clock)


@runtime_checkable
class Head(Protocol):
    """What the last axis of a network means. A frozen dataclass, no weights."""

    @property
    def width(self) -> int:
        """N, the number of outputs for each action."""

    def q(self, prediction: Prediction) -> Tensor:
        """Expected returns (B, A)."""

    def target(self, batch: Batch, bootstrap: Bootstrap, following: Prediction) -> Tensor:
        """`reward + bonus + discount * E_policy[following - penalty]` (B, ...).

        Args:
            batch: the transitions.
            bootstrap: what the backup believes of `batch.next_obs`.
            following: the target network's prediction at `batch.next_obs`.
        """

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> Loss:
        """Compare the prediction for `action` (B,) with a target (B, ...)."""


@runtime_checkable
class DifferentiatedHead(Head, Protocol):
    """A head that knows the gradient of its loss: small networks learn faster."""

    def loss_and_gradient(
        self, prediction: Prediction, action: Tensor, target: Tensor
    ) -> tuple[Loss, Tensor]:
        """`loss`, and the gradient (B, A, N) of its values by the prediction's, on the CPU."""


@runtime_checkable
class SampledHead(Head, Protocol):
    """A head that asks the network for the quantiles of fractions that it samples."""

    @property
    def cosines(self) -> int:
        """Width of the network's cosine embedding of a fraction."""

    def fractions(self, rows: int, purpose: Purpose, device: torch.device) -> Tensor:
        """Fractions (rows, N) from 0 to 1; what is random is torch's global generator."""


def differentiated(head: Head) -> DifferentiatedHead | None:
    """The head, if it knows the gradient of the very loss and values that it has.

    A subclass may have another `loss` or `q` and inherit a gradient that is not
    theirs.
    """
    if not isinstance(head, DifferentiatedHead):
        return None
    gradient, loss, q = (_depth(head, name) for name in ("loss_and_gradient", "loss", "q"))
    return head if gradient <= min(loss, q) else None


def _depth(owner: object, name: str) -> int:
    """How many classes up an attribute is defined; -1 for the object's own."""
    kinds = type(owner).__mro__
    return next((depth for depth, kind in enumerate(kinds) if name in vars(kind)), -1)


@runtime_checkable
class Backup(Protocol):
    """Which next action the target believes in. A frozen dataclass."""

    def __call__(
        self, batch: Batch, following_q: Tensor, online: QFunction, target: QFunction
    ) -> Bootstrap:
        """The policy, the bonus and the penalty of a target.

        Args:
            batch: the transitions.
            following_q: (B, A) the target network's values at `batch.next_obs`.
            online: values by the online network.
            target: values by the target network.
        """


class Body(Protocol):
    """Makes features of observations: an `nn.Module` with a width.

    The observations come as the replay stores them: a batch axis first, then
    the shape and the dtype of the space (float64 as float32); for Dict and Tuple
    spaces a dict with one tensor for each part, named as `sbdqn.observations` says.
    """

    features: int

    def __call__(self, obs: Tensors) -> Tensor:
        """Features (B, features) of observations (B, ...)."""


@runtime_checkable
class Noisy(Protocol):
    """A layer whose output depends on noise that it keeps between forwards.

    Attributes:
        is_silent: whether the noise is left out.
    """

    is_silent: bool

    def resample(self) -> None:
        """Draw fresh noise from torch's global generator."""


BodyFactory: TypeAlias = Callable[[Space[Any]], nn.Module]
"""From an observation space to a `Body`."""


@runtime_checkable
class Exploration(Protocol):
    """How Q-values become actions while data is collected. Stateless."""

    def select(
        self,
        q_values: Callable[[IntArray], FloatArray],
        n_envs: int,
        n_actions: int,
        clock: Clock,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions (E,) from 0.

        Args:
            q_values: expected returns (k, A) for the k environments asked for;
                the network runs for those alone.
            n_envs: E, the number of environments.
            n_actions: A, the number of actions.
            clock: the moment, for schedules.
            rng: the only source of randomness to use.
        """

    def rate(self, clock: Clock) -> float:
        """The amount of exploration at this moment, as it is logged."""


Outcome: TypeAlias = tuple[Any, Array, BoolArray, BoolArray, dict[str, Any]]
"""What a vector environment's `step` returns."""


class Background(NamedTuple):
    """The two halves of a step of environments that step while others work.

    Attributes:
        send: begins the step of these actions (E,), as the environment takes them.
        receive: waits for its end.
    """

    send: Callable[[IntArray], object]
    receive: Callable[[], Outcome]


@dataclass(frozen=True)
class ObservationPart:
    """One array of an observation, as a replay holds it.

    Attributes:
        shape: of one observation.
        dtype: that it is stored in.
        frames: how many frames it is a stack of, the newest last; 1 for none.
        frame_axis: where they are stacked, 0 or -1; an axis may hold several
            channels of each frame.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    frames: int = 1
    frame_axis: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of one observation."""
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class ReplayLayout:
    """What a replay must hold, and how it must be read.

    Attributes:
        obs: what an observation is; for Dict and Tuple spaces each part, by name.
        n_envs: E, environments that feed the replay.
        capacity: transitions to hold, all environments together.
        n_steps: rewards in a return.
        gamma: discount per step.
        device: where batches go.
        seed: of the replay's own generator.
        memory: where observations are kept, and in what form.
    """

    obs: ObservationPart | Mapping[str, ObservationPart]
    n_envs: int
    capacity: int
    n_steps: int
    gamma: float
    device: torch.device
    seed: np.random.SeedSequence
    memory: Memory = field(default_factory=Memory)

    @property
    def parts(self) -> dict[str, ObservationPart]:
        """The parts of an observation by name; the only one of a plain space is `""`."""
        return {"": self.obs} if isinstance(self.obs, ObservationPart) else dict(self.obs)


class Replay(Protocol):
    """The memory of transitions.

    Attributes:
        gamma: discount per step; may be assigned between batches.
    """

    gamma: float

    @property
    def stored(self) -> int:
        """Transitions held."""

    @property
    def sampleable(self) -> int:
        """Transitions that can be drawn, not those whose n-step window is open."""

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Restart the replay's own generator."""

    def add(self, row: Row) -> None:
        """Store one step of all environments, copying what it keeps."""

    def sample(self, batch_size: int, clock: Clock) -> Batch:
        """Draw a batch, with replacement, on the layout's device."""

    def feedback(self, index: Tensor, surprise: Tensor) -> None:
        """Learn how surprising the transitions at `index` (B,) were."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, and what JSON can hold: all that the future depends on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described; copies what it keeps, which may be a file."""


@runtime_checkable
class AheadReplay(Protocol):
    """A replay that can draw the batches of several updates at once: that is faster."""

    @property
    def draws_ahead(self) -> bool:
        """Whether no feedback changes what is drawn after it."""

    def sample_several(self, batch_size: int, count: int, clock: Clock) -> list[Batch]:
        """The batches of as many calls of `sample`, all in memory at once."""


def ahead(replay: Replay) -> AheadReplay | None:
    """The replay, if the batches of several updates may be drawn before the first.

    A subclass may have another `sample` or `feedback`, and inherit what is drawn at
    once without them.
    """
    if not isinstance(replay, AheadReplay) or not replay.draws_ahead:
        return None
    several, *single = (_depth(replay, n) for n in ("sample_several", "sample", "feedback"))
    return replay if several <= min(single) else None


@runtime_checkable
class ReplaySpec(Protocol):
    """Describes a replay before the environment is known. A frozen dataclass."""

    def nbytes(self, layout: ReplayLayout) -> int:
        """Bytes that `build(layout)` allocates."""

    def build(self, layout: ReplayLayout) -> Replay:
        """Allocate the replay."""


@runtime_checkable
class PolicySpec(Protocol):
    """Describes a network and its optimiser. A frozen dataclass."""

    def build(self, space: Space[Any], n_actions: int, head: Head) -> Any:
        """A `sbdqn.networks.QNetwork` with fresh weights."""

    def build_optimizer(self, flat: Any, learning_rate: float) -> torch.optim.Optimizer:
        """An optimiser of the `sbdqn.networks.FlatParameters` of a network."""
