"""The archive: what is saved comes back bit for bit, and reading it executes nothing."""

from __future__ import annotations

import errno
import inspect
import io
import json
import os
import struct
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn, optim

from sbdqn import (
    DQN,
    Memory,
    MlpPolicy,
    backups,
    exploration,
    heads,
    persistence,
    replacement,
    replay,
    schedules,
)
from sbdqn.encoding import SPECS
from sbdqn.errors import (
    CheckpointError,
    ConfigurationError,
    FileAccessError,
    MismatchError,
    MissingFileError,
    NotReadyError,
    ReplayMemoryError,
    SpaceError,
)
from sbdqn.specs import HEADS
from sbdqn.types import Row
from tests.environments import AnyObsEnv, ChainEnv, CountingEnv

OBSERVATIONS = [[0.0, 1.0, 2.0], [0.0, 5.0, 1.0], [3.0, 0.0, 7.0]]


def small(**parameters: Any) -> DQN:
    """A small model that learns from every step, whatever the defaults are."""
    given: dict[str, Any] = {
        "policy": MlpPolicy(net_arch=(8,), layer_norm=False),
        "env": CountingEnv,
        "buffer_size": 200,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": 1,
        "gradient_steps": 1,
        "target_update_interval": 4,
        "seed": 0,
    }
    if "policy_kwargs" in parameters:
        given["policy"] = "MlpPolicy"
    return DQN(**{**given, **parameters})


@pytest.fixture(scope="module")
def trained() -> DQN:
    """A model in the middle of an episode and of everything else; not to be changed."""
    return small(n_envs=2, train_freq=3, tau=0.25, exploration_fraction=0.8).learn(95)


@pytest.fixture(scope="module")
def saved(trained: DQN) -> bytes:
    file = io.BytesIO()
    trained.save(file)
    return file.getvalue()


def changed(archive: bytes, **members: bytes | None) -> io.BytesIO:
    """The archive with other members (`_` for `.`); None leaves one out."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            content = members.get(name.replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return result


def member(archive: bytes, name: str) -> Any:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return json.loads(file.read(name))


def with_state(archive: bytes, change: Callable[[dict[str, Any]], None]) -> io.BytesIO:
    """The archive after a change of its state, whose top level is given as a dict."""
    state = member(archive, "state.json")
    top = dict(state["$dict"])
    change(top)
    state["$dict"] = [[key, value] for key, value in top.items()]
    return changed(archive, state_json=json.dumps(state).encode())


def assert_equal(one: Any, other: Any) -> None:
    """Nested dicts, lists and tensors are the same to the bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other


# What comes back ------------------------------------------------------------------


def test_a_loaded_model_gives_the_same_values_to_the_bit(trained: DQN, saved: bytes) -> None:
    loaded = DQN.load(io.BytesIO(saved))
    np.testing.assert_array_equal(loaded.q_values(OBSERVATIONS), trained.q_values(OBSERVATIONS))
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS)[0], trained.predict(OBSERVATIONS)[0])


def test_a_loaded_model_has_the_same_networks_and_optimiser(trained: DQN, saved: bytes) -> None:
    loaded = DQN.load(io.BytesIO(saved))
    assert not torch.equal(
        trained.q_net.output.linear.bias, trained.q_net_target.output.linear.bias
    )
    assert_equal(loaded.get_parameters(), trained.get_parameters())


def test_a_loaded_model_has_the_same_clocks_and_generators(trained: DQN, saved: bytes) -> None:
    loaded = DQN.load(io.BytesIO(saved))
    assert loaded.num_timesteps == trained.num_timesteps >= 95
    assert loaded._n_updates == trained._n_updates > 10
    assert loaded.exploration_rate == trained.exploration_rate < 1.0
    assert_equal(loaded.trainer.state_dict(), trained.trainer.state_dict())
    assert loaded.trainer.exploration == trained.trainer.exploration
    assert loaded.trainer.rng.random() == _copied_rng(trained).random()


def _copied_rng(model: DQN) -> np.random.Generator:
    generator = np.random.default_rng()
    generator.bit_generator.state = model.trainer.rng.bit_generator.state
    return generator


def test_a_loaded_model_is_saved_as_the_same_archive(saved: bytes) -> None:
    again = io.BytesIO()
    DQN.load(io.BytesIO(saved), device="cpu").save(again)
    for name in ("state.json", "metadata.json"):
        assert member(again.getvalue(), name) == member(saved, name)


def test_a_loaded_model_continues_its_epsilon_slope() -> None:
    file = io.BytesIO()
    model = small(exploration_fraction=1.0, exploration_final_eps=0.0).learn(40)
    model.save(file)
    loaded = DQN.load(file, env=CountingEnv)
    assert loaded.exploration_rate == 0.0
    loaded.learn(40)
    assert loaded.num_timesteps == 80
    assert loaded.trainer.exploration == exploration.EpsilonGreedy(schedules.Linear(1.0, 0.0, 40))


def test_a_loaded_model_does_not_act_at_random_while_its_replay_fills() -> None:
    file = io.BytesIO()
    small(exploration="greedy").learn(40).save(file)
    env = CountingEnv()
    loaded = DQN.load(file, env=env)
    n_updates = loaded._n_updates
    loaded.learn(9)  # all of them before learning starts again
    assert loaded._n_updates == n_updates > 0
    other = CountingEnv()
    obs, _ = other.reset()
    for _ in range(9):
        obs, _, terminated, truncated, _ = other.step(loaded.predict(obs)[0])
        if terminated or truncated:
            obs, _ = other.reset()
    assert env.actions == other.actions


