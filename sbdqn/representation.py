"""Writing an estimator as the call that makes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np
import torch

REQUIRED = ("policy", "env")


def represent_call(
    estimator: object, parameters: Mapping[str, Any], defaults: Mapping[str, Any]
) -> str:
    """`DQN('MlpPolicy', 'CartPole-v1', gamma=0.9)`: what differs from the defaults."""
    arguments = [represent(parameters[name]) for name in REQUIRED]
    arguments += [
        f"{name}={represent(value)}"
        for name, value in parameters.items()
        if name not in REQUIRED and not _same(value, defaults[name])
    ]
    return f"{type(estimator).__name__}({', '.join(arguments)})"


def represent(value: Any) -> str:
    """An expression for a value, valid after `import torch; from sbdqn import *`."""
    if isinstance(value, type):
        return _qualified(value)
    if is_dataclass(value):
        arguments = ", ".join(
            f"{field.name}={represent(getattr(value, field.name))}"
            for field in fields(value)
            if not _is_default(field, getattr(value, field.name))
        )
        return f"{_qualified(type(value))}({arguments})"
    if type(value) is dict:
        return "{" + ", ".join(f"{key!r}: {represent(each)}" for key, each in value.items()) + "}"
    if type(value) is tuple:
        inner = ", ".join(map(represent, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if type(value) is list:
        return "[" + ", ".join(map(represent, value)) + "]"
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    return repr(value)


def _qualified(cls: type) -> str:
    package, _, rest = cls.__module__.partition(".")
    if package == "sbdqn":
        return f"{rest.partition('.')[0]}.{cls.__qualname__}"
    if package == "torch":
        kind = rest.partition(".")[0]
        return f"torch.{kind}.{cls.__qualname__}"
    return cls.__qualname__ if package == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _is_default(field: Any, value: object) -> bool:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    return default is not MISSING and _same(value, default)


def _same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))
