"""NaN and infinite numbers: what is said of them, and what is done."""

from __future__ import annotations

import functools
import itertools
import logging
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sbdqn import DQN, MlpPolicy, MultiInputPolicy, evaluate_policy
from sbdqn.backups import Munchausen
from sbdqn.callbacks import EvalCallback
from sbdqn.errors import NonFiniteError
from sbdqn.exploration import Boltzmann
from sbdqn.heads import Categorical
from sbdqn.nonfinite import NonFinite, require_finite_observations, require_finite_rewards

NAN, INF = float("nan"), float("inf")


class Odd(gym.Env[Any, Any]):
    """Episodes of four steps; at one call of environment 1 a number is not finite.

    Args:
        index: of the environment.
        where: `"reward"` or `"observation"`.
        call: of `reset` (from 0) or of `step` (from 1), counted together: episodes
            begin at 0, 5, 10.
        number: what it is then.
    """

    action_space = spaces.Discrete(2)

    def __init__(
        self, index: int = 1, where: str = "", call: int = -1, number: float = NAN
    ) -> None:
        self.observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (3,), np.float32)
        self.where, self.call, self.number = (where if index == 1 else ""), call, number
        self.calls = -1

    def _obs(self) -> Any:
        self.calls += 1
        is_odd = self.where == "observation" and self.calls == self.call
        return np.array([0.5, self.number if is_odd else 0.5, -0.5], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        obs = self._obs()
        is_odd = self.where == "reward" and self.calls == self.call
        return obs, self.number if is_odd else 1.0, self.calls % 5 == 4, False, {}


def several(mode: AutoresetMode = AutoresetMode.NEXT_STEP, **odd: Any) -> SyncVectorEnv:
    return SyncVectorEnv(
        [functools.partial(Odd, index, **odd) for index in range(3)], autoreset_mode=mode
    )


def model_in(env: Any, **parameters: Any) -> DQN:
    settings = {"buffer_size": 300, "learning_starts": 10, "n_steps": 1, "batch_size": 8, "seed": 0}
    return DQN(MlpPolicy(net_arch=(8,)), env, **{**settings, **parameters})


def said(caplog: pytest.LogCaptureFixture, kind: str) -> list[str]:
    return [text for text in caplog.messages if f"that a {kind} is not finite" in text]


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    "rewards",
    [
        np.array([3e38, -3e38]),
        np.array([3e38, -3e38], np.float32),
        np.array([2**62, -(2**62)]),
        np.array([True, False]),
        np.zeros(0),
    ],
)
def test_rewards_that_fit_a_float32_are_accepted_however_large(rewards: Any) -> None:
    require_finite_rewards(rewards, 1)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_an_infinite_reward_is_refused_whatever_its_dtype(kind: Any) -> None:
    with pytest.raises(
        NonFiniteError, match=re.escape("in step 7, by environment index: {1: -inf}")
    ):
        require_finite_rewards(np.array([1.0, -np.inf], kind), 7)


@pytest.mark.parametrize("size", [3, 200])
@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_an_observation_is_refused_wherever_the_number_is(number: float, size: int) -> None:
    for place in (0, size - 1):
        obs = np.zeros((2, size), np.float32)
        obs[1, place] = number
        with pytest.raises(NonFiniteError, match=re.escape(f"{{1: '{number} at [{place}]'}}")):
            require_finite_observations(obs, 3)


def test_opposite_infinities_do_not_cancel() -> None:
    with pytest.raises(NonFiniteError, match=r"after a reset.*\{0: '-inf at \[0\]'\}"):
        require_finite_observations(np.array([[-np.inf, np.inf]]), 0)


