"""A trained policy without what trained it."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces

from sbdqn import specs
from sbdqn.envs import discrete_actions
from sbdqn.errors import NotReadyError
from sbdqn.export import export_policy
from sbdqn.networks import seeded
from sbdqn.parameters import CHECKS
from sbdqn.persistence import (
    Archive,
    PathOrFile,
    read_archive,
    require_trust,
    restoring,
    unpickle,
)
from sbdqn.policy import Policy
from sbdqn.protocols import Exploration, Head, Noisy, PolicySpec
from sbdqn.seeds import Seeds, as_integer
from sbdqn.types import Clock, FloatArray

_ACTING = ("policy", "policy_kwargs", "head")


def load_policy(
    path: PathOrFile,
    device: str | torch.device = "auto",
    trusted: bool = False,
    *,
    policy: str | PolicySpec | None = None,
    policy_kwargs: dict[str, Any] | None = None,
    head: str | Head | None = None,
) -> TrainedPolicy:
    """Read what `DQN.save` wrote, to act and for nothing else.

    No environment, replay, optimiser or logger is made, and no code for training
    is imported. Nothing from the file is executed.

    Args:
        path: the file.
        device: where the network goes: `"auto"`, `"cpu"`, or any torch device.
        trusted: whether Python objects in the file may be unpickled, which can
            execute anything.
        policy: to use instead of the saved one; needed if that is a Python object
            and the file is not trusted.
        policy_kwargs: as `policy`.
        head: as `policy`.

    Raises:
        CheckpointError: if the file cannot be read, or if the policy or the head
            is a Python object in it and it is not trusted; `MissingFileError` if
            there is none.
        ConfigurationError: if an argument is none that `DQN` takes.

    Example:
        >>> import io
        >>> from sbdqn import DQN, load_policy
        >>> file = io.BytesIO()
        >>> DQN("MlpPolicy", "CartPole-v1", seed=0).save(file)
        >>> action, _ = load_policy(file).predict([0.0, 0.1, 0.0, -0.1])
        >>> int(action) in (0, 1)
        True
    """
    given = {"policy": policy, "policy_kwargs": policy_kwargs, "head": head}
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in {**chosen, "device": device}.items():
        CHECKS[name](name, value)
    archive = read_archive(path, "model")
    needed = [name for name in _ACTING if name in archive.objects and name not in chosen]
    require_trust(needed, trusted)
    explores = "exploration" not in archive.objects
    is_read = trusted and bool(needed or not explores)
    objects = unpickle(archive) if is_read else {}
    describes_networks = specs.NETWORK_PARAMETERS.isdisjoint((*archive.objects, *chosen))
    parameters = {**archive.parameters, **objects, **chosen}
    place = specs.resolve_device({"device": device})
    with restoring():
        return _built(archive, parameters, place, explores or is_read, describes_networks)


def _built(
    archive: Archive,
    parameters: dict[str, Any],
    device: torch.device,
    explores: bool,
    describes_networks: bool,
) -> TrainedPolicy:
    for name in (*_ACTING, "loss", "seed", *(["exploration"] if explores else [])):
        CHECKS[name](name, parameters[name])
    state = archive.state
    seeds = Seeds.of(parameters["seed"])
    actions = discrete_actions(state["action_space"])
    weights = state["learner"]["online"]
    if describes_networks:
        specs.require_networks_of(parameters, state["observation_space"], actions, weights)
    spec, head = specs.resolve_policy(parameters), specs.resolve_head(parameters)
    with seeded(as_integer(seeds.network), torch.device("cpu")):
        network = spec.build(state["observation_space"], int(actions.n), head).to(device)
    network.load_state_dict(weights)
    network.requires_grad_(False)
    policy = Policy(state["observation_space"], actions, network, network, device)
    clocks = state["trainer"]
    clock = Clock(*(int(clocks[name]) for name in ("num_timesteps", "episodes", "total_timesteps")))
    exploration = specs.resolve_exploration(parameters, state["learn_steps"]) if explores else None
    return TrainedPolicy(policy, exploration, clock, np.random.default_rng(seeds.prediction))


class TrainedPolicy:
    """Predicts as the `DQN` that it was saved by; `load_policy` makes one.

    Several threads may predict at once.

    Args:
        policy: the network, with the spaces that it acts in.
        exploration: how actions are chosen that are not greedy; None if that is
            not known.
        clock: when the model was saved, for the schedules of exploration.
        rng: that exploration draws from.
    """

    def __init__(
        self,
        policy: Policy,
        exploration: Exploration | None,
        clock: Clock,
        rng: np.random.Generator,
    ) -> None:
        self._policy = policy
        self._exploration = exploration
        self._clock = clock
        self._rng = rng
        # A network with noise silences it for as long as a greedy prediction takes.
        is_noisy = any(isinstance(layer, Noisy) for layer in policy.q_net.modules())
        self._alone: AbstractContextManager[Any] = threading.Lock() if is_noisy else nullcontext()

    @property
    def observation_space(self) -> Space[Any]:
        """Of one observation."""
        return self._policy.observation_space

    @property
    def action_space(self) -> spaces.Discrete:
        """Of one action."""
        return self._policy.action_space

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._policy.device

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """The action for one observation, or for each of a batch; see `DQN.predict`.

        Raises:
            NotReadyError: if it is to explore, and how is a Python object in a file
                that was not trusted.
            SpaceError: if the observation is not of the observation space.
        """
        with self._alone:
            if deterministic:
                return self._policy.predict(observation, state)
            if self._exploration is None:
                raise NotReadyError(
                    "how the model explores was saved as a Python object, which was not read; "
                    "predict with deterministic=True, or, if you trust the file, "
                    "load_policy(path, trusted=True)"
                )
            explored = self._policy.explore(observation, self._exploration, self._clock, self._rng)
            return explored, state

    def q_values(self, observation: Any) -> FloatArray:
        """Expected returns of every action: (A,), or (B, A) for a batch.

        Raises:
            SpaceError: if the observation is not of the observation space.
        """
        with self._alone:
            return self._policy.q_values(observation)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write a file that acts without this library; see `DQN.export`."""
        with self._alone:
            export_policy(self._policy, path)
