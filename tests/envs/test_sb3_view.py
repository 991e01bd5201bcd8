"""The training environment with the calls that SB3's scripts make."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from sbdqn import DQN, MlpPolicy
from sbdqn.envs import SB3View
from sbdqn.errors import MissingMethodError, WorkerError
from tests.environments import CountingEnv
from tests.warnings_of_workers import FORK

pytestmark = FORK


class PaintingEnv(CountingEnv):
    """Renders, and remembers the seeds of its resets."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012, so in gymnasium
    render_mode = "rgb_array"

    def __init__(self, index: int = 0) -> None:
        super().__init__(index, lengths=(3,))
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)

    def render(self) -> Any:
        return np.full((2, 2, 3), self.t, np.uint8)

    def add(self, one: int, other: int = 0) -> int:
        return self.index + one + other


@pytest.fixture
def view() -> SB3View:
    env = SyncVectorEnv([lambda index=index: PaintingEnv(index) for index in range(2)])
    return SB3View(env, lambda: None)


def test_its_spaces_are_those_of_one_environment(view: SB3View) -> None:
    assert view.num_envs == 2
    assert view.observation_space == CountingEnv().observation_space
    assert view.action_space == CountingEnv().action_space
    assert view.render_mode == "rgb_array"


def test_reset_returns_observations_alone(view: SB3View) -> None:
    np.testing.assert_array_equal(view.reset(), [[0, 0, 0], [1, 0, 0]])


def test_step_returns_four_values_with_an_info_for_each(view: SB3View) -> None:
    view.reset()
    for _ in range(3):
        obs, rewards, dones, infos = view.step([0, 1])
    np.testing.assert_array_equal(obs, [[0, 0, 3], [1, 0, 3]])
    np.testing.assert_array_equal(dones, [True, True])
    assert rewards.tolist() == [CountingEnv.reward(index, 0, 2) for index in range(2)]
    assert [info["is_success"] for info in infos] == [True, False]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]
    assert [info["terminal_observation"].tolist() for info in infos] == obs.tolist()
    obs, rewards, dones, infos = view.step(np.array([0, 1]))
    np.testing.assert_array_equal(obs, [[0, 1, 0], [1, 1, 0]])
    assert rewards.tolist() == [0, 0]
    assert not dones.any()
    assert infos == [{}, {}]


def test_the_terminal_observation_is_the_true_last_one_under_same_step() -> None:
    makers = [lambda index=index: PaintingEnv(index) for index in range(2)]
    env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    view = SB3View(env, lambda: None)
    view.reset()
    for _ in range(3):
        obs, _, dones, infos = view.step([0, 0])
    assert dones.all()
    assert obs.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert [info["terminal_observation"].tolist() for info in infos] == [[0, 0, 3], [1, 0, 3]]
    assert [info["is_success"] for info in infos] == [True, False]


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_what_does_not_reset_itself_is_reset_where_it_ends(kind: Any) -> None:
    makers = [lambda index=index: CountingEnv(index, lengths=(2, 3)) for index in range(2)]
    view = SB3View(kind(makers, autoreset_mode=AutoresetMode.DISABLED), lambda: None)
    view.reset()
    seen = [view.step([0, 0]) for _ in range(5)]
    # Episodes of 2, 3, ... steps in the first environment, of 3, 2, ... in the second.
    assert [obs.tolist() for obs, *_ in seen] == [
        [[0, 0, 1], [1, 0, 1]],
        [[0, 1, 0], [1, 0, 2]],
        [[0, 1, 1], [1, 1, 0]],
        [[0, 1, 2], [1, 1, 1]],
        [[0, 2, 0], [1, 2, 0]],
    ]
    ended = [[False, False], [True, False], [False, True], [False, False], [True, True]]
    assert [dones.tolist() for _, _, dones, _ in seen] == ended
    last = {
        (step, env): info["terminal_observation"].tolist()
        for step, (*_, infos) in enumerate(seen)
        for env, info in enumerate(infos)
        if "terminal_observation" in info
    }
    assert last == {(1, 0): [0, 0, 2], (2, 1): [1, 0, 3], (4, 0): [0, 1, 3], (4, 1): [1, 1, 2]}
    assert seen[1][3][0]["is_success"]
    view.close()


