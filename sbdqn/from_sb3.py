"""Models of Stable-Baselines3, read from its archives without unpickling anything.

An archive is a zip of JSON, which `sbdqn.sb3_settings` reads, and of files of torch, which
`sbdqn.torch_file` reads. The names of weights say what SB3's network is made of, and their
shapes how wide its layers are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from gymnasium import Space, spaces
from torch import Tensor

from sbdqn.assembly import Parts
from sbdqn.errors import CheckpointError, SpaceError
from sbdqn.networks import SB3Features
from sbdqn.observations import parts_of
from sbdqn.persistence import PathOrFile, source_of
from sbdqn.sb3_settings import SB3Settings, read_json
from sbdqn.torch_file import read_torch_file, stored_members

_log = logging.getLogger(__name__)

_ARCHIVE = "the archive of Stable-Baselines3"
_ALWAYS = {"head": "scalar", "loss": "huber", "backup": "greedy", "replay": "uniform"}
_WEIGHT = re.compile(
    r"(?:features_extractor\.(?:extractors\.(?P<part>.+)\.)?(?P<body>cnn|linear)|q_net)"
    r"\.(?P<layer>\d+)\.(?P<kind>\w+)"
)


class SB3Model(NamedTuple):
    """What an archive says of a model.

    Attributes:
        parameters: of our constructor, but environment and device.
        online: weights of the online network, by the names that they have here.
        target: those of the target network.
        optimizer: the optimiser's class, and what it has accumulated for each weight.
        counts: steps, planned steps, episodes and updates, by SB3's names.
    """

    parameters: dict[str, Any]
    online: dict[str, Tensor]
    target: dict[str, Tensor]
    optimizer: tuple[str, list[dict[str, Any]]]
    counts: dict[str, int]

    def require_fit(self, shapes: Mapping[str, tuple[int, ...]], space: Space[Any]) -> None:
        """Refuse weights of another network, before any memory is taken for it.

        Args:
            shapes: of a network's weights in the environment, by their names.
            space: of its observations.

        Raises:
            CheckpointError: if a weight is missing, unknown or of another shape.
        """
        for weights in (self.target, self.online):
            _require_fit(shapes, weights, space)

    def fill(self, parts: Parts) -> None:
        """Give networks, optimiser and clocks the state of the model."""
        learner, trainer = parts.learner, parts.trainer
        networks = {learner.target: self.target, learner.online: self.online}  # one, or two
        for network, weights in networks.items():
            network.load_state_dict(weights)
        name, accumulated = self.optimizer
        if accumulated and name == type(learner.optimizer).__name__:
            shapes = [each.shape for each in learner.flat.trainable]
            groups = learner.optimizer.state_dict()["param_groups"]
            state = {0: _of_all_weights(accumulated, shapes)}
            learner.load_optimizer({"state": state, "param_groups": groups})
        learner.n_updates = self.counts["_n_updates"]
        steps = self.counts["num_timesteps"]
        clock = {"num_timesteps": steps, "total_timesteps": self.counts["_total_timesteps"]}
        clock |= {"episodes": self.counts["_episode_num"]}
        rounds = {"settled": [steps, steps], "since_round": 0, "episodes_since_round": 0}
        trainer.load_state_dict({**clock, **rounds, "rng": trainer.rng.bit_generator.state})


def read_sb3(path: PathOrFile, given: Mapping[str, Any]) -> SB3Model:
    """Read an archive of SB3's DQN.

    Args:
        path: the archive.
        given: parameters of our constructor that the caller chose.

    Raises:
        CheckpointError: if it is damaged, of another algorithm or version, or holds what
            has no counterpart here.
    """
    with source_of(path) as file:
        members = stored_members(file, _ARCHIVE)
    _require_version(members)
    settings = SB3Settings(read_json(_member(members, "data")))
    kwargs = settings.policy_kwargs(given.get("policy_kwargs") or {})
    weights = read_torch_file(_member(members, "policy.pth"))
    online, target = (_weights(weights, f"{name}.") for name in ("q_net", "q_net_target"))
    parts = _parts(settings.parts(), online)
    if settings.has_own_replay:
        _log.warning("the model's replay_buffer_class is not taken over; the replay is uniform")
    scalars = {**_ALWAYS, **settings.scalars(given), **given}
    if "exploration" in given:  # in whose place they have no effect
        scalars = {name: each for name, each in scalars.items() if "exploration_" not in name}
    optimizer = read_torch_file(_member(members, "policy.optimizer.pth"))
    return SB3Model(
        {**scalars, **_policy(settings, parts, online, kwargs)},
        _renamed(online, parts),
        _renamed(target, parts),
        (settings.optimizer_class, _accumulated(optimizer)),
        settings.counts(),
    )


@contextmanager
def in_environment_of(observations: Space[Any]) -> Iterator[None]:
    """Within the block, a policy that cannot read these observations is told of.

    Raises:
        CheckpointError: if it cannot.
    """
    try:
        yield
    except SpaceError as error:
        raise CheckpointError(
            f"{_ARCHIVE} holds a policy that does not fit an environment with observations of "
            f"{observations}; pass the environment that the model learned in, wrapped as it was"
        ) from error


def require_actions_from_zero(space: spaces.Discrete) -> None:
    """Refuse actions that SB3 cannot tell apart: it counts all of them from 0.

    Raises:
        SpaceError: if the first is not 0.
    """
    if space.start != 0:
        raise SpaceError(
            f"Stable-Baselines3 counts actions from 0 whatever the space says, so a model of it "
            f"cannot have learned in an environment with {space}; pass the environment that it "
            f"learned in"
        )


def _require_version(members: Mapping[str, bytes]) -> None:
    version = _member(members, "_stable_baselines3_version").decode(errors="replace").strip()
    if not version.startswith("2."):
        raise CheckpointError(
            f"{_ARCHIVE} was written by its version {version:.20}, and those of 2.x can be read; "
            f"load it with Stable-Baselines3 2.x and save it again"
        )


def _member(members: Mapping[str, bytes], name: str) -> bytes:
    if name not in members:
        raise CheckpointError(f"the file was not written by Stable-Baselines3: it has no {name}")
    return members[name]


def _weights(state: Any, prefix: str) -> dict[str, Tensor]:
    """The weights of one of the two networks."""
    every = state if isinstance(state, dict) else {}
    found = {
        name.removeprefix(prefix): value
        for name, value in every.items()
        if isinstance(name, str) and name.startswith(prefix)
    }
    for name, value in found.items():
        if not _WEIGHT.fullmatch(name):
            raise CheckpointError(
                f"the model's network has a layer of its own, {name:.100}; only those that "
                f"SB3's policies make have a counterpart here"
            )
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"the archive is damaged: {name} is no weight")
    return found


def _parts(names: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, int | None]:
    """The width of the layer behind each image's convolutions; None for what has none."""
    found: dict[str, int | None] = dict.fromkeys(names)
    for name, weight in weights.items():
        match = _WEIGHT.fullmatch(name)
        assert match is not None
        if match["body"] == "linear" and match["kind"] == "weight":
            found[match["part"] or ""] = len(weight) if weight.ndim else 0
    if list(found) != list(names):
        raise CheckpointError("the archive is damaged: its weights are of other observations")
    return found


