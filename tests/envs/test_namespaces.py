"""Ids of packages that gymnasium does not know by itself."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest

from sbdqn import DQN
from sbdqn.envs import make_vector_env
from sbdqn.envs.namespaces import namespace_of, register_namespace_of
from sbdqn.errors import ConfigurationError, MissingDependencyError


@pytest.mark.parametrize(
    ("env_id", "namespace"),
    [
        ("ALE/Pong-v5", "ALE"),
        ("ale_py:ALE/Pong-v5", "ALE"),
        ("MinAtar/Breakout-v1", "MinAtar"),
        ("CartPole-v1", ""),
        ("module:Name-v0", ""),
    ],
)
def test_the_namespace_stands_before_the_name(env_id: str, namespace: str) -> None:
    assert namespace_of(env_id) == namespace


@pytest.mark.parametrize(
    ("package", "env_id", "extra"),
    [("ale_py", "ALE/Pong-v5", "atari"), ("minatar.gym", "MinAtar/NoSuchGame-v1", "minatar")],
)
def test_a_missing_package_is_named(
    package: str, env_id: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("gymnasium.registry", {})
    with pytest.raises(MissingDependencyError, match=rf"pip install 'sbdqn\[{extra}\]'"):
        register_namespace_of(env_id)


def test_a_missing_box2d_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sbdqn\[box2d\]'"):
        make_vector_env("LunarLander-v3")


def test_other_missing_packages_are_not_taken_for_box2d(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("no physics here")

    monkeypatch.setattr(gymnasium, "make", fail)
    with pytest.raises(ConfigurationError, match="no physics here"):
        make_vector_env("CartPole-v1")


def test_other_ids_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setitem(sys.modules, "minatar.gym", None)
    register_namespace_of("CartPole-v1")


@pytest.mark.slow
def test_nobody_has_to_register_minatar() -> None:
    pytest.importorskip("minatar")
    code = (
        "from sbdqn.envs import make_vector_env\n"
        "for vectorization in ('sync', 'async'):\n"
        "    env = make_vector_env('MinAtar/Seaquest-v1', 2, vectorization)\n"
        "    print(env.single_observation_space.shape)\n"
        "    env.close()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.stdout == "(10, 10, 10)\n" * 2, run.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_games_of_minatar_are_learned_in() -> None:
    pytest.importorskip("minatar")
    body = {"features_extractor": "minatar", "features_extractor_kwargs": {"channels_last": True}}
    for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"):
        model = DQN("CnnPolicy", f"MinAtar/{game}-v1", policy_kwargs=body, buffer_size=200)
        assert model.learn(150).num_timesteps == 150
        model.close()
