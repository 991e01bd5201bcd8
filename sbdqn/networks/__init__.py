"""Networks: how observations become features, and features values."""

from sbdqn.networks.bodies import Encoder, Mlp
from sbdqn.networks.direct_step import direct_step
from sbdqn.networks.flat import FlatParameters
from sbdqn.networks.outputs import LinearOutput
from sbdqn.networks.policies import MlpPolicy
from sbdqn.networks.q_network import QNetwork

__all__ = [
    "Encoder",
    "FlatParameters",
    "LinearOutput",
    "Mlp",
    "MlpPolicy",
    "QNetwork",
    "direct_step",
]