VALUES: dict[str, list[Any]] = {
    "policy": [
        MlpPolicy(
            net_arch=(8, 4),
            activation_fn=nn.Tanh,
            layer_norm=True,
            optimizer_class=optim.RMSprop,
            optimizer_kwargs={"alpha": 0.9, "centered": True},
        ),
        MlpPolicy(activation_fn="ELU", optimizer_class="SGD"),
    ],
    "env": ["Acrobot-v1"],
    "n_envs": [2, np.int64(2)],
    "vectorization": ["sync"],
    "env_kwargs": [{"render_mode": None}],
    "policy_kwargs": [{"net_arch": [8], "activation_fn": nn.ELU}, {"net_arch": (8,)}, None],
    "head": [heads.Scalar("mse")],
    "backup": ["greedy", backups.Greedy()],
    "replay": [replay.Uniform()],
    "replay_memory": [Memory("cpu", folder="there", frame_stack=4)],
    "exploration": [
        "greedy",
        exploration.Boltzmann(0.5),
        exploration.EpsilonGreedy(schedules.Linear(1.0, 0.1, 100, per="episode")),
    ],
    "learning_rate": [
        np.float32(0.25),
        schedules.Constant(1e-4),
        schedules.Exponential(1e-3, 1e-5, rate=0.1),
        schedules.Multiplicative(1e-3, 1e-5, 0.5),
    ],
    "buffer_size": [150],
    "learning_starts": [0],
    "batch_size": [7],
    "gamma": [0.1 + 0.2],
    "n_steps": [1],
    "max_grad_norm": [None, 0.5],
    "loss": ["mse"],
    "train_freq": [(2, "episode"), [8, "step"]],
    "gradient_steps": [-1],
    "target_update_interval": [None, 500],
    "tau": [1.0],
    "exploration_fraction": [0.3],
    "exploration_initial_eps": [0.7],
    "exploration_final_eps": [0.0],
    "stats_window_size": [10],
    "tensorboard_log": ["logs", Path("some/logs")],
    "verbose": [1],
    "seed": [7, 2**70, None],
    "device": ["cpu", torch.device("cpu")],
    "compile": [True],
    "overlap": [False],
    "threads": [2, None],
    "on_nonfinite": ["ignore"],
}


def test_the_table_of_this_file_names_every_parameter() -> None:
    assert list(VALUES) == list(inspect.signature(DQN).parameters)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VALUES.items() for value in values]
)
def test_every_parameter_survives(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)  # importing it takes seconds
    file = io.BytesIO()
    model = small(**{"env": "CartPole-v1", name: value})
    model.save(file)
    # `device` says where to load to; the machine may be another one.
    loaded = DQN.load(file, device=value if name == "device" else "auto")
    assert loaded.get_params() == model.get_params()
    kept = loaded.get_params()[name]
    assert type(kept) in (type(value), int, float)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_may_be_named(head: str) -> None:
    model, file = small(head=head), io.BytesIO()
    model.save(file)
    loaded = DQN.load(io.BytesIO(file.getvalue()), device="cpu")
    assert loaded.get_params()["head"] == head
    assert np.array_equal(loaded.q_values(OBSERVATIONS), model.q_values(OBSERVATIONS))


def test_every_spec_of_the_library_has_a_description() -> None:
    described = set(SPECS.values())
    for module in (backups, exploration, heads, replay, schedules):
        for thing in vars(module).values():
            is_spec = inspect.isclass(thing) and hasattr(thing, "__dataclass_fields__")
            if is_spec and not inspect.isabstract(thing):
                assert thing in described, thing


def test_an_id_is_kept_and_an_environment_is_not() -> None:
    for env, kept in (("Acrobot-v1", "Acrobot-v1"), (ChainEnv, None), (ChainEnv(), None)):
        file = io.BytesIO()
        small(env=env).save(file)
        assert DQN.load(file).get_params()["env"] == kept


def test_a_model_without_environment_predicts_and_says_what_it_lacks_to_learn(
    trained: DQN, saved: bytes
) -> None:
    loaded = DQN.load(io.BytesIO(saved))
    assert (loaded.env, loaded.get_env(), loaded.n_envs) == (None, None, 2)
    assert loaded.observation_space == CountingEnv().observation_space
    with pytest.raises(NotReadyError, match="set_env"):
        loaded.learn(1)
    loaded.set_params(n_envs=1).set_env(CountingEnv)
    assert loaded.learn(10).num_timesteps == trained.num_timesteps + 10


SPACES = [
    spaces.Box(-1.5, 2.5, (2,), np.float32),
    spaces.Box(np.array([0.1, -np.inf]), np.array([np.inf, 1 / 3]), dtype=np.float64),
    spaces.Box(0, 255, (3, 4, 5), np.uint8),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(-(2**62), 2**62, (2,), np.int64),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([2, 3], start=[1, -1]),
    spaces.MultiDiscrete([[2, 3], [1, 4]], dtype=np.int32),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 2]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_of_every_kind_survive(space: spaces.Space[Any]) -> None:
    space.seed(0)
    model = small(env=AnyObsEnv(space, spaces.Discrete(3, start=5))).learn(20)
    file = io.BytesIO()
    model.save(file)
    loaded = DQN.load(file)
    assert loaded.observation_space == space
    assert loaded.observation_space.dtype == space.dtype
    assert loaded.action_space == spaces.Discrete(3, start=5)
    sample = space.sample()
    np.testing.assert_array_equal(loaded.q_values(sample), model.q_values(sample))
    assert loaded.predict(sample)[0] in (5, 6, 7)


@pytest.mark.skipif(
    "dtype" not in inspect.signature(spaces.Discrete).parameters,
    reason="this gymnasium has no Discrete of another dtype",
)
def test_a_discrete_space_keeps_its_dtype() -> None:
    env = AnyObsEnv(spaces.Discrete(3, dtype=np.int32), spaces.Discrete(2, dtype=np.int8))
    file = io.BytesIO()
    small(env=env).save(file)
    loaded = DQN.load(file, env=env)
    assert loaded.observation_space == env.observation_space
    assert loaded.action_space == env.action_space


