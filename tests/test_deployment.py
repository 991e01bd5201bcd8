"""A loaded policy: it predicts as the model does, with nothing of what trained it."""

from __future__ import annotations

import gc
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces

from sbdqn import DQN, CnnPolicy, MlpPolicy, MultiInputPolicy, deployment, load_policy
from sbdqn.errors import (
    CheckpointError,
    ConfigurationError,
    MissingFileError,
    NotReadyError,
    SbdqnError,
    SpaceError,
)
from sbdqn.exploration import Boltzmann, EpsilonGreedy
from sbdqn.heads import Categorical, ImplicitQuantile, Quantile, Scalar
from sbdqn.persistence import read_archive, write_archive
from sbdqn.protocols import PolicySpec
from sbdqn.replay import Uniform
from sbdqn.schedules import Linear
from tests.exported import PARTS, PICTURE, START, TUPLE, VECTOR, Body, Resting, outputs_of

NETWORKS: dict[str, tuple[PolicySpec, Space[Any]]] = {
    "vector": (MlpPolicy((8, 8)), VECTOR),
    "noisy": (MlpPolicy((8, 8), noisy=True, dueling=True), VECTOR),
    "category": (MlpPolicy((8,)), spaces.Discrete(5, start=-2)),
    "picture": (CnnPolicy((8,)), PICTURE),
    "parts": (MultiInputPolicy((8,)), PARTS),
    "tuple": (MultiInputPolicy((8,)), TUPLE),
}
HEADS = [Scalar(), Categorical(atoms=11), Quantile(quantiles=9), ImplicitQuantile()]


def model_of(policy: PolicySpec, space: Space[Any] = VECTOR, **parameters: Any) -> DQN:
    chosen = {"device": "cpu", "seed": 0, "buffer_size": 10, **parameters}
    return DQN(policy, Resting(space), **chosen)


def written(model: DQN) -> io.BytesIO:
    file = io.BytesIO()
    model.save(file)
    return file


def require_close(given: Any, expected: Any) -> None:
    """Weights at another place in memory may be summed in another order."""
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)


def one_of(space: Space[Any], seed: int = 0) -> Any:
    space.seed(seed)
    return space.sample()


@dataclass(frozen=True)
class OwnExploration(EpsilonGreedy):
    """As epsilon-greedy, but only Python can describe it."""

    epsilon: float = 0.5


@dataclass(frozen=True)
class OwnReplay(Uniform):
    """As the uniform one, but only Python can describe it."""


@dataclass(frozen=True)
class OwnHead(Scalar):
    """As the scalar one, but only Python can describe it."""


# What it says -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("network", NETWORKS)
def test_it_predicts_as_the_model_does(network: str, head: Any) -> None:
    model = model_of(*NETWORKS[network], head=head)
    policy = load_policy(written(model), device="cpu")
    obs = one_of(model.observation_space)
    require_close(policy.q_values(obs), model.q_values(obs))
    action, state = policy.predict(obs, state="as it was", episode_start=True)
    assert (action, type(action), state) == (model.predict(obs)[0], np.int64, "as it was")
    assert action == policy.q_values(obs).argmax() + START
    assert policy.observation_space == model.observation_space
    assert policy.action_space == model.action_space
    assert policy.device == torch.device("cpu")


def test_it_acts_with_what_was_learned(tmp_path: Path) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", seed=0, learning_starts=20, device="cpu")
    fresh = model.q_values(np.ones(4))
    model.learn(200).save(tmp_path / "cartpole")
    policy = load_policy(tmp_path / "cartpole")
    obs = np.random.default_rng(0).normal(size=(50, 4))
    require_close(policy.q_values(obs), model.q_values(obs))
    np.testing.assert_array_equal(policy.predict(obs)[0], model.predict(obs)[0])
    assert np.abs(policy.q_values(np.ones(4)) - fresh).max() > 1e-3


@pytest.mark.parametrize(
    "given", [[0.5, 1, -2, 0.25], torch.tensor([[0.5, 1.0, -2.0, 0.25]] * 3), np.ones((2, 4), "i4")]
)
def test_observations_may_be_given_in_every_form_that_the_model_takes(given: Any) -> None:
    model = model_of(MlpPolicy((8,)))
    policy = load_policy(written(model), device="cpu")
    require_close(policy.q_values(given), model.q_values(given))
    np.testing.assert_array_equal(policy.predict(given)[0], model.predict(given)[0])


