"""Ids that gymnasium does not know before a package has registered them."""

from __future__ import annotations

import importlib

import gymnasium

from sbdqn.errors import MissingDependencyError

ATARI = "ALE"
MINATAR = "MinAtar"


def namespace_of(env_id: str) -> str:
    """What stands before the name of an id, without a module before it; empty for none.

    Example:
        >>> namespace_of("ale_py:ALE/Pong-v5"), namespace_of("CartPole-v1")
        ('ALE', '')
    """
    return env_id.rpartition(":")[2].rpartition("/")[0]


def register_namespace_of(env_id: str) -> None:
    """Let gymnasium know the ids of an id's namespace, if it is one of these.

    Raises:
        MissingDependencyError: if their package is not installed.
    """
    if namespace_of(env_id) == ATARI:
        _import("ale_py", "Atari games need ale-py: pip install 'sbdqn[atari]'")
    elif namespace_of(env_id) == MINATAR and f"{MINATAR}/Breakout-v1" not in gymnasium.registry:
        _import("minatar.gym", "MinAtar's games need it: pip install 'sbdqn[minatar]'")
        importlib.import_module("minatar.gym").register_envs()


def _import(module: str, advice: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(advice) from error
