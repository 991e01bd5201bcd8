"""Atari games: a lost life ends an episode, the game goes on, and scores are raw."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from sbdqn import DQN, MlpPolicy, evaluate_policy, recipes
from sbdqn.collector import Stepper
from sbdqn.envs import AtariGames, has_time_limit, make_evaluation_env, make_vector_env, split_infos
from sbdqn.errors import ConfigurationError, MissingDependencyError, NotReadyError, SpaceError

vector_env = pytest.importorskip("ale_py.vector_env", reason="sbdqn[atari] is not installed")

STILL: dict[str, Any] = {"repeat_action_probability": 0.0}
LIVES: dict[str, Any] = {"terminal_on_life_loss": True}
TINY: dict[str, Any] = {"img_height": 36, "img_width": 36}


@pytest.fixture(autouse=True)
def _own_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    # ALE's constructor writes into it, and other tests should not see what these do.
    monkeypatch.setattr(VectorEnv, "metadata", {})


def games(game: str = "Breakout", n_envs: int = 1, **env_kwargs: Any) -> AtariGames:
    env = make_vector_env(f"ALE/{game}-v5", n_envs, env_kwargs={"num_threads": 1, **env_kwargs})
    assert isinstance(env, AtariGames)
    return env


def twin(game: str = "breakout", n_envs: int = 1, **kwargs: Any) -> Any:
    """ALE's own environment with our defaults and no stickiness."""
    ours = {"noop_max": 0, "use_fire_reset": False, "reward_clipping": False, "num_threads": 1}
    mode = AutoresetMode.SAME_STEP
    return vector_env.AtariVectorEnv(game, n_envs, autoreset_mode=mode, **{**ours, **kwargs})


def actions_of(env: VectorEnv[Any, Any, Any], steps: int, seed: int = 0) -> Iterator[Any]:
    rng = np.random.default_rng(seed)
    n_actions = env.single_action_space.n  # type: ignore[attr-defined]
    for _ in range(steps):
        yield rng.integers(0, n_actions, env.num_envs)


def stream(env: VectorEnv[Any, Any, Any], seed: int, steps: int = 60) -> list[Any]:
    """What an environment returns from a seed on, for the same actions each time."""
    found = [env.reset(seed=seed)[0]]
    for actions in actions_of(env, steps):
        obs, rewards, *_ = env.step(actions[: env.num_envs])
        found += [obs, rewards]
    return found


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# Lives --------------------------------------------------------------------------------


def test_a_lost_life_ends_an_episode_and_the_game_goes_on() -> None:
    env = games(**STILL, **LIVES)
    env.reset(seed=0)
    lives, frames = [], []
    for _ in range(130):
        *_, terminated, truncated, infos = env.step(np.array([1]))
        assert not truncated.any()
        if terminated[0]:
            lives.append(int(infos["lives"][0]))
            frames.append(int(infos["episode_frame_number"][0]))
    assert lives == [4, 3, 2, 1, 5]  # the last of five is that of the next game
    assert frames[:4] == sorted(set(frames[:4]))
    assert frames[0] > 0
    assert frames[4] == 0


def test_without_the_option_a_game_is_an_episode() -> None:
    env = games(**STILL)
    env.reset(seed=0)
    ends = [env.step(np.array([1]))[2:4] for _ in range(130)]
    assert [bool(terminated[0]) for terminated, _ in ends].count(True) == 1


def test_the_last_observation_of_a_life_is_the_one_that_goes_on_and_a_copy_of_it() -> None:
    env, native = games(**STILL, **LIVES), twin()
    env.reset(seed=0)
    native.reset(seed=0)
    ends = []
    for _ in range(130):
        obs, _, terminated, _, infos = env.step(np.array([1]))
        known, _, over, _, known_infos = native.step(np.array([1]))
        np.testing.assert_array_equal(obs, known)
        assert ("final_obs" in infos) == bool(terminated[0])
        if terminated[0]:
            ends.append(bool(over[0]))
            expected = known_infos["final_obs"] if over[0] else known
            np.testing.assert_array_equal(infos["final_obs"], expected)
            assert infos["_final_obs"].tolist() == [True]
            assert not np.shares_memory(infos["final_obs"], obs)
    assert ends == [False] * 4 + [True]


