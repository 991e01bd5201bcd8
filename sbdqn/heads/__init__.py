"""Heads: what the last axis of the network means."""

from sbdqn.heads.categorical import Categorical
from sbdqn.heads.implicit_quantile import ImplicitQuantile
from sbdqn.heads.quantile import Quantile
from sbdqn.heads.scalar import Scalar

__all__ = ["Categorical", "ImplicitQuantile", "Quantile", "Scalar"]
