"""Which observations are stacks of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from sbdqn.envs.faults import FaultReporting
from sbdqn.errors import ConfigurationError
from sbdqn.memory import MOST_FRAMES, Memory
from sbdqn.protocols import ObservationPart

Layout = ObservationPart | Mapping[str, ObservationPart]


def stacked_frames(env: VectorEnv[Any, Any, Any]) -> int:
    """Frames that an environment says its observations stack along their first axis.

    `gymnasium.wrappers.FrameStackObservation` and ALE's vector environment say so;
    1 for all others. It is a hint: the replay compares every observation with what
    it makes of it.
    """
    inner = env.unwrapped
    shape = inner.single_observation_space.shape
    if shape and any(base.__module__.startswith("ale_py.") for base in type(inner).__mro__):
        return int(shape[0])
    if not isinstance(inner, (SyncVectorEnv, AsyncVectorEnv)) or inner.closed:
        return 1
    watch = FaultReporting(env).watch
    if not all(watch(lambda: inner.call("has_wrapper_attr", "stack_size"))):
        return 1
    frames = watch(lambda: inner.get_attr("stack_size"))[0]
    return int(frames) if isinstance(frames, int) else 1


def with_frames(layout: Layout, memory: Memory, hint: int) -> Layout:
    """The layout, with the parts that are kept as single frames.

    Args:
        layout: of whole observations.
        memory: says whether, or leaves it to the hint.
        hint: frames that the environment says it stacks.

    Raises:
        ConfigurationError: if frames are wanted that no part of it can have.
    """
    if memory.frame_stack == 1:
        return layout
    parts = {"": layout} if isinstance(layout, ObservationPart) else dict(layout)
    if memory.frame_stack == "auto":
        found = {
            name: replace(part, frames=hint)
            for name, part in parts.items()
            # Vectors are small: to put them together again costs more than it saves.
            if len(part.shape) > 2 and 1 < part.shape[0] == hint <= MOST_FRAMES
        }
    else:
        frames = memory.frame_stack
        found = {name: part for name, part in parts.items() if _axes(part, frames)}
        if not found:
            shapes = [part.shape for part in parts.values()]
            raise ConfigurationError(
                f"frame_stack={frames} needs observations of at least two axes whose first or "
                f"last is a multiple of {frames} long, and these have the shapes {shapes}; leave "
                f"it out, or give the number of frames that your wrapper stacks"
            )
        found = {name: _framed(part, frames) for name, part in found.items()}
    parts |= found
    return parts[""] if isinstance(layout, ObservationPart) else parts


def _axes(part: ObservationPart, frames: int) -> list[int]:
    """Axes along which frames could be stacked."""
    if len(part.shape) < 2:
        return []
    return [axis for axis in (0, -1) if part.shape[axis] % frames == 0]


def _framed(part: ObservationPart, frames: int) -> ObservationPart:
    shortest = min(_axes(part, frames), key=lambda axis: part.shape[axis])
    return replace(part, frames=frames, frame_axis=shortest)
