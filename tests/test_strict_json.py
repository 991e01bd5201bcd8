"""JSON that says one thing only, and not too much of it."""

from __future__ import annotations

import pytest

from sbdqn import strict_json
from sbdqn.errors import CheckpointError
from sbdqn.strict_json import from_json, to_json


def test_what_is_described_comes_back() -> None:
    value = {"a": [1, 2.5, None, True, "\u00e9"], "b": {"c": -(2**70)}, "d": 1e308}
    assert from_json("it", to_json("it", value)) == value
    assert to_json("it", {"a": [1]}, indent=None) == b'{"a": [1]}'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"{}x", "Extra data"),
        (b"\xff\xfe", "decode"),
        (b"[]", "it is a list"),
        (b"null", "it is a NoneType"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": -1e999}', "-1e999 is too large"),
        (b'{"a": 1, "b": 2, "a": 1}', "it has a key twice"),
        (b'{"b": [{"a": 1, "a": 2}]}', "it has a key twice"),
        (b'{"a": ' + b"[" * 100_000, "recursion"),
        (b'{"a": ' + b'{"a":' * 100_000, "recursion"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "Exceeds the limit"),
    ],
)
def test_what_says_something_else_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        from_json("it", content)


def test_what_could_not_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MOST_BYTES", 20)
    assert from_json("it", to_json("it", {"a": "x" * 8}, None)) == {"a": "x" * 8}
    with pytest.raises(CheckpointError, match="it takes 29 bytes of JSON, and at most 20 can be"):
        to_json("it", {"a": "x" * 20}, None)


def test_an_infinity_is_not_written() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        to_json("it", {"a": float("inf")})