def test_a_game_without_lives_ends_when_it_is_over() -> None:
    env = games("Pong", **STILL, **LIVES, frameskip=30)
    _, infos = env.reset(seed=0)
    assert infos["lives"].tolist() == [0]
    scores: list[float] = []
    while not scores:
        *_, terminated, _, infos = env.step(np.array([0]))
        assert bool(terminated[0]) == bool(infos["_episode"][0])
        scores += infos["episode"]["r"][infos["_episode"]].tolist()
    assert scores == [-21.0]


class Scripted(VectorEnv[Any, Any, Any]):
    """Three games whose lives and ends are written down; game over begins the next one."""

    autoreset_mode = AutoresetMode.SAME_STEP
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012, so in gymnasium
    num_envs = 3
    single_observation_space = spaces.Box(0, 255, (1,), np.uint8)
    single_action_space = spaces.Discrete(2)
    LIVES = ([3, 3, 3], [2, 3, 3], [2, 2, 3], [2, 2, 3], [1, 1, 0], [1, 2, 3])
    OVER = ((), (), (2,), (), (), (2,))

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.t, self.seed = 0, seed
        return np.zeros((3, 1), np.uint8), {"lives": np.array(self.LIVES[0])}

    def send(self, actions: Any) -> None:
        self.t += 1

    def recv(self) -> Any:
        over = np.isin(np.arange(3), self.OVER[self.t])
        infos: dict[str, Any] = {"lives": np.array(self.LIVES[self.t])}
        if over.any():  # ALE leaves what it likes where no game is over
            infos["final_obs"] = np.where(over, 100 + self.t, 7)[:, np.newaxis].astype(np.uint8)
        obs = np.full((3, 1), self.t, np.uint8)
        return obs, np.array([5, -3, 0], np.int32), over, np.zeros(3, np.bool_), infos


def test_lives_and_games_that_end_in_the_same_step_are_told_apart() -> None:
    env = AtariGames(Scripted(), terminal_on_life_loss=True)
    env.reset()
    ends = []
    for t in range(1, 6):
        _, rewards, terminated, _, infos = env.step(np.zeros(3, np.int64))
        assert rewards.tolist() == [5.0, -3.0, 0.0]
        assert ("final_obs" in infos) == terminated.any()
        final = infos["final_obs"][terminated, 0].tolist() if terminated.any() else []
        ends.append((t, np.flatnonzero(terminated).tolist(), final))
    assert ends == [
        (1, [0], [1]),
        (2, [1, 2], [2, 102]),
        (3, [], []),
        (4, [0, 1, 2], [4, 4, 4]),  # the last life too, though the game is not over yet
        (5, [2], [105]),  # a life won in game 1 ends nothing
    ]


# Scores -------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [False, True])
def test_scores_are_raw_and_of_full_games_whatever_is_learned_from(clips: bool) -> None:
    game = {"frameskip": 16, **STILL, **TINY}
    env = games("MsPacman", **LIVES, clip_reward=clips, **game)
    native = twin("ms_pacman", **game)
    _, infos = env.reset(seed=3)
    native.reset(seed=3)
    assert infos["_episode"].tolist() == [False]
    assert infos["episode"]["r"].tolist() == [0.0]
    played, told, lives, points_now = [], [], 0, []
    for actions in actions_of(env, 300):
        _, rewards, terminated, _, infos = env.step(actions)
        _, points, over, _, _ = native.step(actions)
        assert rewards.dtype == np.float64
        np.testing.assert_array_equal(rewards, np.sign(points) if clips else points)
        points_now.append(int(points[0]))
        lives += bool(terminated[0] and not over[0])
        assert infos["_episode"].tolist() == over.tolist()
        if over[0]:
            played.append((sum(points_now), len(points_now)))
            told.append((infos["episode"]["r"][0], infos["episode"]["l"][0]))
            points_now = []
    assert told == played
    assert len(told) >= 2
    assert max(points for points, _ in told) > 100
    assert lives >= 2 * len(told)


def test_the_infos_of_each_game_have_its_score_where_it_ended() -> None:
    env = AtariGames(Scripted())
    env.reset()
    for _ in range(2):
        *_, infos = env.step(np.zeros(3, np.int64))
    one, two, three = split_infos(infos, 3)
    assert three["episode"] == {"r": 0.0, "l": 2}
    assert three["final_obs"].tolist() == [102]
    assert "episode" not in one
    assert "final_obs" not in two


