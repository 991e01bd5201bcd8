"""Whether a body keeps the promises of `sbdqn.protocols.Body`."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from sbdqn.envs import ObservationAdapter
from sbdqn.heads import Scalar
from sbdqn.networks import MlpPolicy, MultiInputPolicy
from sbdqn.observations import apply, flattened, parts_of
from sbdqn.protocols import BodyFactory, Noisy
from sbdqn.testing.steps import (
    expect,
    expect_tensor,
    is_close,
    largest_difference,
    run_steps,
)
from sbdqn.types import Purpose, Tensors

_B = 16


def check_body(make_body: BodyFactory, space: Space[Any]) -> None:
    """Check that a network can be built on a body.

    It must be a module with an integer `.features` that turns observations of
    the space, as the replay stores them, into that many features, each
    observation for itself; all of its parameters must learn, and all that its
    output depends on must be in its state. Observations of a Dict or Tuple space
    are a dict with one tensor for each part.

    Args:
        make_body: what `features_extractor` would be given: that of `MlpPolicy`,
            or of `MultiInputPolicy` for a Dict or Tuple space.
        space: the space of one observation.

    Raises:
        CheckFailedError: if it breaks a law; the message names it.
        SpaceError: if no network can read observations of the space.

    Example:
        >>> from gymnasium import spaces
        >>> from sbdqn.networks import Encoder
        >>> from sbdqn.testing import check_body
        >>> check_body(Encoder, spaces.MultiDiscrete([2, 5]))
    """
    name = getattr(make_body, "__name__", repr(make_body))
    subject = _Subject(make_body, space, _observations(space))
    run_steps("check_body", _STEPS, subject, f"{name}, {space}")


class _Subject(NamedTuple):
    """What makes bodies, and what they are to read."""

    make: BodyFactory
    space: Space[Any]
    obs: Tensors

    def made(self) -> Any:
        """A fresh body, as it evaluates."""
        return _evaluating(self.make(self.space))


def _observations(space: Space[Any]) -> Tensors:
    drawn = copy.deepcopy(space)
    drawn.seed(0)
    samples = [drawn.sample() for _ in range(_B)]
    parts = parts_of(space)
    if parts is None:
        return _stored(space, samples)
    flat = [flattened(space, sample) for sample in samples]
    return {name: _stored(part, [each[name] for each in flat]) for name, part in parts.items()}


def _stored(space: Space[Any], samples: list[Any]) -> Tensor:
    values: Any = ObservationAdapter(space).stored(np.stack(samples))
    return torch.from_numpy(values)


def _rows(obs: Tensors, rows: slice) -> Tensors:
    return apply(lambda part: part[rows], obs)


def _by_name(obs: Tensors) -> dict[str, Tensor]:
    return obs if isinstance(obs, dict) else {"": obs}


def _described(obs: Tensors) -> str:
    parts = [
        f"{name!r} {tuple(part.shape)} of {part.dtype}".removeprefix("'' ")
        for name, part in _by_name(obs).items()
    ]
    return ", ".join(parts)


def _evaluating(body: nn.Module) -> nn.Module:
    body.eval()
    for layer in body.modules():
        if isinstance(layer, Noisy):
            layer.is_silent = True
    return body


def _is_a_module_with_an_integer_features(subject: _Subject) -> None:
    body = subject.make(subject.space)
    advice = "make_body is called with the space and returns the body: pass the class itself"
    expect(isinstance(body, nn.Module), "an nn.Module", type(body).__name__, advice)
    features = getattr(body, "features", None)
    fits = isinstance(features, int) and not isinstance(features, bool) and features > 0
    advice = "set self.features, the width of what forward returns, in __init__"
    expect(fits, ".features to be a positive int", repr(features), advice)


def _output_is_as_wide_as_features_says(subject: _Subject) -> None:
    body, obs = subject.made(), subject.obs
    name, features = f"features of observations {_described(obs)}", body(_rows(obs, slice(None)))
    expect_tensor(name, features, (_B, body.features))


def _observations_are_left_as_they_are(subject: _Subject) -> None:
    before = {name: part.clone() for name, part in _by_name(subject.obs).items()}
    subject.made()(subject.obs)
    after = _by_name(subject.obs)
    advice = "leave out operations in place (those ending in _) on what you are given"
    unchanged = before.keys() == after.keys()
    unchanged = unchanged and all(torch.equal(before[name], after[name]) for name in before)
    expect(unchanged, "the observations to stay as they were", "that they were changed", advice)


def _observations_do_not_depend_on_each_other(subject: _Subject) -> None:
    body, obs = subject.made(), subject.obs
    whole = body(obs)
    advice = "use no statistics of the batch in evaluation mode, and reduce no batch axis"
    for size in (_B // 2, 1):
        parts = torch.cat([body(_rows(obs, slice(at, at + size))) for at in range(0, _B, size)])
        expected = f"features in batches of {size} to be as in one of {_B}"
        expect(is_close(whole, parts), expected, largest_difference(whole, parts), advice)


def _every_parameter_learns(subject: _Subject) -> None:
    body = subject.make(subject.space).train()
    output = body(subject.obs)
    if output.requires_grad:
        (output * torch.randn_like(output)).sum().backward()
    idle = [
        name
        for name, parameter in body.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    advice = "use it in forward without detaching, drop it, or set requires_grad=False"
    expected = "a gradient in every trainable parameter"
    expect(not idle, expected, f"none in {', '.join(idle)}", advice)


def _a_copy_computes_the_same(subject: _Subject) -> None:
    body = subject.made()
    output = body(subject.obs)
    copied = copy.deepcopy(body)(subject.obs)
    advice = "keep tensors as parameters and buffers, and draw nothing at random in evaluation"
    expected = "equal features from a deep copy"
    expect(torch.equal(output, copied), expected, largest_difference(output, copied), advice)


def _the_state_says_all_that_the_output_depends_on(subject: _Subject) -> None:
    body, fresh = subject.made(), subject.made()
    fresh.load_state_dict(copy.deepcopy(body.state_dict()))
    output, found = body(subject.obs), fresh(subject.obs)
    advice = "keep what is drawn in __init__ as a parameter, or with register_buffer"
    expected = "equal features from a fresh body that has loaded the state_dict"
    expect(torch.equal(output, found), expected, largest_difference(output, found), advice)


def _two_bodies_share_nothing(subject: _Subject) -> None:
    one, other = (subject.made().state_dict(keep_vars=True) for _ in range(2))
    places = {tensor.data_ptr() for tensor in one.values() if tensor.numel()}
    shared = [name for name, tensor in other.items() if tensor.data_ptr() in places]
    advice = "make all layers anew in __init__: the target network must stand still"
    expected = "two bodies to have tensors of their own"
    expect(not shared, expected, f"that they share {', '.join(shared)}", advice)


def _a_q_network_can_be_built_on_it(subject: _Subject) -> None:
    kind = MlpPolicy if parts_of(subject.space) is None else MultiInputPolicy
    policy = kind(net_arch=(8,), features_extractor=subject.make)
    network = policy.build(subject.space, 3, Scalar())
    for purpose in Purpose:
        q = network.q(subject.obs, purpose)
        expect_tensor(f"q for {purpose}", q, (_B, 3))


_STEPS = (
    _is_a_module_with_an_integer_features,
    _output_is_as_wide_as_features_says,
    _observations_are_left_as_they_are,
    _a_copy_computes_the_same,
    _observations_do_not_depend_on_each_other,
    _every_parameter_learns,
    _the_state_says_all_that_the_output_depends_on,
    _two_bodies_share_nothing,
    _a_q_network_can_be_built_on_it,
)
