"""Archives that Stable-Baselines3 itself writes become models that say and do the same."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common import torch_layers as sb3_layers, utils as sb3_utils
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn, optim

from sbdqn import DQN
from sbdqn.errors import CheckpointError, ConfigurationError, MissingFileError, SpaceError
from sbdqn.exploration import Greedy
from sbdqn.schedules import Linear
from sbdqn.types import Batch


class RandomEnv(gym.Env[Any, Any]):
    """Samples of a space, rewards from 0 to 1, episodes of seven steps."""

    def __init__(self, observation_space: gym.Space[Any], start: int = 0, n: int = 3) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(n, start=start)
        self.observation_space.seed(0)
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = float(self.np_random.random())
        return self.observation_space.sample(), reward, self.t % 5 == 4, self.t == 7, {}


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


VECTOR = spaces.Box(-1, 1, (4,), np.float32)
MIXED: Any = OrderedDict(  # gymnasium leaves an ordered dict in its order
    z_camera=image(36, 40, 3), place=spaces.Box(-2, 2, (2, 3)), gear=spaces.Discrete(4)
)
CAMERAS: Any = OrderedDict(b=image(36, 36, 1), a=image(36, 40, 3))
TANH = {"net_arch": [9, 7], "activation_fn": nn.Tanh}
RAW = {"normalize_images": False}
NATURE = {"features_extractor_class": sb3_layers.NatureCNN}
SMALL = {"features_extractor_kwargs": {"features_dim": 16}}
COMBINED = {"features_extractor_kwargs": {"cnn_output_dim": 12}}
CASES: dict[str, tuple[str, gym.Space[Any], dict[str, Any]]] = {
    "vector": ("MlpPolicy", VECTOR, {}),
    "float64": ("MlpPolicy", spaces.Box(-1, 1, (2, 3), np.float64), {"net_arch": [5]}),
    "linear": ("MlpPolicy", VECTOR, {"net_arch": []}),
    "tanh": ("MlpPolicy", VECTOR, {"net_arch": [8, 6, 4], "activation_fn": nn.Tanh}),
    "prelu": ("MlpPolicy", VECTOR, {"net_arch": [8, 6], "activation_fn": nn.PReLU}),
    "discrete": ("MlpPolicy", spaces.Discrete(5), {}),
    "multi discrete": ("MlpPolicy", spaces.MultiDiscrete([2, 4]), {}),
    "multi binary": ("MlpPolicy", spaces.MultiBinary(4), {}),
    "flat image": ("MlpPolicy", image(5, 6, 3), {"net_arch": [8]}),
    "flat image as it is": ("MlpPolicy", image(5, 6, 3), RAW),
    "four axes": ("MlpPolicy", image(2, 3, 4, 2), {"net_arch": [8]}),
    "no image": ("MlpPolicy", spaces.Box(0, 9, (2, 5, 3), np.uint8), {"net_arch": [8]}),
    "nature": ("CnnPolicy", image(36, 40, 3), {}),
    "channels first": ("CnnPolicy", image(3, 40, 36), SMALL),
    "four frames": ("CnnPolicy", image(4, 36, 36), SMALL),
    "four frames last": ("CnnPolicy", image(36, 36, 4), {**SMALL, "net_arch": [9]}),
    "nature and tanh": ("CnnPolicy", image(36, 36, 1), {**SMALL, **TANH}),
    "pixels as they are": ("CnnPolicy", image(36, 36, 1), {**SMALL, **RAW}),
    "float pixels": ("CnnPolicy", spaces.Box(0, 1, (3, 36, 36)), {**SMALL, **RAW}),
    "nature of mlp": ("MlpPolicy", image(36, 36, 3), {**SMALL, **NATURE}),
    "mixed": ("MultiInputPolicy", spaces.Dict(MIXED), {}),
    "mixed and tanh": ("MultiInputPolicy", spaces.Dict(MIXED), {**COMBINED, **TANH}),
    "mixed as it is": ("MultiInputPolicy", spaces.Dict(MIXED), {**COMBINED, **RAW}),
    "sorted": ("MultiInputPolicy", spaces.Dict(dict(MIXED)), COMBINED),
    "two cameras": ("MultiInputPolicy", spaces.Dict(CAMERAS), COMBINED),
    "no camera": ("MultiInputPolicy", spaces.Dict(OrderedDict(b=VECTOR, a=spaces.Discrete(3))), {}),
}  # fmt: skip


def trained(
    policy: str = "MlpPolicy",
    space: gym.Space[Any] = VECTOR,
    policy_kwargs: dict[str, Any] | None = None,
    env: Any = None,
    steps: int = 24,
    **parameters: Any,
) -> Any:
    """A model of SB3 whose online and target networks differ."""
    settings = {
        "learning_starts": 4,
        "batch_size": 8,
        "train_freq": 4,
        "target_update_interval": 10,
        "buffer_size": 50,
        "learning_rate": 3e-3,
        "seed": 0,
        "device": "cpu",
    }
    env = RandomEnv(space) if env is None else env
    model = sb3.DQN(
        policy, env, policy_kwargs=copy.deepcopy(policy_kwargs), **settings | parameters
    )
    return model.learn(steps) if steps else model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "plain.zip"
    trained(exploration_fraction=0.5, policy_kwargs={"net_arch": [8]}).save(path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> io.BytesIO:
    """The same archive with other members; those of which None is made are left out."""
    file = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            member = change(info.filename, old.read(info))
            if member is not None:
                new.writestr(info.filename, member)
    file.seek(0)
    return file


def with_data(path: Path, **changes: Any) -> io.BytesIO:
    """The same archive with other JSON; a function is applied to what is there."""

    def change(name: str, content: bytes) -> bytes:
        if name != "data":
            return content
        data = json.loads(content)
        for key, value in changes.items():
            data[key] = value(data[key]) if callable(value) else value
        return json.dumps(data).encode()

    return rewritten(path, change)


def read(source: Any, space: gym.Space[Any] = VECTOR, **parameters: Any) -> DQN:
    return DQN.from_sb3(source, RandomEnv(space), device="cpu", **parameters)


# -- what the networks say --------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_values_and_actions_are_those_of_sb3(case: str, tmp_path: Path) -> None:
    policy, space, policy_kwargs = CASES[case]
    theirs = trained(policy, space, policy_kwargs)
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model", space)

    rows = [space.sample() for _ in range(16)]
    single = isinstance(space, spaces.Dict)
    batch: Any = (
        {key: np.stack([row[key] for row in rows]) for key in space.spaces}
        if isinstance(space, spaces.Dict)
        else np.stack(rows)
    )
    tensors, _ = theirs.policy.obs_to_tensor(batch)
    stored = ours.policy.adapter.batch(batch)[0]
    given = (
        {key: torch.as_tensor(value) for key, value in stored.items()}
        if isinstance(stored, dict)
        else torch.as_tensor(stored)
    )
    with torch.no_grad():
        expected = theirs.q_net(tensors), theirs.q_net_target(tensors)
        found = ours.q_net(given), ours.q_net_target(given)
    assert not torch.allclose(*expected, atol=1e-4)
    for mine, their in zip(found, expected, strict=True):
        # Absolute for values of order 1; of raw pixels they are larger.
        scale = max(1.0, float(their.abs().max()))
        assert float((mine - their).abs().max()) / scale < 1e-6
    assert ours.predict(batch)[0].tolist() == theirs.predict(batch, deterministic=True)[0].tolist()
    assert ours.predict(rows[0])[0] == theirs.predict(rows[0], deterministic=True)[0]
    assert single == isinstance(ours.observation_space, spaces.Dict)


def test_a_stack_of_frames_may_have_an_axis_of_its_own(tmp_path: Path) -> None:
    theirs = trained("CnnPolicy", image(4, 36, 40), SMALL)
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model", image(4, 36, 40, 1))
    frames = image(4, 36, 40).sample()
    with torch.no_grad():
        expected = theirs.q_net(torch.as_tensor(frames[None]))
    np.testing.assert_allclose(ours.q_values(frames[..., None]), expected[0], atol=1e-6)


def test_what_was_read_can_be_saved_and_loaded_without_trust(tmp_path: Path) -> None:
    trained("MultiInputPolicy", spaces.Dict(MIXED), COMBINED).save(tmp_path / "theirs")
    ours = read(tmp_path / "theirs", spaces.Dict(MIXED))
    ours.save(tmp_path / "ours")
    again = DQN.load(tmp_path / "ours")
    row = spaces.Dict(MIXED).sample()
    assert again.q_values(row).tolist() == ours.q_values(row).tolist()
    assert again.get_params()["policy_kwargs"] == ours.get_params()["policy_kwargs"]


# -- how it learns on -------------------------------------------------------------------


def test_settings_are_those_of_sb3(tmp_path: Path) -> None:
    theirs = trained(
        gamma=0.9, tau=0.5, gradient_steps=2, max_grad_norm=3.0, n_steps=2, verbose=0,
        exploration_fraction=0.7, exploration_initial_eps=0.9, exploration_final_eps=0.2,
        stats_window_size=7, policy_kwargs={"net_arch": [8]},
    )  # fmt: skip
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model")
    expected = DQN(
        "MlpPolicy", ours.get_params()["env"], backup="greedy", n_steps=2,
        policy_kwargs={"net_arch": (8,), "layer_norm": False, "normalize_images": False},
        buffer_size=50, learning_starts=4, batch_size=8, gamma=0.9, tau=0.5, train_freq=4,
        gradient_steps=2, target_update_interval=10, exploration_fraction=0.7,
        exploration_initial_eps=0.9, exploration_final_eps=0.2, max_grad_norm=3.0,
        learning_rate=3e-3, stats_window_size=7, seed=0, device="cpu",
    )  # fmt: skip
    assert ours.get_params() == expected.get_params()
    assert (ours.num_timesteps, ours._n_updates) == (theirs.num_timesteps, theirs._n_updates)
    assert ours.trainer.episodes == theirs._episode_num
    assert ours.exploration_rate == pytest.approx(theirs.exploration_rate)


def test_epsilon_stands_where_it_stood_in_the_middle_of_a_run(tmp_path: Path) -> None:
    theirs = trained(steps=0, exploration_fraction=0.8)
    theirs.learn(40, callback=lambda run, _: run["self"].num_timesteps < 20)
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model")
    assert ours.num_timesteps == theirs.num_timesteps == 20
    # SB3 stops before it brings its own up to date.
    assert ours.exploration_rate == pytest.approx(1 - 0.95 * 20 / 32)
    assert theirs.exploration_rate == pytest.approx(1 - 0.95 * 19 / 32)


@pytest.mark.parametrize(
    ("optimizer", "keywords"),
    [
        (optim.Adam, {"eps": 1e-5, "betas": (0.8, 0.99)}),
        (optim.AdamW, {"weight_decay": 0.1}),
        (optim.RMSprop, {"momentum": 0.5}),
        (optim.SGD, {}),
        (optim.SGD, {"momentum": 0.9}),
        (optim.RAdam, {}),
    ],
)
def test_the_next_updates_are_those_of_sb3(
    optimizer: Any, keywords: dict[str, Any], tmp_path: Path
) -> None:
    chosen = {"optimizer_class": optimizer, "optimizer_kwargs": keywords, "net_arch": [8]}
    theirs = trained(policy_kwargs=chosen, max_grad_norm=0.1)
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model")
    for seed in range(3):
        sample = drawn(seed)
        theirs.replay_buffer = SimpleNamespace(sample=lambda *_, sample=sample, **__: sample)
        theirs.train(1, batch_size=16)
        loss = ours.learner.update(batch_of(sample, theirs.gamma))
        assert float(loss.value.mean()) == pytest.approx(
            theirs.logger.name_to_value["train/loss"], rel=1e-5
        )
    weights = list(theirs.q_net.parameters())
    for mine, their in zip(ours.learner.flat.trainable, weights, strict=True):
        np.testing.assert_allclose(mine.detach(), their.detach(), atol=2e-6)


def drawn(seed: int, rows: int = 16) -> Any:
    """A batch as SB3's replay gives it."""
    generator = torch.Generator().manual_seed(seed)

    def normal(width: int) -> torch.Tensor:
        return torch.randn(rows, width, generator=generator)

    return SimpleNamespace(
        observations=normal(4), next_observations=normal(4), rewards=normal(1), discounts=None,
        actions=torch.randint(0, 3, (rows, 1), generator=generator), dones=(normal(1) > 1).float(),
    )  # fmt: skip


