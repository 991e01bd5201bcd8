"""Parameters that change while a model trains."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature

from sbdqn.callbacks.base import BaseCallback
from sbdqn.errors import ConfigurationError
from sbdqn.protocols import Schedule


class ScheduleCallback(BaseCallback):
    """Drives a parameter of the model over time.

    Args:
        name: of the parameter, as `set_params` takes it.
        schedule: its value by the clock; rounded for a parameter that is an
            integer.

    Example:
        >>> from sbdqn.schedules import Linear
        >>> shrinking = ScheduleCallback("tau", Linear(0.1, 0.001, 10_000))
    """

    def __init__(self, name: str, schedule: Schedule) -> None:
        super().__init__()
        self.name = name
        self.schedule = schedule

    def _init_callback(self) -> None:
        known = self.model.get_params()
        if self.name not in known:
            raise ConfigurationError(
                f"unknown parameter {self.name!r}; accepted are {', '.join(known)}"
            )
        # `gamma=1` and `EpsilonGreedy(1)` are of floats all the same.
        outer, _, inner = self.name.partition("__")
        if inner:
            types = {field.name: field.type for field in fields(known[outer])}
            self._is_integer = types[inner] in (int, "int")
        else:
            parameter = signature(type(self.model)).parameters.get(self.name)
            example = known[self.name] if parameter is None else parameter.default
            self._is_integer = isinstance(example, int)

    def _on_training_start(self) -> None:
        self._drive()

    def _on_step(self) -> bool:
        self._drive()
        return True

    def _drive(self) -> None:
        present = self.model.get_params()[self.name]
        wanted: float = self.schedule.at(self.model.trainer.clock)
        if self._is_integer:
            wanted = round(wanted)
        if wanted != present:
            self.model.set_params(**{self.name: wanted})
