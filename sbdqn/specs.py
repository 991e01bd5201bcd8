"""From the names and values of parameters to the objects that do the work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor

from sbdqn import exploration, networks
from sbdqn.encoding import SPECS
from sbdqn.envs import discrete_actions
from sbdqn.errors import CheckpointError, ConfigurationError
from sbdqn.networks.bodies import is_image
from sbdqn.protocols import Backup, Exploration, Head, PolicySpec, ReplaySpec, Schedule
from sbdqn.schedules import Constant, Linear, OfProgress


def _by_name(axis: str) -> dict[str, Any]:
    """The specs of an axis that need no argument: `implicit_quantile` for `ImplicitQuantile`."""
    return {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.partition(".")[2]).lower(): spec
        for name, spec in SPECS.items()
        if name.startswith(f"{axis}.") and all(map(_has_default, fields(spec)))
    }


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


POLICIES: dict[
    str, type[networks.MlpPolicy] | type[networks.CnnPolicy] | type[networks.MultiInputPolicy]
] = {
    "MlpPolicy": networks.MlpPolicy,
    "CnnPolicy": networks.CnnPolicy,
    "MultiInputPolicy": networks.MultiInputPolicy,
}
HEADS: dict[str, Callable[..., Head]] = _by_name("heads")
BACKUPS: dict[str, Callable[[], Backup]] = _by_name("backups")
REPLAYS: dict[str, Callable[[], ReplaySpec]] = _by_name("replay")
EXPLORATIONS: dict[str, Callable[..., Exploration]] = {
    "epsilon_greedy": exploration.EpsilonGreedy,
    **_by_name("exploration"),
}


def resolve_policy(parameters: Mapping[str, Any]) -> PolicySpec:
    """The policy, with `policy_kwargs` if it is named.

    Raises:
        ConfigurationError: if a keyword is unknown or its value unfit.
    """
    policy: str | PolicySpec = parameters["policy"]
    if not isinstance(policy, str):
        return policy
    chosen = POLICIES[policy]
    given = dict(parameters["policy_kwargs"] or {})
    accepted = [field.name for field in fields(chosen)]
    unknown = [name for name in given if name not in accepted]
    if unknown:
        raise ConfigurationError(
            f"policy_kwargs of {policy} must be among {', '.join(accepted)}, "
            f"not {', '.join(map(repr, unknown))}"
        )
    return chosen(**given)


def policy_for(space: Space[Any]) -> str:
    """The name of the policy that reads observations of a space."""
    if is_image(space):
        return "CnnPolicy"
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return "MultiInputPolicy"
    return "MlpPolicy"


def resolve_head(parameters: Mapping[str, Any]) -> Head:
    """The head; the scalar one with `loss`."""
    head: str | Head = parameters["head"]
    if not isinstance(head, str):
        return head
    return HEADS[head](parameters["loss"]) if head == "scalar" else HEADS[head]()


NETWORK_PARAMETERS = frozenset({"policy", "policy_kwargs"})


def shapes_of_network(
    parameters: Mapping[str, Any], observation_space: Space[Any], action_space: Space[Any]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights by their names; no memory is taken for them.

    Args:
        parameters: of the estimator, all of them.
        observation_space: of one observation.
        action_space: of one action.
    """
    actions = discrete_actions(action_space)
    # Specs may look at tensors of their own, so they are made where there are values.
    policy, head = resolve_policy(parameters), resolve_head(parameters)
    with torch.device("meta"):  # of shapes without values
        network = policy.build(observation_space, int(actions.n), head)
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def require_networks_of(
    parameters: Mapping[str, Any],
    observation_space: Space[Any],
    action_space: Space[Any],
    weights: Mapping[str, Tensor],
) -> None:
    """Refuse weights of other networks than these, before any memory is taken for them.

    Args:
        parameters: of the estimator, all of them.
        observation_space: of one observation.
        action_space: of one action.
        weights: of the online network.

    Raises:
        CheckpointError: if a weight is missing, unknown or of another shape.
    """
    needed = shapes_of_network(parameters, observation_space, action_space)
    given = {name: tuple(weight.shape) for name, weight in weights.items()}
    for name in (*needed, *given):
        if needed.get(name) != given.get(name):
            raise CheckpointError(
                f"the file does not fit these parameters, or is damaged: they describe networks "
                f"whose {name!r} is of the shape {needed.get(name)}, and it holds {given.get(name)}"
            )


def resolve_backup(parameters: Mapping[str, Any]) -> Backup:
    """The backup."""
    backup: str | Backup = parameters["backup"]
    return BACKUPS[backup]() if isinstance(backup, str) else backup


def resolve_replay(parameters: Mapping[str, Any]) -> ReplaySpec:
    """The replay's description."""
    chosen: str | ReplaySpec = parameters["replay"]
    return REPLAYS[chosen]() if isinstance(chosen, str) else chosen


def resolve_exploration(parameters: Mapping[str, Any], learn_steps: int | None) -> Exploration:
    """The exploration.

    Args:
        parameters: of the estimator.
        learn_steps: length of the first `learn`, of which epsilon's slope takes
            `exploration_fraction`; None before it, when epsilon stands still.
    """
    chosen: str | Exploration = parameters["exploration"]
    if not isinstance(chosen, str):
        return chosen
    if chosen != "epsilon_greedy":
        return EXPLORATIONS[chosen]()
    start = float(parameters["exploration_initial_eps"])
    if learn_steps is None:
        return exploration.EpsilonGreedy(Constant(start))
    duration = round(parameters["exploration_fraction"] * learn_steps)
    end = float(parameters["exploration_final_eps"])
    return exploration.EpsilonGreedy(Linear(start, end, duration))


def resolve_learning_rate(parameters: Mapping[str, Any]) -> float | Schedule:
    """The learning rate as a number or a schedule."""
    rate = parameters["learning_rate"]
    if isinstance(rate, Schedule):
        return rate
    return OfProgress(rate) if callable(rate) else float(rate)


def resolve_device(parameters: Mapping[str, Any]) -> torch.device:
    """The torch device; `"auto"` is a GPU where there is one.

    Raises:
        ConfigurationError: if the machine does not have it.
    """
    wanted = parameters["device"]
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"device={wanted!r} cannot be used here: {error}; device='auto' takes what there is"
        ) from error
    return device
