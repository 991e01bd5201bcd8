"""Archives of this version of the format, which later versions must read for ever.

    python -m tests.formats

writes them, with what they hold in plain JSON, to `tests/data/format_N`, where N is the
version that this code writes. Do that whenever `FORMAT_VERSION` has been raised, or there
is a new kind of archive. What is there already is left as it is: the point of the files
is that old code wrote them.

The environments in checkpoints are pickles of classes of gymnasium and of `sbdqn.envs`.
Those here are read by Python 3.10 to 3.13 and gymnasium 1.2.1 to 1.4. Later versions of
gymnasium may come to refuse them; all else in the files must be read even so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from sbdqn import DQN, Memory, MlpPolicy, MultiInputPolicy
from sbdqn.backups import Munchausen
from sbdqn.callbacks import (
    BaseCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingWhenSolved,
)
from sbdqn.checkpoint import checkpoints_in
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


CALLS = 20  # of callbacks, before a checkpoint is written


class Stopping(BaseCallback):
    """Writes a checkpoint, if it has a folder, and ends training."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.folder = folder

    def _on_step(self) -> bool:
        if self.folder is None or self.n_calls < CALLS:
            return True
        self.model.save_checkpoint(self.folder)
        return False


def callbacks(folder: Path | None = None) -> list[BaseCallback]:
    """One of each kind that keeps something, and one that may write to a folder."""
    return [
        EvalCallback("CartPole-v1", n_eval_episodes=2, eval_freq=CALLS // 2, verbose=0),
        StopTrainingOnMaxEpisodes(1000),
        StopTrainingWhenSolved(1e9, window=3),
        Stopping(folder),
    ]


def checkpointed(folder: Path) -> dict[str, tuple[DQN, list[BaseCallback]]]:
    """Models whose checkpoints are in the folders of their names, and what they called.

    The last one has no environments: the program owns the loop.
    """
    found: dict[str, tuple[DQN, list[BaseCallback]]] = {}
    for name, model in made().items():
        if name in ("plain", "specs"):
            model.train(20)
            called = callbacks(folder / name)
            found[name] = model.learn(100, callback=called), called
    model = DQN(
        MlpPolicy(net_arch=(8,)),
        "CartPole-v1",
        exploration=EpsilonGreedy(0.3),
        n_steps=3,
        buffer_size=60,
        seed=0,
    )
    env = gym.make("CartPole-v1")
    obs = env.reset(seed=0)[0]
    for _ in range(50):
        action = model.act(obs)
        after, reward, terminated, truncated, _ = env.step(action)
        model.observe(obs, action, reward, after, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else after
    model.train(20)
    model.save_checkpoint(folder / "own_loop")
    return {**found, "own_loop": (model, [])}


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


def described_run(model: DQN) -> dict[str, Any]:
    """What must come back from a checkpoint, but for the callbacks."""
    collector = model._collector
    return {
        **described(model),
        "target": digest_of(dict(model.q_net_target.state_dict())),
        "optimizer": digest_of(model.get_parameters()["policy.optimizer"]["state"]),
        "replay": described_replay(model.replay_buffer),
        "rule": digest_of(model.replay_buffer.state_dict()["rule"]),
        "n_updates": model._n_updates,
        "total_timesteps": model.trainer.total_timesteps,
        "episodes": list(model.ep_info_buffer),
        "next_obs": None if collector is None else collector.stepper.obs.tolist(),
    }


def described_callbacks(called: list[BaseCallback]) -> list[dict[str, Any]]:
    """What must come back of callbacks."""
    names = ("evaluations_timesteps", "evaluations_length", "n_episodes", "returns", "n_calls")
    return [{name: vars(each)[name] for name in names if name in vars(each)} for each in called]


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
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "contents.json"
    contents: dict[str, Any] = json.loads(listed.read_text()) if listed.exists() else {}
    for kind, write in (
        ("models", write_models),
        ("replays", write_replays),
        ("checkpoints", write_checkpoints),
    ):
        if kind not in contents:
            contents[kind] = write(folder)
    listed.write_text(json.dumps(contents, indent=1) + "\n")


def write_models(folder: Path) -> dict[str, Any]:
    """Write models, and say what they hold."""
    models = made()
    for name, model in models.items():
        model.save(folder / f"{name}.zip")
    return {name: described(model) for name, model in models.items()}


def write_replays(folder: Path) -> dict[str, Any]:
    """Write replays, and say what they hold."""
    models = {name: model for name, model in made().items() if name in ("specs", "stacks")}
    for name, model in models.items():
        model.save_replay_buffer(folder / f"{name}_replay.zip")
    return {name: described_replay(model.replay_buffer) for name, model in models.items()}


def write_checkpoints(folder: Path) -> dict[str, Any]:
    """Write checkpoints, and say what they hold."""
    contents: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as somewhere:
        for name, (model, called) in checkpointed(Path(somewhere)).items():
            (path,) = checkpoints_in(Path(somewhere, name))
            shutil.copy(path, folder / f"{name}_checkpoint.zip")
            contents[name] = {**described_run(model), "callbacks": described_callbacks(called)}
    return contents


if __name__ == "__main__":
    main()
