"""Models whose observations have several parts, or are stacks of frames, from end to end."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation

from sbdqn import DQN, evaluate_policy
from sbdqn.callbacks import BaseCallback, EvalCallback
from sbdqn.errors import SpaceError
from sbdqn.exploration import EpsilonGreedy
from sbdqn.memory import Memory
from sbdqn.replay.parts import StackedPart, WholePart
from tests.environments import (
    ChainEnv,
    CountingEnv,
    DictChainEnv,
    DictCountingEnv,
    PictureEnv,
    TupleCountingEnv,
)
from tests.warnings_of_workers import FORK

pytestmark = FORK
KINDS: list[Any] = [DictCountingEnv, TupleCountingEnv]
MODES = list(AutoresetMode)


def small(env: Any, policy: str = "MultiInputPolicy", **parameters: Any) -> DQN:
    settings: dict[str, Any] = {
        "policy_kwargs": {"net_arch": (8,), "features_extractor": None},
        "buffer_size": 400,
        "learning_starts": 10,
        "batch_size": 8,
        "n_steps": 2,
        "gamma": 0.9,
        "train_freq": 4,
        "target_update_interval": 5,
        "exploration": EpsilonGreedy(0.5),
        "seed": 0,
        "device": "cpu",
    }
    return DQN(policy, env, **{**settings, **parameters})


def vector(kind: Any, mode: AutoresetMode, n_envs: int = 3, workers: bool = False) -> Any:
    makers: list[Callable[[], Any]] = [lambda index=index: kind(index) for index in range(n_envs)]
    if workers:
        return AsyncVectorEnv(makers, autoreset_mode=mode)
    return SyncVectorEnv(makers, autoreset_mode=mode, copy=False)


def assert_true(model: DQN, kind: Any, is_cut: bool = False) -> None:
    """Every transition of the replay is one that an environment made.

    Where episodes were abandoned (`is_cut`), some windows are shorter.
    """
    batch = model.replay_buffer.sample(200, model.trainer.clock)
    here, there = (np.asarray(kind.plain(obs)).astype(int) for obs in (batch.obs, batch.next_obs))
    for place, (index, episode, t) in enumerate(here):
        env = kind(index)
        longest = min(2, env.length(episode) - t)
        span = there[place][2] - t
        assert span == longest or (is_cut and span == 1)
        rewards = [0.9**k * env.reward(index, episode, t + k) for k in range(span)]
        assert batch.reward[place].item() == pytest.approx(sum(rewards), rel=1e-5)
        assert there[place].tolist() == [index, episode, t + span]


def weights(model: DQN) -> torch.Tensor:
    return torch.cat([each.detach().reshape(-1) for each in model.policy.parameters()])


@pytest.mark.parametrize("workers", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_from_is_what_the_environments_did(
    kind: Any, mode: AutoresetMode, workers: bool
) -> None:
    env = vector(kind, mode, workers=workers)
    model = small(env).learn(150).learn(50)
    assert model.num_timesteps >= 200
    assert model._n_updates == (model.num_timesteps - 10) // 4
    assert_true(model, kind)
    env.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_same_in_all_modes_that_lose_no_step(kind: Any) -> None:
    runs = [small(vector(kind, mode)).learn(120) for mode in MODES[1:]]
    assert torch.equal(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize(
    ("head", "replay"),
    [("categorical", "prioritized"), ("quantile", "uniform"), ("implicit_quantile", "uniform")],
)
def test_the_axes_know_nothing_of_parts(head: str, replay: str) -> None:
    policy = {"net_arch": (8,), "features_extractor": None, "dueling": True, "noisy": True}
    model = small(
        DictCountingEnv,
        head=head,
        replay=replay,
        backup="munchausen",
        policy_kwargs=policy,
        n_steps=1,
    )
    assert torch.isfinite(weights(model.learn(60))).all()


def test_the_chain_is_solved_though_no_part_says_the_state() -> None:
    env = SyncVectorEnv([lambda: DictChainEnv(limit=4)] * 2)
    model = small(
        env,
        policy_kwargs={"net_arch": ()},
        n_steps=1,
        learning_rate=0.02,
        exploration=EpsilonGreedy(1.0),
        batch_size=32,
        buffer_size=5_000,
        train_freq=1,
        target_update_interval=1,
        tau=0.1,
    ).learn(2_000)
    q = model.q_values(DictChainEnv.parts(np.arange(5)))
    np.testing.assert_allclose(q, ChainEnv.optimal_q(0.9), atol=1e-2)
    np.testing.assert_allclose(model.q_values(DictChainEnv.parts(3)), q[3], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_observation_gives_one_action_and_a_batch_one_for_each(kind: Any) -> None:
    model = small(kind)
    env = vector(kind, MODES[0])
    many, _ = env.reset()
    one, _ = kind(0).reset()
    actions, _ = model.predict(many)
    values = model.q_values(many)
    assert (actions.shape, values.shape) == ((3,), (3, 3))
    assert actions.tolist() == values.argmax(axis=1).tolist()
    action, state = model.predict(one, state="kept")
    assert (type(action), state) == (np.int64, "kept")
    np.testing.assert_allclose(model.q_values(one), values[0], rtol=1e-5)
    assert model.predict(many, deterministic=False)[0].shape == (3,)
    assert not np.allclose(values[0], values[1])  # they differ in one part
    with pytest.raises(SpaceError):
        model.predict(np.zeros(3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_with_its_own_loop_stores_the_same(kind: Any) -> None:
    env, model = kind(0), small(kind)
    obs, _ = env.reset()
    for _ in range(60):
        action = model.act(obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        model.observe(obs, action, reward, next_obs, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs
    model.train(3)
    assert (model._n_updates, model.replay_buffer.stored) == (3, 60)
    assert_true(model, kind)
    two, _ = vector(kind, MODES[0], 2).reset()
    with pytest.raises(SpaceError, match=r"next_obs has shape \(2,.*n_envs=1"):
        model.observe(obs, 0, 0.0, two, False, False)


def test_where_one_part_alone_does_not_continue_a_new_episode_begins() -> None:
    model = small(DictCountingEnv, n_steps=1)
    env = DictCountingEnv(0, lengths=(50,))
    obs, _ = env.reset()
    for _ in range(4):
        next_obs, reward, *_ = env.step(0)
        model.observe(obs, 0, reward, next_obs, False, False)
        obs = next_obs
    begun = {**obs, "whose": {**obs["whose"], "index": 7}}
    model.observe(begun, 0, 0.0, obs, False, False)
    batch: Any = model.replay_buffer.sample(100, model.trainer.clock)
    assert sorted(set(batch.obs["whose/index"].tolist())) == [0, 7]
    assert set(batch.next_obs["whose/index"].tolist()) == {0}


def test_a_program_may_use_its_arrays_again() -> None:
    model = small(lambda: CountingEnv(0), "MlpPolicy", n_steps=1)
    reused = np.array([0, 0, 1], np.float32)
    model.observe([0, 0, 0], 0, 0.0, reused, False, False)
    reused[:] = [0, 5, 0]  # another episode
    model.observe(reused, 0, 0.0, [0, 5, 1], False, False)
    batch: Any = model.replay_buffer.sample(50, model.trainer.clock)
    pairs = zip(batch.obs.tolist(), batch.next_obs.tolist(), strict=True)
    assert {(*here, *there) for here, there in pairs} == {(0, 0, 0, 0, 0, 1), (0, 5, 0, 0, 5, 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_models_and_replays_are_saved_and_loaded(kind: Any) -> None:
    model = small(vector(kind, MODES[0])).learn(100)
    files = io.BytesIO(), io.BytesIO()
    model.save(files[0])
    model.save_replay_buffer(files[1])
    for file in files:
        file.seek(0)
    loaded = DQN.load(files[0])
    loaded.load_replay_buffer(files[1])
    obs, _ = vector(kind, MODES[0]).reset()
    np.testing.assert_array_equal(loaded.q_values(obs), model.q_values(obs))
    assert loaded.observation_space == model.observation_space
    assert loaded.replay_buffer.stored == model.replay_buffer.stored
    assert_true(loaded, kind)
    loaded.set_env(vector(kind, MODES[1]))
    loaded.learn(100)
    assert_true(loaded, kind, is_cut=True)
    other = TupleCountingEnv if kind is DictCountingEnv else DictCountingEnv
    with pytest.raises(SpaceError, match="the observation space must be"):
        loaded.set_env(vector(other, MODES[0]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_plays_whole_episodes(kind: Any, mode: AutoresetMode) -> None:
    model = small(kind)
    found = evaluate_policy(model, vector(kind, mode, 2), 6, return_episode_rewards=True)
    envs = [CountingEnv(0), CountingEnv(1)]
    totals = sorted(
        sum(env.reward(env.index, episode, t) for t in range(env.length(episode)))
        for env in envs
        for episode in range(3)
    )
    assert sorted(found[0]) == pytest.approx(totals)
    callback = EvalCallback(kind(), n_eval_episodes=3, eval_freq=10, verbose=0)
    model.learn(12, callback)
    assert callback.last_mean_reward == pytest.approx(
        np.mean([sum(envs[0].reward(0, n, t) for t in range(envs[0].length(n))) for n in range(3)])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_while_evaluating_is_not_overwritten(kind: Any) -> None:
    model, seen = small(kind), []

    def see(locals_: Any, globals_: Any) -> None:
        seen.append((locals_["observations"], locals_["new_observations"]))

    evaluate_policy(model, vector(kind, MODES[1], 1), 6, callback=see)
    for step in seen:
        before, after = (kind.plain(model.policy.adapter.batch(obs)[0]) for obs in step)
        assert (after - before).tolist() == [[0, 0, 1]]


class Watching(BaseCallback):
    """Compares what is told of each step with what the environments count."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind, self.ends = kind, 0

    def _on_step(self) -> bool:
        before, after = (self.kind.plain(self.locals[name]) for name in ("obs", "new_obs"))
        valid = self.locals["valid"]
        assert (after[valid] - before[valid]).tolist() == [[0, 0, 1]] * int(valid.sum())
        for env, info in enumerate(self.locals["infos"]):
            assert ("episode" in info) == (valid[env] and self.locals["dones"][env])
            if "episode" in info:
                last = {name: part[None] for name, part in info["terminal_observation"].items()}
                assert self.kind.plain(last).tolist() == [after[env].tolist()]
                assert after[env, 2] == info["episode"]["l"]
                self.ends += 1
        return True


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_see_the_parts_of_each_step(kind: Any, mode: AutoresetMode) -> None:
    watching = Watching(kind)
    small(vector(kind, mode)).learn(100, watching)
    assert watching.ends > 20


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_sb3s_view_returns_observations_as_the_environment_makes_them(
    kind: Any, mode: AutoresetMode
) -> None:
    model = small(vector(kind, mode, 2))
    view: Any = model.get_env()

    def plain(obs: Any) -> Any:
        return kind.plain(model.policy.adapter.batch(obs)[0]).tolist()

    first = view.reset()
    assert plain(first) == [[0, 0, 0], [1, 0, 0]]
    obs, _, dones, infos = view.step([0, 0])
    assert plain(first) == [[0, 0, 0], [1, 0, 0]]  # a copy: the environment reuses its arrays
    assert dones.tolist() == [True, False]  # environment 0 has an episode of one step
    batch, single = model.policy.adapter.batch(infos[0]["terminal_observation"])
    assert (kind.plain(batch).tolist(), single) == ([[0, 0, 1]], True)
    resets_later = mode is AutoresetMode.NEXT_STEP
    assert plain(obs) == [[0, 0, 1] if resets_later else [0, 1, 0], [1, 0, 1]]
    assert "terminal_observation" not in infos[1]
    before = plain(obs)
    view.step([0, 0])
    assert plain(obs) == before


