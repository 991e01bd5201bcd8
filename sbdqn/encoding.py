"""Between Python values and JSON, by a fixed list of types.

Decoding calls the constructors of this library's own specs and gymnasium's
spaces, looks up classes of torch by name, and does nothing else.
"""

from __future__ import annotations

import inspect
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from sbdqn import backups, exploration, heads, memory, networks, replay, schedules
from sbdqn.errors import CheckpointError


def _specs_of(module: ModuleType) -> dict[str, type[Any]]:
    """The specs that a module of ours defines, by `module.Class`."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for name, value in sorted(vars(module).items())
        if is_dataclass(value)
        and isinstance(value, type)
        and value.__module__.startswith(module.__name__)
        and not inspect.isabstract(value)
    }


SPECS: dict[str, type[Any]] = {
    name: spec
    for module in (backups, exploration, heads, memory, networks, replay, schedules)
    for name, spec in _specs_of(module).items()
}
_SPEC_NAMES = {spec: name for name, spec in SPECS.items()}
_TORCH_CLASSES = {
    "nn": (torch.nn, torch.nn.Module),
    "optim": (torch.optim, torch.optim.Optimizer),
}

MOST_NUMBERS = 1 << 24  # in all boxes of a space
_MOST_OF_ONE_HASH = 64  # keys of a dict; of -1 and -2 it is the same, and else seldom
_SPACES = (
    spaces.Box,
    spaces.Discrete,
    spaces.MultiDiscrete,
    spaces.MultiBinary,
    spaces.Dict,
    spaces.Tuple,
)


class NotEncodableError(TypeError):
    """A value that the fixed list of types does not describe."""


def encode(value: Any, tensors: dict[str, Tensor] | None = None, path: str = "") -> Any:
    """Describe a value in JSON.

    Args:
        value: what to describe.
        tensors: gathers the tensors themselves under their path; None if there may be none.
        path: of the value.

    Raises:
        NotEncodableError: if it is of a type that has no description.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Tensor) and tensors is not None:
        while path in tensors:  # as of the keys 1 and "1", or of "a.b" and of "b" in "a"
            path += "'"
        tensors[path] = value.detach()
        return {"$tensor": path}
    if type(value) is list:
        return [encode(each, tensors, f"{path}.{index}") for index, each in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": encode(list(value), tensors, path)}
    if isinstance(value, Mapping) and not isinstance(value, Space):  # a Dict space is both
        return _encode_mapping(value, tensors, path)
    if type(value) in _SPEC_NAMES:
        arguments = {field.name: getattr(value, field.name) for field in fields(value)}
        return {"$spec": _SPEC_NAMES[type(value)], "arguments": encode(arguments, tensors, path)}
    return _encode_leaf(value, path)


def decode(value: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """The value that `encode` described.

    Raises:
        CheckpointError: if the description is none of `encode`'s, or one of spaces that
            are too large.
    """
    return _Decoder(tensors).decode(value)


class _Decoder:
    """Decodes one value.

    Args:
        tensors: that it may refer to; None if there are none.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None) -> None:
        self._tensors = tensors
        self._n_numbers = 0  # in boxes: a short description can be of any number
        self._n_spaces = 0

    def decode(self, value: Any) -> Any:
        """The value."""
        if isinstance(value, list):
            return [self.decode(each) for each in value]
        if not isinstance(value, dict):
            return value
        tag = next(iter(value), "")
        if tag == "$float":
            return float(value[tag])
        if tag == "$tensor" and self._tensors is not None:
            return self._tensors[value[tag]]
        if tag == "$tuple":
            return tuple(self.decode(value[tag]))
        if tag == "$dict":
            return _dict([(self.decode(key), self.decode(each)) for key, each in value[tag]])
        if tag == "$spec":
            return SPECS[value[tag]](**self.decode(value["arguments"]))
        if tag == "$space":
            return self._space(value[tag], value["arguments"])
        return _decode_leaf(tag, value)

    def _space(self, name: str, described: Any) -> Space[Any]:
        n_before = self._n_spaces
        arguments = self.decode(described)
        self._n_spaces += 1
        if name == "Box":
            self._count(math.prod(arguments["shape"]))
        elif name == "Dict":
            # Each part within is named by the way to it, which begins with one of these.
            longest = max((len(str(key)) for key, _ in arguments["spaces"]), default=0)
            self._count(longest * (self._n_spaces - n_before))
        return _decode_space(name, arguments)

    def _count(self, numbers: int) -> None:
        self._n_numbers += numbers
        if self._n_numbers > MOST_NUMBERS:
            raise CheckpointError(f"spaces of more than {MOST_NUMBERS} numbers are not loaded")


def _dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    # To put many keys of one hash into a dict takes the square of their number.
    equal = Counter(hash(key) for key, _ in pairs)
    if max(equal.values(), default=0) > _MOST_OF_ONE_HASH:
        raise CheckpointError("the archive is damaged: many keys have the same hash")
    return dict(pairs)


def _encode_mapping(
    value: Mapping[Any, Any], tensors: dict[str, Tensor] | None, path: str
) -> dict[str, Any]:
    pairs = [
        [encode(key), encode(each, tensors, f"{path}.{key}".lstrip("."))]
        for key, each in value.items()
    ]
    return {"$dict": pairs}


def _encode_leaf(value: Any, path: str) -> Any:
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return encode(value.item())  # a long double would be one again
    if isinstance(value, os.PathLike):
        return {"$path": os.fspath(value)}
    if isinstance(value, torch.device):
        return {"$device": str(value)}
    if isinstance(value, Space):
        return _encode_space(value)
    if isinstance(value, type):
        name: str = value.__name__
        for namespace, (module, base) in _TORCH_CLASSES.items():
            if issubclass(value, base) and getattr(module, name, None) is value:
                return {"$torch": f"{namespace}.{name}"}
    where = f"{path}: " if path else ""
    raise NotEncodableError(f"{where}{type(value).__name__} has no description in JSON")


def _decode_leaf(tag: str, value: Mapping[str, Any]) -> Any:
    if tag == "$path":
        return Path(value[tag])
    if tag == "$device":
        return torch.device(value[tag])
    if tag == "$torch":
        namespace, name = value[tag].split(".")
        module, base = _TORCH_CLASSES[namespace]
        found = getattr(module, name)
        if isinstance(found, type) and issubclass(found, base):
            return found
    raise CheckpointError(f"the archive is damaged: {tag!r} describes nothing")


def _encode_space(space: Space[Any]) -> dict[str, Any]:
    if isinstance(space, spaces.Box):
        if space.low.size > MOST_NUMBERS:
            raise CheckpointError(f"spaces of more than {MOST_NUMBERS} numbers are not saved")
        arguments: dict[str, Any] = {
            "low": _bound(space.low),
            "high": _bound(space.high),
            "shape": tuple(space.shape),
            "dtype": np.dtype(space.dtype).name,
        }
    elif isinstance(space, spaces.Discrete):
        arguments = {"n": int(space.n), "start": int(space.start)}
        if space.dtype != np.int64:  # others exist from gymnasium 1.3 on
            arguments["dtype"] = np.dtype(space.dtype).name
    elif isinstance(space, spaces.MultiDiscrete):
        arguments = {
            "nvec": space.nvec.tolist(),
            "dtype": np.dtype(space.dtype).name,
            "start": space.start.tolist(),
        }
    elif isinstance(space, spaces.MultiBinary):
        arguments = {"n": space.n if isinstance(space.n, int) else list(map(int, space.n))}
    elif isinstance(space, spaces.Dict):
        arguments = {"spaces": [list(item) for item in space.spaces.items()]}
    elif isinstance(space, spaces.Tuple):
        arguments = {"spaces": list(space.spaces)}
    else:
        raise NotEncodableError(f"{space} has no description in JSON")
    kind = next(kind for kind in _SPACES if isinstance(space, kind))
    return {"$space": kind.__name__, "arguments": encode(arguments)}


def _decode_space(name: str, arguments: dict[str, Any]) -> Space[Any]:
    if name == "Box":
        shape, dtype = arguments["shape"], _number_type(arguments["dtype"])
        low, high = (
            np.broadcast_to(np.asarray(arguments[bound], dtype=dtype), shape)
            for bound in ("low", "high")
        )
        return spaces.Box(low, high, shape, dtype)
    if name == "Discrete":
        if "dtype" in arguments:
            arguments["dtype"] = _number_type(arguments["dtype"])
        return spaces.Discrete(**arguments)
    if name == "MultiDiscrete":
        nvec, start = (np.asarray(arguments[each], np.int64) for each in ("nvec", "start"))
        return spaces.MultiDiscrete(nvec, _number_type(arguments["dtype"]), start=start)
    if name == "MultiBinary":
        return spaces.MultiBinary(arguments["n"])
    if name == "Dict":
        return spaces.Dict(OrderedDict(arguments["spaces"]))  # others are sorted
    if name == "Tuple":
        return spaces.Tuple(arguments["spaces"])
    raise CheckpointError(f"the archive is damaged: unknown space {name!r}")


def _number_type(name: str) -> type[Any]:
    """The type of numbers of a space."""
    dtype = np.dtype(name)
    if dtype.kind not in "biuf":  # others could be of any size, or hold Python's objects
        raise CheckpointError(f"the archive is damaged: a space of {name!r}")
    return dtype.type


def _bound(values: Any) -> Any:
    first = values.reshape(-1)[:1]
    return first[0].item() if first.size and (values == first).all() else values.tolist()
