"""JSON that says one thing only, and not too much of it."""

from __future__ import annotations

import json
import math
from typing import Any

from sbdqn.errors import CheckpointError

MOST_BYTES = 1 << 25  # Python's objects take up to twenty times as many


def to_json(name: str, value: object, indent: int | None = 1) -> bytes:
    """Describe a value, for `from_json`.

    Args:
        name: what it is, for errors.
        value: what JSON can hold.
        indent: spaces by which each level is moved; None for a single line.

    Raises:
        CheckpointError: if the description is longer than `from_json` reads.
    """
    content = json.dumps(value, allow_nan=False, indent=indent).encode()
    if len(content) > MOST_BYTES:
        raise CheckpointError(
            f"{name} takes {len(content):,} bytes of JSON, and at most {MOST_BYTES:,} can be "
            f"loaded; large values are saved as tensors"
        )
    return content


def from_json(name: str, content: bytes) -> dict[str, Any]:
    """The object that a description holds.

    Args:
        name: what it is, for errors.
        content: the description, of at most `MOST_BYTES`.

    Raises:
        CheckpointError: if it is none, or says something twice, or holds a number that
            is not finite.
    """
    assert len(content) <= MOST_BYTES
    try:
        value = json.loads(
            content.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_repetition,
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the archive is damaged: {name}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"the archive is damaged: {name} is a {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large a number")
    return number


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("it has a key twice")
    return value