# -- stacks of frames --------------------------------------------------------------------


def stacks(mode: AutoresetMode, n_envs: int = 2, padding: str = "reset") -> SyncVectorEnv:
    makers: list[Callable[[], Any]] = [
        lambda index=index: FrameStackObservation(PictureEnv(index), 3, padding_type=padding)
        for index in range(n_envs)
    ]
    return SyncVectorEnv(makers, autoreset_mode=mode, copy=False)


def picture(index: int, episode: int, t: int, padding: str) -> Any:
    if t < 0 and padding == "zero":
        return np.zeros((6, 5), np.uint8)
    return PictureEnv.picture(index, episode, max(t, 0))


def assert_stacked(model: DQN, padding: str = "reset") -> None:
    names = {
        PictureEnv.picture(index, episode, t).tobytes(): (index, episode, t)
        for index in range(2)
        for episode in range(120)
        for t in range(8)
    }
    batch: Any = model.replay_buffer.sample(300, model.trainer.clock)
    for obs, next_obs in zip(batch.obs.numpy(), batch.next_obs.numpy(), strict=True):
        index, episode, t = names[obs[-1].tobytes()]
        there = names[next_obs[-1].tobytes()]
        assert there in [(index, episode, t + 1), (index, episode, t + 2)]
        for stack, at in ((obs, t), (next_obs, there[2])):
            frames = [picture(index, episode, at - ago, padding) for ago in (2, 1, 0)]
            np.testing.assert_array_equal(stack, frames)


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("mode", MODES)
def test_frames_give_back_the_stacks_that_the_environment_returned(
    mode: AutoresetMode, padding: str
) -> None:
    for memory, kind in ((Memory(), StackedPart), (Memory(frame_stack=1), WholePart)):
        env = stacks(mode, padding=padding)
        model = small(env, "MlpPolicy", replay_memory=memory, buffer_size=150).learn(330)
        part = model.replay_buffer.storage._parts[""]  # type: ignore[attr-defined]
        assert isinstance(part, kind)
        assert_stacked(model, padding)


