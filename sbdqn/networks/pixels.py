"""Pixels: convolutional bodies, from images as they are stored to features."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from sbdqn.errors import SpaceError, require, require_count
from sbdqn.networks.bodies import is_image


class Nature(nn.Sequential):
    """The three convolutions of Mnih et al. 2015, flattened.

    32 maps 8x8 with stride 4, 64 maps 4x4 with stride 2, 64 maps 3x3 with stride
    1, a ReLU after each ("Human-level control through deep reinforcement
    learning", Methods). The paper's linear layer of 512 is the policy's
    `net_arch=(512,)`, so that dueling, noise and quantiles act on it. Weights
    start as torch's layers do.

    Observations (B, ...) have the shape and the dtype of the space: (H, W),
    (H, W, C), (C, H, W), or stacks of S such images, (S, H, W, C) or
    (S, C, H, W), which become S * C channels. The channels are the axis, first
    or last, that is shorter than both others.

    Args:
        space: of one observation; a Box of images of at least 36 x 36 pixels.
        normalize_images: whether uint8 images from 0 to 255 are divided by 255;
            others, floats among them, are taken as they are.
        channels_last: where the channels are; None to tell it by the shape.

    Raises:
        SpaceError: if the space holds no images, or too small ones, or if where
            the channels are cannot be told.

    Attributes:
        features: width of the features; 3136 for 84 x 84 pixels.

    Example:
        >>> space = spaces.Box(0, 255, (84, 84, 4), "uint8")
        >>> Nature(space)(torch.zeros(2, 84, 84, 4, dtype=torch.uint8)).shape
        torch.Size([2, 3136])

        As a policy: `CnnPolicy()`.
    """

    def __init__(
        self, space: Space[Any], normalize_images: bool = True, channels_last: bool | None = None
    ) -> None:
        require_settings({"channels_last": channels_last})
        pixels = Pixels(space, normalize_images, channels_last)
        way_out = "use features_extractor='impala', which takes any size"
        pixels.require_side(36, "Nature", way_out)
        super().__init__(
            pixels,
            nn.Conv2d(pixels.shape[0], 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        rows, columns = map(_side_after_nature, pixels.shape[1:])
        self.features = 64 * rows * columns


class MinAtar(nn.Sequential):
    """The convolution of Young & Tian 2019, flattened.

    16 maps 3x3 and a ReLU ("MinAtar", section 4). The paper's linear layer of 128 is
    the policy's `net_arch=(128,)`. Observations and weights are as for `Nature`.

    Args:
        space: of one observation; a Box of images of at least 3 x 3 pixels.
        normalize_images: as for `Nature`.
        channels_last: as for `Nature`.

    Raises:
        SpaceError: as for `Nature`.

    Attributes:
        features: width of the features; 1024 for 10 x 10 pixels.

    Example:
        >>> space = spaces.Box(0, 1, (10, 10, 4), bool)
        >>> MinAtar(space)(torch.zeros(3, 10, 10, 4, dtype=torch.bool)).shape
        torch.Size([3, 1024])
    """

    def __init__(
        self, space: Space[Any], normalize_images: bool = True, channels_last: bool | None = None
    ) -> None:
        require_settings({"channels_last": channels_last})
        pixels = Pixels(space, normalize_images, channels_last)
        pixels.require_side(3, "MinAtar", "let MlpPolicy flatten them")
        channels, height, width = pixels.shape
        maps = 16
        super().__init__(pixels, nn.Conv2d(channels, maps, kernel_size=3), nn.ReLU(), nn.Flatten())
        self.features = maps * (height - 2) * (width - 2)


class Impala(nn.Sequential):
    """The residual convolutions of Espeholt et al. 2018, flattened.

    Three sections of 16, 32 and 32 maps, each a convolution 3x3, max-pooling 3x3
    with stride 2, and two residual blocks; a ReLU at the end ("IMPALA", Figure
    3, the large network). The paper's linear layer of 256 is the policy's
    `net_arch=(256,)`, and there is no LSTM. Pooling pads all four edges, where
    the paper's TensorFlow pads an even side at its end only. Observations and
    weights are as for `Nature`.

    Args:
        space: of one observation; a Box of images of any size.
        normalize_images: as for `Nature`.
        width: factor of the numbers of maps (Cobbe et al. 2020, "Leveraging
            Procedural Generation"; 2 in Clark et al. 2024, "Beyond The Rainbow").
        layer_norm: whether layer norm, over maps and pixels with a scale and a
            shift per map, stands before every ReLU (Gallici et al. 2024,
            "Simplifying Deep Temporal Difference Learning").
        spectral_norm: whether the weights of the residual convolutions are divided
            by their largest singular value ("Beyond The Rainbow"). Each prediction
            that is learned from brings its estimate one step closer
            (`torch.nn.utils.parametrizations.spectral_norm`); the target network
            gets it at each sync.
        pool: side of the square that adaptive max-pooling makes of each map, so
            that `features` does not depend on the size of the images (6 in
            "Beyond The Rainbow"); None for none.
        channels_last: as for `Nature`.

    Raises:
        SpaceError: as for `Nature`; images are too small if `pool` is larger
            than their maps.
        ConfigurationError: if `width` or `pool` is no integer of at least 1, or a
            switch is neither True nor False.

    Attributes:
        features: width of the features; for 84 x 84 pixels 3872, or 1152 with
            `pool=6`, times `width`.

    Example:
        >>> space = spaces.Box(0, 255, (10, 10, 4), "uint8")
        >>> Impala(space)(torch.zeros(3, 10, 10, 4, dtype=torch.uint8)).shape
        torch.Size([3, 128])
    """

    def __init__(
        self,
        space: Space[Any],
        normalize_images: bool = True,
        width: int = 1,
        layer_norm: bool = False,
        spectral_norm: bool = False,
        pool: int | None = None,
        channels_last: bool | None = None,
    ) -> None:
        require_settings(
            {
                "width": width,
                "layer_norm": layer_norm,
                "spectral_norm": spectral_norm,
                "pool": pool,
                "channels_last": channels_last,
            }
        )
        pixels = Pixels(space, normalize_images, channels_last)
        layers: list[nn.Module] = [pixels]
        before, *sides = pixels.shape
        for maps in (16 * width, 32 * width, 32 * width):
            layers += [
                nn.Conv2d(before, maps, kernel_size=3, padding=1),
                nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                _Residual(maps, layer_norm, spectral_norm),
                _Residual(maps, layer_norm, spectral_norm),
            ]
            before = maps
            sides = [(side + 1) // 2 for side in sides]
        layers += _activation(before, layer_norm)
        if pool is not None:
            way_out = "use a smaller pool, or none"
            pixels.require_side(8 * (pool - 1) + 1, f"Impala with pool={pool}", way_out)
            layers.append(nn.AdaptiveMaxPool2d(pool))
            sides = [pool, pool]
        super().__init__(*layers, nn.Flatten())
        self.features = before * math.prod(sides)


class _Residual(nn.Module):
    """Two convolutions whose outcome is added to what came in."""

    def __init__(self, maps: int, layer_norm: bool, spectral_norm: bool) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_activation(maps, layer_norm),
            _convolution(maps, spectral_norm),
            *_activation(maps, layer_norm),
            _convolution(maps, spectral_norm),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (B, C, H, W) of maps (B, C, H, W)."""
        outputs: Tensor = inputs + self.convolutions(inputs)
        return outputs


class Pixels(nn.Module):
    """From images as they are stored to floats (B, C, H, W); has no weights.

    Attributes:
        obs_shape: of one observation.
        shape: (C, H, W), with all images of a stack in C.
    """

    def __init__(self, space: Space[Any], normalize_images: bool, stated: bool | None) -> None:
        super().__init__()
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3, 4):
            raise SpaceError(
                f"convolutions read images, so they need a Box of shape (H, W), (H, W, C), "
                f"(C, H, W), (S, H, W, C) or (S, C, H, W), not {space}; let MlpPolicy flatten it, "
                f"or give it such a shape with gymnasium.wrappers.ReshapeObservation"
            )
        self.obs_shape = space.shape
        axes = list(range(len(space.shape)))
        if len(axes) > 2 and (_channels_are_last(space.shape) if stated is None else stated):
            axes.insert(-2, axes.pop())
        *channels, height, width = (space.shape[axis] for axis in axes)
        self.shape = (math.prod(channels), height, width)
        self.order = (0, *(axis + 1 for axis in axes))
        low, high, dtype = space.low, space.high, space.dtype
        folded = spaces.Box(low.reshape(self.shape), high.reshape(self.shape), dtype=dtype)
        self.divisor = 255.0 if normalize_images and is_image(folded) else 1.0

    def require_side(self, smallest: int, reader: str, way_out: str) -> None:
        """Refuse images with fewer rows or columns than `smallest`."""
        _, height, width = self.shape
        if min(height, width) < smallest:
            raise SpaceError(
                f"images of {height} x {width} pixels are too small for {reader}, which takes "
                f"{smallest} x {smallest} and larger; {way_out}, or enlarge them with "
                f"gymnasium.wrappers.ResizeObservation"
            )

    def forward(self, obs: Tensor) -> Tensor:
        """Floats (B, C, H, W) of observations (B, ...)."""
        images = obs.permute(self.order).reshape(obs.shape[0], *self.shape)
        # On the CPU, convolutions are faster where a pixel's channels are neighbours.
        layout = torch.channels_last if obs.is_cpu else torch.preserve_format
        pixels = images.to(torch.float32, memory_format=layout)
        if self.divisor == 1.0:
            return pixels
        # What already was float may be somebody else's, and so may anything in a graph.
        if obs.is_floating_point() or torch.compiler.is_compiling():
            return pixels / self.divisor
        return pixels.div_(self.divisor)


def _channels_are_last(shape: tuple[int, ...]) -> bool:
    first, middle, last = shape[-3:]
    if last < min(first, middle):
        return True
    if first < min(middle, last):
        return False
    raise SpaceError(
        f"images of shape {shape[-3:]} do not tell which axis holds the channels: neither the "
        f"first nor the last is shorter than both others; say it with "
        f"features_extractor_kwargs={{'channels_last': True}}, or False"
    )


def _activation(maps: int, layer_norm: bool) -> list[nn.Module]:
    return [nn.GroupNorm(1, maps), nn.ReLU()] if layer_norm else [nn.ReLU()]


def _convolution(maps: int, spectral_norm: bool) -> nn.Module:
    convolution = nn.Conv2d(maps, maps, kernel_size=3, padding=1)
    return parametrizations.spectral_norm(convolution) if spectral_norm else convolution


def _side_after_nature(side: int) -> int:
    for kernel, stride in ((8, 4), (4, 2), (3, 1)):
        side = (side - kernel) // stride + 1
    return side


def _require_switch(name: str, given: object) -> None:
    require(isinstance(given, (bool, np.bool_)), name, given, "True or False")


def _require_count_or_none(name: str, given: object) -> None:
    if given is not None:
        require_count(name, given)


def _require_switch_or_none(name: str, given: object) -> None:
    accepted = given is None or isinstance(given, (bool, np.bool_))
    require(accepted, name, given, "True, False or None")


_SETTINGS: dict[str, Callable[[str, object], None]] = {
    "width": require_count,
    "layer_norm": _require_switch,
    "spectral_norm": _require_switch,
    "pool": _require_count_or_none,
    "channels_last": _require_switch_or_none,
}


def require_settings(given: Mapping[str, object]) -> None:
    """Refuse keyword arguments of bodies that have no meaning.

    Raises:
        ConfigurationError: if a value is unfit.
    """
    for name, value in given.items():
        _SETTINGS[name](name, value)


BODIES: dict[str, Callable[..., nn.Module]] = {
    "nature": Nature,
    "impala": Impala,
    "minatar": MinAtar,
}


def settings_of(body: str) -> list[str]:
    """The keyword arguments that a body takes besides what each of them takes."""
    return [name for name in inspect.signature(BODIES[body]).parameters if name in _SETTINGS]