def _layers(weights: Mapping[str, Tensor]) -> dict[int, int]:
    """The width of each linear layer behind the features, by its number."""
    matches = [(_WEIGHT.fullmatch(name), weight) for name, weight in weights.items()]
    found = {
        int(match["layer"]): len(weight)
        for match, weight in matches
        if match and not match["body"] and match["kind"] == "weight" and weight.ndim == 2
    }
    if not found:
        raise CheckpointError("the archive is damaged: it has no weights of a Q-network")
    return dict(sorted(found.items()))


def _policy(
    settings: SB3Settings,
    parts: dict[str, int | None],
    weights: Mapping[str, Tensor],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """The policy by name, and all its keyword arguments."""
    normalize_images = kwargs.pop("normalize_images", True)
    widths = tuple(_layers(weights).values())[:-1]
    kwargs = {"net_arch": widths, "layer_norm": False, **kwargs}
    if parts == {"": None} and not settings.may_be_image:
        # What is no image to SB3 may be a stack of some here, and is not divided either.
        return {"policy": "MlpPolicy", "policy_kwargs": {**kwargs, "normalize_images": False}}
    extractor = SB3Features(tuple(parts.items()), normalize_images)
    policy = "MultiInputPolicy" if "" not in parts else "CnnPolicy" if parts[""] else "MlpPolicy"
    return {"policy": policy, "policy_kwargs": {**kwargs, "features_extractor": extractor}}


def _renamed(weights: Mapping[str, Tensor], parts: Mapping[str, int | None]) -> dict[str, Tensor]:
    """The weights by the names that they have in our network."""
    last = list(_layers(weights))[-1]
    order = list(parts)
    renamed = {}
    for name, weight in weights.items():
        match = _WEIGHT.fullmatch(name)
        assert match is not None
        layer, kind, part = int(match["layer"]), match["kind"], match["part"]
        body = "encoder" if part is None else f"encoder.bodies.{order.index(part)}"
        if match["body"] == "cnn":
            renamed[f"{body}.0.{layer + 1}.{kind}"] = weight  # behind what prepares pixels
        elif match["body"] == "linear":
            renamed[f"{body}.1.{kind}"] = weight
        elif layer == last:
            renamed[f"output.linear.{kind}"] = weight
        else:
            renamed[f"trunk.{layer}.{kind}"] = weight
    return renamed


def _require_fit(
    shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], space: Space[Any]
) -> None:
    given = {name: tuple(each.shape) for name, each in weights.items()}
    if shapes != given:
        differing = sorted(
            name for name in {*shapes, *given} if shapes.get(name) != given.get(name)
        )
        told = ", ".join(
            f"{name} {given.get(name)} instead of {shapes.get(name)}" for name in differing[:4]
        )
        raise CheckpointError(
            f"the weights of {_ARCHIVE} do not fit an environment with observations of "
            f"{parts_of(space) or space}, or are damaged: {told}; pass the environment that the "
            f"model learned in, wrapped as it was"
        )