def test_a_loaded_model_takes_a_replay_of_frames_before_it_has_an_environment() -> None:
    model = small(stacks(MODES[0]), "MlpPolicy").learn(100)
    files = io.BytesIO(), io.BytesIO()
    model.save(files[0])
    model.save_replay_buffer(files[1])
    for file in files:
        file.seek(0)
    loaded = DQN.load(files[0])
    loaded.load_replay_buffer(files[1])
    assert_stacked(loaded)
    loaded.set_env(stacks(MODES[1]))
    assert_stacked(loaded.learn(100))


def test_stacks_in_a_dict_are_framed_part_by_part() -> None:
    env = SyncVectorEnv([lambda: FrameStackObservation(DictCountingEnv(0), 3)])
    model = small(env).learn(80)
    parts = model.replay_buffer.storage._parts  # type: ignore[attr-defined]
    assert {name: type(part) for name, part in parts.items()} == {
        "t": StackedPart,
        "whose/episode": WholePart,
        "whose/index": WholePart,
    }
    batch: Any = model.replay_buffer.sample(200, model.trainer.clock)
    for side in (batch.obs, batch.next_obs):
        newest = {name: stack[:, -1] for name, stack in side.items()}
        t = DictCountingEnv.plain(newest)[:, 2]
        for ago in (1, 2):
            older = np.maximum(t - ago, 0)
            assert side["t"][:, -1 - ago, 0, 0, 0].tolist() == older.tolist()


def test_a_space_with_a_part_that_cannot_be_stored_is_refused_by_name() -> None:
    class Speaking(DictCountingEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict(says=spaces.Text(3), t=spaces.Discrete(9))

    with pytest.raises(SpaceError, match=r"the part 'says'.* with gymnasium\.wrappers\.FilterObs"):
        small(Speaking).learn(10)