def batch_of(sample: Any, gamma: float) -> Batch:
    rows = len(sample.rewards)
    discount = gamma * (1 - sample.dones.flatten())
    return Batch(
        sample.observations, sample.actions.flatten(), sample.rewards.flatten(),
        sample.next_observations, discount, torch.ones(rows), torch.arange(rows),
    )  # fmt: skip


def test_it_learns_on_in_a_like_environment(plain: Path) -> None:
    model = read(plain)
    before = model.q_values(np.ones(4, np.float32))
    model.learn(40)
    assert model.num_timesteps == 24 + 40
    assert model._n_updates > trained_updates(plain)
    assert not np.array_equal(before, model.q_values(np.ones(4, np.float32)))


def trained_updates(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return int(json.loads(archive.read("data"))["_n_updates"])


def test_steps_of_several_environments_become_transitions(tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: RandomEnv(VECTOR)] * 3)
    trained(env=env, gradient_steps=-1).save(tmp_path / "model")
    ours = read(tmp_path / "model")
    assert (ours.train_freq, ours.gradient_steps, ours.n_envs) == (12, -1, 1)


def test_episodes_between_updates_stay_episodes(tmp_path: Path) -> None:
    trained(train_freq=(2, "episode")).save(tmp_path / "model")
    assert read(tmp_path / "model").train_freq == (2, "episode")


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.5, 0.5), ("ConstantSchedule", 0.01), ("LinearSchedule", Linear(0.1, 0.01, 12))],
)
def test_learning_rates_that_are_described_are_read(
    rate: Any, expected: Any, tmp_path: Path
) -> None:
    chosen = {
        "ConstantSchedule": lambda: sb3_utils.ConstantSchedule(0.01),
        "LinearSchedule": lambda: sb3_utils.LinearSchedule(0.1, 0.01, 0.5),
    }
    theirs = trained(learning_rate=chosen[rate]() if isinstance(rate, str) else rate)
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model")
    assert ours.learning_rate == expected
    now = theirs.lr_schedule(theirs._current_progress_remaining)
    assert ours.learner.learning_rate == pytest.approx(now)