def _accumulated(state: Any) -> list[dict[str, Any]]:
    """What the optimiser keeps of each weight, in their order; empty if nothing yet."""
    kept = state.get("state") if isinstance(state, dict) else None
    states: list[Any] = list(kept.values()) if isinstance(kept, dict) else [kept]
    are_whole = isinstance(kept, dict) and list(kept) == [*range(len(states))]
    if not are_whole or not all(isinstance(each, dict) for each in states):
        raise CheckpointError("the archive is damaged: its optimiser has no state")
    return states


def _of_all_weights(
    accumulated: Sequence[Mapping[str, Any]], shapes: Sequence[torch.Size]
) -> dict[str, Any]:
    """One state for the one tensor that holds all weights here."""
    flat: dict[str, Any] = {}
    for name in accumulated[0]:
        each = [state[name] for state in accumulated]
        if all(isinstance(value, Tensor) and value.ndim == 0 for value in each):
            steps = {value.item() for value in each}
            flat[name] = each[0]
            is_fit = len(steps) == 1 and len(each) == len(shapes)
        elif all(value is None for value in each):
            flat[name], is_fit = None, True
        else:
            is_fit = [getattr(value, "shape", None) for value in each] == list(shapes)
            flat[name] = torch.cat([value.reshape(-1) for value in each]) if is_fit else None
        if not is_fit:
            raise CheckpointError(f"the archive is damaged: its optimiser's {name} fits no weights")
    return flat