def test_a_game_cut_short_is_truncated_and_told_of() -> None:
    env = games(n_envs=2, max_num_frames_per_episode=42, **LIVES, **TINY)
    assert has_time_limit(env)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 11
    env.reset(seed=0)
    for t in range(1, 23):
        *_, terminated, truncated, infos = env.step(np.array([0, 0]))
        assert truncated.tolist() == [t % 11 == 0] * 2
        assert not terminated.any()
        if truncated.any():
            assert infos["episode"]["l"].tolist() == [11, 11]


def test_a_reset_begins_to_count_anew_where_it_resets() -> None:
    env = games(n_envs=2, max_num_frames_per_episode=40, **TINY)
    env.reset(seed=0)
    for _ in range(6):
        env.step(np.array([0, 0]))
    env.reset(options={"reset_mask": np.array([True, False])})
    lengths = []
    for _ in range(10):
        *_, infos = env.step(np.array([0, 0]))
        lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    assert lengths == [10, 10]  # the second is over 4 steps later, the first 10


# The way to the learner ---------------------------------------------------------------


def test_rows_are_what_a_loop_around_ale_itself_would_store() -> None:
    n_envs = 2
    env = games(n_envs=n_envs, **STILL, **LIVES, **TINY)
    native = twin(n_envs=n_envs, **TINY)
    stepper = Stepper(env, np.array)
    stepper.reset(seed=5)
    before, infos = native.reset(seed=5)
    lives, first = infos["lives"], np.ones(n_envs, dtype=np.bool_)
    lost = over = episodes = 0
    for actions in actions_of(env, 220):
        row, told = stepper.step(actions)
        obs, rewards, terminated, truncated, infos = native.step(actions)
        dies = (infos["lives"] < lives) & ~terminated & ~truncated
        next_obs = obs.copy()
        next_obs[terminated] = infos["final_obs"][terminated] if terminated.any() else 0
        np.testing.assert_array_equal(row.obs, before)
        np.testing.assert_array_equal(row.next_obs, next_obs)
        np.testing.assert_array_equal(row.reward, rewards)
        np.testing.assert_array_equal(row.terminated, terminated | dies)
        np.testing.assert_array_equal(row.truncated, truncated)
        np.testing.assert_array_equal(row.first, first)
        assert row.valid.all()
        assert [episode.env for episode in told] == np.flatnonzero(terminated).tolist()
        lost, over, episodes = lost + dies.sum(), over + terminated.sum(), episodes + len(told)
        before, lives, first = obs, infos["lives"], row.terminated
    assert episodes == over >= 2
    assert lost == pytest.approx(4 * over, abs=4 * n_envs)


@pytest.fixture(scope="module")
def model() -> DQN:
    """Has learned a little of Breakout, from lives and clipped rewards."""
    settings: dict[str, Any] = {**recipes.atari, "buffer_size": 1_000, "learning_starts": 350}
    env_kwargs = {**settings["env_kwargs"], **TINY, "frameskip": 12, "num_threads": 1}
    policy = MlpPolicy(net_arch=(8,), layer_norm=False)
    settings |= {"policy_kwargs": None, "env_kwargs": env_kwargs, "seed": 0, "device": "cpu"}
    settings["exploration_final_eps"] = 1.0  # who never fires waits for the end of the game
    return DQN(policy, "ALE/Breakout-v5", n_envs=2, **settings).learn(400)


def test_a_model_learns_from_lives_and_logs_full_games(model: DQN) -> None:
    games_played = list(model.ep_info_buffer)
    assert games_played
    assert min(game["l"] for game in games_played) > 30  # a life takes 8 steps
    batch = model.replay_buffer.sample(1_000, model.trainer.clock)
    ends = float((batch.discount == 0).float().mean())
    assert ends > 3 * len(games_played) / 400  # and lives end episodes of the replay


