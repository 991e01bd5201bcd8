"""Heads: what the last axis of the network means."""

from sbdqn.heads.scalar import Scalar

__all__ = ["Scalar"]
