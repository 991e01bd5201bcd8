"""What each parameter of the estimator may be, in one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

import torch

from sbdqn import specs
from sbdqn.envs.making import VECTORIZATIONS
from sbdqn.errors import ConfigurationError, is_integer, is_number
from sbdqn.memory import Memory
from sbdqn.nonfinite import ON_NONFINITE
from sbdqn.protocols import Backup, Exploration, Head, PolicySpec, ReplaySpec, Schedule

Value = TypeVar("Value")
Check = Callable[[str, Any], None]


class Estimator(Protocol):
    """Has parameters."""

    _parameters: dict[str, Any]

    def set_params(self, **parameters: Any) -> Any:
        """Change parameters."""


class Parameter(Generic[Value]):
    """An attribute that is a constructor parameter; assigning it is `set_params`."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the attribute's name."""
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Parameter[Value]: ...

    @overload
    def __get__(self, instance: Estimator, owner: type) -> Value: ...

    def __get__(self, instance: Estimator | None, owner: type) -> Parameter[Value] | Value:
        """The parameter as it was passed."""
        if instance is None:
            return self
        value: Value = instance._parameters[self._name]
        return value

    def __set__(self, instance: Estimator, value: Value) -> None:
        """Check the value and put it into effect."""
        instance.set_params(**{self._name: value})


def validate(parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check every parameter, and those that contradict each other.

    Args:
        parameters: all of them, by name.
        defaults: what those have that were not chosen.

    Raises:
        ConfigurationError: naming what was given and what is accepted.
    """
    for name, check in CHECKS.items():
        check(name, parameters[name])
    _check_contradictions(parameters, defaults)
    specs.resolve_policy(parameters)


def _fail(name: str, given: object, accepted: str) -> None:
    raise ConfigurationError(f"{name} must be {accepted}, not {given!r}")


def _integer(lowest: int, *others: object, also: str = "") -> Check:
    accepted = f"an integer of at least {lowest}{also}"

    def check(name: str, value: object) -> None:
        if any(value is other for other in others):
            return
        if not (is_integer(value) and value >= lowest):
            _fail(name, value, accepted)

    return check


def _between(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> None:
        if not (is_number(value) and low <= value <= high):
            _fail(name, value, f"a number from {low:g} to {high:g}")

    return check


def _above_zero_up_to_one(name: str, value: Any) -> None:
    if not (is_number(value) and 0 < value <= 1):
        _fail(name, value, "a number above 0 and at most 1")


def _learning_rate(name: str, value: Any) -> None:
    is_function = isinstance(value, Schedule) or callable(value)
    if isinstance(value, type) or not (is_function or (is_number(value) and value > 0)):
        _fail(name, value, "a number above 0, a schedule, or a function of the progress remaining")


def _positive_or_none(name: str, value: Any) -> None:
    if value is not None and not (is_number(value) and value > 0):
        _fail(name, value, "a number above 0, or None")


def _one_of(*accepted: object) -> Check:
    def check(name: str, value: object) -> None:
        if not any(value is option or value == option for option in accepted):
            _fail(name, value, "one of " + ", ".join(map(repr, accepted)))

    return check


def _mapping_or_none(name: str, value: object) -> None:
    is_named = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if value is not None and not is_named:
        _fail(name, value, "a dict of keyword arguments, or None")


def _train_freq(name: str, value: Any) -> None:
    if is_integer(value) and value >= 1:
        return
    if isinstance(value, (tuple, list)) and len(value) == 2:
        count, unit = value
        if is_integer(count) and count >= 1 and unit in ("step", "episode"):
            return
    _fail(name, value, "an integer of at least 1, (n, 'step') or (n, 'episode')")


def _gradient_steps(name: str, value: Any) -> None:
    if not (is_integer(value) and (value >= 1 or value == -1)):
        _fail(name, value, "an integer of at least 1, or -1 for one per transition collected")


def _path_or_none(name: str, value: object) -> None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        _fail(name, value, "a path, or None")


def _boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        _fail(name, value, "True or False")


def _threads(name: str, value: object) -> None:
    if value is not None and value != "auto":
        _integer(1, also=", 'auto' or None")(name, value)


def _memory(name: str, value: object) -> None:
    if not isinstance(value, Memory):
        _fail(name, value, "a sbdqn.memory.Memory, such as Memory(device='cpu')")


def _device(name: str, value: Any) -> None:
    try:
        torch.device("cpu" if value == "auto" else value)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(
            f"{name} must be 'auto' or a torch device such as 'cpu' or 'cuda:0', not {value!r}: "
            f"{error}"
        ) from error


def _named_or(registry: Mapping[str, object], *protocols: type) -> Check:
    def check(name: str, value: object) -> None:
        if isinstance(value, str):
            known = value in registry
        else:
            known = not isinstance(value, type) and isinstance(value, protocols)
        if not known:
            options = ", ".join(map(repr, registry))
            hint = f", such as {value.__name__}(...)" if isinstance(value, type) else ""
            _fail(name, value, f"{options}, or an object that has the methods of one{hint}")

    return check


CHECKS: dict[str, Check] = {
    "policy": _named_or(specs.POLICIES, PolicySpec),
    "n_envs": _integer(1),
    "vectorization": _one_of(*VECTORIZATIONS),
    "env_kwargs": _mapping_or_none,
    "policy_kwargs": _mapping_or_none,
    "head": _named_or(specs.HEADS, Head),
    "backup": _named_or(specs.BACKUPS, Backup),
    "replay": _named_or(specs.REPLAYS, ReplaySpec),
    "replay_memory": _memory,
    "exploration": _named_or(specs.EXPLORATIONS, Exploration),
    "learning_rate": _learning_rate,
    "buffer_size": _integer(1),
    "learning_starts": _integer(0),
    "batch_size": _integer(1),
    "gamma": _between(0, 1),
    "n_steps": _integer(1),
    "max_grad_norm": _positive_or_none,
    "loss": _one_of("huber", "mse"),
    "train_freq": _train_freq,
    "gradient_steps": _gradient_steps,
    "target_update_interval": _integer(1, None, also=", or None for no target network"),
    "tau": _above_zero_up_to_one,
    "exploration_fraction": _between(0, 1),
    "exploration_initial_eps": _between(0, 1),
    "exploration_final_eps": _between(0, 1),
    "stats_window_size": _integer(1),
    "tensorboard_log": _path_or_none,
    "verbose": _one_of(0, 1, 2),
    "seed": _integer(0, None, also=", or None"),
    "device": _device,
    "compile": _boolean,
    "overlap": _boolean,
    "threads": _threads,
    "on_nonfinite": _one_of(*ON_NONFINITE),
}


def _check_contradictions(parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    def refuse(chosen: str, *ignored: str) -> None:
        for name in ignored:
            if parameters[name] != defaults[name]:
                raise ConfigurationError(
                    f"{name}={parameters[name]!r} would have no effect with "
                    f"{chosen}={parameters[chosen]!r}; leave one of them out"
                )

    if parameters["head"] != "scalar":
        refuse("head", "loss")
    if parameters["exploration"] != "epsilon_greedy":
        refuse(
            "exploration",
            "exploration_fraction",
            "exploration_initial_eps",
            "exploration_final_eps",
        )
    if parameters["target_update_interval"] is None:
        refuse("target_update_interval", "tau")
    if not isinstance(parameters["policy"], str) and parameters["policy_kwargs"]:
        raise ConfigurationError(
            f"policy_kwargs={parameters['policy_kwargs']!r} belong to a policy that is named; "
            f"put them into {parameters['policy']!r}"
        )