def test_observations_are_not_overwritten_by_later_steps(view: SB3View) -> None:
    first = view.reset()
    view.step([0, 0])
    np.testing.assert_array_equal(first, [[0, 0, 0], [1, 0, 0]])


def test_a_seed_is_that_of_the_next_reset(view: SB3View) -> None:
    view.seed(5)
    view.reset()
    view.reset()
    assert view.get_attr("seeds") == ([5, None], [6, None])


def test_attributes_and_methods_are_those_of_every_environment(view: SB3View) -> None:
    assert view.get_attr("index") == (0, 1)
    assert view.env_method("add", 10, other=100) == (110, 111)
    view.set_attr("index", 5)
    assert view.get_attr("index") == (5, 5)
    view.set_attr("lengths", (1, 2))  # a tuple is a value here, not one for each
    assert view.get_attr("lengths") == ((1, 2), (1, 2))


def test_attributes_are_found_behind_a_wrapper(view: SB3View) -> None:
    wrapped = SB3View(RecordEpisodeStatistics(view.vector_env), lambda: None)
    wrapped.set_attr("index", 7)
    assert wrapped.get_attr("index") == wrapped.env_method("add", 0) == (7, 7)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("get_attr", ("gravity",)), ("set_attr", ("gravity", 1.0)), ("env_method", ("render",))],
)
def test_an_environment_that_steps_all_at_once_has_no_attributes_of_each(
    method: str, arguments: tuple[Any, ...]
) -> None:
    view = DQN("MlpPolicy", "CartPole-v1", n_envs=2).get_env()
    assert view is not None
    with pytest.raises(MissingMethodError, match=r"CartPoleVectorEnv .*vectorization='sync'"):
        getattr(view, method)(*arguments)


@pytest.mark.filterwarnings("ignore:.*(following error|last exception|Traceback):UserWarning")
@pytest.mark.parametrize("touch", ["step", "get_attr"])
def test_faults_of_workers_are_reported(touch: str) -> None:
    view = DQN("MlpPolicy", CountingEnv, n_envs=2, vectorization="async").get_env()
    assert view is not None
    view.reset()
    with pytest.raises(WorkerError, match=r"environment [01] raised "):
        view.step(["left", "right"]) if touch == "step" else view.get_attr("no_such_thing")
    assert view.vector_env.closed


def test_render_ignores_the_mode_that_scripts_pass(view: SB3View) -> None:
    view.reset()
    view.step([0, 0])
    for frames in (view.render(), view.render("human"), view.render(mode="rgb_array")):
        np.testing.assert_array_equal(np.array(frames), np.full((2, 2, 2, 3), 1))


def test_close_closes_the_environment(view: SB3View) -> None:
    view.close()
    assert view.vector_env.closed


@pytest.mark.parametrize("touch", ["reset", "step"])
def test_touching_the_training_environment_begins_the_next_learn_with_a_reset(touch: str) -> None:
    env = PaintingEnv()
    model = DQN(MlpPolicy(net_arch=(8,)), env, buffer_size=100, n_steps=1, seed=0).learn(4)
    assert env.episode == 1
    seen = model.get_env()
    assert seen is not None
    seen.reset() if touch == "reset" else seen.step([0])
    before = env.episode
    model.learn(4)
    assert env.episode > before
    # No transition leads from an observation before the touch to one after it.
    batch = model.replay_buffer.sample(300, model.trainer.clock)
    np.testing.assert_array_equal(
        batch.next_obs - batch.obs, np.tile([0, 0, 1], (300, 1)).astype(np.float32)
    )


def test_looking_at_the_training_environment_changes_nothing() -> None:
    env = PaintingEnv()
    model = DQN(MlpPolicy(net_arch=(8,)), env, buffer_size=100, n_steps=1, seed=0).learn(4)
    seen = model.get_env()
    assert seen is not None
    seen.get_attr("index")
    seen.render()
    resets = len(env.seeds)
    model.learn(1)
    assert len(env.seeds) == resets


def test_an_environment_without_render_returns_none() -> None:
    seen = DQN("MlpPolicy", gym.make("CartPole-v1")).get_env()
    assert seen is not None
    assert seen.render_mode is None
