"""The common mistakes in environments are found, and nothing is found where none is made."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import sbdqn
from sbdqn import DQN, CnnPolicy, MlpPolicy, check_env
from sbdqn.checking import advice_before
from sbdqn.errors import ConfigurationError, NonFiniteError, SpaceError

ACROSS = (np.zeros(3, np.float32), 1.0, False, False, {})


class Sound(gym.Env[Any, Any]):
    """Episodes of five steps; a subclass makes one mistake."""

    observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (3,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2, start=3)
    scale = reward = 1.0
    length = 5

    def observation(self) -> Any:
        numbers = self.np_random.uniform(-1, 1, 3)
        return (numbers * self.scale).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        assert action in (3, 4)
        self.steps += 1
        return self.observation(), self.reward, self.steps == self.length, False, {}


def with_mistake(**attributes: Any) -> type[Sound]:
    return type("Mistaken", (Sound,), attributes)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0", "Blackjack-v1"])
def test_nothing_is_found_in_sound_environments(env_id: str) -> None:
    assert check_env(env_id) == []
    assert check_env(gym.make(env_id), steps=20) == []
    assert check_env(lambda: gym.make(env_id), steps=20) == []
    assert check_env(SyncVectorEnv([lambda: gym.make(env_id)] * 2), steps=20) == []
    assert check_env(Sound) == []


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_last_observations_are_looked_at_in_every_mode(mode: AutoresetMode) -> None:
    class Leaving(Sound):
        def observation(self) -> Any:
            return np.full(3, 2.0 if self.steps == self.length else 0.5, np.float32)

    def found(env: type[Sound]) -> list[str]:
        return check_env(SyncVectorEnv([env] * 2, autoreset_mode=mode), steps=12)

    assert found(Sound) == []
    (finding,) = found(Leaving)
    assert finding.startswith("an observation lies outside of Box")


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_who_plays_no_step_finds_nothing_out(steps: Any) -> None:
    with pytest.raises(ConfigurationError, match="steps must be an integer of at least 1"):
        check_env(Sound, steps=steps)


def test_environments_of_the_users_stay_open() -> None:
    class Closing(Sound):
        closed = 0

        def close(self) -> None:
            Closing.closed += 1

    check_env(Closing(), steps=5)
    assert Closing.closed == 0
    check_env(Closing, steps=5)
    assert Closing.closed == 1


def images(dtype: Any) -> Any:
    high = 1 if dtype is np.float32 else 255
    space = spaces.Box(0, high, (36, 40, 3), dtype)
    return {"observation_space": space, "observation": lambda self: space.sample() * 0 + 1}


FOUND = {
    "the space": ({"scale": 30.0}, "an observation lies outside of Box"),
    "large observations": (
        {"scale": 1e5, "observation_space": spaces.Box(-np.inf, np.inf, (3,))},
        r"observations are up to 1e\+05 in size",
    ),
    "large rewards": ({"reward": -5e3}, r"rewards are up to 5e\+03 in size"),
    "no rewards": ({"reward": 0.0}, "no reward but 0 came in 1000 random steps"),
    "no end": ({"length": 10**6}, "no episode ended in 1000 random steps"),
    "images of floats": (images(np.float32), "images are of float32, which takes 4 times"),
    "a reward in words": (
        {"reward": "1"},
        r"check_env warns: The reward returned by `step\(\)` must be a float",
    ),
    "no seed": (
        {"reset": lambda self, **kwargs: Sound.reset(self)},
        "check_env raises AssertionError: .*seed",
    ),
}


@pytest.mark.parametrize("mistake", FOUND)
def test_each_mistake_is_found(mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    attributes, text = FOUND[mistake]
    env = with_mistake(**attributes)
    findings = check_env(env)
    assert caplog.messages == findings
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    with pytest.raises(AssertionError, match=text):
        raise AssertionError("\n".join(findings))
    caplog.clear()
    assert len(check_env(env, warn=False)) == len(findings)  # gymnasium's resets have no seed
    assert caplog.messages == []


def test_images_of_bytes_are_no_mistake() -> None:
    assert check_env(with_mistake(**images(np.uint8)), steps=20) == []


def test_a_time_limit_is_an_end() -> None:
    endless = with_mistake(length=10**6)
    gym.register("Endless-v0", endless, max_episode_steps=5_000)
    try:
        assert check_env("Endless-v0", steps=20) == []
    finally:
        gym.registry.pop("Endless-v0")


def test_parts_are_named() -> None:
    space = spaces.Dict(
        {"a": spaces.Box(-1e6, 1e6, (2,)), "b": spaces.Discrete(1000), "c": spaces.Box(0, 1, (2,))}
    )
    env = with_mistake(
        observation_space=space,
        observation=lambda self: {
            "a": np.full(2, -500, np.float32),
            "b": np.int64(999),
            "c": np.ones(2, np.float32),
        },
    )
    (finding,) = check_env(env, steps=20)
    assert finding.startswith("observations of 'a' are up to 500 in size")


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "old reset": (
        {"reset": lambda self, **kwargs: np.zeros(3, np.float32)},
        ConfigurationError,
        r"an environment has not gymnasium's reset.*too many values to unpack",
    ),
    "reset without a seed": (
        {"reset": lambda self: (np.zeros(3, np.float32), {})},
        ConfigurationError,
        r"reset\(\*, seed=None, options=None\).*unexpected keyword argument 'seed'",
    ),
    "old step": (
        {"step": lambda self, action: ACROSS[:4]},
        ConfigurationError,
        r"step\(action\) -> .*not enough values to unpack \(expected 5, got 4\)",
    ),
    "a step without an action": (
        {"step": lambda self: ACROSS},
        ConfigurationError,
        "positional argument",
    ),
    "an observation that is None": (
        {"observation": lambda self: None},
        SpaceError,
        "an observation of environment 0 is None",
    ),
    "no observation space": (
        {"observation_space": None},
        SpaceError,
        "the environment's observation_space must be a gymnasium.Space, not None",
    ),
    "no action space": (
        {"action_space": None},
        SpaceError,
        "the environment's action_space must be a gymnasium.Space, not None",
    ),
    "continuous actions": (
        {"action_space": spaces.Box(-1, 1, (1,))},
        SpaceError,
        "DiscretizeAction",
    ),
    "a NaN reward": ({"reward": np.nan}, NonFiniteError, r"in step 1.*\{0: nan\}"),
    "an infinite observation": ({"scale": np.inf}, NonFiniteError, "after a reset"),
    "a reward that is an array": ({"reward": np.ones(2)}, ValueError, "sequence"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_work_is_refused_here_and_in_training(mistake: str) -> None:
    attributes, kind, text = REFUSED[mistake]
    env = with_mistake(**attributes)
    with pytest.raises(kind, match=text):
        check_env(env)
    for given in (env, env()):
        with pytest.raises(kind, match=text):
            DQN(MlpPolicy(net_arch=(8,)), given).learn(10)


def test_what_gymnasium_finds_comes_with_the_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_env(with_mistake(step=lambda self, action: ACROSS[:4]))
    assert any("old step API" in note for note in caught.value.__notes__)


def test_an_error_that_no_environment_raised_says_how_to_look_for_it() -> None:
    env = with_mistake(reward=np.ones(2))
    with pytest.raises(ValueError, match="sequence") as caught:
        DQN(MlpPolicy(net_arch=(8,)), env).learn(10)
    assert caught.value.__notes__[0].startswith("sbdqn.check_env(env) looks for")


IMAGES = spaces.Box(0, 255, (36, 36, 3), np.uint8)


@pytest.mark.parametrize(
    ("space", "policy", "missing", "steps", "text"),
    [
        (IMAGES, MlpPolicy(), 0, 50, "MlpPolicy sees an image as a flat vector"),
        (IMAGES, CnnPolicy(), 0, 50, ""),
        (IMAGES, MlpPolicy(features_extractor="nature"), 0, 50, ""),
        (spaces.Box(0, 1, (36, 36, 3)), CnnPolicy(), 0, 50, "images are of float32"),
        (spaces.Box(0, 1, (3,)), MlpPolicy(), 51, 50, "demands 51 transitions more"),
        (spaces.Box(0, 1, (3,)), MlpPolicy(), 50, 50, ""),
    ],
)
def test_advice_before_training(
    space: Any, policy: Any, missing: int, steps: int, text: str
) -> None:
    advice = advice_before(space, policy, missing, steps)
    assert [text in line for line in advice] == [True] * bool(text)


def test_advice_is_given_once_and_before_training(caplog: pytest.LogCaptureFixture) -> None:
    model = DQN(MlpPolicy(net_arch=(8,)), Sound, learning_starts=60, buffer_size=100)
    model.learn(30)
    (text,) = caplog.messages
    assert text.startswith("nothing will be learned in 30 timesteps: learning_starts demands 60")
    model.learn(10)
    assert len(caplog.messages) == 1


def test_it_is_a_public_name() -> None:
    assert sbdqn.check_env is check_env