def test_a_learning_rate_that_only_a_pickle_holds_has_to_be_passed(tmp_path: Path) -> None:
    for name, steps, rate in (
        ("function", 24, lambda progress: progress * 0.1),
        ("untrained", 0, sb3_utils.LinearSchedule(0.1, 0.01, 0.5)),
    ):
        trained(learning_rate=rate, steps=steps).save(tmp_path / name)
        with pytest.raises(CheckpointError, match=r"pass it, as in .*learning_rate=\.\.\."):
            read(tmp_path / name)
        assert read(tmp_path / name, learning_rate=0.2).learner.learning_rate == 0.2


def test_an_untrained_model_begins_at_the_beginning(tmp_path: Path) -> None:
    theirs = trained(steps=0)
    theirs.save(tmp_path / "model")
    ours = read(tmp_path / "model").learn(20)
    assert ours.num_timesteps == 20
    assert ours.exploration_rate == 0.05


# -- what the caller says ---------------------------------------------------------------


def test_parameters_that_are_passed_take_the_place_of_the_saved_ones(plain: Path) -> None:
    model = read(
        plain, gamma=0.5, backup="double", train_freq=7, policy_kwargs={"optimizer_class": "SGD"}
    )
    assert (model.gamma, model.backup, model.train_freq) == (0.5, "double", 7)
    assert isinstance(model.learner.optimizer, optim.SGD)
    assert not model.learner.optimizer.state
    assert read(plain, exploration="greedy").exploration == "greedy"
    assert read(plain, exploration=Greedy()).learn(8).num_timesteps == 32


