"""What Stable-Baselines3 writes about a model in JSON, in the words of this library.

A value that JSON cannot hold stands there as a pickle in base64, beside its type and its
attributes in plain text. The text says most of it; two small pickles are parsed, and none
is unpickled.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sbdqn.errors import CheckpointError, is_integer, is_number
from sbdqn.inert_pickle import Call, Name, read_pickle
from sbdqn.networks.base_policy import OPTIMIZERS
from sbdqn.schedules import Linear

_SAME = (  # names and meanings
    *("buffer_size", "learning_starts", "batch_size", "gamma", "tau", "gradient_steps"),
    *("target_update_interval", "exploration_fraction", "exploration_initial_eps"),
    *("exploration_final_eps", "verbose", "seed"),
)
_COUNTS = ("num_timesteps", "_total_timesteps", "_episode_num", "_n_updates")
_UTILS = "stable_baselines3.common.utils"
_TYPES = "stable_baselines3.common.type_aliases"
_EXTRACTORS = [
    ("stable_baselines3.common.torch_layers", name)
    for name in ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
]
_IN_THE_WEIGHTS = ("net_arch", "features_extractor_kwargs")
_ADAM = "<class 'torch.optim.adam.Adam'>"
_CLASS = re.compile(r"<class '([\w.]+)\.(\w+)'>")


class SB3Settings:
    """The settings of a model of SB3's DQN.

    Args:
        data: the archive's JSON, decoded.

    Raises:
        CheckpointError: if it is of another algorithm. Methods raise it for what is damaged
            or cannot be read.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        _require_dqn(data)
        self._data = data

    def scalars(self, skipped: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of our constructor, but those about the network.

        Args:
            skipped: names of those that need not be read.
        """
        readers: dict[str, Callable[[], Any]] = {
            **{name: partial(self._plain, name) for name in _SAME},
            "n_steps": partial(self._plain, "n_steps", 1),  # came with SB3 2.7
            "stats_window_size": partial(self._plain, "_stats_window_size"),
            "max_grad_norm": self._max_grad_norm,
            "learning_rate": self._learning_rate,
            "train_freq": self._train_freq,
        }
        return {name: read() for name, read in readers.items() if name not in skipped}

    def counts(self) -> dict[str, int]:
        """Steps taken and planned, episodes and updates, by SB3's names."""
        return {name: self._count(name) for name in _COUNTS}

    def policy_kwargs(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of our policies that the weights do not tell.

        Args:
            chosen: what the caller says instead.
        """
        given = self.described("policy_kwargs")
        extractor = given.get("features_extractor_class")
        if extractor is not None and _class_in(extractor) not in _EXTRACTORS:
            raise CheckpointError(
                f"the model has a features extractor of its own, {extractor!s:.100}; only SB3's "
                f"FlattenExtractor, NatureCNN and CombinedExtractor have a counterpart here"
            )
        readers: dict[str, Callable[[Any], Any]] = {
            "activation_fn": _activation,
            "normalize_images": _switch,
            "optimizer_class": _optimizer,
            "optimizer_kwargs": _keywords,
        }
        ignored = {*_IN_THE_WEIGHTS, "features_extractor_class", ":type:", ":serialized:"}
        unknown = given.keys() - readers.keys() - ignored
        if unknown:
            raise CheckpointError(
                f"the policy_kwargs {sorted(unknown)!s:.200} have no counterpart here"
            )
        read = {name: read for name, read in readers.items() if name in given.keys() - chosen}
        return {**{name: reader(given[name]) for name, reader in read.items()}, **chosen}

    @property
    def optimizer_class(self) -> str:
        """The name of the optimiser's class; empty for one that is unknown here."""
        found = _class_in(self.described("policy_kwargs").get("optimizer_class", _ADAM))
        return "" if found is None else found[1]

    def described(self, name: str) -> Mapping[str, Any]:
        """A value's attributes in plain text; a dict's items."""
        value = self._data.get(name)
        if not isinstance(value, dict):
            raise CheckpointError(f"the archive is damaged: {name} is {value!r:.50}")
        return value

    def parts(self) -> list[str]:
        """The names of a Dict observation's parts in order; one empty name for an array."""
        space = self.described("observation_space")
        kind = _class_in(space.get(":type:"))
        if kind is None or kind[1] != "Dict":
            return [""]
        match _parsed(space):
            case Call(state={"spaces": dict(parts)}) if all(type(key) is str for key in parts):
                return list(parts)
        raise CheckpointError("the archive is damaged: its observation space cannot be read")

    @property
    def may_be_image(self) -> bool:
        """Whether an observation looks like an image to SB3, but for its bounds."""
        space = self.described("observation_space")
        shape = space.get("_shape")
        return isinstance(shape, list) and len(shape) == 3 and space.get("dtype") == "uint8"

    @property
    def has_own_replay(self) -> bool:
        """Whether its replay is none of SB3's usual ones."""
        replay = self._data.get("replay_buffer_class")
        module = replay.get("__module__") if isinstance(replay, dict) else None
        return module not in (None, "stable_baselines3.common.buffers")

    def _plain(self, name: str, default: Any = None) -> Any:
        value = self._data.get(name, default)
        if isinstance(value, (dict, list)) or (value is None and name != "seed"):
            raise _unreadable(name.lstrip("_"))
        return value

    def _count(self, name: str) -> int:
        value = self._data.get(name)
        if not is_integer(value) or not 0 <= value < 2**63:
            raise CheckpointError(f"the archive is damaged: {name} is {value!r:.50}")
        return int(value)

    def _max_grad_norm(self) -> Any:
        norm = self._plain("max_grad_norm")
        return None if norm == math.inf else norm

    def _learning_rate(self) -> Any:
        """A number, or one of the schedules that SB3 has classes for."""
        rate = self._data.get("learning_rate")
        if not isinstance(rate, dict):
            return self._plain("learning_rate")
        kind = _class_in(rate.get(":type:"))
        if kind == (_UTILS, "ConstantSchedule") and is_number(rate.get("val")):
            return rate["val"]
        start, end, fraction = (rate.get(each) for each in ("start", "end", "end_fraction"))
        duration = self._count("_total_timesteps")
        is_linear = kind == (_UTILS, "LinearSchedule") and duration > 0
        if is_linear and all(map(is_number, (start, end, fraction))):
            return Linear(start, end, round(fraction * duration))  # type: ignore[arg-type, operator]
        raise _unreadable("learning_rate")

    def _train_freq(self) -> Any:
        """In transitions, where SB3 counts steps of all environments together."""
        match _parsed(self.described("train_freq")):
            case Call(
                function=Name(module=_, name="TrainFreq"),
                arguments=(int(count), Call(arguments=("step" | "episode" as unit,))),
            ):
                return (count, unit) if unit == "episode" else count * self._count("n_envs")
        raise _unreadable("train_freq")


def read_json(text: bytes) -> dict[str, Any]:
    """The archive's JSON.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the archive is damaged: its data are no JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"the archive is damaged: its data are a {type(data).__name__}")
    return data


def _require_dqn(data: Mapping[str, Any]) -> None:
    policy = data.get("policy_class")
    module = policy.get("__module__") if isinstance(policy, dict) else None
    if module == "stable_baselines3.dqn.policies":
        return
    if module == "stable_baselines3.common.policies":
        algorithm = "PPO" if "clip_range" in data else "A2C"
    elif other := re.fullmatch(r"(?:stable_baselines3|sb3_contrib)\.(\w+)\.policies", str(module)):
        algorithm = other[1].upper()
    else:
        raise CheckpointError(
            f"the archive's policy is a class of the module {module!s:.100}; only SB3's own "
            f"MlpPolicy, CnnPolicy and MultiInputPolicy of DQN have a counterpart here"
        )
    raise CheckpointError(
        f"the archive holds a {algorithm} model; from_sb3 reads those of DQN, the only algorithm "
        f"of Stable-Baselines3 that learns what this library does"
    )


def _unreadable(name: str) -> CheckpointError:
    return CheckpointError(
        f"the archive has {name} in no form that can be read without unpickling it; pass it, as "
        f"in DQN.from_sb3(path, env, {name}=...)"
    )


def _parsed(described: Mapping[str, Any]) -> Any:
    try:
        pickled = base64.b64decode(str(described.get(":serialized:")), validate=True)
    except ValueError as error:
        raise CheckpointError(f"the archive is damaged: {error}") from error
    return read_pickle(pickled)


def _class_in(text: Any) -> tuple[str, str] | None:
    """Module and name of a class, as Python writes it."""
    found = _CLASS.fullmatch(str(text))
    return None if found is None else (found[1], found[2])


def _activation(text: Any) -> str:
    module, name = _class_in(text) or ("", "")
    if not module.startswith("torch.nn.modules."):
        raise CheckpointError(
            f"the model's activation_fn is {text!s:.100}, and only those of torch.nn are known here"
        )
    return name


def _optimizer(text: Any) -> str:
    module, name = _class_in(text) or ("", "")
    if not module.startswith("torch.optim.") or name not in OPTIMIZERS:
        raise CheckpointError(
            f"the model's optimizer_class is {text!s:.100}, which has no counterpart here; choose "
            f"one: DQN.from_sb3(path, env, policy_kwargs={{'optimizer_class': 'Adam'}})"
        )
    return name


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise CheckpointError(f"the archive is damaged: normalize_images is {value!r:.50}")
    return value


def _keywords(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(
            f"the model's optimizer_kwargs are {value!s:.100}, which is not plain; pass them: "
            f"DQN.from_sb3(path, env, policy_kwargs={{'optimizer_kwargs': ...}})"
        )
    return value
