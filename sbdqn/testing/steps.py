"""What all checks are made of: named steps, and what they expect."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sbdqn.networks import seeded
from sbdqn.testing.errors import CheckFailedError
from sbdqn.types import Tensors

Subject = TypeVar("Subject")
Record = TypeVar("Record", bound=tuple[Any, ...])

_TORCH = str(Path(torch.__file__).parent)


def run_steps(
    check: str, steps: Iterable[Callable[[Subject], None]], subject: Subject, part: str
) -> None:
    """Make the steps of a check, each of which is named after the law that it tests.

    torch's generator of the CPU starts anew in each step, and is left as it was.

    Args:
        check: name of the check.
        steps: raise a `CheckFailedError`, or whatever the part raises.
        subject: what the steps are made with.
        part: what is checked, for people.

    Raises:
        CheckFailedError: if a step raises.
    """
    for step in steps:
        law = f"{check}({part}): {step.__name__.strip('_').replace('_', ' ')}"
        try:
            with seeded(0, torch.device("cpu")):
                step(subject)
        except CheckFailedError as failure:
            raise CheckFailedError(f"{law}: {failure}") from None
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            frame = [each for each in frames if not each.filename.startswith(_TORCH)][-1]
            raise CheckFailedError(
                f"{law}: expected no exception, found {type(error).__name__}: {error}; "
                f"look at line {frame.lineno} of {frame.filename}"
            ) from error


def expect(satisfied: bool, expected: str, found: object, advice: str) -> None:
    """Fail unless a condition is satisfied.

    Raises:
        CheckFailedError: if it is not.
    """
    if not satisfied:
        raise CheckFailedError(f"expected {expected}, found {found}; {advice}")


def expect_tensor(
    name: str, value: object, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> None:
    """Fail unless a value is a finite tensor of this shape and dtype."""
    expected = f"{name} to be a tensor of shape {shape} and dtype {dtype}"
    expect(isinstance(value, Tensor), expected, type(value).__name__, "return a torch.Tensor")
    assert isinstance(value, Tensor)
    fits = tuple(value.shape) == shape and value.dtype == dtype
    found = f"shape {tuple(value.shape)} and dtype {value.dtype}"
    expect(
        fits, expected, found, "the batch axis comes first; reduce all others that are not named"
    )
    expect_finite(name, value)


def expect_finite(name: str, value: Tensor) -> None:
    """Fail if there is a NaN or an infinity."""
    is_finite = bool(torch.isfinite(value).all())
    expect(is_finite, f"{name} to be finite", value, "look for overflow and divisions by zero")


def expect_frozen_dataclass(part: object) -> None:
    """Fail unless a part is a value: frozen, comparable, hashable."""
    parameters: Any = getattr(type(part), "__dataclass_params__", None)
    frozen = is_dataclass(part) and parameters is not None and parameters.frozen
    advice = "write @dataclass(frozen=True) above the class, and pass an object of it"
    expect(frozen, "a frozen dataclass", f"{part!r}, which can change", advice)
    copy: Any = replace(part)  # type: ignore[type-var]
    advice = "leave __eq__ to the dataclass, and keep tensors and arrays out of its fields"
    expect(bool(copy == part), "a copy with the same fields to be equal", "that it is not", advice)
    try:
        equal_hash = hash(copy) == hash(part)
    except TypeError as error:
        equal_hash, advice = False, f"{error}; use tuples instead of lists"
    expect(equal_hash, "equal objects to have one hash", "that they have not", advice)


def expect_methods(part: object, names: Iterable[str]) -> None:
    """Fail unless a part has everything that its protocol names."""
    missing = [name for name in names if not hasattr(part, name)]
    expect(not missing, "all of the protocol", f"no {', '.join(missing)}", "see sbdqn.protocols")


def only_tensor(obs: Tensors) -> Tensor:
    """Observations of a plain space."""
    assert isinstance(obs, Tensor)
    return obs


def rows_of(record: Record, rows: Any) -> Record:
    """Some rows of every tensor in a record."""
    return _mapped(record, lambda tensor: tensor[rows])


def copy_of(record: Record) -> Record:
    """A record of copies."""
    return _mapped(record, Tensor.clone)


def is_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether all tensors of two records are equal to the last bit."""
    return all(a is b or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def is_close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, relative to the largest value."""
    if one.shape != other.shape:
        return False
    largest = torch.maximum(one.detach().abs(), other.detach().abs()).max()
    return torch.allclose(one, other, rtol=0.0, atol=1e-6 + 1e-4 * float(largest))


def largest_difference(one: Tensor, other: Tensor) -> str:
    """How far two tensors are apart, for people."""
    if one.shape != other.shape:
        return f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
    return f"a difference of up to {float((one - other).detach().abs().max()):.3g}"


def _mapped(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    changed = (None if each is None else change(each) for each in record)
    made: Record = type(record)._make(changed)  # type: ignore[attr-defined]
    return made