def test_without_a_target_network_the_online_weights_stay(plain: Path) -> None:
    row = np.ones(4, np.float32)
    model = read(plain, target_update_interval=None)
    assert model.q_values(row).tolist() == read(plain).q_values(row).tolist()


@pytest.mark.parametrize(
    "parameters",
    [{"gama": 0.5}, {"policy": "CnnPolicy"}, {"gamma": 2}, {"policy_kwargs": {"net": 3}}],
)
def test_what_the_caller_does_wrong_is_no_fault_of_the_archive(
    plain: Path, parameters: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(parameters))):
        read(plain, **parameters)


def test_a_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (VECTOR, spaces.Box(-1, 1, (5,))),
        (VECTOR, spaces.Dict({"a": VECTOR})),
        (spaces.Dict({"a": VECTOR}), VECTOR),
        (spaces.Dict({"a": VECTOR}), spaces.Dict({"b": VECTOR})),
        (image(5, 6, 3), VECTOR),
        (image(36, 36, 3), VECTOR),
    ],
)
def test_an_environment_of_other_observations_is_refused(
    made: Any, asked: Any, tmp_path: Path
) -> None:
    policy = "MultiInputPolicy" if isinstance(made, spaces.Dict) else "MlpPolicy"
    policy = "CnnPolicy" if made.shape == (36, 36, 3) else policy
    trained(policy, made, steps=0).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"not fit an env.*; pass the environment that the"):
        read(tmp_path / "model", asked)


