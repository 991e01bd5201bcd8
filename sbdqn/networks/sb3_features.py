"""Bodies of the form that Stable-Baselines3's features extractors have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from torch import nn

from sbdqn.errors import SpaceError
from sbdqn.networks.bodies import Encoder, is_image
from sbdqn.networks.multi_input import MultiInput
from sbdqn.networks.pixels import Nature, Pixels
from sbdqn.observations import parts_of


@dataclass(frozen=True)
class SB3Features:
    """A `features_extractor` that computes what one of Stable-Baselines3's does.

    `DQN.from_sb3` makes it, for weights that were learned with `NatureCNN`,
    `CombinedExtractor`, or a `FlattenExtractor` of images. It differs from the bodies of
    this library in that a linear layer and a ReLU stand behind the convolutions of each
    image, in the order of the parts, and in that images are flattened channels first.

    Attributes:
        parts: the name of each part of a Dict observation, in the order of their
            features, with the width of that linear layer, or None for a part that is
            flattened; one part called `""` for observations of one part.
        normalize_images: whether uint8 images are divided by 255.

    Example:
        >>> from sbdqn.networks import MultiInputPolicy
        >>> extractor = SB3Features((("camera", 256), ("speed", None)))
        >>> policy = MultiInputPolicy(layer_norm=False, features_extractor=extractor)
    """

    parts: tuple[tuple[str, int | None], ...]
    normalize_images: bool = True

    def __call__(self, space: Space[Any]) -> nn.Module:
        """The body for observations of this space.

        Raises:
            SpaceError: if the space has other parts, or an image is none.
        """
        widths = dict(self.parts)
        found = parts_of(space)
        if found is None and set(widths) == {""}:
            return self._body(space, widths[""])
        if found is None or found.keys() != widths.keys():
            raise SpaceError(f"the parts must be {list(widths)}, but the space is {space}")
        return MultiInput(found, lambda name, part: self._body(part, widths[name]), list(widths))

    def _body(self, space: Space[Any], width: int | None) -> nn.Module:
        if width is not None:
            return _NatureWithLinear(space, self.normalize_images, width)
        if is_image(space) and len(space.shape or ()) == 3:
            return _FlatImage(space, self.normalize_images)
        return Encoder(space, normalize_images=False)


class _NatureWithLinear(nn.Sequential):
    """The convolutions of `Nature`, then a linear layer and a ReLU."""

    def __init__(self, space: Space[Any], normalize_images: bool, width: int) -> None:
        convolutions = Nature(space, normalize_images, _channels_are_last(space))
        super().__init__(convolutions, nn.Linear(convolutions.features, width), nn.ReLU())
        self.features = width


class _FlatImage(nn.Sequential):
    """An image as one vector, channels first."""

    def __init__(self, space: Space[Any], normalize_images: bool) -> None:
        super().__init__(Pixels(space, normalize_images, _channels_are_last(space)), nn.Flatten())
        self.features = int(np.prod(space.shape or ()))


def _channels_are_last(space: Space[Any]) -> bool | None:
    """As SB3 tells it for single images; None for what it does not know."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return None
    return is_image(space) and int(np.argmin(space.shape)) != 0
