"""Networks: how observations become features, and features values."""

from sbdqn.networks.bodies import Encoder, Mlp
from sbdqn.networks.centered_rmsprop import CenteredRMSprop
from sbdqn.networks.direct_step import direct_step, takes_its_own_steps
from sbdqn.networks.embedding import FractionEmbedding
from sbdqn.networks.flat import FlatParameters
from sbdqn.networks.functional_step import FunctionalStep, functional_step, has_state
from sbdqn.networks.layers import quietly
from sbdqn.networks.multi_input import MultiInput
from sbdqn.networks.noisy import NoisyLinear
from sbdqn.networks.outputs import DuelingOutput, LinearOutput
from sbdqn.networks.pixels import Impala, MinAtar, Nature
from sbdqn.networks.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sbdqn.networks.q_network import QNetwork, q_of
from sbdqn.networks.randomness import seeded
from sbdqn.networks.sb3_features import SB3Features

__all__ = [
    "CenteredRMSprop",
    "CnnPolicy",
    "DuelingOutput",
    "Encoder",
    "FlatParameters",
    "FractionEmbedding",
    "FunctionalStep",
    "Impala",
    "LinearOutput",
    "MinAtar",
    "Mlp",
    "MlpPolicy",
    "MultiInput",
    "MultiInputPolicy",
    "Nature",
    "NoisyLinear",
    "QNetwork",
    "SB3Features",
    "direct_step",
    "functional_step",
    "has_state",
    "q_of",
    "quietly",
    "seeded",
    "takes_its_own_steps",
]
