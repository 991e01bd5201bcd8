"""Rows say what really happened, the same in every autoreset mode."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import RecordEpisodeStatistics, TransformReward
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVectorStatistics

from sbdqn.collector import Collector, Stepper
from sbdqn.envs import ObservationAdapter
from sbdqn.errors import NonFiniteError
from sbdqn.exploration import EpsilonGreedy, Greedy
from sbdqn.heads import Scalar
from sbdqn.networks import MlpPolicy
from sbdqn.nonfinite import NonFinite
from sbdqn.protocols import Background
from sbdqn.types import Clock, Episode, Purpose, Row
from tests.environments import CountingEnv

MODES = list(AutoresetMode)
CPU = torch.device("cpu")


def stepper_of(
    makers: list[Callable[[], gym.Env[Any, Any]]], mode: AutoresetMode, copy: bool = False
) -> Stepper:
    env = SyncVectorEnv(makers, copy=copy, autoreset_mode=mode)
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    stepper.reset(seed=0)
    return stepper


def counting(mode: AutoresetMode, n_envs: int = 1, copy: bool = False, **options: Any) -> Stepper:
    makers = [lambda index=index: CountingEnv(index, **options) for index in range(n_envs)]
    return stepper_of(makers, mode, copy)


def action_for(obs: Any) -> Any:
    """An action that depends on the environment's state alone."""
    index, episode, t = obs.astype(np.int64).T
    return (index + 2 * episode + t) % 3


def transitions(stepper: Stepper, each: int) -> tuple[list[list[Any]], list[list[Episode]]]:
    """The first transitions and the episodes of each environment."""
    found: list[list[Any]] = [[] for _ in range(stepper.n_envs)]
    ended: list[list[Episode]] = [[] for _ in range(stepper.n_envs)]
    while min(map(len, found)) < each:
        row, episodes = stepper.step(action_for(stepper.obs))
        for env in np.flatnonzero(row.valid):
            found[env].append([column[env].tolist() for column in row])
        for episode in episodes:
            ended[episode.env].append(episode)
    return [column[:each] for column in found], [one[:5] for one in ended]


# -- autoreset -----------------------------------------------------------------------


def test_the_three_autoreset_modes_cannot_be_told_apart() -> None:
    seen = {mode: transitions(counting(mode, n_envs=3), each=40) for mode in MODES}
    assert seen[AutoresetMode.NEXT_STEP] == seen[AutoresetMode.SAME_STEP]
    assert seen[AutoresetMode.NEXT_STEP] == seen[AutoresetMode.DISABLED]


@pytest.mark.parametrize("mode", MODES)
def test_every_transition_is_what_the_environment_did(mode: AutoresetMode) -> None:
    columns, _ = transitions(counting(mode, n_envs=3), each=40)
    for index, column in enumerate(columns):
        env, episode, t = CountingEnv(index), 0, 0
        for obs, action, reward, next_obs, terminated, truncated, first, valid in column:
            assert obs == [index, episode, t]
            assert action == (index + 2 * episode + t) % 3
            assert reward == env.reward(index, episode, t)
            assert next_obs == [index, episode, t + 1]
            ended = t + 1 == env.length(episode)
            assert terminated == (ended and env.kind(episode) in "TB")
            assert truncated == (ended and env.kind(episode) in "UB")
            assert first == (t == 0)
            assert valid
            episode, t = (episode + 1, 0) if ended else (episode, t + 1)


def rows(stepper: Stepper, count: int) -> list[Row]:
    return [stepper.step(action_for(stepper.obs))[0] for _ in range(count)]