def test_evaluation_plays_full_games_with_raw_scores(model: DQN) -> None:
    env = model.make_eval_env(n_envs=2)
    assert isinstance(env, AtariGames)
    assert env.num_envs == 2
    assert env.single_observation_space == model.observation_space
    dones: list[int] = []
    returns, lengths = evaluate_policy(
        model,
        env,
        4,
        deterministic=False,
        return_episode_rewards=True,
        callback=lambda step, _: dones.append(step["dones"].sum()),
        seed=1,
    )
    env.close()
    assert len(returns) == 4
    assert min(lengths) > 30
    assert sum(dones) < 8  # no life was an episode
    # In the training environment they are full games all the same.
    assert model.env is not None
    _, lengths = evaluate_policy(model, model.env, 2, False, return_episode_rewards=True, seed=1)
    assert min(lengths) > 30


# Evaluation environments ---------------------------------------------------------------


def flags(env: VectorEnv[Any, Any, Any]) -> tuple[bool, bool]:
    assert isinstance(env, AtariGames)
    return env.terminal_on_life_loss, env.clip_reward


@pytest.mark.parametrize("vectorization", ["auto", "vector_entry_point"])
def test_environments_for_evaluation_are_like_those_of_training(vectorization: Any) -> None:
    kwargs = {**recipes.atari["env_kwargs"], "stack_num": 2}
    model = DQN("MlpPolicy", "ALE/Pong-v5", env_kwargs=kwargs, vectorization=vectorization)
    assert model.env is not None
    assert flags(model.env) == (True, True)
    env = model.make_eval_env()
    assert flags(env) == (False, False)
    assert env.num_envs == 1
    assert env.spec is not None
    assert model.env.spec is not None
    assert env.spec.kwargs == model.env.spec.kwargs
    assert model.get_params()["env_kwargs"] == kwargs


def test_what_is_no_atari_game_is_made_as_in_training() -> None:
    env = make_evaluation_env("CartPole-v1", 2, "sync", {"max_episode_steps": 7})
    assert isinstance(env, SyncVectorEnv)
    assert env.get_attr("spec")[0].max_episode_steps == 7
    env = make_evaluation_env(lambda: gym.make("CartPole-v1"), 3)
    assert env.num_envs == 3
    raw = make_evaluation_env("ALE/Pong-v5", 1, "sync")
    assert raw.single_observation_space.shape == (210, 160, 3)


def test_no_second_environment_can_be_made_of_an_object() -> None:
    for env in (gym.make("CartPole-v1"), SyncVectorEnv([lambda: gym.make("CartPole-v1")])):
        with pytest.raises(ConfigurationError, match="as you made that one"):
            DQN("MlpPolicy", env).make_eval_env()
    with pytest.raises(NotReadyError, match="has no environment"):
        DQN("MlpPolicy", None).make_eval_env()


# What an id makes ------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "n_envs"), [("ALE/Pong-v5", 1), ("ale_py:ALE/Pong-v5", 2)])
def test_an_id_is_the_sticky_protocol_whatever_the_number_of_games(
    env_id: str, n_envs: int
) -> None:
    env = make_vector_env(env_id, n_envs)
    assert flags(env) == (False, False)
    assert env.num_envs == n_envs
    assert env.single_observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert env.single_action_space == spaces.Discrete(6)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.spec is not None
    assert env.spec.kwargs == {
        "game": "pong",
        "repeat_action_probability": 0.25,
        "frameskip": 4,
        "full_action_space": False,
        "max_num_frames_per_episode": 108_000,
        "noop_max": 0,
        "use_fire_reset": False,
    }
    assert env.spec.max_episode_steps == 27_000


def test_actions_stick_unless_that_is_turned_off() -> None:
    sticky = [stream(games(**TINY), seed) for seed in (0, 1)]
    assert not same(*sticky)
    still = [stream(games(**STILL, **TINY), seed) for seed in (0, 1)]
    assert same(*still)


@pytest.mark.parametrize("frameskip", [1, 4, 7])
def test_an_action_takes_as_many_frames_as_it_should(frameskip: int) -> None:
    env = games(frameskip=frameskip, **TINY)
    env.reset(seed=0)
    *_, infos = env.step(np.array([0]))
    assert infos["frame_number"].tolist() == [frameskip]


