"""Policies: descriptions of a network and of its optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn, optim

from sbdqn.errors import ConfigurationError
from sbdqn.networks.bodies import Encoder, Mlp
from sbdqn.networks.flat import FlatParameters
from sbdqn.networks.outputs import LinearOutput
from sbdqn.networks.q_network import QNetwork
from sbdqn.protocols import BodyFactory, Head

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "RMSprop": optim.RMSprop,
    "SGD": optim.SGD,
    "RAdam": optim.RAdam,
}
_FUSED_ON_EVERY_DEVICE = (optim.Adam, optim.AdamW, optim.SGD)


@dataclass(frozen=True)
class MlpPolicy:
    """A multilayer perceptron over flattened observations.

    Attributes:
        net_arch: width of each hidden layer.
        activation_fn: class of the activation, or its name in `torch.nn`.
        layer_norm: whether layer norm follows every hidden linear layer.
        features_extractor: a callable from the observation space to a module
            with `.features` that takes the place of flattening.
        normalize_images: whether uint8 images are divided by 255.
        optimizer_class: `"Adam"`, `"AdamW"`, `"RMSprop"`, `"SGD"`, `"RAdam"`,
            or a subclass of `torch.optim.Optimizer`.
        optimizer_kwargs: keyword arguments of the optimiser but the learning
            rate.

    Example:
        >>> policy = MlpPolicy(net_arch=(256, 256), layer_norm=True)
    """

    net_arch: tuple[int, ...] = (64, 64)
    activation_fn: type[nn.Module] | str = nn.ReLU
    layer_norm: bool = True
    features_extractor: BodyFactory | None = None
    normalize_images: bool = True
    optimizer_class: type[optim.Optimizer] | str = "Adam"
    optimizer_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no network can be made of."""
        object.__setattr__(self, "net_arch", _widths(self.net_arch))
        _require_layer(self._activation())
        for name in ("layer_norm", "normalize_images"):
            given = getattr(self, name)
            if not isinstance(given, (bool, np.bool_)):
                raise ConfigurationError(f"{name} must be True or False, not {given!r}")
        _check_features_extractor(self.features_extractor)
        self._optimizer_class()
        _check_optimizer_kwargs(self.optimizer_kwargs)

    def build(self, space: Space[Any], n_actions: int, head: Head) -> QNetwork:
        """Make a network with fresh weights from torch's global generator.

        Args:
            space: of one observation.
            n_actions: A, the number of actions.
            head: says how many outputs an action has.
        """
        if self.features_extractor is None:
            encoder: nn.Module = Encoder(space, self.normalize_images)
        else:
            encoder = self.features_extractor(space)
        features = getattr(encoder, "features", None)
        if not isinstance(encoder, nn.Module) or not isinstance(features, int):
            raise ConfigurationError(
                f"features_extractor must return an nn.Module with an integer .features, "
                f"not {encoder!r}"
            )
        trunk = Mlp(features, self.net_arch, self._activation(), self.layer_norm)
        return QNetwork(encoder, trunk, LinearOutput(trunk.features, n_actions, head.width), head)

    def build_optimizer(self, flat: FlatParameters, learning_rate: float) -> optim.Optimizer:
        """Make the optimiser of a network's parameters.

        torch's own optimisers in `OPTIMIZERS` treat every element alike, so they
        get all parameters as one tensor; another class gets the layers one by one.
        """
        chosen = self._optimizer_class()
        elementwise = chosen in OPTIMIZERS.values()
        parameters: list[Tensor] = [flat.values] if elementwise else list(flat.trainable)
        settings = dict(self.optimizer_kwargs)
        if chosen in _FUSED_ON_EVERY_DEVICE and not {"fused", "foreach"} & settings.keys():
            settings["fused"] = True
        try:
            return chosen(parameters, lr=learning_rate, **settings)  # type: ignore[call-arg]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"optimizer_kwargs {dict(self.optimizer_kwargs)!r} do not fit "
                f"{chosen.__name__}: {error}"
            ) from error

    def _activation(self) -> type[nn.Module]:
        given = self.activation_fn
        found = getattr(torch.nn, given, None) if isinstance(given, str) else given
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
        raise ConfigurationError(
            f"activation_fn must be a subclass of nn.Module or the name of one in torch.nn, "
            f"not {given!r}"
        )

    def _optimizer_class(self) -> type[optim.Optimizer]:
        given = self.optimizer_class
        found = OPTIMIZERS.get(given) if isinstance(given, str) else given
        if isinstance(found, type) and issubclass(found, optim.Optimizer):
            return found
        raise ConfigurationError(
            f"optimizer_class must be one of {', '.join(OPTIMIZERS)}, or a subclass of "
            f"torch.optim.Optimizer, not {given!r}"
        )


def _widths(given: Any) -> tuple[int, ...]:
    widths = given if isinstance(given, (list, tuple)) else (None,)
    if not all(isinstance(w, Integral) and not isinstance(w, bool) and int(w) > 0 for w in widths):
        raise ConfigurationError(
            f"net_arch must be a list of positive layer widths such as [64, 64], not {given!r}"
        )
    return tuple(map(int, widths))


def _require_layer(activation: type[nn.Module]) -> None:
    try:
        activation()
    except TypeError as error:
        raise ConfigurationError(
            f"activation_fn must be a class that is made without arguments, such as nn.ReLU, not "
            f"{activation.__name__}: {error}"
        ) from error


def _check_features_extractor(given: Any) -> None:
    if given is not None and (isinstance(given, nn.Module) or not callable(given)):
        raise ConfigurationError(
            f"features_extractor must be a callable from the observation space to an nn.Module "
            f"with an integer .features, such as the module's class, or None, not {given!r}"
        )


def _check_optimizer_kwargs(given: Any) -> None:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigurationError(
            f"optimizer_kwargs must be a dict of keyword arguments such as {{'eps': 1e-5}}, "
            f"not {given!r}"
        )
    if "lr" in given:
        raise ConfigurationError(
            "optimizer_kwargs must not hold 'lr'; use the parameter learning_rate"
        )
