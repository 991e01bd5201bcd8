"""Policies: descriptions of a network and of its optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gymnasium import Space, spaces
from torch import nn

from sbdqn.errors import SpaceError
from sbdqn.networks.base_policy import BasePolicy
from sbdqn.networks.bodies import Encoder, is_image
from sbdqn.networks.multi_input import MultiInput, require_readable
from sbdqn.observations import parts_of
from sbdqn.protocols import BodyFactory


@dataclass(frozen=True)
class MlpPolicy(BasePolicy):
    """A multilayer perceptron over flattened observations.

    It reads Box, Discrete, MultiDiscrete and MultiBinary spaces as `Encoder` does.

    Where something stands between the shared layers and the output (dueling
    streams, a head that samples fractions), the last hidden layer stands behind
    it, and each dueling stream has one of its own.

    Attributes:
        net_arch: width of each hidden layer.
        activation_fn: class of the activation, or its name in `torch.nn`.
        layer_norm: whether layer norm follows every hidden linear layer.
        dueling: whether the output has a stream for the state's value and one
            for the advantages (Wang et al. 2016).
        noisy: whether every hidden linear layer and the output have noise in
            their weights (Fortunato et al. 2018): fresh at each update, the same
            between two of them, none in evaluation. Goes with
            `exploration="greedy"`.
        noisy_sigma: initial size of that noise.
        features_extractor: what takes the place of flattening: `"nature"`,
            `"impala"` or `"minatar"` for images, or a callable from the observation
            space to a module with `.features`.
        features_extractor_kwargs: keyword arguments of a body that is named:
            `channels_last`, and of `"impala"` also `width`, `layer_norm`,
            `spectral_norm` and `pool`.
        normalize_images: whether uint8 images are divided by 255; a callable of
            your own decides for itself.
        optimizer_class: `"Adam"`, `"AdamW"`, `"CenteredRMSprop"` (that of the
            original DQN), `"RMSprop"`, `"SGD"`, `"RAdam"`, or a subclass of
            `torch.optim.Optimizer`.
        optimizer_kwargs: keyword arguments of the optimiser but the learning
            rate.

    Example:
        >>> policy = MlpPolicy(net_arch=(256, 256), layer_norm=True)
    """

    def _encoder(self, space: Space[Any]) -> nn.Module:
        extractor = self.features_extractor
        if callable(extractor):
            return extractor(space)
        _refuse_several_parts("MlpPolicy", space)
        if extractor is None:
            return Encoder(space, self.normalize_images)
        return self._named_body(space)


@dataclass(frozen=True)
class CnnPolicy(BasePolicy):
    """Convolutions over images, and a multilayer perceptron behind them.

    The images may be of any size that the body takes, (H, W), (H, W, C) or
    (C, H, W), or stacks of them, (S, H, W, C) or (S, C, H, W); `Nature` says how
    the axes are told apart. uint8 images stay uint8 until they reach the network.

    With the default fields but `layer_norm=False` it is the network of Mnih et
    al. 2015, and SB3's. All other fields are those of `MlpPolicy`.

    Attributes:
        net_arch: width of each hidden layer behind the convolutions.
        features_extractor: `"nature"` (Mnih et al. 2015, 36 x 36 pixels or more),
            `"impala"` (Espeholt et al. 2018, any size), `"minatar"` (Young & Tian 2019,
            3 x 3 or more), or a callable from the observation space to a module with
            `.features`.

    Example:
        >>> policy = CnnPolicy()
        >>> wide = {"width": 2, "layer_norm": True, "pool": 6}
        >>> policy = CnnPolicy(features_extractor="impala", features_extractor_kwargs=wide)
    """

    net_arch: tuple[int, ...] = (512,)
    features_extractor: BodyFactory | str | None = "nature"

    _may_flatten: ClassVar[bool] = False

    def _encoder(self, space: Space[Any]) -> nn.Module:
        _refuse_several_parts("CnnPolicy", space)
        extractor = self.features_extractor
        if callable(extractor):
            return extractor(space)
        if not isinstance(space, spaces.Box) or len(space.shape) < 2:
            raise SpaceError(f"CnnPolicy reads images, not observations of {space}; use MlpPolicy")
        return self._named_body(space)


@dataclass(frozen=True)
class MultiInputPolicy(BasePolicy):
    """A body for each part of a Dict or Tuple observation, and an MLP behind them.

    Each image among the parts has convolutions of its own; what is no image is
    flattened or becomes one-hot, as `Encoder` does it. The features of all parts
    stand in a row, see `MultiInput`.

    An image is a Box of uint8 from 0 to 255 with three axes, or four for a stack of
    images. One of two axes is a matrix of numbers here: give it a third axis with
    gymnasium.wrappers.TransformObservation. Images of floats are flattened too.

    SB3's policy puts a linear layer of 256 behind the convolutions of each image;
    here `net_arch` follows at once. All other fields are those of `MlpPolicy`.

    Attributes:
        net_arch: width of each hidden layer behind the features of all parts.
        features_extractor: of the images: `"nature"`, `"impala"` or `"minatar"`, or `None` to
            flatten them as well; or a callable from the whole observation space
            to a module with `.features` that reads a dict with one tensor for
            each part, named by the way to it: `"camera/left"`, `"0"`.

    Example:
        >>> policy = MultiInputPolicy(net_arch=(256,), features_extractor="impala")
    """

    net_arch: tuple[int, ...] = (64, 64)
    features_extractor: BodyFactory | str | None = "nature"

    def _encoder(self, space: Space[Any]) -> nn.Module:
        if not isinstance(space, (spaces.Dict, spaces.Tuple)):
            instead = "CnnPolicy" if is_image(space) else "MlpPolicy"
            raise SpaceError(
                f"MultiInputPolicy reads Dict and Tuple observations, not {space}; use {instead}"
            )
        extractor = self.features_extractor
        if callable(extractor):
            return extractor(space)
        require_readable(space)
        return MultiInput(parts_of(space) or {}, self._part)

    def _part(self, name: str, space: Space[Any]) -> nn.Module:
        if self.features_extractor is None or not is_image(space):
            return Encoder(space, self.normalize_images)
        try:
            return self._named_body(space)
        except SpaceError as error:
            raise SpaceError(
                f"the part {name!r}: {error}; in a Dict or a Tuple the wrapper is "
                f"TransformObservation, and features_extractor=None flattens images"
            ) from error


def _refuse_several_parts(reader: str, space: Space[Any]) -> None:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        raise SpaceError(
            f"{reader} reads observations that are one array, not {space}; use MultiInputPolicy"
        )
