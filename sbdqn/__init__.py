"""The whole deep Q-network family, on PyTorch and gymnasium vector environments."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from sbdqn import (
        backups,
        callbacks,
        envs,
        errors,
        evaluation,
        exploration,
        heads,
        logger,
        memory,
        networks,
        recipes,
        replay,
        schedules,
    )
    from sbdqn.checking import check_env
    from sbdqn.deployment import load_policy
    from sbdqn.dqn import DQN
    from sbdqn.evaluation import evaluate_policy
    from sbdqn.memory import Memory
    from sbdqn.networks import CnnPolicy, MlpPolicy, MultiInputPolicy

__version__ = "0.1.0"

__all__ = [
    "DQN",
    "CnnPolicy",
    "Memory",
    "MlpPolicy",
    "MultiInputPolicy",
    "__version__",
    "backups",
    "callbacks",
    "check_env",
    "envs",
    "errors",
    "evaluate_policy",
    "evaluation",
    "exploration",
    "heads",
    "load_policy",
    "logger",
    "memory",
    "networks",
    "recipes",
    "replay",
    "schedules",
]

# Each is imported when it is first used: a program that loads a policy needs no training code.
_HOME_OF = {
    "DQN": "dqn",
    "CnnPolicy": "networks",
    "Memory": "memory",
    "MlpPolicy": "networks",
    "MultiInputPolicy": "networks",
    "check_env": "checking",
    "evaluate_policy": "evaluation",
    "load_policy": "deployment",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _importlib.import_module(f"{__name__}.{_HOME_OF.get(name, name)}")
    value = getattr(home, name) if name in _HOME_OF else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