def test_the_step_that_only_resets_is_no_transition() -> None:
    stepper = counting(AutoresetMode.NEXT_STEP, lengths=(2, 3), kinds="TU")
    seen = rows(stepper, 9)
    assert [bool(row.valid[0]) for row in seen] == [True, True, False] + [True] * 3 + [False] + [
        True
    ] * 2
    assert [bool(row.first[0]) for row in seen] == [True, False, False] + [True] + [False] * 3 + [
        True,
        False,
    ]
    env = stepper.env.envs[0].unwrapped  # type: ignore[attr-defined]
    assert len(env.actions) == 7  # no action was spent on a reset


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_where_no_step_is_lost_every_row_is_full(mode: AutoresetMode) -> None:
    seen = rows(counting(mode, n_envs=3), 30)
    assert all(row.valid.all() for row in seen)


@pytest.mark.parametrize("mode", MODES)
def test_episode_statistics_count_transitions_alone(mode: AutoresetMode) -> None:
    stepper = counting(mode, n_envs=2, lengths=(2, 3), kinds="TU")
    _, ended = transitions(stepper, each=10)
    reward = CountingEnv.reward
    # Environment 0 has episodes of 2, 3, 2, 3 steps, environment 1 of 3, 2, 3, 2.
    for env, lengths in ((0, (2, 3, 2, 3)), (1, (3, 2, 3, 2))):
        for number, (episode, length) in enumerate(zip(ended[env], lengths, strict=False)):
            assert episode.env == env
            assert episode.length == length
            total = sum(reward(env, number, t) for t in range(length))
            assert episode.reward == pytest.approx(total)
            assert type(episode.reward) is float
            assert type(episode.length) is int