def test_networks_that_are_not_those_of_the_weights_are_never_made(plain: Path) -> None:
    def claiming(name: str, content: bytes) -> bytes:
        if name != "policy.pth":
            return content
        state = torch.load(io.BytesIO(content))
        for layer, width in enumerate((10**7, 10**7, 3)):  # 400 TB
            state[f"q_net.q_net.{2 * layer}.weight"] = torch.empty(width, 0)
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    with pytest.raises(CheckpointError, match="do not fit an environment"):
        read(rewritten(plain, claiming))


def test_an_environment_of_other_actions_is_refused(plain: Path) -> None:
    with pytest.raises(CheckpointError, match=r"output.linear.weight \(3, 8\) instead of \(4, 8\)"):
        DQN.from_sb3(plain, RandomEnv(VECTOR, n=4))


def test_actions_from_another_number_than_0_are_refused_for_sb3_cannot_learn_them(
    plain: Path,
) -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        trained(env=RandomEnv(VECTOR, start=1), steps=40)
    with pytest.raises(SpaceError, match="counts actions from 0"):
        DQN.from_sb3(plain, RandomEnv(VECTOR, start=1))


# What the networks of these archives say of {"place": (0.25, -0.5), "gear": 0, 1, 2}. They are as
# SB3 wrote them, but for what tells of a machine: system_info.txt, and the schedules in the JSON.
KEPT_VALUES = [
    [-0.45666295289993286, 0.5866831541061401, -0.1692878156900406],
    [-0.2564098834991455, 0.40739905834198, 0.16068634390830994],
    [-0.2783122658729553, 0.4219230115413666, 0.09269383549690247],
]


@pytest.mark.parametrize("version", ["2.0.0", "2.3.2", "2.7.0"])
def test_archives_of_older_versions_are_read(version: str) -> None:
    parts = OrderedDict(place=spaces.Box(-1, 1, (2,)), gear=spaces.Discrete(3))
    model = read(Path(__file__).parent / "data" / "sb3" / f"{version}.zip", spaces.Dict(parts))
    obs = {"place": np.tile(np.float32([0.25, -0.5]), (3, 1)), "gear": np.arange(3)}
    np.testing.assert_allclose(model.q_values(obs), KEPT_VALUES, atol=1e-6)
    assert (model.num_timesteps, model._n_updates, model.train_freq) == (24, 5, 4)