def test_a_subclass_of_a_space_comes_back_as_the_space() -> None:
    class Metres(spaces.Box):
        pass

    env = AnyObsEnv(Metres(0, 1, (2,)), spaces.Discrete(2))
    file = io.BytesIO()
    small(env=env).save(file)
    assert DQN.load(file, env=env).observation_space == spaces.Box(0, 1, (2,))


# Where to and from ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_a_name_without_suffix_gets_one_in_both_directions(
    trained: DQN, tmp_path: Path, kind: Callable[[Path], Any]
) -> None:
    path = kind(tmp_path / "deep" / "model")
    trained.save(path)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["model.zip"]
    assert DQN.load(path).num_timesteps == trained.num_timesteps
    assert DQN.load(f"{path}.zip").num_timesteps == trained.num_timesteps


def test_a_name_with_a_suffix_is_left_as_it_is(trained: DQN, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.sbdqn")
    assert [file.name for file in tmp_path.iterdir()] == ["model.sbdqn"]
    assert DQN.load(tmp_path / "model.sbdqn").num_timesteps == trained.num_timesteps


def test_a_folder_of_the_same_name_is_not_taken_for_the_file(trained: DQN, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    trained.save(tmp_path / "model")
    assert DQN.load(tmp_path / "model").num_timesteps == trained.num_timesteps


def test_an_open_file_is_written_to_and_stays_open(trained: DQN, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        trained.save(file)
        assert DQN.load(file).num_timesteps == trained.num_timesteps


WRITERS = ["save", "save_replay_buffer"]


def reader(model: DQN, name: str) -> Callable[[Any], Any]:
    """`load` of the class, or a method of the model."""
    return DQN.load if name == "load" else getattr(model, name)


@pytest.mark.parametrize("name", ["load", "load_replay_buffer", "set_parameters"])
def test_a_missing_file_is_missing(trained: DQN, tmp_path: Path, name: str) -> None:
    for missing in ("nothing", "no/thing", "nothing.zip"):
        with pytest.raises(MissingFileError, match=r"there is no file .*thing\.zip") as caught:
            reader(trained, name)(tmp_path / missing)
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize("name", ["load", "save"])
def test_a_name_that_the_system_refuses_is_reported_with_its_number(
    trained: DQN, tmp_path: Path, name: str
) -> None:
    with pytest.raises(FileAccessError, match=r"(?i)name too long") as caught:
        reader(trained, name)(tmp_path / ("x" * 300))
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("name", ["load", "load_replay_buffer", "set_parameters"])
def test_a_folder_is_no_file(trained: DQN, tmp_path: Path, name: str) -> None:
    (tmp_path / "models.v1").mkdir()
    (tmp_path / "models").mkdir()
    for folder in ("models", "models.v1"):
        with pytest.raises(FileAccessError, match=rf"{folder} is a folder; name the file in it"):
            reader(trained, name)(tmp_path / folder)


@pytest.mark.parametrize("name", [*WRITERS, "load", "load_replay_buffer", "set_parameters"])
def test_what_cannot_be_a_name_is_refused(
    trained: DQN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("", ".", "..", "/", "folder/..", "a\0b", Path()):
        with pytest.raises(FileAccessError, match="cannot be a file; name one, as in"):
            reader(trained, name)(place)
    for thing in (3, None, True, b"model.zip", ["model.zip"], io.StringIO()):
        with pytest.raises(ConfigurationError, match="path must be a path or a file that is open"):
            reader(trained, name)(thing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_where_no_file_can_be(trained: DQN, tmp_path: Path, name: str) -> None:
    (tmp_path / "models.v1").mkdir()
    (tmp_path / "file").write_text("old")
    for place, complaint in {
        "models.v1": r"models\.v1 is a folder; name a file in it",
        "file/model": "file is a file, not a folder",
        "file/deep/model": "file is a file, not a folder",
        "x" * 300: "cannot be written: File name too long",
    }.items():
        with pytest.raises(FileAccessError, match=complaint) as caught:
            getattr(trained, name)(tmp_path / place)
        assert isinstance(caught.value, OSError)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "models.v1"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_place_is_named(
    trained: DQN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(final: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", f"{final}.a1b2")

    monkeypatch.setattr(replacement, "_make_temporary", refuse)  # root may write anywhere
    with pytest.raises(FileAccessError, match=r"model\.zip cannot be written: Permission denied$"):
        getattr(trained, name)(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_be_read_is_named(
    trained: DQN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    trained.save(tmp_path / "model")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FileAccessError, match=r"model\.zip cannot be read: Permission denied$"):
        DQN.load(tmp_path / "model")


@pytest.mark.timeout(20)
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint_000009_1_steps.zip")
    with pytest.raises(FileAccessError, match=r"steps\.zip is a device or a pipe, not a file"):
        DQN.resume(tmp_path)


def test_others_may_read_the_file_as_the_umask_says(
    trained: DQN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    umask = os.umask(0o022)
    try:
        with monkeypatch.context() as patched:
            # Between two calls, what another thread makes could be written to by everybody.
            patched.setattr(os, "umask", None)
            trained.save(tmp_path / "model")
    finally:
        os.umask(umask)
    assert (tmp_path / "model.zip").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["writestr", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    trained: DQN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"the old one")
    calls = 0

    def fail(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if broken != "writestr" or calls == 3:
            raise OSError("no space left on device")
        return write(*args, **kwargs)

    write = zipfile.ZipFile.writestr
    monkeypatch.setattr(zipfile.ZipFile if broken == "writestr" else os, broken, fail)
    with pytest.raises(FileAccessError, match=r"model\.zip cannot be written: no space left"):
        trained.save(path)

    assert calls == (3 if broken == "writestr" else 1)
    assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]
    assert path.read_bytes() == b"the old one"


def test_a_write_that_is_interrupted_leaves_nothing(
    trained: DQN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# What load is asked for -----------------------------------------------------------


def test_unknown_keyword_arguments_of_load_are_refused(saved: bytes) -> None:
    with pytest.raises(ConfigurationError, match="unknown keyword arguments gama, trust"):
        DQN.load(io.BytesIO(saved), gama=0.9, trust=True)


def test_parameters_given_to_load_replace_the_saved_ones(saved: bytes) -> None:
    loaded = DQN.load(io.BytesIO(saved), gamma=0.5, learning_rate=0.125, exploration_final_eps=0.5)
    assert (loaded.gamma, loaded.batch_size) == (0.5, 8)
    assert loaded.exploration_rate == 0.5
    loaded.set_params(n_envs=1).set_env(CountingEnv)
    assert loaded.replay_buffer.gamma == 0.5
    loaded.learn(20)
    assert [group["lr"] for group in loaded.learner.optimizer.param_groups] == [0.125]


def test_parameters_given_to_load_are_checked(saved: bytes) -> None:
    with pytest.raises(ConfigurationError, match="gamma must be"):
        DQN.load(io.BytesIO(saved), gamma=1.5)


def test_weights_that_do_not_fit_the_parameters_given_to_load_are_refused(saved: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*size mismatch"):
        DQN.load(io.BytesIO(saved), policy=MlpPolicy(net_arch=(9,)))


def test_load_refuses_an_environment_of_other_spaces(saved: bytes) -> None:
    with pytest.raises(SpaceError, match=r"observation space must be Box.* has Discrete\(5\)"):
        DQN.load(io.BytesIO(saved), env=ChainEnv)
    other = AnyObsEnv(CountingEnv().observation_space, spaces.Discrete(4))
    with pytest.raises(SpaceError, match=r"action space must be Discrete\(3\).*Discrete\(4\)"):
        DQN.load(io.BytesIO(saved), env=other)


def test_a_learning_rate_given_to_load_is_in_effect_at_once(saved: bytes) -> None:
    loaded = DQN.load(io.BytesIO(saved), learning_rate=0.125)
    assert loaded.learner.learning_rate == 0.125


def test_a_seed_given_to_load_restarts_the_generators(saved: bytes) -> None:
    def draws(seed: int) -> list[float]:
        loaded = DQN.load(io.BytesIO(saved), seed=seed)
        assert loaded.seed == seed
        return loaded.trainer.rng.random(3).tolist()

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)


def test_another_optimiser_begins_afresh(saved: bytes) -> None:
    policy = MlpPolicy(net_arch=(8,), layer_norm=False, optimizer_class="SGD")
    loaded = DQN.load(io.BytesIO(saved), policy=policy)
    assert type(loaded.learner.optimizer) is optim.SGD
    assert loaded.learner.optimizer.state_dict()["state"] == {}
    np.testing.assert_array_equal(
        loaded.q_values(OBSERVATIONS), DQN.load(io.BytesIO(saved)).q_values(OBSERVATIONS)
    )


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "AdamW"])
def test_the_state_of_another_optimiser_is_not_set(name: str, trained: DQN, saved: bytes) -> None:
    policy = MlpPolicy(net_arch=(8,), layer_norm=False, optimizer_class=name)
    model = small(policy=policy).learn(30)
    before = model.get_parameters()
    with pytest.raises(MismatchError, match=f"the optimiser 'Adam', and this model has {name}"):
        model.set_parameters(io.BytesIO(saved))
    assert_equal(model.get_parameters(), before)
    model.set_parameters(io.BytesIO(saved), exact_match=False)
    assert_equal(model.get_parameters()["policy.optimizer"], before["policy.optimizer"])
    assert_equal(model.get_parameters()["policy"], trained.get_parameters()["policy"])
    model.learn(10)


def test_an_optimiser_keeps_the_settings_given_to_load(saved: bytes) -> None:
    policy = MlpPolicy(net_arch=(8,), layer_norm=False, optimizer_kwargs={"eps": 0.5})
    loaded = DQN.load(io.BytesIO(saved), policy=policy)
    (group,) = loaded.learner.optimizer.param_groups
    assert group["eps"] == 0.5
    mine, theirs = (
        model.learner.optimizer.state_dict()["state"][0]["exp_avg"]
        for model in (loaded, DQN.load(io.BytesIO(saved)))
    )
    assert torch.equal(mine, theirs)


def test_an_id_that_names_a_module_is_not_imported_without_trust(
    saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unpleasant.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    parameters = {**member(saved, "parameters.json"), "env": "unpleasant:CartPole-v1"}
    archive = changed(saved, parameters_json=json.dumps(parameters).encode())
    with pytest.raises(CheckpointError, match="'unpleasant:CartPole-v1', and making it imports"):
        DQN.load(archive)
    assert DQN.load(archive, env=CountingEnv).get_params()["env"] is CountingEnv
    loaded = DQN.load(archive, trusted=True)
    with pytest.raises(SystemExit, match="imported"):
        _ = loaded.env


def test_an_environment_of_the_file_is_made_when_it_is_needed() -> None:
    file = io.BytesIO()
    model = small(env="CartPole-v1")
    model.save(file)
    archive = changed(
        file.getvalue(),
        parameters_json=json.dumps(
            {**member(file.getvalue(), "parameters.json"), "env": "NotInstalled-v0"}
        ).encode(),
    )
    loaded = DQN.load(archive)
    np.testing.assert_array_equal(loaded.q_values([0.0] * 4), model.q_values([0.0] * 4))
    assert loaded.n_envs == 1
    with pytest.raises(ConfigurationError, match="NotInstalled"):
        loaded.learn(1)


def test_load_takes_any_number_of_environments(saved: bytes) -> None:
    assert DQN.load(io.BytesIO(saved), env=CountingEnv()).learn(5).n_envs == 1
    assert DQN.load(io.BytesIO(saved), env=CountingEnv, n_envs=3).learn(5).n_envs == 3


def test_load_on_an_instance_is_refused(saved: bytes) -> None:
    model = small()
    with pytest.raises(NotReadyError, match=r"model = DQN\.load\("):
        model.load(io.BytesIO(saved))


def test_load_on_a_subclass_makes_one(saved: bytes) -> None:
    class Mine(DQN):
        pass

    assert type(Mine.load(io.BytesIO(saved))) is Mine


# Python objects -------------------------------------------------------------------


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def with_lambda() -> bytes:
    file = io.BytesIO()
    slope = 1e-3
    small(learning_rate=lambda remaining: slope * remaining).learn(20).save(file)
    return file.getvalue()


def test_a_python_object_is_not_read_without_trust(with_lambda: bytes, tmp_path: Path) -> None:
    canary = changed(
        with_lambda, objects_pkl=cloudpickle.dumps({"learning_rate": Canary(tmp_path / "x")})
    )
    with pytest.raises(CheckpointError) as caught:
        DQN.load(canary)
    assert "the parameters learning_rate were saved as Python objects" in str(caught.value)
    assert "as in learning_rate=..." in str(caught.value)
    assert "trusted=True" in str(caught.value)

    loaded = DQN.load(canary, learning_rate=0.25)
    assert loaded.learning_rate == 0.25
    assert DQN.load(canary, learning_rate=0.25, trusted=True).learning_rate == 0.25
    assert not (tmp_path / "x").exists()

    with pytest.raises(CheckpointError):  # the canary is no learning rate
        DQN.load(canary, trusted=True)
    assert (tmp_path / "x").exists()


def test_a_python_object_comes_back_with_trust(with_lambda: bytes) -> None:
    loaded = DQN.load(io.BytesIO(with_lambda), trusted=True)
    assert loaded.learning_rate(0.5) == 5e-4  # type: ignore[operator]


def test_trust_is_not_asked_for_where_it_is_not_needed(saved: bytes) -> None:
    assert member(saved, "metadata.json")["objects"] == []
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        assert "objects.pkl" not in archive.namelist()


def test_only_the_parameter_that_needs_it_is_pickled() -> None:
    class Mine(nn.ReLU):
        pass

    file = io.BytesIO()
    small(
        policy_kwargs={"net_arch": [8], "activation_fn": Mine}, env_kwargs={"lengths": (2, 3)}
    ).save(file)
    assert member(file.getvalue(), "metadata.json")["objects"] == ["policy_kwargs"]
    loaded = DQN.load(file, policy_kwargs={"net_arch": [8]})
    assert loaded.get_params()["env_kwargs"] == {"lengths": (2, 3)}


def test_spaces_within_parameters_are_described_where_they_can_be() -> None:
    def told(**kwargs: spaces.Space[Any]) -> CountingEnv:
        return CountingEnv()

    kwargs = {"known": spaces.Box(0, 1, (2,)), "other": spaces.Sequence(spaces.Discrete(2))}
    for names, objects in ((["known"], []), (["known", "other"], ["env_kwargs"])):
        file = io.BytesIO()
        model = small(env=told, env_kwargs={name: kwargs[name] for name in names})
        model.save(file)
        assert member(file.getvalue(), "metadata.json")["objects"] == objects
        loaded = DQN.load(file, trusted=bool(objects))
        assert loaded.get_params()["env_kwargs"] == model.get_params()["env_kwargs"]


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.OfProgress(lambda remaining: 1e-3 * remaining),
        schedules.OfProgress(abs),
    ],
)
def test_a_function_within_a_spec_is_a_python_object(schedule: schedules.OfProgress) -> None:
    file = io.BytesIO()
    small(learning_rate=schedule).save(file)
    with pytest.raises(CheckpointError, match="learning_rate"):
        DQN.load(file)
    loaded = DQN.load(file, trusted=True).learning_rate
    assert loaded.function(0.5) == schedule.function(0.5)  # type: ignore[union-attr]


def test_what_even_cloudpickle_cannot_describe_is_named(tmp_path: Path) -> None:
    lock = threading.Lock()
    model = small(learning_rate=lambda remaining: 1e-3 if lock else 1.0)
    with pytest.raises(CheckpointError, match=r"learning_rate.*neither by JSON nor by cloudpickle"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "pickled",
    [None, b"", b"junk", cloudpickle.dumps({}), cloudpickle.dumps([1]), cloudpickle.dumps(None)],
)
def test_a_damaged_pickle_is_reported_and_never_replaced_by_a_default(
    with_lambda: bytes, pickled: bytes | None
) -> None:
    with pytest.raises(CheckpointError, match="pickled"):
        DQN.load(changed(with_lambda, objects_pkl=pickled), trusted=True)


# Damage ---------------------------------------------------------------------------


MEMBERS = ("metadata.json", "parameters.json", "state.json", "tensors.safetensors")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_missing_member_is_reported(saved: bytes, name: str) -> None:
    with pytest.raises(CheckpointError, match=name.partition(".")[0]):
        DQN.load(changed(saved, **{name.replace(".", "_"): None}))


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_member_of_rubbish_is_reported(saved: bytes, name: str, content: bytes) -> None:
    with pytest.raises(CheckpointError):
        DQN.load(changed(saved, **{name.replace(".", "_"): content}))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_reported(saved: bytes, tmp_path: Path, share: float) -> None:
    (tmp_path / "model.zip").write_bytes(saved[: int(share * len(saved))])
    with pytest.raises(CheckpointError, match=r"model\.zip is no readable zip archive"):
        DQN.load(tmp_path / "model.zip")


def test_what_is_no_zip_is_reported(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="no readable zip"):
        DQN.load(tmp_path / "weights.pt")


def test_a_zip_of_somebody_else_is_reported(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"no metadata\.json"):
        DQN.load(tmp_path / "weights.pt")


def test_a_flipped_bit_is_reported(saved: bytes) -> None:
    damaged = bytearray(saved)
    damaged[saved.index(b'"learner.online') + 3] ^= 1
    with pytest.raises(CheckpointError, match="CRC"):
        DQN.load(io.BytesIO(bytes(damaged)))


def test_whatever_bytes_are_flipped_only_a_checkpoint_error_comes_of_it(saved: bytes) -> None:
    rng = np.random.default_rng(0)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(60):
        damaged = np.frombuffer(saved, np.uint8).copy()
        # The directory at the end is where a zip can be damaged most.
        places = len(saved) - 1 - rng.integers(0, 800, 3)
        damaged[places] = rng.integers(0, 256, 3)
        try:
            DQN.load(io.BytesIO(damaged.tobytes()))
        except CheckpointError:
            outcomes["refused"] += 1
        else:
            outcomes["loaded"] += 1
    assert outcomes["refused"] > 20


def test_a_compressed_member_is_refused(saved: bytes) -> None:
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved)) as old,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="it is compressed"):
        DQN.load(bomb)


def test_an_archive_of_another_kind_is_refused(trained: DQN, saved: bytes) -> None:
    file = io.BytesIO()
    trained.save_replay_buffer(file)
    with pytest.raises(CheckpointError, match="'replay', not a 'model'; load_replay_buffer reads"):
        DQN.load(file)
    with pytest.raises(CheckpointError, match="holds a 'model', not a 'replay'"):
        small().load_replay_buffer(io.BytesIO(saved))


@pytest.mark.parametrize("version", [2, 99, None, "1", 1.0])
def test_a_newer_version_is_refused_with_the_way_out(saved: bytes, version: Any) -> None:
    metadata = {**member(saved, "metadata.json"), "format_version": version}
    with pytest.raises(CheckpointError, match=f"format version {version!r}.*install a newer"):
        DQN.load(changed(saved, metadata_json=json.dumps(metadata).encode()))


def test_another_format_is_refused(saved: bytes) -> None:
    metadata = {**member(saved, "metadata.json"), "format": "sb3"}
    with pytest.raises(CheckpointError, match="was not written by sbdqn"):
        DQN.load(changed(saved, metadata_json=json.dumps(metadata).encode()))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_know_is_refused(saved: bytes, constant: str) -> None:
    text = json.dumps({**member(saved, "parameters.json"), "gamma": "?"}).replace('"?"', constant)
    with pytest.raises(CheckpointError, match=f"{constant} is not JSON"):
        DQN.load(changed(saved, parameters_json=text.encode()))


def test_infinities_are_written_as_json(trained: DQN, saved: bytes) -> None:
    file = io.BytesIO()
    small(env="CartPole-v1").save(file)
    text = json.dumps(member(file.getvalue(), "state.json"))
    assert '{"$float": "-inf"}' in text
    assert "Infinity" not in text


@pytest.mark.parametrize(
    "description",
    [
        {"$bogus": 1},
        {},
        {"$torch": 5},
        {"$torch": "nn.NoSuchThing"},
        {"$torch": "os.system"},
        {"$torch": "nn.Module.__init__"},
        {"$torch": "nn.functional"},
        {"$float": "x"},
        {"$device": "x"},
        {"$tensor": "x"},
        {"$tuple": 5},
        {"$dict": [1]},
        {"$spec": "os.system", "arguments": {"$dict": []}},
        {"$spec": "schedules.Linear", "arguments": {"$dict": [["start", 1]]}},
        {"$spec": "schedules.Linear", "arguments": 5},
        {"$path": 5},
        {"$space": "Box"},
        {"$space": "Tuple", "arguments": {"$dict": []}},
        {"$space": "Discrete", "arguments": {"$dict": [["n", 0], ["start", 0]]}},
        {"$space": "Discrete", "arguments": {"$dict": [["n", 10**40], ["start", 0]]}},
    ],
)
def test_a_senseless_description_is_reported(saved: bytes, description: Any) -> None:
    def put(state: dict[str, Any]) -> None:
        state["observation_space"] = description

    with pytest.raises(CheckpointError):
        DQN.load(with_state(saved, put))


COUNTERS = (
    *("num_timesteps", "episodes", "total_timesteps", "n_updates"),
    *("since_round", "episodes_since_round", "seed", "period"),
)


@pytest.mark.parametrize("rubbish", [None, 5, "x", [1], {"$dict": []}])
@pytest.mark.parametrize("part", ["learner", "trainer"])
def test_a_senseless_state_is_reported(saved: bytes, part: str, rubbish: Any) -> None:
    def replace_all(state: dict[str, Any]) -> None:
        state[part] = rubbish

    with pytest.raises(CheckpointError, match="damaged"):
        DQN.load(with_state(saved, replace_all))

    names = [key for key, _ in dict(member(saved, "state.json")["$dict"])[part]["$dict"]]
    for place, name in enumerate(names):

        def replace_one(state: dict[str, Any], place: int = place) -> None:
            state[part]["$dict"][place][1] = rubbish

        if rubbish == 5 and name in COUNTERS:
            continue
        with pytest.raises(CheckpointError, match="damaged"):
            DQN.load(with_state(saved, replace_one))


def test_an_optimisers_state_is_dropped_only_for_another_optimiser(saved: bytes) -> None:
    def rename(state: dict[str, Any]) -> None:
        learner = dict(state["learner"]["$dict"])
        learner["optimizer_class"] = "Adams"
        state["learner"]["$dict"] = [[key, value] for key, value in learner.items()]

    with pytest.raises(CheckpointError, match=r"state of 'Adams', and its policy describes Adam;"):
        DQN.load(with_state(saved, rename))
    # The way out that the message names.
    policy = MlpPolicy(net_arch=(8,), layer_norm=False)
    loaded = DQN.load(with_state(saved, rename), policy=policy)
    assert loaded.learner.optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("state", [{"$tuple": []}, {"$float": "1"}, {"$path": "x"}])
def test_a_state_that_is_none_is_reported(saved: bytes, state: Any) -> None:
    with pytest.raises(CheckpointError, match="its state is a "):
        DQN.load(changed(saved, state_json=json.dumps(state).encode()))


def test_an_unknown_parameter_in_the_file_is_reported(saved: bytes) -> None:
    parameters = {**member(saved, "parameters.json"), "gama": 0.5}
    with pytest.raises(CheckpointError, match="gama"):
        DQN.load(changed(saved, parameters_json=json.dumps(parameters).encode()))


def test_a_parameter_out_of_range_in_the_file_is_reported(saved: bytes) -> None:
    parameters = {**member(saved, "parameters.json"), "gamma": 7}
    archive = changed(saved, parameters_json=json.dumps(parameters).encode())
    with pytest.raises(CheckpointError, match="gamma must be a number from 0 to 1, not 7"):
        DQN.load(archive)
    assert DQN.load(archive, gamma=0.5).gamma == 0.5
    with pytest.raises(CheckpointError, match="gamma must be a number from 0 to 1, not 7"):
        DQN.load(archive, batch_size=16)


def test_who_is_to_blame_is_told_apart(saved: bytes) -> None:
    parameters = {**member(saved, "parameters.json"), "n_steps": 0}
    archive = changed(saved, parameters_json=json.dumps(parameters).encode())
    with pytest.raises(CheckpointError, match="n_steps must be"):
        DQN.load(archive)
    for given, complaint in (({"n_steps": 0}, "n_steps must be"), ({"device": "mars"}, "device")):
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            DQN.load(io.BytesIO(saved), **given)
        assert not isinstance(caught.value, CheckpointError)


def test_members_are_stored_and_named_as_documented(saved: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        assert archive.namelist() == list(MEMBERS)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    for name in MEMBERS[:-1]:
        assert name in (persistence.__doc__ or "")
    assert member(saved, "metadata.json") == {
        "format": "sbdqn",
        "kind": "model",
        "format_version": persistence.FORMAT_VERSION,
        "objects": [],
    }


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("notes.txt", b"", "it has a member 'notes.txt'"),
        ("../../x", b"", r"it has a member '\.\./\.\./x'"),
        ("state.json", b"{}", "it has a member twice"),
    ],
)
def test_members_that_no_archive_has_are_refused(
    saved: bytes, name: str, content: bytes, complaint: str
) -> None:
    file = io.BytesIO(saved)
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(name, content)
    with pytest.raises(CheckpointError, match=complaint):
        DQN.load(file)


def test_members_that_are_larger_than_the_file_are_refused(saved: bytes) -> None:
    entry = saved.index(b"PK\1\2")  # of metadata.json, in the directory
    claimed = bytearray(saved)
    struct.pack_into("<II", claimed, entry + 20, 10**9, 10**9)
    with pytest.raises(CheckpointError, match="its members are larger than the file"):
        DQN.load(io.BytesIO(claimed))


def test_json_that_is_too_large_is_not_read(saved: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "MOST_BYTES", 300)
    with pytest.raises(CheckpointError, match=r"\w+\.json has more than 300 bytes"):
        DQN.load(io.BytesIO(saved))


def test_spaces_of_all_parameters_are_counted_together(saved: bytes) -> None:
    arguments = [["low", 0], ["high", 1], ["shape", {"$tuple": [1 << 23]}], ["dtype", "int8"]]
    box = {"$space": "Box", "arguments": {"$dict": arguments}}
    parameters = {**member(saved, "parameters.json"), "a": box, "b": box, "c": box}
    with pytest.raises(CheckpointError, match="more than 16777216 numbers are not loaded"):
        DQN.load(changed(saved, parameters_json=json.dumps(parameters).encode()))


@pytest.mark.parametrize("env", [{"$torch": "nn.Linear"}, 3, ["CartPole-v1"]])
def test_an_environment_that_is_no_id_is_refused(saved: bytes, env: Any) -> None:
    sizes = {"$dict": [["in_features", 10**6], ["out_features", 10**6]]}  # 4 TB if it is called
    parameters = {**member(saved, "parameters.json"), "env": env, "env_kwargs": sizes}
    with pytest.raises(CheckpointError, match="its environment is"):
        DQN.load(changed(saved, parameters_json=json.dumps(parameters).encode()))


@pytest.mark.parametrize("objects", [None, "policy", [1], {"policy": 1}])
def test_objects_without_names_are_refused(saved: bytes, objects: Any) -> None:
    metadata = {**member(saved, "metadata.json"), "objects": objects}
    with pytest.raises(CheckpointError, match="its objects have no names"):
        DQN.load(changed(saved, metadata_json=json.dumps(metadata).encode()))


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_has_never_been_is_refused(saved: bytes, version: int) -> None:
    metadata = {**member(saved, "metadata.json"), "format_version": version}
    with pytest.raises(CheckpointError, match=f"format version {version} has never been"):
        DQN.load(changed(saved, metadata_json=json.dumps(metadata).encode()))


@pytest.mark.parametrize("layers", [[9], [8, 8], [10**12], [10**6, 10**6]])
def test_networks_that_are_not_those_of_the_weights_are_never_made(
    saved: bytes, layers: list[int]
) -> None:
    arguments = {"$dict": [["net_arch", {"$tuple": layers}], ["layer_norm", False]]}
    policy = {"$spec": "networks.MlpPolicy", "arguments": arguments}
    parameters = {**member(saved, "parameters.json"), "policy": policy}
    archive = changed(saved, parameters_json=json.dumps(parameters).encode())
    with pytest.raises(CheckpointError, match=r"they describe networks whose .* is of the shape"):
        DQN.load(archive)
    fitting = MlpPolicy(net_arch=(8,), layer_norm=False)
    assert DQN.load(archive, policy=fitting).num_timesteps >= 95


@pytest.mark.parametrize(
    ("name", "value"), [("n_envs", 0), ("n_envs", "2"), ("frames", None), ("learn_steps", -5)]
)
def test_a_count_that_is_none_is_refused(saved: bytes, name: str, value: Any) -> None:
    def put(state: dict[str, Any]) -> None:
        state[name] = value

    with pytest.raises(CheckpointError, match=f"{name} must be an integer of at least 1"):
        DQN.load(with_state(saved, put))


def test_a_replay_is_never_made_of_a_claim(saved: bytes) -> None:
    parameters = {**member(saved, "parameters.json"), "buffer_size": 10**12}
    loaded = DQN.load(changed(saved, parameters_json=json.dumps(parameters).encode()))
    loaded.predict(OBSERVATIONS)
    with pytest.raises(ReplayMemoryError, match="choose a buffer_size"):
        _ = loaded.replay_buffer


def test_set_parameters_refuses_what_load_would_and_changes_nothing(
    trained: DQN, saved: bytes
) -> None:
    model = small(n_envs=2, seed=5)
    before = model.get_parameters()

    def drop(state: dict[str, Any]) -> None:
        del state["learner"]

    def rename(state: dict[str, Any]) -> None:
        online = state["learner"]["$dict"][0][1]["$dict"]
        online[-1][0] = "unknown"

    for change, error in ((drop, CheckpointError), (rename, MismatchError)):
        with pytest.raises(error):
            model.set_parameters(with_state(saved, change))
        assert_equal(model.get_parameters(), before)
    with pytest.raises(MismatchError, match="size mismatch"):
        small(policy=MlpPolicy(net_arch=(9,))).set_parameters(io.BytesIO(saved))
    model.set_parameters(io.BytesIO(saved))
    assert_equal(model.get_parameters()["policy"], trained.get_parameters()["policy"])


def test_state_dicts_of_other_types_change_nothing() -> None:
    model = small()
    before = model.get_parameters()
    for rubbish in (None, 5, [1]):
        given: Any = {"policy": before["policy"], "policy.optimizer": rubbish}
        with pytest.raises(ConfigurationError, match="do not fit"):
            model.set_parameters(given)
        assert_equal(model.get_parameters(), before)


# The replay -----------------------------------------------------------------------


def rows(env_index: int, count: int) -> Iterator[Row]:
    """More steps of two environments that never end."""
    for t in range(count):
        obs = np.array([[index, 99, t + env_index] for index in range(2)], np.float32)
        yield Row(
            obs,
            np.array([t % 3, (t + 1) % 3]),
            np.array([0.5 * t, -t]),
            obs + 1,
            np.zeros(2, np.bool_),
            np.array([t % 5 == 4, False]),
            np.full(2, t == 0),
            np.ones(2, np.bool_),
        )


def test_a_loaded_replay_continues_identically() -> None:
    original = small(n_envs=2, buffer_size=40).learn(95)  # the ring has wrapped
    file = io.BytesIO()
    original.save_replay_buffer(file)
    copy = small(n_envs=2, buffer_size=40, seed=1)
    copy.load_replay_buffer(file)
    one, other = original.replay_buffer, copy.replay_buffer

    assert (other.stored, other.sampleable) == (one.stored, one.sampleable)
    clock = original.trainer.clock
    for row in rows(0, 12):
        for mine, theirs in zip(one.sample(16, clock), other.sample(16, clock), strict=True):
            assert torch.equal(mine, theirs)
        one.add(row)
        other.add(row)
    assert_equal(one.state_dict(), other.state_dict())


def test_a_model_with_a_loaded_replay_learns_at_once(tmp_path: Path) -> None:
    model = small().learn(40)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DQN.load(tmp_path / "model", env=CountingEnv)
    loaded.load_replay_buffer(tmp_path / "replay")
    assert loaded.replay_buffer.stored == 40
    assert loaded.learn(10)._n_updates == model._n_updates + 10


def test_two_loaded_models_make_the_same_updates(tmp_path: Path) -> None:
    model = small().learn(40)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")

    def trained_on(target: DQN) -> dict[str, Any]:
        target.train(5)
        return target.get_parameters()

    loaded = DQN.load(tmp_path / "model")
    loaded.load_replay_buffer(tmp_path / "replay")
    assert_equal(trained_on(loaded), trained_on(model))


def test_a_replay_of_another_shape_is_refused(trained: DQN) -> None:
    file = io.BytesIO()
    trained.save_replay_buffer(file)
    for other in ({"n_envs": 1}, {"n_steps": 1}, {"buffer_size": 100}):
        with pytest.raises(ConfigurationError, match="they must be equal"):
            small(**{"n_envs": 2, **other}).load_replay_buffer(file)
    with pytest.raises(ConfigurationError, match="they must be equal"):
        small(env=ChainEnv, n_envs=2).load_replay_buffer(file)


def test_a_damaged_replay_is_reported(trained: DQN) -> None:
    file = io.BytesIO()
    trained.save_replay_buffer(file)

    def drop(state: dict[str, Any]) -> None:
        del state["storage"]

    model = small(n_envs=2)
    with pytest.raises(CheckpointError, match="storage"):
        model.load_replay_buffer(with_state(file.getvalue(), drop))
    with pytest.raises(CheckpointError, match="no readable zip"):
        model.load_replay_buffer(io.BytesIO(file.getvalue()[:1000]))
    assert model.learn(20).num_timesteps == 20
