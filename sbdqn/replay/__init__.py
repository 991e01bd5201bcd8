"""Replays: which transitions to learn from, and with what weight."""

from sbdqn.replay.prioritized import Prioritized
from sbdqn.replay.ring_replay import DrawRule, RingReplay
from sbdqn.replay.storage import Storage
from sbdqn.replay.uniform import Uniform

__all__ = ["DrawRule", "Prioritized", "RingReplay", "Storage", "Uniform"]