def test_a_game_begins_with_no_ops_and_fire_if_it_is_told_to() -> None:
    assert games().reset(seed=0)[1]["frame_number"].tolist() == [0]
    frames = games(n_envs=5, noop_max=30, **TINY).reset(seed=0)[1]["frame_number"]
    assert len(set(frames.tolist())) > 2
    assert frames.max() < 30
    assert games(use_fire_reset=True).reset(seed=0)[1]["frame_number"].tolist() == [1]


def test_everything_else_can_be_chosen_too() -> None:
    env = games(stack_num=2, img_height=40, img_width=50, full_action_space=True)
    assert env.single_observation_space.shape == (2, 40, 50)
    assert env.single_action_space == spaces.Discrete(18)
    assert games(grayscale=False, **TINY).single_observation_space.shape == (4, 36, 36, 3)


def test_continuous_actions_reach_ale_and_no_model_takes_them() -> None:
    env = games("Pong", continuous=True, **TINY)
    env.reset(seed=0)
    env.step(np.array([[1.0, 0.0, 1.0]], dtype=np.float32))
    with pytest.raises(SpaceError, match="needs a Discrete action space"):
        DQN("MlpPolicy", env).action_space  # noqa: B018


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_single_games_are_those_of_gymnasium(vectorization: Any) -> None:
    env = make_vector_env("ALE/Pong-v5", 2, vectorization, {"frameskip": 2})
    assert not isinstance(env, AtariGames)
    assert env.single_observation_space.shape == (210, 160, 3)
    env.close()


# Seeds and threads ------------------------------------------------------------------------


def test_a_seed_repeats_the_games_and_each_game_has_its_own() -> None:
    several = stream(games("Pong", 2, noop_max=30, **TINY), seed=7)
    again = stream(games("Pong", 2, noop_max=30, **{**TINY, "num_threads": 2}), seed=7)
    assert same(several, again)
    assert not np.array_equal(several[-2][0], several[-2][1])


def test_one_game_is_what_it_is_among_several() -> None:
    env, alone = (games("Pong", n_envs, noop_max=30, **TINY) for n_envs in (2, 1))
    obs, _ = env.reset(seed=10)
    single, _ = alone.reset(seed=11)
    np.testing.assert_array_equal(obs[1], single[0])
    for actions in actions_of(env, 50):
        obs, rewards, *_ = env.step(actions)
        single, reward, *_ = alone.step(actions[1:])
        np.testing.assert_array_equal(obs[1], single[0])
        assert rewards[1] == reward[0]


@pytest.mark.parametrize("seed", [2**31 - 1, 2**40])
def test_a_seed_may_be_larger_than_ale_takes(seed: int) -> None:
    env = games("Pong", 2, noop_max=30, **TINY)
    assert same(stream(env, seed, 5), stream(env, seed, 5))


def test_sending_and_receiving_is_a_step() -> None:
    one, other = games(**TINY), games(**TINY)
    one.reset(seed=0)
    other.reset(seed=0)
    for actions in actions_of(one, 30):
        other.send(actions)
        for stepped, received in zip(one.step(actions)[:4], other.recv()[:4], strict=True):
            np.testing.assert_array_equal(stepped, received)


def test_between_sending_and_receiving_nothing_else_is_done() -> None:
    env, other = (games(n_envs=2, **STILL, **TINY) for _ in range(2))
    for each in (env, other):
        each.reset(seed=0)
    actions = np.zeros(2, np.int64)
    env.send(actions)
    for call in (env.reset, lambda: env.step(actions), lambda: env.send(actions)):
        with pytest.raises(AlreadyPendingCallError, match="a pending call to `step`"):
            call()
    assert same([env.recv()[0]], [other.step(actions)[0]])
    assert same([env.step(actions)[0]], [other.step(actions)[0]])


def test_games_that_are_closed_say_so() -> None:
    env = games(**TINY)
    env.reset(seed=0)
    env.send(np.zeros(1, np.int64))
    env.close()
    for call in (env.recv, env.reset, lambda: env.step(np.zeros(1, np.int64))):
        with pytest.raises(ClosedEnvironmentError, match="have been closed; make new ones"):
            call()


