"""Changing parameters: nested names, and what a built model can still take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from sbdqn import specs
from sbdqn.assembly import Parts, resolve_cadence
from sbdqn.errors import ConfigurationError
from sbdqn.protocols import Head, SampledHead

NEEDS_NEW_ENV = ("n_envs", "vectorization", "env_kwargs", "overlap")
NEEDS_NEW_NETWORK = ("policy", "policy_kwargs", "device", "compile")
NEEDS_NEW_REPLAY = ("replay", "replay_memory", "buffer_size", "n_steps")
_AXES = {
    "head": specs.resolve_head,
    "backup": specs.resolve_backup,
    "replay": specs.resolve_replay,
    "policy": specs.resolve_policy,
}


def nested(name: str, value: object) -> dict[str, Any]:
    """The fields of a spec as `name__field`; nothing for anything else."""
    if not is_dataclass(value) or isinstance(value, type):
        return {}
    return {f"{name}__{field.name}": getattr(value, field.name) for field in fields(value)}


def merged(parameters: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters after some have changed.

    Args:
        parameters: as they are.
        changes: by name, or by `name__field` for a field of a spec.

    Raises:
        ConfigurationError: if a name is unknown.
    """
    result = dict(parameters)
    for name, value in changes.items():
        if name in parameters:
            result[name] = value
    fields: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        outer, separator, inner = name.partition("__")
        if name in parameters:
            continue
        if not separator or outer not in parameters:
            raise ConfigurationError(
                f"unknown parameter {name!r}; accepted are {', '.join(parameters)}"
            )
        fields.setdefault(outer, {})[inner] = value
    for outer, values in fields.items():
        if outer == "policy" and isinstance(result["policy"], str):
            result["policy_kwargs"] = {**(result["policy_kwargs"] or {}), **values}
        else:
            result[outer] = _with_fields(result, outer, values)
    return result


def _with_fields(parameters: Mapping[str, Any], outer: str, values: Mapping[str, Any]) -> object:
    """A spec with all of these at once: one may be in range with another one alone."""
    spec = parameters[outer]
    if isinstance(spec, str) and outer in _AXES:
        spec = _AXES[outer](parameters)
    names = [key.partition("__")[2] for key in nested(outer, spec)]
    for inner in values:
        if inner not in names:
            fields = f"its fields are {', '.join(names)}" if names else f"pass {outer} as an object"
            raise ConfigurationError(
                f"{outer}={parameters[outer]!r} has no field {inner!r}; {fields}"
            )
    return replace(spec, **values)


def refuse_impossible(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    has_env: bool,
    parts: Parts | None,
) -> None:
    """Raise for changes that what is built already cannot take.

    Raises:
        ConfigurationError: naming the parameter and the way out.
    """
    fixed: list[str] = []
    if has_env or (parts is not None and parts.trainer.has_replay):
        fixed += NEEDS_NEW_ENV
    if parts is not None:
        fixed += NEEDS_NEW_NETWORK
        if parts.trainer.has_replay:
            fixed += NEEDS_NEW_REPLAY
    for name in fixed:
        if _differ(before[name], after[name]):
            _refuse(name, before[name], after[name])
    if parts is None:
        return
    if _differ(before["head"], after["head"]):
        old, new = specs.resolve_head(before), specs.resolve_head(after)
        if type(old) is not type(new) or _asked_of_network(old) != _asked_of_network(new):
            _refuse("head", before["head"], after["head"])
    had, has = (each["target_update_interval"] is not None for each in (before, after))
    if had != has:
        name = "target_update_interval"
        _refuse(name, before[name], after[name])


def apply(parts: Parts, parameters: Mapping[str, Any], learn_steps: int | None) -> None:
    """Put parameters into effect in what is built already."""
    learner, trainer = parts.learner, parts.trainer
    head = specs.resolve_head(parameters)
    learner.head = parts.policy.q_net.head = parts.policy.q_net_target.head = head
    learner.backup = specs.resolve_backup(parameters)
    learner.max_gradient_norm = parameters["max_grad_norm"]
    trainer.cadence = resolve_cadence(parameters)
    trainer.learning_rate = specs.resolve_learning_rate(parameters)
    trainer.exploration = specs.resolve_exploration(parameters, learn_steps)
    trainer.nonfinite.policy = parameters["on_nonfinite"]
    if trainer.has_replay:
        trainer.replay.gamma = parameters["gamma"]


def _asked_of_network(head: Head) -> tuple[int, int | None]:
    return head.width, head.cosines if isinstance(head, SampledHead) else None


def _differ(before: object, after: object) -> bool:
    return before is not after and before != after


def _refuse(name: str, before: object, after: object) -> None:
    raise ConfigurationError(
        f"{name} cannot change from {before!r} to {after!r} in a model that is already built; "
        f"make a new one: DQN(**{{**model.get_params(deep=False), {name!r}: ...}})"
    )
