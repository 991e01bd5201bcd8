"""Archives of this version of the format, which later versions must read for ever.

    python -m tests.formats

writes them, with what they hold in plain JSON, to `tests/data/format_N`, where N is the
version that this code writes. Do that once, whenever `FORMAT_VERSION` has been raised,
and never again for the same N: the point of the files is that old code wrote them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from sbdqn import DQN, Memory, MlpPolicy, MultiInputPolicy
from sbdqn.backups import Munchausen
from sbdqn.exploration import Boltzmann, EpsilonGreedy
from sbdqn.heads import Categorical, ImplicitQuantile
from sbdqn.persistence import FORMAT_VERSION
from sbdqn.replay import Prioritized
from sbdqn.schedules import Exponential, Linear
from tests.environments import AnyObsEnv

DATA = Path(__file__).parent / "data"


class OfSpace(AnyObsEnv):
    """Random observations of a space, and three actions."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__(space, spaces.Discrete(3, start=2))


PARTS = spaces.Dict(
    {
        "position": spaces.Box(np.array([-1.0, -2.0]), np.array([1.0, 2.0]), dtype=np.float64),
        "kind": spaces.Discrete(3, start=-1),
        "more": spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.MultiBinary([2, 2])]),
    }
)
STACKS = spaces.Box(0, 255, (4, 3, 2), np.uint8)


def made() -> dict[str, DQN]:
    """A model for each archive, in the middle of learning."""
    common: dict[str, Any] = {
        "buffer_size": 60,
        "learning_starts": 10,
        "batch_size": 8,
        "train_freq": 1,
        "seed": 0,
        "device": "cpu",
    }
    plain = DQN(MlpPolicy(net_arch=(8,)), "CartPole-v1", **common)
    specs = DQN(
        MlpPolicy(
            net_arch=(8, 4),
            activation_fn=nn.Tanh,
            layer_norm=True,
            dueling=True,
            noisy=True,
            optimizer_class="RMSprop",
            optimizer_kwargs={"alpha": 0.9, "centered": True},
        ),
        "CartPole-v1",
        n_envs=2,
        head=Categorical(atoms=11, low=0.0, high=100.0),
        backup=Munchausen(),
        replay=Prioritized(alpha=0.5, beta=Linear(0.4, 1.0, 1000)),
        replay_memory=Memory("cpu", frame_stack=1),
        exploration=Boltzmann(0.5),
        learning_rate=Exponential(1e-3, 1e-5, rate=0.1),
        max_grad_norm=None,
        tau=0.25,
        **{**common, "train_freq": (2, "episode"), "gradient_steps": -1},
    )
    parts = DQN(
        MultiInputPolicy(net_arch=(8,)),
        OfSpace(PARTS),
        head=ImplicitQuantile(),
        exploration=EpsilonGreedy(Linear(1.0, 0.1, 100)),
        **common,
    )
    stacks = DQN(
        MlpPolicy(net_arch=(8,)),
        lambda: OfSpace(STACKS),
        n_envs=2,
        n_steps=3,
        replay="prioritized",
        replay_memory=Memory(frame_stack=4),
        **common,
    )
    for model in (plain, specs, parts, stacks):
        for space in (model.observation_space, model.env.single_observation_space):  # type: ignore[union-attr]
            space.seed(0)
        model.learn(50)
    return {"plain": plain, "specs": specs, "parts": parts, "stacks": stacks}


def digest_of(values: Any) -> str:
    """Of all tensors and numbers in nested dicts and lists, to the bit."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                digest.update(str(key).encode())
                add(each)
        elif isinstance(value, (list, tuple)):
            for each in value:
                add(each)
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add(values)
    return digest.hexdigest()


def described(model: DQN) -> dict[str, Any]:
    """What must come back from the archive of a model."""
    space = model.observation_space
    space.seed(1)
    obs = space.sample()
    return {
        "weights": digest_of(model.get_parameters()["policy"]),
        "observation": encoded(obs),
        "q_values": model.q_values(obs).tolist(),
        "num_timesteps": model.num_timesteps,
        "exploration_rate": model.exploration_rate,
    }


def described_replay(replay: Any) -> dict[str, Any]:
    """What must come back from the archive of a replay."""
    state = replay.state_dict()["storage"]
    columns = {name: state[name] for name in ("obs", "action", "reward", "terminated", "span")}
    return {"columns": digest_of(columns), "stored": replay.stored}


def encoded(obs: Any) -> Any:
    """An observation in JSON; without its dtypes, which its space knows."""
    if isinstance(obs, dict):
        return {name: encoded(part) for name, part in obs.items()}
    return [encoded(part) for part in obs] if isinstance(obs, tuple) else np.asarray(obs).tolist()


def decoded(obs: Any, space: Any) -> Any:
    """What `encoded` described."""
    if isinstance(space, spaces.Dict):
        return {name: decoded(obs[name], part) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(decoded, obs, space.spaces))
    return np.asarray(obs, space.dtype)


def main() -> None:
    """Write the archives."""
    folder = DATA / f"format_{FORMAT_VERSION}"
    folder.mkdir(parents=True)
    contents: dict[str, Any] = {"models": {}, "replays": {}}
    for name, model in made().items():
        model.save(folder / f"{name}.zip")
        contents["models"][name] = described(model)
        if name in ("specs", "stacks"):
            model.save_replay_buffer(folder / f"{name}_replay.zip")
            contents["replays"][name] = described_replay(model.replay_buffer)
    (folder / "contents.json").write_text(json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