@pytest.mark.parametrize(
    "obs",
    [
        np.full((2, 4), 3e38, np.float32),
        np.full((2, 4), 1.7e308),  # whose sum is infinite
        np.full((2, 400), 3e38, np.float32),
        np.full((2, 4), 255, np.uint8),
        np.ones(2, np.float32),
        {"a": np.ones((2, 3)), "b": (np.ones(2, np.int64), np.ones((2, 2)))},
        ["words", "have no numbers"],
    ],
)
def test_finite_observations_are_accepted(obs: Any) -> None:
    require_finite_observations(obs, 1)


def test_the_parts_of_an_observation_are_looked_at() -> None:
    obs = {"a": np.ones((2, 3)), "b": (np.ones(2, np.int64), np.array([0.0, NAN]))}
    with pytest.raises(NonFiniteError, match=re.escape("in step 4, the first number")):
        require_finite_observations(obs, 4)


# -- what is done --------------------------------------------------------------------


def test_an_error_is_raised_as_it_is() -> None:
    error = NonFiniteError("the reward")
    with pytest.raises(NonFiniteError) as caught:
        NonFinite().tolerate("reward", error)
    assert caught.value is error


def test_warnings_become_rare(caplog: pytest.LogCaptureFixture) -> None:
    nonfinite = NonFinite("warn")
    for _ in range(120):
        nonfinite.tolerate("reward", NonFiniteError("the sum"))
    nonfinite.tolerate("loss", NonFiniteError("the loss"))
    assert caplog.messages == [
        "the sum (time 1 that a reward is not finite)",
        "the sum (time 10 that a reward is not finite)",
        "the sum (time 100 that a reward is not finite)",
        "the loss (time 1 that a loss is not finite)",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_what_is_ignored_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    NonFinite("ignore").tolerate("reward", NonFiniteError("the sum"))
    assert caplog.messages == []


# -- in training ---------------------------------------------------------------------

CALLS = {
    "first reset": (0, 0, "after a reset"),
    "step": (3, 6, "in step 3"),
    "last step of an episode": (4, 9, "in step 4"),
    "second reset": (5, 12, ""),
}
"""A call, the timesteps of three environments before it, and how it is named."""


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("when", CALLS)
def test_an_observation_ends_training_before_it_is_stored(when: str, mode: AutoresetMode) -> None:
    call, timesteps, place = CALLS[when]
    if mode is not AutoresetMode.NEXT_STEP and when == "second reset":
        timesteps = 9  # it comes with the last step
    model = model_in(several(mode, where="observation", call=call))
    with pytest.raises(NonFiniteError, match=rf"{place}.*index: \{{1: 'nan at \[1\]'\}}") as caught:
        model.learn(60)
    assert caught.value.__notes__ == [f"It ended learn after {timesteps} timesteps."]
    assert model.num_timesteps == timesteps
    assert timesteps == 0 or model.replay_buffer.stored == timesteps


@pytest.mark.parametrize("kind", ["reward", "observation"])
def test_a_warning_names_the_place_and_training_goes_on(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_in(several(where=kind, call=3), on_nonfinite="warn", learning_starts=1000)
    model.learn(60)
    (text,) = said(caplog, kind)
    assert "in step 3" in text
    assert "environment index: {1: " in text
    assert model.num_timesteps == 60
    assert model.replay_buffer.stored == 60


def test_a_loss_is_warned_of_at_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    model = model_in(several(where="reward", call=3), on_nonfinite="warn", batch_size=64)
    model.learn(60, log_interval=(30, "step"))
    (text,) = said(caplog, "loss")  # the tenth would be next
    assert re.match(r"not finite in update \d+: the loss is nan", text)


COMBINATIONS = list(
    itertools.product(
        ["scalar", Categorical(atoms=11, low=-5.0, high=5.0), "quantile", "implicit_quantile"],
        [("double", "prioritized", "greedy"), (Munchausen(), "uniform", Boltzmann(1.0))],
    )
)


@pytest.mark.parametrize("policy", ["warn", "ignore"])
@pytest.mark.parametrize("kind", ["reward", "observation"])
@pytest.mark.parametrize("number", [NAN, INF])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_tolerated_never_raises(
    number: float, kind: str, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for head, (backup, replay, exploration) in COMBINATIONS:
        caplog.clear()
        model = model_in(
            several(where=kind, call=3, number=number),
            head=head,
            backup=backup,
            replay=replay,
            exploration=exploration,
            on_nonfinite=policy,
            batch_size=32,
        )
        model.learn(45, log_interval=(20, "step"))
        assert model.num_timesteps == 45
        assert bool(caplog.messages) == (policy == "warn")


@pytest.mark.parametrize("policy", ["warn", "ignore"])
def test_a_priority_that_is_none_leaves_the_old_one(policy: Any) -> None:
    env = several(where="reward", call=3)
    model = model_in(env, replay="prioritized", batch_size=64, on_nonfinite=policy).learn(60)
    priority = model.replay_buffer.state_dict()["rule"]["priority"]
    assert priority.isfinite().all()


def test_the_policy_can_change_while_it_lives(caplog: pytest.LogCaptureFixture) -> None:
    model = model_in(several(where="reward", call=13), learning_starts=1000).learn(12)
    model.set_params(on_nonfinite="warn")
    model.learn(60)
    assert len(said(caplog, "reward")) == 1


def test_a_program_with_its_own_loop_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    obs, odd = np.zeros(3, np.float32), np.array([0, 0, NAN], np.float32)
    bad: list[tuple[Any, ...]] = [
        (obs, 0, NAN, obs, False, False),
        (obs, 0, 1.0, odd, False, False),
        (odd, 0, 1.0, obs, False, False),
    ]
    model = model_in(Odd())
    model.observe(obs, 0, 1.0, obs, False, False)
    for transition in bad:
        with pytest.raises(NonFiniteError, match="in step 2"):
            model.observe(*transition)
    assert model.replay_buffer.stored == 1
    model.set_params(on_nonfinite="warn")
    for transition in bad:
        model.observe(*transition)
    assert model.replay_buffer.stored == 4
    assert len(said(caplog, "reward or observation")) == 1
    model.train(5)
    assert len(said(caplog, "loss")) == 1


def test_an_evaluation_follows_the_model(caplog: pytest.LogCaptureFixture) -> None:
    odd = functools.partial(Odd, where="reward", call=3)
    model = model_in(Odd())
    with pytest.raises(NonFiniteError, match="in step 3"):
        evaluate_policy(model, odd, n_eval_episodes=2)
    model.set_params(on_nonfinite="warn")
    returns, _ = evaluate_policy(model, odd, n_eval_episodes=2, return_episode_rewards=True)
    assert returns[1] == 4.0
    assert np.isnan(returns[0])
    assert len(said(caplog, "reward")) == 1


def test_an_evaluation_while_it_learns_follows_the_model() -> None:
    odd = functools.partial(Odd, where="observation", call=2)
    for policy in ("raise", "ignore"):
        model = model_in(Odd(), on_nonfinite=policy)
        evaluation = EvalCallback(odd(), eval_freq=20, n_eval_episodes=2, verbose=0)
        if policy == "raise":
            with pytest.raises(NonFiniteError, match="in step 2"):
                model.learn(40, evaluation)
        else:
            assert model.learn(40, evaluation).num_timesteps == 40


def test_the_parts_of_a_dict_are_looked_at_while_it_learns() -> None:
    class Parts(Odd):
        def __init__(self) -> None:
            super().__init__(where="observation", call=3, number=INF)
            inner = self.observation_space
            self.observation_space = spaces.Dict({"a": spaces.Discrete(2), "b": inner})

        def _obs(self) -> Any:
            return {"a": 1, "b": super()._obs()}

    model = DQN(MultiInputPolicy(net_arch=(8,)), Parts, buffer_size=100)
    with pytest.raises(NonFiniteError, match=re.escape("{0: 'inf at [1]'}")):
        model.learn(20)
