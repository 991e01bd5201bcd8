"""Making, checking and adapting environments."""

from sbdqn.envs.atari import AtariGames
from sbdqn.envs.copying import Environments, pickled_environments, unpickled_environments
from sbdqn.envs.faults import FaultReporting
from sbdqn.envs.frames import stacked_frames, with_frames
from sbdqn.envs.infos import split_infos
from sbdqn.envs.making import (
    EnvLike,
    Vectorization,
    has_time_limit,
    make_evaluation_env,
    make_vector_env,
    reward_threshold,
)
from sbdqn.envs.sb3_view import SB3View
from sbdqn.envs.spaces import ObservationAdapter, actions_in, discrete_actions

__all__ = [
    "AtariGames",
    "EnvLike",
    "Environments",
    "FaultReporting",
    "ObservationAdapter",
    "SB3View",
    "Vectorization",
    "actions_in",
    "discrete_actions",
    "has_time_limit",
    "make_evaluation_env",
    "make_vector_env",
    "pickled_environments",
    "reward_threshold",
    "split_infos",
    "stacked_frames",
    "unpickled_environments",
    "with_frames",
]