# -- what has no counterpart ------------------------------------------------------------


LINEAR = "<class 'stable_baselines3.common.utils.LinearSchedule'>"
EXTRACTOR = "q_net.features_extractor"
MATRIX = torch.ones(2, 2)


class OwnExtractor(sb3_layers.BaseFeaturesExtractor):  # type: ignore[misc]
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 5)
        self.layer = nn.Linear(4, 5)

    def forward(self, obs: Any) -> Any:
        return self.layer(obs)


class OwnPolicy(sb3.dqn.MlpPolicy):  # type: ignore[misc]
    pass


class OwnActivation(nn.ReLU):
    pass


class OwnAdam(optim.Adam):
    pass


@pytest.mark.parametrize(
    ("policy", "policy_kwargs", "message"),
    [
        ("MlpPolicy", {"features_extractor_class": OwnExtractor}, "of its own.*OwnExtractor"),
        (OwnPolicy, {}, "policy is a class of the module .*test_from_sb3"),
        ("MlpPolicy", {"activation_fn": OwnActivation}, "activation_fn is .*OwnActivation"),
        ("MlpPolicy", {"optimizer_class": OwnAdam}, "optimizer_class is .*OwnAdam"),
    ],
)  # fmt: skip
def test_classes_of_ones_own_are_refused_by_name(
    policy: Any, policy_kwargs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    trained(policy, policy_kwargs=policy_kwargs, steps=0).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "model")


def test_an_unknown_optimiser_can_be_replaced(tmp_path: Path) -> None:
    trained(policy_kwargs={"optimizer_class": OwnAdam}).save(tmp_path / "model")
    model = read(tmp_path / "model", policy_kwargs={"optimizer_class": "Adam"})
    assert not model.learner.optimizer.state_dict()["state"]


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_models_of_other_algorithms_are_refused_by_name(algorithm: str, tmp_path: Path) -> None:
    getattr(sb3, algorithm)("MlpPolicy", RandomEnv(VECTOR), device="cpu").save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=f"holds a {algorithm} model"):
        read(tmp_path / "model")


@pytest.mark.parametrize("module", ["stable_baselines3.sac.policies", "sb3_contrib.qrdqn.policies"])
def test_the_algorithm_is_told_by_the_module_of_its_policy(plain: Path, module: str) -> None:
    other = with_data(plain, policy_class={"__module__": module})
    with pytest.raises(CheckpointError, match=f"holds a {module.split('.')[1].upper()} model"):
        read(other)


@pytest.mark.parametrize("version", ["1.8.0", "0.10.0", "3.0.0", "", "\xff"])
def test_other_versions_are_refused(plain: Path, version: str) -> None:
    edited = rewritten(
        plain, lambda name, raw: version.encode() if name.endswith("_version") else raw
    )
    with pytest.raises(CheckpointError, match=r"those of 2\.x can be read"):
        read(edited)


