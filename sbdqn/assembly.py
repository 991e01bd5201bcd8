"""From parameters and spaces to the parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space

from sbdqn import specs
from sbdqn.envs import ObservationAdapter, discrete_actions, with_frames
from sbdqn.errors import ConfigurationError, ReplayMemoryError
from sbdqn.learner import Learner
from sbdqn.memory import Memory
from sbdqn.networks import seeded
from sbdqn.policy import Policy
from sbdqn.protocols import Replay, ReplayLayout, value_at
from sbdqn.seeds import Seeds, as_integer
from sbdqn.training import Cadence, Trainer


@dataclass
class Parts:
    """What a model is made of once it is built.

    Attributes:
        policy: the networks.
        learner: updates them.
        trainer: the clocks and the loop.
    """

    policy: Policy
    learner: Learner
    trainer: Trainer


def build_parts(
    parameters: Mapping[str, Any],
    observation_space: Space[Any],
    action_space: Space[Any],
    make_replay: Callable[[torch.device], Replay],
    seeds: Seeds,
) -> Parts:
    """Make networks, optimiser and loop; the replay follows when it is needed.

    torch's global generator is left as it was.

    Args:
        parameters: of the estimator, all of them.
        observation_space: of one observation.
        action_space: of one action.
        make_replay: allocates the replay for a device.
        seeds: for weights and exploration.
    """
    actions = discrete_actions(action_space)
    device = specs.resolve_device(parameters)
    policy_spec = specs.resolve_policy(parameters)
    head = specs.resolve_head(parameters)
    has_target = parameters["target_update_interval"] is not None
    with seeded(as_integer(seeds.network), torch.device("cpu")):
        online = policy_spec.build(observation_space, int(actions.n), head).to(device)
        target = online
        if has_target:
            target = policy_spec.build(observation_space, int(actions.n), head).to(device)
    learner = Learner(
        online,
        target,
        head,
        specs.resolve_backup(parameters),
        parameters["max_grad_norm"],
        parameters["compile"],
        as_integer(seeds.learner),
    )
    learning_rate = specs.resolve_learning_rate(parameters)
    exploration = specs.resolve_exploration(parameters, None)
    trainer = Trainer(
        lambda: make_replay(device),
        learner,
        resolve_cadence(parameters),
        exploration,
        learning_rate,
        seeds.exploration,
    )
    trainer.nonfinite.policy = parameters["on_nonfinite"]
    learner.set_optimizer(
        policy_spec.build_optimizer(learner.flat, value_at(learning_rate, trainer.clock))
    )
    return Parts(Policy(observation_space, actions, online, target, device), learner, trainer)


def resolve_cadence(parameters: Mapping[str, Any]) -> Cadence:
    """How much is learned from how much experience."""
    freq = parameters["train_freq"]
    period, unit = freq if isinstance(freq, (tuple, list)) else (freq, "step")
    return Cadence(
        learning_starts=parameters["learning_starts"],
        batch_size=parameters["batch_size"],
        period=period,
        unit=unit,
        updates=parameters["gradient_steps"],
    )


def build_replay(
    parameters: Mapping[str, Any],
    observation_space: Space[Any],
    n_envs: int,
    device: torch.device,
    seed: np.random.SeedSequence,
    frames: int,
) -> Replay:
    """Allocate the replay, if it fits.

    Args:
        parameters: of the estimator, all of them.
        observation_space: of one observation.
        n_envs: E, the number of environments.
        device: where the networks are.
        seed: of the replay.
        frames: that the environment says its observations stack.

    Raises:
        ReplayMemoryError: if it does not.
        ConfigurationError: if it would be on another accelerator than the networks.
    """
    memory: Memory = parameters["replay_memory"]
    place = memory.on(device)
    if place.type != "cpu" and _numbered(place) != _numbered(device):
        raise ConfigurationError(
            f"replay_memory={memory!r} cannot feed networks on {device}; observations are kept "
            f"where the networks are, which device='auto' says, or on 'cpu'"
        )
    whole = ObservationAdapter(observation_space).layout
    layout = ReplayLayout(
        obs=with_frames(whole, memory, frames),
        n_envs=n_envs,
        capacity=parameters["buffer_size"],
        n_steps=parameters["n_steps"],
        gamma=parameters["gamma"],
        device=device,
        seed=seed,
        memory=memory,
    )
    spec = specs.resolve_replay(parameters)
    needed = spec.nbytes(layout)
    free = available_memory(place)
    if free is not None and needed > free:
        each = needed / layout.capacity
        raise ReplayMemoryError(
            f"a replay of buffer_size={layout.capacity} observations of {observation_space} takes "
            f"{_readable(needed)}, and {_readable(free)} are free on {place}; choose a buffer_size "
            f"of at most {int(free / each)}, make observations smaller (resize images, keep "
            f"uint8), or put them elsewhere: replay_memory=Memory(device='cpu'), with folder=... "
            f"for a file"
        )
    return spec.build(layout)


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device, None where unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip().isdigit():  # a container's share
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available


def _numbered(device: torch.device) -> tuple[str, int]:
    """A device's kind and number; torch's `"cuda"` is the first one."""
    return device.type, device.index or 0


def _readable(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.2f} MB"
