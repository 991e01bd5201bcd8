"""What must hold on a GPU too; skipped without one."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from sbdqn import DQN, CnnPolicy, Memory, load_policy
from sbdqn.backups import Double
from sbdqn.heads import Scalar
from sbdqn.learner import Learner
from sbdqn.networks import MlpPolicy
from sbdqn.protocols import ObservationPart, ReplayLayout
from sbdqn.replay import Uniform
from sbdqn.threads import threads_to_learn_with
from sbdqn.types import Batch, Clock, Row
from tests.exported import outputs_of
from tests.replay.test_storage import LAYOUT, add_both_until
from tests.test_learner import make_learner, random_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# While it compiles, say, and an error there would be a reason to go on without.
torch_may_warn = pytest.mark.filterwarnings("default")

SMALL = {
    "buffer_size": 500,
    "learning_starts": 50,
    "batch_size": 16,
    "n_steps": 3,
    "policy_kwargs": {"net_arch": [16]},
}


def trained(device: str = "cuda", n_envs: int = 1, **parameters: Any) -> DQN:
    model = DQN(
        "MlpPolicy", "CartPole-v1", seed=3, device=device, n_envs=n_envs, **{**SMALL, **parameters}
    )
    return model.learn(400)


def weights(model: DQN) -> list[torch.Tensor]:
    return [weight.detach().cpu() for weight in model.q_net.parameters()]


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_same_seed_gives_the_same_weights(n_envs: int) -> None:
    first, second = (trained(n_envs=n_envs) for _ in range(2))
    assert first.device.type == "cuda"
    assert all(map(torch.equal, weights(first), weights(second)))


def test_torch_keeps_its_threads() -> None:
    assert threads_to_learn_with("auto", trained().learner, 1) is None


@pytest.mark.parametrize("gamma", [0.99, 0.5])
def test_a_replay_there_reads_what_one_here_does(gamma: float) -> None:
    here, there = (
        Uniform().build(replace(LAYOUT, n_envs=2, device=torch.device(device)))
        for device in ("cpu", "cuda")
    )
    for each in (here, there):
        add_both_until(each, 0, 60)  # wraps
        each.gamma = gamma
    for mine, theirs in zip(here.sample(64, Clock(0)), there.sample(64, Clock(0)), strict=True):
        assert torch.equal(mine, theirs.cpu())
    loaded = Uniform().build(replace(LAYOUT, n_envs=2, gamma=gamma, device=there.storage.device))
    loaded.load_state_dict(copy.deepcopy(there.state_dict()))
    for mine, theirs in zip(there.sample(64, Clock(0)), loaded.sample(64, Clock(0)), strict=True):
        assert torch.equal(mine, theirs)


def moved(batch: Batch) -> Batch:
    return Batch._make(column.cuda() for column in batch)


def learner_on(device: str, compile: bool = False, **policy: Any) -> Learner:
    chosen = MlpPolicy(net_arch=(16, 16), **policy)
    here = make_learner(chosen)
    if device == "cpu":
        return here
    there = Learner(
        here.online.cuda(),
        here.target.cuda(),
        here.head,
        here.backup,
        here.max_gradient_norm,
        compile,
    )
    there.set_optimizer(chosen.build_optimizer(there.flat, 0.01))
    return there


@pytest.mark.parametrize("policy", [{}, {"layer_norm": False}, {"activation_fn": "ELU"}])
def test_updates_there_are_those_made_here(policy: dict[str, Any]) -> None:
    here, there = (learner_on(device, **policy) for device in ("cpu", "cuda"))
    for step in range(20):
        here.update(random_batch(step))
        there.update(moved(random_batch(step)))
        here.sync(0.1)
        there.sync(0.1)
    torch.testing.assert_close(
        there.flat.values.detach().cpu(), here.flat.values.detach(), rtol=1e-3, atol=1e-4
    )


def test_a_model_moves_between_devices_through_its_file(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "model")
    here = DQN.load(tmp_path / "model", device="cpu")
    there = DQN.load(tmp_path / "model", device="cuda")
    obs = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_allclose(here.q_values(obs), model.q_values(obs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there.q_values(obs), model.q_values(obs), rtol=1e-4, atol=1e-5)
    for each in (here, there):
        each.set_env("CartPole-v1")
        each.learn(60)
        assert each._n_updates > model._n_updates


def test_a_policy_from_there_is_loaded_anywhere_and_exported_for_the_cpu(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "model")
    obs = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    for device in ("cpu", "cuda"):
        policy = load_policy(tmp_path / "model", device=device)
        assert policy.device.type == device
        np.testing.assert_allclose(policy.q_values(obs), model.q_values(obs), rtol=1e-4, atol=1e-5)
        policy.export(tmp_path / "policy.pt2")
        action, q = outputs_of(tmp_path / "policy.pt2", obs)
        np.testing.assert_allclose(q, model.q_values(obs), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(action, q.argmax(axis=1))
    assert model.device.type == "cuda"


def test_one_observation_is_predicted_like_many() -> None:
    model = trained()
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    one_by_one = [model.q_values(each) for each in obs]
    np.testing.assert_allclose(one_by_one, model.q_values(obs), rtol=1e-4, atol=1e-5)


PIXELS = ObservationPart((4, 36, 36), np.dtype(np.uint8), frames=4)


def replay_of_pixels(memory: str, rows: int = 60) -> Any:
    """Stacks of random frames, in a ring that has wrapped."""
    layout = ReplayLayout(
        obs=PIXELS,
        n_envs=2,
        capacity=80,
        n_steps=3,
        gamma=0.99,
        device=torch.device("cuda"),
        seed=np.random.SeedSequence(0),
        memory=Memory(device=memory),
    )
    replay = Uniform().build(layout)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (rows + 4, 2, 36, 36), np.uint8)
    no, yes = np.zeros(2, np.bool_), np.ones(2, np.bool_)
    for step in range(rows):
        obs, following = (
            np.ascontiguousarray(frames[at : at + 4].swapaxes(0, 1)) for at in (step, step + 1)
        )
        action, reward = rng.integers(0, 3, 2), rng.random(2)
        replay.add(Row(obs, action, reward, following, no, no, yes if step == 0 else no, yes))
    return replay


def test_frames_are_the_same_wherever_they_are_kept() -> None:
    batches = [replay_of_pixels(memory).sample(64, Clock(0)) for memory in ("cpu", "cuda")]
    for here, there in zip(*batches, strict=True):
        assert torch.equal(here, there)
    assert batches[0].obs.device.type == batches[1].obs.device.type == "cuda"


@torch_may_warn
@pytest.mark.parametrize("memory", ["cpu", "cuda"])
@pytest.mark.parametrize("policy", [CnnPolicy((32,)), CnnPolicy((32,), dueling=True)])
def test_an_update_never_waits_for_the_device(memory: str, policy: CnnPolicy) -> None:
    replay = replay_of_pixels(memory)
    space = spaces.Box(0, 255, PIXELS.shape, np.uint8)
    networks = [policy.build(space, 3, Scalar()).to("cuda") for _ in range(2)]
    learner = Learner(*networks, Scalar(), Double(), max_gradient_norm=10.0)
    learner.set_optimizer(policy.build_optimizer(learner.flat, 1e-3))

    def update() -> None:
        batch = replay.sample(32, Clock(0))
        replay.feedback(batch.index, learner.update(batch).surprise)
        learner.sync(0.5)

    update()  # the first one makes the optimiser's state
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(3):
            update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    learner.require_finite()


@torch_may_warn
@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"optimizer_class": "AdamW", "optimizer_kwargs": {"amsgrad": True}},
        {"optimizer_class": "RMSprop"},
        {"optimizer_class": "SGD", "optimizer_kwargs": {"momentum": 0.9}},
    ],
)
def test_replays_of_a_cuda_graph_are_updates(policy: dict[str, Any]) -> None:
    eager, compiled = (learner_on("cuda", compile, **policy) for compile in (False, True))
    losses: dict[Learner, list[Any]] = {eager: [], compiled: []}
    for step in range(8):
        for learner in (eager, compiled):
            losses[learner].append(learner.update(moved(random_batch(step))))
            learner.sync(0.25)
    assert compiled._compiled is not None  # it did not go on without
    # The next replay does not overwrite what the last one gave.
    torch.testing.assert_close(losses[compiled], losses[eager], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(compiled.flat.values, eager.flat.values, rtol=1e-3, atol=1e-4)


@torch_may_warn
def test_a_compiled_agent_learns_there() -> None:
    model = trained(compile=True)
    assert model._n_updates == trained()._n_updates
    assert model.learner._compiled is not None
    assert all(weight.isfinite().all() for weight in weights(model))