def test_a_replay_of_its_own_is_told_of(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(plain).replay == "uniform"
    assert not caplog.records
    her = {"__module__": "stable_baselines3.her.her_replay_buffer"}
    assert read(with_data(plain, replay_buffer_class=her)).replay == "uniform"
    assert [record.message for record in caplog.records] == [
        "the model's replay_buffer_class is not taken over; the replay is uniform"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 7}, "gamma"),
        ({"gamma": {":type:": "numpy.float32"}}, r"gamma=\.\.\."),
        ({"gamma": None}, r"gamma=\.\.\."),
        ({"_stats_window_size": None}, r"stats_window_size=\.\.\."),
        ({"num_timesteps": -1}, "num_timesteps"),
        ({"num_timesteps": 2**70}, "num_timesteps"),
        ({"train_freq": 4}, "train_freq"),
        ({"train_freq": {":serialized:": "?"}}, "damaged"),
        ({"train_freq": {":serialized:": "SwQu"}}, "train_freq"),  # the pickle of 4
        ({"policy_kwargs": 3}, "policy_kwargs"),
        ({"policy_kwargs": {"squash": 3}}, "squash"),
        ({"policy_kwargs": {"normalize_images": 3}}, "normalize_images"),
        ({"policy_kwargs": {"optimizer_kwargs": "object"}}, "optimizer_kwargs"),
        ({"policy_kwargs": {"optimizer_kwargs": {"lr": 1}}}, "lr"),
        ({"observation_space": {":type:": "<class 'x.Dict'>"}}, "damaged"),
        ({"learning_rate": {":type:": LINEAR}}, "learning_rate"),
        ({"policy_class": None}, "policy is a class"),
        ({"observation_space": {":type:": "<class 'x.Dict'>", ":serialized:": "SwQu"}}, "space"),
    ],
)  # fmt: skip
def test_damaged_settings_are_named(plain: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(with_data(plain, **changes))


def test_settings_with_another_meaning_here_are_translated(plain: Path) -> None:
    kwargs = {"optimizer_kwargs": None}
    model = read(with_data(plain, max_grad_norm=float("inf"), policy_kwargs=kwargs))
    assert model.max_grad_norm is None


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_data_that_are_no_json_are_refused(plain: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read(rewritten(plain, lambda name, raw: content if name == "data" else raw))


def with_state(path: Path, member: str, change: Callable[[Any], Any]) -> io.BytesIO:
    """The same archive with another file of torch in it."""

    def changed(name: str, content: bytes) -> bytes:
        if name != member:
            return content
        file = io.BytesIO()
        torch.save(change(torch.load(io.BytesIO(content), weights_only=True)), file)
        return file.getvalue()

    return rewritten(path, changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [], "no weights of a Q-network"),
        (lambda state: {**state, "q_net.q_net.9.weight": torch.ones(2, 2)}, "fit"),
        (lambda state: {**state, "q_net.norm.0.weight": torch.ones(2)}, "a layer of its own, norm"),
        (lambda state: {**state, "q_net.q_net.0.bias": torch.ones(8).long()}, "is no weight"),
        (lambda state: {**state, "q_net.q_net.0.bias": 3}, "is no weight"),
        (lambda state: {**state, f"{EXTRACTOR}.linear.0.weight": torch.tensor(1.0)}, "fit"),
        (lambda state: {**state, f"{EXTRACTOR}.extractors.a.linear.0.weight": MATRIX}, "of other"),
    ],
)  # fmt: skip
def test_damaged_weights_are_refused(plain: Path, change: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(with_state(plain, "policy.pth", change))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: [],
        lambda state: {"state": [1]},
        lambda state: {"state": {1: {}}},
        lambda state: {"state": {0: state["state"][0]}},
        lambda state: {"state": {n: {"step": torch.tensor(float(n))} for n in range(4)}},
        lambda state: {"state": {n: {"exp_avg": torch.ones(2)} for n in range(4)}},
        lambda state: {"state": {n: {"exp_avg": "x"} for n in range(4)}},
    ],
)
def test_a_damaged_state_of_the_optimiser_is_refused(plain: Path, change: Any) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read(with_state(plain, "policy.optimizer.pth", change))


def test_an_optimiser_that_keeps_nothing_yet_keeps_nothing_here(tmp_path: Path) -> None:
    # As torch wrote it for SGD before it left this out.
    trained(policy_kwargs={"optimizer_class": optim.SGD, "net_arch": []}).save(tmp_path / "model")
    nothing = {"state": {n: {"momentum_buffer": None} for n in range(2)}}
    model = read(with_state(tmp_path / "model.zip", "policy.optimizer.pth", lambda state: nothing))
    assert model.learner.optimizer.state_dict()["state"] == {0: {"momentum_buffer": None}}


