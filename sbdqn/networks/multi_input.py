"""Several parts of an observation, each with a body of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn.errors import SpaceError
from sbdqn.networks.bodies import READABLE
from sbdqn.observations import parts_of


class MultiInput(nn.Module):
    """Puts the features of all parts of an observation in a row.

    The parts are ordered by their names, numbers in them by value, whatever
    their order in the space. So spaces that gymnasium calls equal make the same
    network, and weights that were saved with one fit the other.

    Args:
        parts: spaces by name.
        make_body: from the name and the space of a part to what makes features of it.
        order: of the parts by name, if it is another.

    Attributes:
        names: of the parts, in the order of their features.
        features: the sum of those of all parts.
    """

    def __init__(
        self,
        parts: Mapping[str, Space[Any]],
        make_body: Callable[[str, Space[Any]], nn.Module],
        order: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.names = sorted(parts, key=_order) if order is None else list(order)
        # By number: names may contain what the names of modules may not.
        self.bodies = nn.ModuleList(make_body(name, parts[name]) for name in self.names)
        self.features = sum(_features(body) for body in self.bodies)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Features (B, features) of the parts (B, ...) of observations, by name."""
        parts = [body(obs[name]) for name, body in zip(self.names, self.bodies, strict=True)]
        return torch.cat(parts, dim=1)


def require_readable(space: spaces.Dict | spaces.Tuple[Any]) -> None:
    """Refuse a Dict or Tuple space with a part that is no array of numbers.

    Raises:
        SpaceError: if there is one; it says what to leave out.
    """
    unreadable = _unreadable_parts(space)
    if not unreadable:
        return
    named = ", ".join(f"{name!r}, which is {part}" for name, part in unreadable.items())
    members = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    kept = [key for key, inner in members if not _unreadable_parts(inner)]
    raise SpaceError(
        f"MultiInputPolicy cannot read the part {named}; it takes Box, Discrete, MultiDiscrete "
        f"and MultiBinary parts; leave it out with gymnasium.wrappers.FilterObservation"
        + (f"(env, {kept})" if kept else "")
    )


def _unreadable_parts(space: Space[Any]) -> dict[str, Space[Any]]:
    parts = parts_of(space)
    every = {"": space} if parts is None else parts
    return {name: part for name, part in every.items() if not isinstance(part, READABLE)}


def _order(name: str) -> list[tuple[bool, int, str]]:
    steps = str(name).split("/")
    return [(not step.isdecimal(), int(step) if step.isdecimal() else 0, step) for step in steps]


def _features(body: nn.Module) -> int:
    features = body.features
    assert isinstance(features, int)
    return features