def test_images_may_have_their_channels_on_the_other_side() -> None:
    model = model_of(CnnPolicy((8,)), PICTURE)
    policy = load_policy(written(model), device="cpu")
    image = one_of(PICTURE)
    turned = policy.q_values(image.transpose(2, 0, 1))
    require_close(turned, model.q_values(image))


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_is_no_observation_is_refused_with_the_words_of_the_model(deterministic: bool) -> None:
    model = model_of(MlpPolicy((8,)), exploration="greedy")
    policy = load_policy(written(model))
    with pytest.raises(SpaceError) as theirs:
        model.predict([0.0, 1.0])
    with pytest.raises(SpaceError) as ours:
        policy.predict([0.0, 1.0], deterministic=deterministic)
    assert str(ours.value) == str(theirs.value)
    with pytest.raises(SpaceError, match="expected one observation of shape"):
        policy.q_values([0.0, 1.0])


@pytest.mark.parametrize(
    "exploration",
    ["epsilon_greedy", "greedy", EpsilonGreedy(Linear(1.0, 0.0, 300)), Boltzmann(0.5)],
    ids=str,
)
def test_it_explores_as_the_model_that_is_loaded_does(exploration: Any) -> None:
    parameters = {"learning_starts": 20, "seed": 3, "device": "cpu", "exploration": exploration}
    file = written(DQN(MlpPolicy((8,)), "CartPole-v1", **parameters).learn(150))
    policy, loaded = load_policy(file, device="cpu"), DQN.load(file, device="cpu")
    obs = np.random.default_rng(0).normal(size=(500, 4))
    ours, theirs = (
        [each.predict(obs, deterministic=False)[0] for _ in range(2)] for each in (policy, loaded)
    )
    np.testing.assert_array_equal(ours, theirs)
    differs = (ours[0] != policy.predict(obs)[0]).any()
    assert differs == (exploration != "greedy")
    one = policy.predict(obs[0], deterministic=False)[0]
    assert type(one) is np.int64


def test_a_noisy_network_explores_by_its_noise() -> None:
    file = written(model_of(MlpPolicy((8,), noisy=True, noisy_sigma=2.0), exploration="greedy"))
    policy, again = (load_policy(file, device="cpu") for _ in range(2))
    obs = np.random.default_rng(0).normal(size=(500, 4))
    explored = policy.predict(obs, deterministic=False)[0]
    assert (explored != policy.predict(obs)[0]).sum() > 50
    np.testing.assert_array_equal(explored, policy.predict(obs, deterministic=False)[0])
    np.testing.assert_array_equal(explored, again.predict(obs, deterministic=False)[0])


def test_a_file_of_a_model_that_never_learned_explores_with_the_first_epsilon() -> None:
    policy = load_policy(written(model_of(MlpPolicy((8,)))))
    chosen = policy.predict(np.zeros((3_000, 4)), deterministic=False)[0]
    assert np.bincount(chosen - START, minlength=3).min() > 900


def test_networks_that_the_weights_do_not_fit_are_not_made() -> None:
    saved = read_archive(written(model_of(MlpPolicy((8,)))), "model")
    head = Quantile(10**12)
    changes: list[dict[str, Any]] = [{"policy": MlpPolicy((10**9, 10**9))}, {"head": head}]
    for change in changes:
        file = io.BytesIO()
        write_archive(file, "model", {**saved.parameters, **change}, saved.state)
        with pytest.raises(CheckpointError, match="they describe networks whose"):
            load_policy(file)
    with pytest.raises(CheckpointError, match="they describe networks whose"):
        load_policy(written(model_of(MlpPolicy((8,)))), head=head)


# What it does without ---------------------------------------------------------------------


def test_the_programs_generators_are_left_alone() -> None:
    file = written(model_of(MlpPolicy((8,), noisy=True)))
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load_policy(file).predict(np.zeros(4), deterministic=False)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numbers, np.random.get_state()[1])  # noqa: NPY002


