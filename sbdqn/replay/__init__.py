"""Replays: which transitions to learn from, and with what weight."""

from sbdqn.replay.storage import Storage
from sbdqn.replay.uniform import Uniform, UniformReplay

__all__ = ["Storage", "Uniform", "UniformReplay"]
