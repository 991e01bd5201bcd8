"""Replays: which transitions to learn from, and with what weight."""

from sbdqn.replay.prioritized import Prioritized
from sbdqn.replay.ring_replay import AheadRule, DrawRule, RingReplay
from sbdqn.replay.storage import Storage
from sbdqn.replay.uniform import Uniform

__all__ = ["AheadRule", "DrawRule", "Prioritized", "RingReplay", "Storage", "Uniform"]