class Lives(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode after two steps each, while the game inside goes on."""

    t, over = 0, True

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.t = 0
        if self.over:
            return self.env.reset(seed=seed, options=options)
        return self.last, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.last, reward, terminated, truncated, info = self.env.step(action)
        self.t += 1
        self.over = terminated or truncated
        return self.last, reward, terminated or self.t == 2, truncated, info


def learned_from(index: int) -> gym.Env[Any, Any]:
    """Games of 5, 3, 5, ... steps, of which lives and clipped rewards are learned from."""
    game = RecordEpisodeStatistics(CountingEnv(index, lengths=(5, 3), kinds="TU"))
    return Lives(TransformReward(game, lambda reward: float(np.sign(reward))))


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_those_that_the_environment_tells_of(mode: AutoresetMode) -> None:
    makers = [lambda index=index: learned_from(index) for index in range(2)]
    stepper = stepper_of(makers, mode)
    seen, told, ends = [], [], 0
    for _ in range(40):
        row, episodes = stepper.step(action_for(stepper.obs))
        ends += int(((row.terminated | row.truncated) & row.valid)[0])
        seen += row.reward[row.valid].tolist()
        told += [episode for episode in episodes if episode.env == 0]
    assert set(seen) <= {0.0, 1.0}
    # A life ended before anything was told, by the other environment's first game.
    assert [episode.length for episode in told[:4]] == [2, 5, 3, 5]
    for number, episode in enumerate(told[1:]):
        raw = [CountingEnv.reward(0, number, t) for t in range(episode.length)]
        assert episode.reward == pytest.approx(sum(raw), rel=1e-6)
        assert episode.success == (number % 2 == 0)
    assert ends > 2 * len(told)


@pytest.mark.parametrize("mode", MODES)
def test_statistics_of_the_vector_environment_change_nothing(mode: AutoresetMode) -> None:
    makers = [lambda index=index: CountingEnv(index) for index in range(3)]
    env = RecordVectorStatistics(SyncVectorEnv(makers, autoreset_mode=mode))
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    stepper.reset(seed=0)
    _, told = transitions(stepper, each=40)
    _, counted = transitions(counting(mode, n_envs=3), each=40)
    assert [[episode[1:] for episode in one] for one in told] == [
        [episode[1:] for episode in one] for one in counted
    ]
    for one, other in zip(told, counted, strict=True):
        assert [e.reward for e in one] == pytest.approx([e.reward for e in other])


class Announcing(VectorWrapper):  # type: ignore[type-arg]  # not generic before gymnasium 1.3
    """Tells of episodes from its reset on: of every second one that ends."""

    def reset(self, **kwargs: Any) -> Any:
        obs, infos = self.env.reset(**kwargs)
        self.ends = np.zeros(self.num_envs, dtype=np.int64)
        return obs, infos | self.told(self.ends > 0)

    def step(self, actions: Any) -> Any:
        *step, infos = self.env.step(actions)
        ended = step[2] | step[3]
        self.ends += ended
        return *step, infos | self.told(ended & (self.ends % 2 == 0))

    def told(self, ended: Any) -> dict[str, Any]:
        return {"episode": {"r": 10.0 * self.ends, "l": self.ends}, "_episode": ended}


def test_an_environment_that_tells_from_the_beginning_is_believed_at_once() -> None:
    makers = [lambda index=index: CountingEnv(index, lengths=(2,)) for index in range(2)]
    env = Announcing(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP))
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    for _ in range(2):
        stepper.reset(seed=0)
        found = [stepper.step(np.zeros(2, np.int64))[1] for _ in range(8)]
        assert [[(e.reward, e.length, e.env) for e in episodes] for episodes in found] == [
            [],
            [],
            [],
            [(20.0, 2, 0), (20.0, 2, 1)],
            [],
            [],
            [],
            [(40.0, 4, 0), (40.0, 4, 1)],
        ]


@pytest.mark.parametrize("said", [3, {"r": 1.0}, {"number": 1}])
def test_other_things_called_episode_are_no_statistics(said: Any) -> None:
    class Saying(CountingEnv):
        def step(self, action: Any) -> Any:
            *step, info = super().step(action)
            return *step, {**info, "episode": said}

    stepper = stepper_of([lambda: Saying(lengths=(2,))], AutoresetMode.DISABLED)
    episodes = [e for _ in range(6) for e in stepper.step(np.array([0]))[1]]
    assert [episode.length for episode in episodes] == [2, 2, 2]


def test_the_true_last_observation_comes_from_final_obs() -> None:
    stepper = counting(AutoresetMode.SAME_STEP, lengths=(2,), kinds="U")
    stepper.step(np.array([0]))
    row, _ = stepper.step(np.array([0]))
    assert row.truncated.tolist() == [True]
    assert row.next_obs.tolist() == [[0, 0, 2]]
    assert stepper.infos["final_obs"][0].tolist() == [0, 0, 2]
    assert stepper.obs.tolist() == [[0, 1, 0]]  # where the next episode begins


def test_only_the_ended_environments_get_their_final_observation() -> None:
    stepper = counting(AutoresetMode.SAME_STEP, n_envs=2, lengths=(1, 4), kinds="T")
    row, episodes = stepper.step(np.array([0, 0]))
    assert row.next_obs.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert stepper.obs.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert [episode.env for episode in episodes] == [0]


def test_where_nothing_resets_itself_only_what_ended_is_reset() -> None:
    stepper = counting(AutoresetMode.DISABLED, n_envs=2, lengths=(1, 4), kinds="T")
    stepper.step(np.array([0, 0]))
    row, _ = stepper.step(np.array([0, 0]))
    assert row.obs.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert row.first.tolist() == [True, False]
    assert [env.unwrapped.episode for env in stepper.env.envs] == [1, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
def test_arrays_that_the_environment_reuses_are_copied(mode: AutoresetMode) -> None:
    reused, copied = (
        rows(counting(mode, n_envs=2, copy=copy, lengths=(3, 1)), 25) for copy in (False, True)
    )
    for mine, theirs in zip(reused, copied, strict=True):
        for column, other in zip(mine, theirs, strict=True):
            assert column.tolist() == other.tolist()


def test_gymnasiums_own_vector_environment_loses_no_observation() -> None:
    env = gym.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    stepper.reset(seed=0)
    rng = np.random.default_rng(0)
    seen = [stepper.step(rng.integers(0, 2, 4))[0] for _ in range(200)]
    assert sum((row.terminated & row.valid).sum() for row in seen) > 10
    for before, row in pairwise(seen):
        goes_on = ~row.first & row.valid
        assert (row.obs[goes_on] == before.next_obs[goes_on]).all()
        assert (row.first == ~before.valid).all()
        assert (row.valid == ~(before.valid & (before.terminated | before.truncated))).all()
        assert (np.abs(row.obs[row.first]) <= 0.05).all()  # CartPole begins there
        assert (row.reward == row.valid).all()  # CartPole pays 1 for each transition


# -- reset ---------------------------------------------------------------------------


def test_a_reset_abandons_what_was_open() -> None:
    stepper = counting(AutoresetMode.NEXT_STEP, lengths=(2, 3), kinds="T")
    rows(stepper, 2)  # ended: the next step would only reset
    stepper.reset()
    row, episodes = stepper.step(np.array([0]))
    assert (row.valid.tolist(), row.first.tolist(), episodes) == ([True], [True], [])
    stepper.reset()  # in the middle of an episode of 3, which would have been the second
    row, _ = stepper.step(np.array([0]))
    assert row.obs.tolist() == [[0, 2, 0]]
    row, episodes = stepper.step(np.array([0]))
    assert episodes[0].length == 2
    assert episodes[0].reward == pytest.approx(
        CountingEnv.reward(0, 2, 0) + CountingEnv.reward(0, 2, 1)
    )


def test_there_are_no_observations_before_a_reset_or_after_forgetting() -> None:
    env = SyncVectorEnv([CountingEnv])
    stepper = Stepper(env, np.array)
    assert not stepper.is_reset
    stepper.reset()
    assert stepper.is_reset
    stepper.forget()
    assert not stepper.is_reset


def test_a_seed_reaches_the_environment() -> None:
    env = gym.make_vec("CartPole-v1", 2)
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    begins = []
    for seed in (3, 3, 4):
        stepper.reset(seed=seed)
        begins.append(stepper.obs.tolist())
    assert begins[0] == begins[1] != begins[2]


# -- actions, infos, rewards ---------------------------------------------------------


@pytest.mark.parametrize("start", [0, 5, -1])
def test_actions_are_counted_from_the_start_of_the_space(start: int) -> None:
    stepper = counting(AutoresetMode.SAME_STEP, n_envs=2, start=start)
    assert stepper.action_start == start
    row, _ = stepper.step(np.array([0, 2]))
    assert row.action.tolist() == [0, 2]
    given = [env.unwrapped.actions for env in stepper.env.envs]  # type: ignore[attr-defined]
    assert given == [[start], [start + 2]]


@pytest.mark.parametrize("mode", MODES)
def test_success_is_what_the_environment_says_at_the_end(mode: AutoresetMode) -> None:
    # Environment 0: T of 2 steps, U of 3, T of 2; environment 1: U of 3, T of 2, U of 3.
    stepper = counting(mode, n_envs=2, lengths=(2, 3), kinds="TU")
    _, ended = transitions(stepper, each=8)
    assert [episode.success for episode in ended[0]][:3] == [True, False, True]
    assert [episode.success for episode in ended[1]][:3] == [False, True, False]


class Silent(CountingEnv):
    """Says nothing of success."""

    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], {}


@pytest.mark.parametrize("mode", MODES)
def test_success_is_unknown_where_the_environment_says_nothing(mode: AutoresetMode) -> None:
    both: list[Callable[[], gym.Env[Any, Any]]] = [
        lambda: Silent(0, lengths=(2,), kinds="T"),
        lambda: CountingEnv(1, lengths=(2,), kinds="T"),
    ]
    _, ended = transitions(stepper_of(both, mode), each=4)
    assert [episode.success for episode in ended[0]] == [None, None]
    assert [episode.success for episode in ended[1]] == [True, True]
    _, ended = transitions(stepper_of(both[:1], mode), each=4)
    assert [episode.success for episode in ended[0]] == [None, None]


class Maskless(VectorWrapper):  # type: ignore[type-arg]  # not generic before gymnasium 1.3
    """An environment whose infos do not say for whom they are: for all."""

    def step(self, actions: Any) -> Any:
        *rest, infos = self.env.step(actions)
        return *rest, {key: value for key, value in infos.items() if not key.startswith("_")}


def test_success_without_a_mask_concerns_all() -> None:
    env = Maskless(SyncVectorEnv([lambda: CountingEnv(0, lengths=(2,), kinds="T")] * 2))
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    stepper.reset()
    _, ended = transitions(stepper, each=4)
    assert [episode.success for column in ended for episode in column] == [True] * 4


def test_the_infos_of_the_last_step_are_kept_as_they_came() -> None:
    stepper = counting(AutoresetMode.NEXT_STEP, n_envs=2, lengths=(1, 4), kinds="T")
    stepper.step(np.array([0, 0]))
    assert stepper.infos["is_success"].tolist() == [True, False]
    assert stepper.infos["_is_success"].tolist() == [True, False]
    stepper.step(np.array([0, 0]))
    assert stepper.infos == {}


class Overwriting(SyncVectorEnv):
    """Writes to the actions that it is given."""

    def step(self, actions: Any) -> Any:
        outcome = super().step(actions)
        actions[:] = 99
        return outcome


@pytest.mark.parametrize("start", [0, 5])
def test_actions_are_remembered_as_they_were_chosen(start: int) -> None:
    env = Overwriting([lambda: CountingEnv(start=start)] * 2)
    stepper = Stepper(env, ObservationAdapter(env.single_observation_space).stored)
    stepper.reset()
    chosen = np.array([2, 1])
    row, _ = stepper.step(chosen)
    assert row.action.tolist() == chosen.tolist() == [2, 1]


class Broken(CountingEnv):
    """The reward of its second step is not a number one can learn from."""

    def __init__(self, index: int, wrong: float) -> None:
        super().__init__(index, lengths=(9,))
        self.wrong = wrong

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, self.wrong if self.t == 2 else reward, *rest


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf"), 1e39])
@pytest.mark.parametrize("mode", MODES)
def test_a_reward_that_is_not_finite_is_refused_with_its_environment(
    mode: AutoresetMode, wrong: float
) -> None:
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        lambda: CountingEnv(0, lengths=(9,)),
        lambda: CountingEnv(1, lengths=(9,)),
        lambda: Broken(2, wrong),
    ]
    stepper = stepper_of(makers, mode)
    stepper.step(np.zeros(3, np.int64))
    with pytest.raises(NonFiniteError, match=re.escape(f"index: {{2: {wrong}}}")):
        stepper.step(np.zeros(3, np.int64))


# -- choosing ------------------------------------------------------------------------


def preferring_own_index(n_actions: int) -> Any:
    """A linear network whose best action is the environment's index: -(index - a)**2."""
    env = CountingEnv()
    policy = MlpPolicy(net_arch=(), layer_norm=False)
    network = policy.build(env.observation_space, n_actions, Scalar())
    with torch.no_grad():
        network.output.linear.weight.zero_()
        network.output.linear.weight[:, 0] = 2.0 * torch.arange(n_actions)
        network.output.linear.bias.copy_(-(torch.arange(n_actions).float() ** 2))
    return network


def always_preferring(action: int) -> Any:
    network = preferring_own_index(3)
    with torch.no_grad():
        network.output.linear.weight.zero_()
        network.output.linear.bias.zero_()[action] = 1.0
    return network


def test_each_environment_gets_the_action_for_its_own_observation() -> None:
    stepper = counting(AutoresetMode.SAME_STEP, n_envs=3)
    collector = Collector(stepper, preferring_own_index(3), 3)
    rng = np.random.default_rng(0)
    assert collector.choose(Greedy(), Clock(0), rng).tolist() == [0, 1, 2]
    row, _ = collector.stepper.step(np.array([2, 0, 1]))
    assert row.action.tolist() == [2, 0, 1]
    # Half explore at random: those that do not still get what belongs to them.
    chosen = [collector.choose(EpsilonGreedy(0.5), Clock(0), rng) for _ in range(400)]
    right = (np.array(chosen) == np.arange(3)).mean(axis=0)
    assert right == pytest.approx(np.full(3, 0.5 + 0.5 / 3), abs=0.08)


def test_the_network_acts_for_those_that_exploit_alone() -> None:
    asked: list[Any] = []

    class Recording:
        output = torch.nn.Linear(1, 3)

        def q_of_few(self, obs: Any, purpose: Purpose) -> None:
            """Leave it to torch."""

        def q(self, obs: torch.Tensor, purpose: Purpose) -> torch.Tensor:
            asked.append((obs[:, 0].tolist(), purpose))
            return torch.zeros(len(obs), 3)

    class ForTwo:
        def select(self, q_values: Any, *_: Any) -> Any:
            assert q_values(np.array([0, 2])).shape == (2, 3)
            return np.zeros(3, np.int64)

    stepper = counting(AutoresetMode.SAME_STEP, n_envs=3)
    collector = Collector(stepper, Recording(), 3)  # type: ignore[arg-type]
    collector.choose(ForTwo(), Clock(0), np.random.default_rng(0))  # type: ignore[arg-type]
    assert asked == [([0.0, 2.0], Purpose.ACT)]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_network_does_not_act_where_all_environments_only_reset(n_envs: int) -> None:
    stepper = counting(AutoresetMode.NEXT_STEP, n_envs)
    collector, rng = Collector(stepper, always_preferring(2), 3), np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        action = collector.choose(Greedy(), Clock(0), rng)
        row, _ = stepper.step(action)
        seen.add((action.tolist() == [2] * n_envs, int(row.valid.sum())))
    assert seen == {(valid > 0, valid) for valid in range(n_envs + 1)}


def test_exploration_is_told_the_clock_the_sizes_and_the_generator() -> None:
    told: list[Any] = []

    class Recording:
        def select(self, q_values: Any, *rest: Any) -> Any:
            told.extend(rest)
            return np.zeros(2, np.int64)

    collector = Collector(counting(AutoresetMode.SAME_STEP, n_envs=2), preferring_own_index(3), 3)
    clock, rng = Clock(7, 2, 100), np.random.default_rng(0)
    collector.choose(Recording(), clock, rng)  # type: ignore[arg-type]
    assert told == [2, 3, clock, rng]


def test_q_values_are_an_array_of_float32() -> None:
    class Checking:
        def select(self, q_values: Any, *_: Any) -> Any:
            q = q_values(np.arange(3))
            assert isinstance(q, np.ndarray)
            assert q.dtype == np.float32
            # 2 a e - a**2 for environment e and action a
            assert q.tolist() == [[0, -1, -4], [0, 1, 0], [0, 3, 4]]
            return q.argmax(axis=1)

    stepper = counting(AutoresetMode.SAME_STEP, n_envs=3)
    collector = Collector(stepper, preferring_own_index(3), 3)
    collector.choose(Checking(), Clock(0), np.random.default_rng(0))  # type: ignore[arg-type]


def test_random_actions_are_uniform_and_independent() -> None:
    stepper = counting(AutoresetMode.SAME_STEP, n_envs=2)
    collector = Collector(stepper, preferring_own_index(3), 3)
    rng = np.random.default_rng(0)
    actions = np.array([collector.choose_at_random(rng) for _ in range(9_000)])
    pairs = np.bincount(actions[:, 0] * 3 + actions[:, 1], minlength=9)
    assert ((pairs - 1_000) ** 2 / 1_000).sum() < 26.12  # chi-square, 8 degrees, p = 0.001


@pytest.mark.parametrize("mode", MODES)
def test_images_stay_bytes(mode: AutoresetMode) -> None:
    class Pixels(CountingEnv):
        def __init__(self) -> None:
            super().__init__(lengths=(3,))
            self.observation_space = spaces.Box(0, 255, (2, 2, 1), np.uint8)

        def _obs(self) -> Any:
            return np.full((2, 2, 1), 100 * self.t % 256, np.uint8)

    stepper = stepper_of([Pixels], mode)
    seen = [row for row in (stepper.step(np.array([0]))[0] for _ in range(5)) if row.valid[0]]
    assert all(row.obs.dtype == row.next_obs.dtype == np.uint8 for row in seen)
    assert [int(row.obs[0, 0, 0, 0]) for row in seen][:4] == [0, 100, 200, 0]
    assert [int(row.next_obs[0, 0, 0, 0]) for row in seen][:4] == [100, 200, 44, 100]


# -- in two halves -------------------------------------------------------------------


def in_background(stepper: Stepper) -> list[Any]:
    """Let it step in the background; the actions that are under way."""
    under_way: list[Any] = []
    env = stepper.env
    stepper.background = Background(under_way.append, lambda: env.step(under_way.pop()))
    return under_way


@pytest.mark.parametrize("mode", MODES)
def test_a_step_in_halves_is_the_same_step(mode: AutoresetMode) -> None:
    one, other = (counting(mode, n_envs=3, start=5) for _ in range(2))
    in_background(other)
    for _ in range(40):
        action = action_for(one.obs)
        row, episodes = one.step(action)
        other.send(action)
        assert other.is_stepping
        its_row, its_episodes = other.receive()
        assert not other.is_stepping
        assert episodes == its_episodes
        for mine, theirs in zip(row, its_row, strict=True):
            assert mine.tolist() == theirs.tolist()


def test_a_tolerated_nan_of_a_step_that_resets_is_in_no_return() -> None:
    class Silent(VectorWrapper):  # type: ignore[type-arg]  # not generic before gymnasium 1.3
        def step(self, actions: Any) -> Any:
            obs, reward, *others = self.env.step(actions)
            return obs, np.where(obs[:, 2] == 0, np.nan, reward), *others

    env: Any = Silent(SyncVectorEnv([CountingEnv, lambda: CountingEnv(1)]))
    stored = ObservationAdapter(env.single_observation_space).stored
    stepper = Stepper(env, stored, nonfinite=NonFinite("ignore"))
    stepper.reset()
    for mine, theirs in zip(
        transitions(stepper, 20)[1],
        transitions(counting(AutoresetMode.NEXT_STEP, 2), 20)[1],
        strict=True,
    ):
        assert mine == theirs


def test_what_is_sent_is_the_environments_name_for_an_action() -> None:
    stepper = counting(AutoresetMode.SAME_STEP, n_envs=2, start=5)
    under_way = in_background(stepper)
    stepper.send(np.array([0, 2]))
    assert under_way[0].tolist() == [5, 7]
    assert stepper.receive()[0].action.tolist() == [0, 2]


def test_to_forget_awaits_the_step_that_is_under_way() -> None:
    stepper = counting(AutoresetMode.SAME_STEP)
    under_way = in_background(stepper)
    stepper.send(np.array([0]))
    stepper.forget()
    assert (under_way, stepper.is_stepping, stepper.is_reset) == ([], False, False)
    stepper.forget()  # there is nothing to wait for


def test_a_step_that_could_not_be_sent_is_not_awaited() -> None:
    stepper = counting(AutoresetMode.SAME_STEP)

    def send(actions: Any) -> None:
        raise ConnectionError

    stepper.background = Background(send, lambda: pytest.fail("there is nothing to receive"))
    with pytest.raises(ConnectionError):
        stepper.send(np.array([0]))
    stepper.forget()


def test_in_the_foreground_to_forget_takes_no_step() -> None:
    stepper = counting(AutoresetMode.SAME_STEP)
    stepper.send(np.array([0]))
    stepper.forget()
    assert stepper.env.envs[0].unwrapped.actions == []  # type: ignore[attr-defined]
