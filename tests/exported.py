"""What tests of policies without training share: spaces, and readers of exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from sbdqn.observations import apply

START = 3
VECTOR = spaces.Box(-1, 1, (4,), np.float64)
CATEGORY = spaces.Discrete(5, start=-2)
CATEGORIES = spaces.MultiDiscrete([3, 4], start=[1, 0])
BITS = spaces.MultiBinary(4)
PICTURE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
STACK = spaces.Box(0, 255, (2, 36, 36), np.uint8)
PARTS = spaces.Dict(
    {"camera": spaces.Dict({"left": PICTURE}), "action": spaces.Discrete(4), "speed": VECTOR}
)
TUPLE = spaces.Tuple((CATEGORY, VECTOR))


class Resting(gym.Env[Any, Any]):
    """Observations of a space, and three actions."""

    def __init__(self, space: Space[Any]) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(3, start=START)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}


class Body(nn.Module):
    """One that only Python can describe; doubles what it sees."""

    features = 4

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()

    def forward(self, obs: Tensor) -> Tensor:
        return 2.0 * obs


def outputs_of(file: Path, obs: Any) -> tuple[Any, Any]:
    """What a program says that knows the file and nothing else."""
    if file.suffix == ".pt2":
        program = torch.export.load(file).module()
        outputs = program(apply(torch.from_numpy, obs))
        return outputs["action"].numpy(), outputs["q_values"].numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feeds = obs if isinstance(obs, dict) else {"observation": obs}
    taken = ("action", "0", "1")
    feeds = {f"observation/{n}" if n in taken else n: part for n, part in feeds.items()}
    action, q = session.run(["action", "q_values"], feeds)
    return action, q
