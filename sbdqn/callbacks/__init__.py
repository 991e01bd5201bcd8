"""Callbacks: everything that happens around training."""

from sbdqn.callbacks.base import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    EventCallback,
    MaybeCallback,
    as_callbacks,
)
from sbdqn.callbacks.checkpoint import CheckpointCallback
from sbdqn.callbacks.evaluation import EvalCallback
from sbdqn.callbacks.log_metrics import LogInterval, LogMetrics
from sbdqn.callbacks.progress import ProgressBarCallback
from sbdqn.callbacks.schedule import ScheduleCallback
from sbdqn.callbacks.step_locals import StepLocals
from sbdqn.callbacks.stopping import (
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
    StopTrainingWhenSolved,
)
from sbdqn.callbacks.target_sync import TargetSync, TargetUpdate
from sbdqn.callbacks.timing import EveryNTimesteps

__all__ = [
    "BaseCallback",
    "CallbackList",
    "CheckpointCallback",
    "ConvertCallback",
    "EvalCallback",
    "EventCallback",
    "EveryNTimesteps",
    "LogInterval",
    "LogMetrics",
    "MaybeCallback",
    "ProgressBarCallback",
    "ScheduleCallback",
    "StepLocals",
    "StopTrainingOnMaxEpisodes",
    "StopTrainingOnNoModelImprovement",
    "StopTrainingOnRewardThreshold",
    "StopTrainingWhenSolved",
    "TargetSync",
    "TargetUpdate",
    "as_callbacks",
]