ALONE = """
import sys
from sbdqn import load_policy
policy = load_policy({file!r}, device="cpu")
policy.predict([0.0, 0.1, 0.0, -0.1])
policy.predict([[0.0, 0.1, 0.0, -0.1]] * 9, deterministic=False)
print("\\n".join(sys.modules))
"""
OF_TRAINING = (
    *("assembly", "callbacks", "collector", "compiled", "dqn", "evaluation", "learner", "logger"),
    *("own_loop", "recipes", "session", "training", "update"),
)


def test_no_code_for_training_is_imported(tmp_path: Path) -> None:
    DQN("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "cartpole.zip")
    code = ALONE.format(file=str(tmp_path / "cartpole.zip"))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    imported = set(run.stdout.split())
    assert imported >= {"sbdqn.deployment", "sbdqn.networks"}
    unwanted = {f"sbdqn.{name}" for name in OF_TRAINING}
    unwanted |= {"tensorboard", "cloudpickle", "onnx", "onnxruntime", "torch._dynamo"}
    assert imported & unwanted == set()


def test_no_environment_optimiser_or_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(DQN("MlpPolicy", "CartPole-v1", device="cpu"))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("made")

    for name in ("gymnasium.make", "gymnasium.make_vec", "torch.optim.Optimizer.__init__"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(Uniform, "build", refuse)
    gc.collect()
    policy = load_policy(file)
    policy.predict(np.zeros(4))
    weights = list(policy._policy.parameters())
    assert weights
    assert not any(weight.requires_grad or weight.grad is not None for weight in weights)


# Trust ------------------------------------------------------------------------------------


def test_python_objects_that_do_not_act_stand_in_no_ones_way() -> None:
    model = model_of(
        MlpPolicy((8,)),
        exploration=OwnExploration(),
        replay=OwnReplay(),
        learning_rate=lambda remaining: 1e-3 * remaining,
    )
    file = written(model)
    with pytest.raises(CheckpointError, match="exploration"):
        DQN.load(file)
    policy = load_policy(file, device="cpu")
    obs = np.ones((5, 4))
    require_close(policy.q_values(obs), model.q_values(obs))
    with pytest.raises(NotReadyError, match=r"deterministic=True, or, .* trusted=True\)"):
        policy.predict(obs, deterministic=False)


def test_of_a_trusted_file_the_exploration_is_read_too() -> None:
    file = written(model_of(MlpPolicy((8,)), exploration=OwnExploration(), seed=1))
    policy = load_policy(file, device="cpu", trusted=True)
    obs = np.ones((500, 4))
    explored = policy.predict(obs, deterministic=False)[0]
    again = DQN.load(file, device="cpu", trusted=True).predict(obs, deterministic=False)[0]
    np.testing.assert_array_equal(explored, again)
    assert 100 < (explored != policy.predict(obs)[0]).sum() < 250  # two thirds of a half


@pytest.mark.parametrize(
    ("parameters", "name", "instead"),
    [
        (
            {"policy": MlpPolicy((8,), features_extractor=Body)},
            "policy",
            MlpPolicy((8,), features_extractor=Body),
        ),
        (
            {
                "policy": "MlpPolicy",
                "policy_kwargs": {"net_arch": [8], "features_extractor": Body},
            },
            "policy_kwargs",
            {"net_arch": [8], "features_extractor": Body},
        ),
        ({"policy": MlpPolicy((8,)), "head": OwnHead()}, "head", OwnHead()),
    ],
    ids=["policy", "policy_kwargs", "head"],
)
def test_python_objects_that_act_are_passed_or_trusted(
    parameters: dict[str, Any], name: str, instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(**parameters)
    file, obs = written(model), np.ones(4)
    expected = model.q_values(obs)
    require_close(load_policy(file, trusted=True).q_values(obs), expected)
    monkeypatch.setattr(deployment, "unpickle", lambda archive: pytest.fail("unpickled"))
    with pytest.raises(CheckpointError, match=rf"as in {name}=\.\.\..*trusted=True"):
        load_policy(file)
    require_close(load_policy(file, **{name: instead}).q_values(obs), expected)
    trusted = load_policy(file, trusted=True, **{name: instead})
    require_close(trusted.q_values(obs), expected)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    model = model_of(MlpPolicy((8,)))
    file = written(model)
    with pytest.raises(ConfigurationError, match=r"head must be .*, not 'skalar'"):
        load_policy(file, head="skalar")
    with pytest.raises(CheckpointError, match="does not fit these parameters"):
        load_policy(file, policy=MlpPolicy((9,)))
    with pytest.raises(ConfigurationError, match=r"device must be .*nowhere"):
        load_policy(file, device="nowhere")
    with pytest.raises(MissingFileError, match="there is no file"):
        load_policy(tmp_path / "model.zip")
    replay = io.BytesIO()
    model.save_replay_buffer(replay)
    with pytest.raises(CheckpointError, match="holds a 'replay', not a 'model'"):
        load_policy(replay)


WRONG = [None, True, -1, 10**30, 2.5, "x", [], {}, {"$tuple": [1]}, {"$torch": "nn.ReLU"}]


@pytest.mark.parametrize("name", ["policy", "policy_kwargs", "head", "loss", "seed", "exploration"])
def test_a_file_with_a_damaged_parameter_is_refused_or_the_parameter_is_not_needed(
    name: str,
) -> None:
    model = model_of(MlpPolicy((8,)))
    with zipfile.ZipFile(written(model)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    refused = 0
    for wrong in WRONG:
        damaged = io.BytesIO()
        parameters = {**json.loads(members["parameters.json"]), name: wrong}
        with zipfile.ZipFile(damaged, "w") as archive:
            for each, content in members.items():
                is_changed = each == "parameters.json"
                archive.writestr(each, json.dumps(parameters) if is_changed else content)
        try:
            policy = load_policy(damaged, device="cpu")
        except SbdqnError:
            refused += 1
        else:
            require_close(policy.q_values(np.ones(4)), model.q_values(np.ones(4)))
    assert refused >= 5


# Threads ----------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("network", ["vector", "noisy", "picture"])
def test_several_threads_may_predict_at_once(network: str) -> None:
    model = model_of(*NETWORKS[network])
    alone = load_policy(written(model), device="cpu")
    together = load_policy(written(model), device="cpu")
    observations = [one_of(model.observation_space, seed) for seed in range(16)]
    expected = [alone.q_values(obs) for obs in observations]
    barrier = threading.Barrier(4)

    def predict(worker: int) -> list[Any]:
        barrier.wait()  # so that the very first predictions meet too
        said = []
        for turn in range(160):
            index = (turn + worker) % len(observations)
            if worker == 3:  # one that explores, with the network's noise
                together.predict(observations[index], deterministic=False)
            said.append((index, together.q_values(observations[index])))
        return said

    with ThreadPoolExecutor(4) as pool:
        said = [each for worker in pool.map(predict, range(4)) for each in worker]
    assert len(said) == 640
    wrong = [index for index, q in said if not np.allclose(q, expected[index], atol=1e-5)]
    assert wrong == []


def test_networks_that_are_not_those_of_the_weights_are_never_made() -> None:
    with zipfile.ZipFile(written(model_of(MlpPolicy((8,))))) as file:
        members = {name: file.read(name) for name in file.namelist()}
    parameters = json.loads(members["parameters.json"])
    arguments = {"$dict": [["net_arch", {"$tuple": [10**6, 10**6]}]]}
    parameters["policy"] = {"$spec": "networks.MlpPolicy", "arguments": arguments}
    members["parameters.json"] = json.dumps(parameters).encode()
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(CheckpointError, match=r"they describe networks whose .* is of the shape"):
        load_policy(changed)


# Export -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["noisy", "parts"])
def test_it_can_be_exported(network: str, tmp_path: Path) -> None:
    model = model_of(*NETWORKS[network])
    load_policy(written(model)).export(tmp_path / "policy.pt2")
    obs = model.policy.adapter.batch(one_of(model.observation_space))[0]
    action, q = outputs_of(tmp_path / "policy.pt2", obs)
    np.testing.assert_allclose(q, model.q_values(obs), rtol=1e-4, atol=1e-6)
    assert action.tolist() == model.predict(obs)[0].tolist()
