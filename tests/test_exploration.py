"""How Q-values become actions: frequencies, not just shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sbdqn.errors import ConfigurationError
from sbdqn.exploration import Boltzmann, EpsilonGreedy, Greedy
from sbdqn.schedules import Linear, Multiplicative
from sbdqn.types import Clock, FloatArray, IntArray

NOW = Clock(0)
# Critical values of chi-square at p = 0.001, by degrees of freedom.
CRITICAL = {2: 13.82, 4: 18.47, 7: 24.32, 8: 26.12}


def chi_square(counts: Any, probabilities: Any) -> float:
    expected = np.asarray(probabilities) * np.sum(counts)
    return float(((np.asarray(counts) - expected) ** 2 / expected).sum())


def preferring(best: Any, n_actions: int) -> Callable[[IntArray], FloatArray]:
    """Q-values by which environment e finds action best[e] best."""
    table = np.eye(n_actions, dtype=np.float32)[np.asarray(best)]
    return lambda envs: table[envs]


def never_asked(envs: IntArray) -> FloatArray:
    raise AssertionError(f"the network was asked for {envs}")


def test_every_environment_tosses_a_coin_of_its_own() -> None:
    rng, steps, n_envs = np.random.default_rng(0), 20_000, 8
    exploiting: list[int] = []

    def q_values(envs: IntArray) -> FloatArray:
        exploiting.append(len(envs))
        return np.tile(np.float32([1.0, 0.0]), (len(envs), 1))

    exploration = EpsilonGreedy(0.3)
    greedy = np.array([exploration.select(q_values, n_envs, 2, NOW, rng) for _ in range(steps)])
    counts = np.bincount(exploiting, minlength=n_envs + 1)
    counts[0] = steps - len(exploiting)  # the network was not asked at all

    # One coin for all would make all eight exploit on 70 % of the steps, not on 5.8 %.
    assert counts[8] / steps == pytest.approx(0.7**8, abs=0.006)
    # Half of the random actions are greedy too: 27 %.
    assert (greedy == 0).all(axis=1).mean() == pytest.approx(0.85**8, abs=0.012)
    binomial = [math.comb(8, k) * 0.7**k * 0.3 ** (8 - k) for k in range(9)]
    assert chi_square(counts, binomial) < CRITICAL[8]


def test_each_environment_explores_as_often_as_every_other() -> None:
    rng, steps = np.random.default_rng(1), 4_000
    best = [0, 1, 2, 3, 0]
    wrong = np.zeros(5)
    for _ in range(steps):
        actions = EpsilonGreedy(0.4).select(preferring(best, 4), 5, 4, NOW, rng)
        wrong += actions != best
    assert wrong / steps == pytest.approx(np.full(5, 0.4 * 3 / 4), abs=0.03)


def test_the_network_is_asked_only_for_environments_that_exploit() -> None:
    rng = np.random.default_rng(2)
    best = np.array([4, 3, 2, 1, 0, 4])
    asked: list[IntArray] = []

    def q_values(envs: IntArray) -> FloatArray:
        asked.append(envs)
        return preferring(best, 5)(envs)

    for _ in range(200):
        asked.clear()
        actions = EpsilonGreedy(0.5).select(q_values, 6, 5, NOW, rng)
        assert len(asked) <= 1
        for envs in asked:
            assert envs.size > 0
            assert list(envs) == sorted(set(envs.tolist()))
            assert (actions[envs] == best[envs]).all()


def test_the_network_is_not_asked_when_all_explore() -> None:
    actions = EpsilonGreedy(1.0).select(never_asked, 8, 3, NOW, np.random.default_rng(3))
    assert actions.shape == (8,)
    assert actions.dtype == np.int64


def test_all_actions_are_greedy_at_epsilon_zero() -> None:
    best = [2, 0, 1, 2]
    rng = np.random.default_rng(4)
    for _ in range(50):
        assert EpsilonGreedy(0).select(preferring(best, 3), 4, 3, NOW, rng).tolist() == best


def test_random_actions_are_uniform_over_all_actions() -> None:
    actions = EpsilonGreedy(1.0).select(never_asked, 20_000, 5, NOW, np.random.default_rng(5))
    assert chi_square(np.bincount(actions, minlength=5), np.full(5, 0.2)) < CRITICAL[4]


def test_epsilon_follows_absolute_steps_however_long_the_run_is() -> None:
    exploration = EpsilonGreedy(Linear(1.0, 0.0, 100))
    assert exploration.rate(Clock(25, 0, 100)) == exploration.rate(Clock(25, 7, 10**6)) == 0.75
    assert exploration.rate(Clock(100)) == 0.0


def test_the_schedule_decides_how_often_the_network_is_asked() -> None:
    exploration = EpsilonGreedy(Linear(1.0, 0.0, 100))
    rng = np.random.default_rng(6)
    exploration.select(never_asked, 64, 2, Clock(0), rng)
    asked: list[int] = []

    def q_values(envs: IntArray) -> FloatArray:
        asked.append(len(envs))
        return np.zeros((len(envs), 2), dtype=np.float32)

    exploration.select(q_values, 10_000, 2, Clock(75), rng)
    assert asked[0] / 10_000 == pytest.approx(0.75, abs=0.02)
    exploration.select(q_values, 64, 2, Clock(100), rng)
    assert asked[1] == 64


@pytest.mark.parametrize(
    "exploration", [EpsilonGreedy(0.5), EpsilonGreedy(1.0), Greedy(), Boltzmann(1.0)]
)
def test_the_generator_passed_is_the_only_source_of_randomness(exploration: Any) -> None:
    def actions(seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        chosen: list[int] = exploration.select(preferring([0] * 64, 3), 64, 3, NOW, rng).tolist()
        np.random.random()  # noqa: NPY002 - the user's own draw
        return chosen

    assert actions(7) == actions(7)
    assert exploration == Greedy() or actions(7) != actions(8)


def test_greedy_asks_for_all_and_leaves_nothing_to_chance() -> None:
    rng = np.random.default_rng(8)
    before = rng.bit_generator.state
    assert Greedy().select(preferring([1, 0, 2], 3), 3, 3, NOW, rng).tolist() == [1, 0, 2]
    assert Greedy().rate(NOW) == 0.0
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_boltzmann_frequencies_are_the_softmax(temperature: float) -> None:
    q = np.float32([1.0, 2.0, 0.5])
    weights = np.exp(q / temperature)

    actions = Boltzmann(temperature).select(
        lambda envs: np.tile(q, (len(envs), 1)), 20_000, 3, NOW, np.random.default_rng(9)
    )

    counts = np.bincount(actions, minlength=3)
    assert chi_square(counts, weights / weights.sum()) < CRITICAL[2]


def test_boltzmann_draws_for_each_environment() -> None:
    rng = np.random.default_rng(10)
    both = 0
    for _ in range(4_000):
        actions = Boltzmann(1.0).select(lambda envs: np.zeros((2, 2), np.float32), 2, 2, NOW, rng)
        both += int(actions[0] == actions[1])
    assert both / 4_000 == pytest.approx(0.5, abs=0.04)


def test_boltzmann_is_greedy_in_the_cold_and_needs_no_small_q_values() -> None:
    best = [2, 0, 1]

    def q_values(envs: IntArray) -> FloatArray:
        return 1e6 * preferring(best, 3)(envs)

    rng = np.random.default_rng(11)
    assert Boltzmann(1e-3).select(q_values, 3, 3, NOW, rng).tolist() == best


def test_the_temperature_may_follow_a_schedule() -> None:
    exploration = Boltzmann(Multiplicative(8.0, 1.0, factor=0.5))
    assert [exploration.rate(Clock(step)) for step in (0, 1, 3, 9)] == [8.0, 4.0, 1.0, 1.0]


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan])
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigurationError, match=f"epsilon must be .* from 0 to 1, not {epsilon}"):
        EpsilonGreedy(epsilon)


def test_a_schedule_that_leaves_the_probabilities_is_refused_when_it_does() -> None:
    exploration = EpsilonGreedy(Linear(0.5, -0.5, 8))
    assert exploration.rate(Clock(4)) == 0.0
    with pytest.raises(ConfigurationError, match=r"epsilon must be .* from 0 to 1, not -0\.125"):
        exploration.rate(Clock(5))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigurationError, match=r"above 0, not .*; use Greedy\(\)"):
        Boltzmann(temperature)


def test_a_schedule_that_reaches_a_temperature_of_zero_is_refused_when_it_does() -> None:
    exploration = Boltzmann(Linear(1.0, 0.0, 10))
    assert exploration.rate(Clock(5)) == 0.5
    with pytest.raises(ConfigurationError, match="temperature must be a finite number above 0"):
        exploration.rate(Clock(10))


# -- a ladder of epsilons ------------------------------------------------------------------


def test_the_ladder_of_ape_x_falls_by_powers() -> None:
    # Horgan et al. 2018: epsilon ** (1 + i / (E - 1) * alpha), epsilon 0.4 and alpha 7.
    rates = EpsilonGreedy(0.4, ladder=7.0).rates(8, NOW)
    assert rates.tolist() == pytest.approx(
        [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536]
    )


def test_the_ladder_reaches_from_the_first_to_the_last_environment_however_many() -> None:
    exploration = EpsilonGreedy(0.5, ladder=3.0)
    assert exploration.rates(2, NOW).tolist() == pytest.approx([0.5, 0.0625])
    assert exploration.rates(4, NOW).tolist() == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert exploration.rates(1, NOW).tolist() == [0.5]


def test_without_a_ladder_all_environments_have_the_same_epsilon() -> None:
    assert EpsilonGreedy(0.3).ladder == 0.0
    assert EpsilonGreedy(0.3).rates(4, NOW).tolist() == pytest.approx([0.3] * 4)


def test_a_ladder_keeps_epsilons_that_never_or_always_explore() -> None:
    assert EpsilonGreedy(0.0, ladder=7.0).rates(3, NOW).tolist() == [0.0] * 3
    assert EpsilonGreedy(1.0, ladder=7.0).rates(3, NOW).tolist() == [1.0] * 3


def test_each_environment_explores_by_its_rung_and_on_its_own() -> None:
    rng, steps = np.random.default_rng(12), 20_000
    explored = np.ones((steps, 3), np.bool_)
    exploration = EpsilonGreedy(0.6, ladder=1.0)
    for step in range(steps):

        def q_values(envs: IntArray, step: int = step) -> FloatArray:
            explored[step, envs] = False
            return np.zeros((len(envs), 2), np.float32)

        exploration.select(q_values, 3, 2, NOW, rng)

    rates = [0.6, 0.6**1.5, 0.36]
    assert explored.mean(axis=0) == pytest.approx(np.array(rates), abs=0.015)
    # All eight patterns of who explores are as frequent as independent coins make them.
    patterns = np.bincount(explored @ [4, 2, 1], minlength=8)
    chances = [
        math.prod(
            rate if pattern & bit else 1 - rate for rate, bit in zip(rates, (4, 2, 1), strict=True)
        )
        for pattern in range(8)
    ]
    assert chi_square(patterns, chances) < CRITICAL[7]


def test_random_actions_are_uniform_on_every_rung() -> None:
    rng = np.random.default_rng(13)
    exploration = EpsilonGreedy(0.9, ladder=2.0)
    best = [0, 1, 2]
    actions = np.array(
        [exploration.select(preferring(best, 5), 3, 5, NOW, rng) for _ in range(10_000)]
    )
    for env, rate in enumerate((0.9, 0.9**2, 0.9**3)):
        chances = np.full(5, rate / 5)
        chances[best[env]] += 1 - rate
        assert chi_square(np.bincount(actions[:, env], minlength=5), chances) < CRITICAL[4]


def test_a_ladder_stands_on_a_schedule() -> None:
    exploration = EpsilonGreedy(Linear(1.0, 0.0, 100), ladder=2.0)
    assert exploration.rates(3, Clock(0)).tolist() == [1.0, 1.0, 1.0]
    assert exploration.rates(3, Clock(50)).tolist() == pytest.approx([0.5, 0.25, 0.125])
    assert exploration.rates(3, Clock(100)).tolist() == [0.0, 0.0, 0.0]
    exploration.select(never_asked, 3, 2, Clock(0), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    best = [1, 0, 1]
    for _ in range(20):
        chosen = exploration.select(preferring(best, 2), 3, 2, Clock(100), rng)
        assert chosen.tolist() == best


def test_the_rate_that_is_logged_is_that_of_the_highest_rung() -> None:
    exploration = EpsilonGreedy(Linear(1.0, 0.0, 100), ladder=7.0)
    assert exploration.rate(Clock(75)) == 0.25 == exploration.rates(4, Clock(75)).max()


def test_a_schedule_under_a_ladder_that_leaves_the_probabilities_is_refused() -> None:
    exploration = EpsilonGreedy(Linear(1.5, 0.5, 8), ladder=1.0)
    with pytest.raises(ConfigurationError, match=r"epsilon must be a number from 0 to 1, not 1\.5"):
        exploration.select(never_asked, 2, 2, Clock(0), np.random.default_rng(0))


@pytest.mark.parametrize("ladder", [-0.1, math.inf, math.nan])
def test_what_is_no_ladder_is_refused(ladder: float) -> None:
    with pytest.raises(
        ConfigurationError, match=f"ladder must be a finite number of at least 0, not {ladder}"
    ):
        EpsilonGreedy(0.4, ladder=ladder)


def test_without_a_ladder_the_draws_are_those_of_old() -> None:
    rng = np.random.default_rng(12)
    draws = [EpsilonGreedy(0.6).select(preferring([3] * 6, 4), 6, 4, NOW, rng) for _ in range(4)]
    assert np.array(draws).tolist() == [  # as they were before there were ladders
        [2, 3, 3, 3, 0, 2],
        [1, 0, 2, 3, 3, 3],
        [3, 3, 3, 3, 0, 3],
        [0, 3, 3, 3, 2, 2],
    ]


def test_boltzmann_follows_the_schedule_of_its_temperature() -> None:
    exploration = Boltzmann(Linear(4.0, 0.5, 100))
    q = np.float32([1.0, 2.0, 0.5])
    for step, temperature in ((0, 4.0), (50, 2.25), (100, 0.5), (10**6, 0.5)):
        weights = np.exp(q / temperature)
        actions = exploration.select(
            lambda envs: np.tile(q, (len(envs), 1)),
            20_000,
            3,
            Clock(step, 7, 10**6),
            np.random.default_rng(14),
        )
        counts = np.bincount(actions, minlength=3)
        assert chi_square(counts, weights / weights.sum()) < CRITICAL[2]