def test_what_a_step_returned_is_not_overwritten_by_the_next() -> None:
    env = games(n_envs=2, **LIVES, **TINY)
    env.reset(seed=0)
    last: Any = None
    for actions in actions_of(env, 20):
        obs, rewards, terminated, truncated, infos = env.step(actions)
        arrays = [obs, rewards, terminated, truncated, infos["lives"], infos["episode"]["r"]]
        if last is not None:
            assert not any(
                np.shares_memory(new, old) for new, old in zip(arrays, last[0], strict=True)
            )
            assert same(*last)
        last = arrays, [each.copy() for each in arrays]


# Metadata of its own ----------------------------------------------------------------------


def test_our_games_leave_no_trace_in_the_metadata_of_others() -> None:
    games()
    assert VectorEnv.metadata == {}


def test_each_environment_has_its_own_autoreset_mode() -> None:
    native = vector_env.AtariVectorEnv
    made = {mode: native("pong", 1, autoreset_mode=mode) for mode in list(AutoresetMode)[:2]}
    taken = {mode: make_vector_env(env) for mode, env in made.items()}
    twin("pong")
    for mode, env in taken.items():
        assert env is made[mode]
        assert env.metadata["autoreset_mode"] is mode


def test_a_mode_that_another_environment_wrote_is_not_believed() -> None:
    class Silent(VectorEnv[Any, Any, Any]):
        num_envs = 1

    twin("pong")
    env = Silent()
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    with pytest.raises(ConfigurationError, match="does not say how it resets itself"):
        make_vector_env(env)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_model_trains_in_ales_environment_as_it_is(mode: AutoresetMode) -> None:
    settings = {"frameskip": 12, "num_threads": 1, **TINY}
    env = vector_env.AtariVectorEnv("breakout", 2, autoreset_mode=mode, **settings)
    policy = MlpPolicy(net_arch=(8,), layer_norm=False)
    model = DQN(policy, env, learning_starts=200, batch_size=8, buffer_size=500, seed=0)
    model.learn(250)
    assert model.num_timesteps in (250, 251)
    assert model.ep_info_buffer
    assert all(episode["l"] > 30 for episode in model.ep_info_buffer)


# What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_kwargs", "complaint"),
    [
        ({"episodic_life": True}, "instead of 'episodic_life' use terminal_on_life_loss=True"),
        ({"life_loss_info": True}, "instead of 'life_loss_info' use terminal_on_life_loss"),
        ({"reward_clipping": False}, "instead of 'reward_clipping' use clip_reward"),
        ({"batch_size": 1}, "'batch_size' cannot be chosen: all environments step together"),
        ({"autoreset_mode": "NextStep"}, "'autoreset_mode' cannot be chosen"),
        ({"game": "pong"}, "'game' cannot be chosen"),
        ({"num_envs": 3}, "'num_envs' cannot be chosen"),
        ({"terminal_on_life_loss": 1}, "terminal_on_life_loss must be True or False, not 1"),
        ({"clip_reward": "yes"}, "clip_reward must be True or False, not 'yes'"),
        ({"render_mode": "human"}, r"'render_mode': 'human'.* do not fit .*ALE/Pong-v5"),
        ({"lives": 3}, r"'lives': 3.* do not fit the environment 'ALE/Pong-v5'"),
    ],
)
def test_keywords_without_a_meaning_are_refused(env_kwargs: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_vector_env("ALE/Pong-v5", env_kwargs=env_kwargs)


def test_a_game_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'ALE/Pongg-v5' cannot be made"):
        make_vector_env("ALE/Pongg-v5")


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_games_in_another_mode_are_refused(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1")], autoreset_mode=mode)
    with pytest.raises(ConfigurationError, match=r"must be AutoresetMode\.SAME_STEP, not"):
        AtariGames(env)


@pytest.mark.parametrize("actions", [[6, 0], [0, -1], [0.0, 1.0]])
def test_an_action_that_does_not_exist_is_refused_instead_of_waited_for(actions: Any) -> None:
    env = games("Pong", 2)
    env.reset(seed=0)
    with pytest.raises(SpaceError):
        env.step(np.array(actions))
    env.step(np.array([5, 0]))


def test_without_ale_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sbdqn\[atari\]'"):
        make_vector_env("ALE/Pong-v5")


def test_nobody_has_to_import_ale() -> None:
    code = (
        "from sbdqn.envs import make_vector_env\n"
        "print(type(make_vector_env('ALE/Pong-v5')).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "AtariGames\n", run.stderr
