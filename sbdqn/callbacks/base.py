"""Callbacks: side effects of training, in the order in which they are given."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from sbdqn.errors import CheckpointError, ConfigurationError, NotReadyError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from sbdqn.dqn import DQN
    from sbdqn.logger import Logger


_log = logging.getLogger(__name__)


class BaseCallback:
    """What a callback can do; override the hooks that start with `_`.

    Args:
        verbose: 0 for silence, 1 for what matters, 2 for everything.

    Attributes:
        model: the model that trains.
        n_calls: times that `_on_step` has been called.
        num_timesteps: transitions collected, summed over environments.
        locals: of the last step: see `StepLocals`.
        parent: the callback that owns this one, if any.

    Example:
        >>> class CountEpisodes(BaseCallback):
        ...     episodes = 0
        ...
        ...     def _on_step(self) -> bool:
        ...         self.episodes += int(self.locals["dones"].sum())
        ...         return True
    """

    def __init__(self, verbose: int = 0) -> None:
        self.verbose = verbose
        self.n_calls = 0
        self.num_timesteps = 0
        self.locals: Mapping[str, Any] = {}
        self.globals: Mapping[str, Any] = {}
        self.parent: BaseCallback | None = None
        self._model: DQN | None = None

    @property
    def model(self) -> DQN:
        """The model that trains."""
        if self._model is None:
            raise NotReadyError(f"{type(self).__name__} has not been passed to learn yet")
        return self._model

    @property
    def training_env(self) -> VectorEnv[Any, Any, Any]:
        """The vector environment that the model trains in."""
        env = self.model.env
        assert env is not None
        return env

    @property
    def logger(self) -> Logger:
        """The model's logger."""
        return self.model.logger

    @property
    def listens_to_updates(self) -> bool:
        """Whether something happens here after a gradient step."""
        return overrides(self, "update")

    def init_callback(self, model: DQN) -> None:
        """Attach to a model, before training starts."""
        self._model = model
        self._init_callback()

    def on_training_start(self, locals_: Mapping[str, Any], globals_: Mapping[str, Any]) -> None:
        """Start."""
        self.locals = locals_
        self.globals = globals_
        self.num_timesteps = self.model.num_timesteps
        self._on_training_start()

    def on_rollout_start(self) -> None:
        """Data will be collected."""
        self._on_rollout_start()

    def on_step(self) -> bool:
        """All environments have made a step.

        Returns:
            False to end training.
        """
        self.n_calls += 1
        self.num_timesteps = self.model.num_timesteps
        return self._on_step()

    def on_update(self) -> None:
        """A gradient step has been made."""
        self._on_update()

    def on_rollout_end(self) -> None:
        """Updates are due."""
        self._on_rollout_end()

    def on_training_end(self) -> None:
        """The end, also after Ctrl-C."""
        self._on_training_end()

    def update_locals(self, locals_: Mapping[str, Any]) -> None:
        """Look at another step."""
        self.locals = locals_
        self.update_child_locals(locals_)

    def update_child_locals(self, locals_: Mapping[str, Any]) -> None:
        """Let the callbacks that this one owns look at another step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: `_state_dict`, and how often it was called."""
        return {"n_calls": self.n_calls, **self._state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called, before training starts."""
        self.n_calls = int(state["n_calls"])
        self._load_state_dict(state)

    def _state_dict(self) -> dict[str, Any]:
        """Hook: what a resumed run needs, of lists, dicts, strings, numbers and tensors."""
        return {}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hook: become what `_state_dict` described."""

    def _init_callback(self) -> None:
        """Hook: the model is known."""

    def _on_training_start(self) -> None:
        """Hook: before the first step."""

    def _on_rollout_start(self) -> None:
        """Hook: before data is collected."""

    def _on_step(self) -> bool:
        """Hook: after each step of all environments; False ends training."""
        return True

    def _on_update(self) -> None:
        """Hook: after each gradient step; environments in the background may be stepping."""

    def _on_rollout_end(self) -> None:
        """Hook: before the updates that are due."""

    def _on_training_end(self) -> None:
        """Hook: after the last step."""


def overrides(callback: BaseCallback, event: str, than: type[BaseCallback] = BaseCallback) -> bool:
    """Whether a callback has another hook for an event than a class."""
    for name in (f"on_{event}", f"_on_{event}"):
        hook = getattr(callback, name)
        if getattr(hook, "__func__", hook) is not getattr(than, name):
            return True
    return False


def described(callback: BaseCallback) -> dict[str, Any]:
    """A copy of a callback's state, and whose it is."""
    return {"class": type(callback).__name__, "state": copy.deepcopy(callback.state_dict())}


def restore(callback: BaseCallback | None, description: Mapping[str, Any] | None) -> None:
    """Give a callback the state of one that stood in its place, if it is of the same class.

    Args:
        callback: None for none.
        description: as `described` gives it; None where there was no callback.

    Raises:
        CheckpointError: if it does not take that state.
    """
    given = None if callback is None else type(callback).__name__
    kept = None if description is None else description["class"]
    if callback is not None and description is not None and given == kept:
        try:
            callback.load_state_dict(description["state"])
        except CheckpointError:  # of a callback in it
            raise
        except Exception as error:  # in as many ways as there are callbacks
            raise CheckpointError(
                f"what the checkpoint keeps of {given} does not fit it, or is damaged: {error!r}; "
                f"learn goes on without it, or with a callback of another class in its place"
            ) from error
    elif given != kept:
        _log.warning(
            "the checkpoint was written with %s where there is %s now, which begins anew; pass "
            "the callbacks of the run that is resumed, in the same order",
            kept or "no callback",
            given or "none",
        )


def restore_all(
    callbacks: Sequence[BaseCallback], descriptions: Sequence[Mapping[str, Any]]
) -> None:
    """Give callbacks the states of those that stood in their places."""
    for callback, description in zip_longest(callbacks, descriptions):
        restore(callback, description)


class EventCallback(BaseCallback):
    """A callback that calls another one when its event happens.

    Args:
        callback: called by `_on_event`; whatever `learn` takes for one.
        verbose: see `BaseCallback`.
    """

    def __init__(self, callback: MaybeCallback = None, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.callback = as_child(callback, self)

    def init_callback(self, model: DQN) -> None:
        """Attach to a model, the child too."""
        super().init_callback(model)
        if self.callback is not None:
            self.callback.init_callback(model)

    def update_child_locals(self, locals_: Mapping[str, Any]) -> None:
        """Let the child look at another step."""
        if self.callback is not None:
            self.callback.update_locals(locals_)

    def _on_training_start(self) -> None:
        if self.callback is not None:
            self.callback.on_training_start(self.locals, self.globals)

    def _on_training_end(self) -> None:
        if self.callback is not None:
            self.callback.on_training_end()

    def _state_dict(self) -> dict[str, Any]:
        return {"callback": None if self.callback is None else described(self.callback)}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        restore(self.callback, state["callback"])

    def _on_event(self) -> bool:
        return self.callback.on_step() if self.callback is not None else True


class CallbackList(BaseCallback):
    """Several callbacks in one; training ends as soon as one of them says so.

    Args:
        callbacks: called in this order.
    """

    def __init__(self, callbacks: Sequence[BaseCallback]) -> None:
        super().__init__()
        self.callbacks = list(callbacks)
        self._started: list[BaseCallback] = []
        self._of_rollout_start = self._of_update = self._of_rollout_end = self.callbacks
        for callback in self.callbacks:
            callback.parent = self

    def __iter__(self) -> Iterator[BaseCallback]:
        """The callbacks, nested lists opened."""
        for callback in self.callbacks:
            yield from callback if isinstance(callback, CallbackList) else [callback]

    def init_callback(self, model: DQN) -> None:
        """Attach all."""
        super().init_callback(model)
        for callback in self.callbacks:
            callback.init_callback(model)

    def update_child_locals(self, locals_: Mapping[str, Any]) -> None:
        """Let all look at another step."""
        for callback in self.callbacks:
            callback.update_locals(locals_)

    def _overriding(self, event: str) -> list[BaseCallback]:
        return [callback for callback in self.callbacks if overrides(callback, event)]

    def _on_training_start(self) -> None:
        self._started = []
        for callback in self.callbacks:
            callback.on_training_start(self.locals, self.globals)
            self._started.append(callback)
        # A step of a small environment takes no longer than some calls of empty hooks.
        self._of_rollout_start = self._overriding("rollout_start")
        self._of_update = self._overriding("update")
        self._of_rollout_end = self._overriding("rollout_end")

    def _state_dict(self) -> dict[str, Any]:
        return {"callbacks": [described(callback) for callback in self.callbacks]}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        restore_all(self.callbacks, state["callbacks"])

    def _on_rollout_start(self) -> None:
        for callback in self._of_rollout_start:
            callback.on_rollout_start()

    def _on_step(self) -> bool:
        # All are called, whoever wants to stop.
        goes_on = [callback.on_step() for callback in self.callbacks]
        return all(goes_on)

    def _on_update(self) -> None:
        for callback in self._of_update:
            callback.on_update()

    def _on_rollout_end(self) -> None:
        for callback in self._of_rollout_end:
            callback.on_rollout_end()

    def _on_training_end(self) -> None:
        # All that were started are ended, whichever of them fails.
        with ExitStack() as stack:
            for callback in reversed(self._started):
                stack.callback(callback.on_training_end)


class ConvertCallback(BaseCallback):
    """Makes a callback of a function of `(locals, globals)`.

    Args:
        callback: called after each step; returning False ends training.
        verbose: see `BaseCallback`.
    """

    def __init__(
        self,
        callback: Callable[[Mapping[str, Any], Mapping[str, Any]], bool | None],
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.callback = callback

    def _on_step(self) -> bool:
        return self.callback(self.locals, self.globals) is not False


def as_child(callback: MaybeCallback, parent: BaseCallback) -> BaseCallback | None:
    """What a callback was given to call, as one callback of its own.

    Raises:
        ConfigurationError: if it is none.
    """
    given = as_callbacks(callback)
    child = CallbackList(given) if len(given) > 1 else next(iter(given), None)
    if child is not None:
        child.parent = parent
    return child


MaybeCallback: TypeAlias = (
    BaseCallback
    | Sequence[BaseCallback]
    | Callable[[Mapping[str, Any], Mapping[str, Any]], bool | None]
    | None
)


def as_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """What `learn` was given, as a list of callbacks.

    Raises:
        ConfigurationError: if something is none.
    """
    if callback is None:
        return []
    if isinstance(callback, BaseCallback):
        return [callback]
    if isinstance(callback, (list, tuple)):
        return [one for part in callback for one in as_callbacks(part)]
    if callable(callback) and not isinstance(callback, type):
        return [ConvertCallback(callback)]
    raise ConfigurationError(
        f"callback must be a BaseCallback, a list of them, a function of (locals, globals), or "
        f"None, not {callback!r}"
    )