@pytest.mark.parametrize(
    "name", ["data", "policy.pth", "policy.optimizer.pth", "_stable_baselines3_version"]
)
def test_an_archive_that_lacks_a_member_is_refused(plain: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"it has no {name}"):
        read(rewritten(plain, lambda found, raw: None if found == name else raw))


def test_it_is_named_where_an_archive_of_this_library_is_expected(plain: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Stable-Baselines3 wrote it; DQN\.from_sb3 reads"):
        DQN.load(plain)


def test_an_archive_of_this_library_is_refused(tmp_path: Path) -> None:
    DQN("MlpPolicy", RandomEnv(VECTOR)).save(tmp_path / "ours")
    with pytest.raises(CheckpointError, match="not written by Stable-Baselines3"):
        read(tmp_path / "ours")


# -- safety -----------------------------------------------------------------------------


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_no_pickle_in_an_archive_is_ever_executed(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "canary"
    canary = Canary(path)
    poisoned = base64.b64encode(pickle.dumps(canary)).decode()
    with zipfile.ZipFile(plain) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        keys = list(json.loads(archive.read("data")))
    for name in names:
        for content in (pickle.dumps(canary), saved_by_torch(canary)):
            file = rewritten(plain, lambda n, raw, name=name, c=content: c if n == name else raw)
            attempt(file)
    for key in keys:
        for value in ({":type:": "x", ":serialized:": poisoned}, poisoned):
            attempt(with_data(plain, **{key: value}))
    everywhere = {
        key: lambda old: {**(old if isinstance(old, dict) else {}), ":serialized:": poisoned}
        for key in keys
    }
    attempt(with_data(plain, **everywhere))
    assert not path.exists()
    pickle.loads(base64.b64decode(poisoned))  # the canary does sing
    assert path.exists()


def saved_by_torch(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"q_net.q_net.0.weight": value}, file)
    return file.getvalue()


def attempt(file: io.BytesIO) -> bool:
    """Whether it can be read; the model must then work."""
    try:
        model = read(file)
    except CheckpointError:
        return False
    assert model.predict(np.zeros(4, np.float32))[0] in (0, 1, 2)
    return True


def mutation(path: Path, draw: random.Random) -> io.BytesIO:
    """An archive with something wrong: in its bytes, in a member, or in its JSON."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        chosen = draw.choice(archive.namelist())
        data = json.loads(archive.read("data"))
    match draw.randrange(5):
        case 0:
            return io.BytesIO(damaged(content, draw))
        case 1:
            return io.BytesIO(content[: draw.randrange(len(content))])
        case 2:  # with a checksum that is right
            return rewritten(path, lambda n, raw: damaged(raw, draw) if n == chosen else raw)
        case 3:

            def inner(name: str, raw: bytes) -> bytes:
                if name != chosen or not name.endswith(".pth"):
                    return raw
                return changed_pickle(raw, draw)

            return rewritten(path, inner)
        case _:
            odd = [None, -1, 0, 10**30, 1e308, float("nan"), "x", [], {}, [[]], True, {"a": 1}]
            key = draw.choice(list(data))
            if isinstance(data[key], dict) and draw.random() < 0.5:
                inside = draw.choice([*data[key], "net_arch"])
                return with_data(path, **{key: {**data[key], inside: draw.choice(odd)}})
            return with_data(path, **{key: draw.choice(odd)})


def damaged(content: bytes, draw: random.Random) -> bytes:
    mutable = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if mutable:
            mutable[draw.randrange(len(mutable))] = draw.randrange(256)
    return bytes(mutable)


def changed_pickle(content: bytes, draw: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            raw = old.read(info)
            wrong = info.filename.endswith("data.pkl")
            new.writestr(info.filename, damaged(raw, draw) if wrong else raw)
    return file.getvalue()


@pytest.mark.parametrize("n", [400, pytest.param(5_000, marks=pytest.mark.slow)])
def test_mutated_archives_are_refused_or_work(plain: Path, n: int) -> None:
    draw = random.Random(n)
    outcomes = [attempt(mutation(plain, draw)) for _ in range(n)]
    assert n // 4 < outcomes.count(False) < n
