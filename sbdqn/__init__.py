"""The whole deep Q-network family, on PyTorch and gymnasium vector environments."""

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
    "envs",
    "errors",
    "evaluate_policy",
    "evaluation",
    "exploration",
    "heads",
    "logger",
    "memory",
    "networks",
    "recipes",
    "replay",
    "schedules",
]
