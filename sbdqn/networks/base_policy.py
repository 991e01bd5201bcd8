"""What the policies share: hidden layers, output, optimiser, and all checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn, optim

from sbdqn.errors import ConfigurationError, is_integer, is_number, require
from sbdqn.networks.bodies import Mlp
from sbdqn.networks.centered_rmsprop import CenteredRMSprop
from sbdqn.networks.embedding import FractionEmbedding
from sbdqn.networks.flat import FlatParameters
from sbdqn.networks.noisy import NoisyLinear
from sbdqn.networks.outputs import DuelingOutput, LinearOutput
from sbdqn.networks.pixels import BODIES, require_settings, settings_of
from sbdqn.networks.q_network import QNetwork
from sbdqn.protocols import BodyFactory, Head, SampledHead

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "CenteredRMSprop": CenteredRMSprop,
    "RMSprop": optim.RMSprop,
    "SGD": optim.SGD,
    "RAdam": optim.RAdam,
}
_FUSED_ON_EVERY_DEVICE = (optim.Adam, optim.AdamW, optim.SGD)


MOST_LAYERS = 1_000


@dataclass(frozen=True)
class BasePolicy(ABC):
    """What all policies share; `MlpPolicy` says what the fields mean."""

    net_arch: tuple[int, ...] = (64, 64)
    activation_fn: type[nn.Module] | str = nn.ReLU
    layer_norm: bool = True
    dueling: bool = False
    noisy: bool = False
    noisy_sigma: float = 0.5
    features_extractor: BodyFactory | str | None = None
    features_extractor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    normalize_images: bool = True
    optimizer_class: type[optim.Optimizer] | str = "Adam"
    optimizer_kwargs: Mapping[str, Any] = field(default_factory=dict)

    _may_flatten: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what no network can be made of."""
        object.__setattr__(self, "net_arch", _widths(self.net_arch))
        _require_layer(self._activation())
        for name in ("layer_norm", "dueling", "noisy", "normalize_images"):
            given = getattr(self, name)
            if not isinstance(given, (bool, np.bool_)):
                raise ConfigurationError(f"{name} must be True or False, not {given!r}")
        _check_noisy_sigma(self.noisy, self.noisy_sigma)
        _check_features_extractor(self.features_extractor, self.normalize_images, self._may_flatten)
        _check_features_extractor_kwargs(self.features_extractor, self.features_extractor_kwargs)
        self._optimizer_class()
        _check_optimizer_kwargs(self.optimizer_kwargs)

    def build(self, space: Space[Any], n_actions: int, head: Head) -> QNetwork:
        """Make a network with fresh weights from torch's global generator.

        Args:
            space: of one observation.
            n_actions: A, the number of actions.
            head: says how many outputs an action has.
        """
        encoder = self._encoder(space)
        features = getattr(encoder, "features", None)
        if not isinstance(encoder, nn.Module) or not isinstance(features, int):
            raise ConfigurationError(
                f"features_extractor must return an nn.Module with an integer .features, "
                f"not {encoder!r}"
            )
        has_something_between = self.dueling or isinstance(head, SampledHead)
        n_own = 1 if has_something_between and self.net_arch else 0
        n_shared = len(self.net_arch) - n_own
        trunk = self._mlp(features, self.net_arch[:n_shared])
        output = self._output(trunk.features, self.net_arch[n_shared:], n_actions, head.width)
        embedding = None
        if isinstance(head, SampledHead):
            embedding = FractionEmbedding(trunk.features, head.cosines)
        return QNetwork(encoder, trunk, output, head, embedding)

    @abstractmethod
    def _encoder(self, space: Space[Any]) -> nn.Module:
        """From observations to features (B, F): a module with `.features`."""

    def _named_body(self, space: Space[Any]) -> nn.Module:
        name = self.features_extractor
        assert isinstance(name, str)
        return BODIES[name](space, self.normalize_images, **self.features_extractor_kwargs)

    def _mlp(self, inputs: int, widths: tuple[int, ...]) -> Mlp:
        return Mlp(inputs, widths, self._activation(), self.layer_norm, self._make_linear)

    def _make_linear(self, inputs: int, outputs: int) -> nn.Module:
        if self.noisy:
            return NoisyLinear(inputs, outputs, self.noisy_sigma)
        return nn.Linear(inputs, outputs)

    def _output(
        self, features: int, hidden: tuple[int, ...], n_actions: int, width: int
    ) -> nn.Module:
        if self.dueling:
            value, advantage = (self._mlp(features, hidden) for _ in range(2))
            return DuelingOutput(value, advantage, n_actions, width, self._make_linear)
        last = self._mlp(features, hidden)
        output = LinearOutput(last.features, n_actions, width, self._make_linear)
        return nn.Sequential(last, output) if hidden else output

    def build_optimizer(self, flat: FlatParameters, learning_rate: float) -> optim.Optimizer:
        """Make the optimiser of a network's parameters.

        The optimisers in `OPTIMIZERS` treat every element alike, so they
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
    if not all(is_integer(width) and width > 0 for width in widths):
        raise ConfigurationError(
            f"net_arch must be a list of positive layer widths such as [64, 64], not {given!r}"
        )
    if len(widths) > MOST_LAYERS:  # a short file could describe more than there is time for
        raise ConfigurationError(
            f"net_arch must have at most {MOST_LAYERS} layers, not {len(widths)}"
        )
    return tuple(map(int, widths))


def _check_noisy_sigma(noisy: bool, sigma: Any) -> None:
    require(is_number(sigma) and sigma > 0, "noisy_sigma", sigma, "a number above 0")
    if not noisy and sigma != BasePolicy.noisy_sigma:
        raise ConfigurationError(f"noisy_sigma={sigma!r} would have no effect with noisy=False")


def _require_layer(activation: type[nn.Module]) -> None:
    try:
        activation()
    except TypeError as error:
        raise ConfigurationError(
            f"activation_fn must be a class that is made without arguments, such as nn.ReLU, not "
            f"{activation.__name__}: {error}"
        ) from error


def _check_features_extractor(given: Any, normalize_images: bool, may_flatten: bool) -> None:
    if (given is None and may_flatten) or (isinstance(given, str) and given in BODIES):
        return
    if isinstance(given, (nn.Module, str)) or not callable(given):
        last = ", or None" if may_flatten else ""
        hint = "; MlpPolicy flattens images" if given is None else ""
        raise ConfigurationError(
            f"features_extractor must be {', '.join(map(repr, BODIES))}, a callable from the "
            f"observation space to an nn.Module with an integer .features, such as the module's "
            f"class{last}, not {given!r}{hint}"
        )
    if not normalize_images:
        raise ConfigurationError(
            f"normalize_images=False would have no effect with features_extractor={given!r}, "
            f"which sees images as they are"
        )


def _check_features_extractor_kwargs(extractor: Any, given: Any) -> None:
    _require_keywords("features_extractor_kwargs", given, "{'width': 2}")
    if not given:
        return
    if not isinstance(extractor, str):
        way_out = "" if extractor is None else "; bind them to it with functools.partial"
        raise ConfigurationError(
            f"features_extractor_kwargs={given!r} would have no effect with "
            f"features_extractor={extractor!r}; they are those of "
            f"{', '.join(map(repr, BODIES))}{way_out}"
        )
    accepted = settings_of(extractor)
    unknown = [name for name in given if name not in accepted]
    if unknown:
        raise ConfigurationError(
            f"features_extractor_kwargs of {extractor!r} must be among {', '.join(accepted)}, "
            f"not {', '.join(map(repr, unknown))}"
        )
    try:
        require_settings(given)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"features_extractor_kwargs={given!r} do not fit {extractor!r}: {error}"
        ) from error


def _require_keywords(name: str, given: Any, example: str) -> None:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigurationError(
            f"{name} must be a dict of keyword arguments such as {example}, not {given!r}"
        )


def _check_optimizer_kwargs(given: Any) -> None:
    _require_keywords("optimizer_kwargs", given, "{'eps': 1e-5}")
    if "lr" in given:
        raise ConfigurationError(
            "optimizer_kwargs must not hold 'lr'; use the parameter learning_rate"
        )
