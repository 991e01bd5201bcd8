"""Pickles, read as descriptions: nothing that they name is imported or called.

`pickletools` parses a pickle into its opcodes. Here those that build data are followed, on a
stack as the real unpickler has it, and a call is written down instead of being made.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sbdqn.errors import CheckpointError

Kind = TypeVar("Kind")

_IGNORED = {"PROTO", "FRAME", "STOP"}
_VALUES = {  # their argument is what they stand for
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type[Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Name(NamedTuple):
    """Something that a pickle refers to by its module and its name."""

    module: str
    name: str


class Call:
    """An object that a pickle would make by a call, here not made.

    Attributes:
        function: what would be called, mostly a `Name`.
        arguments: of the call.
        state: what the object would be given afterwards; None for nothing.
    """

    def __init__(self, function: Any, arguments: Any) -> None:
        self.function = function
        self.arguments = arguments
        self.state: Any = None


def read_pickle(
    pickled: bytes,
    call: Callable[[Any, Any], Any] = Call,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The numbers, texts, lists, dicts and tuples of a pickle, and its calls described.

    Args:
        pickled: the pickle.
        call: gives what stands for a call, from what would be called and its arguments.
        persistent: gives what a persistent id stands for; None where there are none.

    Raises:
        CheckpointError: if it is damaged, or holds what is not read.
    """
    machine = _Machine(call, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            machine.follow(opcode.name, argument)
        return machine.stack.pop()
    except (
        ValueError,
        LookupError,
        OverflowError,
        Warning,
    ) as error:  # texts with odd escapes warn
        raise CheckpointError(f"a pickle is damaged, or holds what is not read: {error}") from error


class _Machine:
    """The stack and the memo of an unpickler."""

    def __init__(
        self, call: Callable[[Any, Any], Any], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.stack: list[Any] = []
        self._call = call
        self._persistent = persistent
        self._before_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def follow(self, opcode: str, argument: Any) -> None:
        if opcode in _IGNORED:
            return
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        else:
            self._follow_rarer(opcode, argument)

    def _follow_rarer(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "MARK":
                self._before_marks.append(stack)
                self.stack = []
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._since_mark())
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(Name(*_of(str, argument).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = _of(str, stack.pop()), _of(str, stack.pop())
                stack.append(Name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = _of(tuple, stack.pop()), stack.pop()
                stack.append(self._described(function, arguments))
            case "BUILD":
                self._build(stack.pop())
            case "BINPERSID":
                stack.append(self._resolved(stack.pop()))
            case _:
                raise ValueError(f"the opcode {opcode}")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._before_marks.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        _of(list, self.stack[-1]).extend(items)

    def _update(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        for key in keys:  # to hash a nested key could take for ever, and so could equal hashes
            if not isinstance(key, str) and abs(_of(int, key)) >= 1 << 32:
                raise ValueError("a key that is too large")
        _of(dict, self.stack[-1]).update(zip(keys, values, strict=True))

    def _described(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if function == Name("collections", "OrderedDict") and not arguments:
            return {}
        return self._call(function, arguments)

    def _build(self, state: Any) -> None:
        made = self.stack[-1]
        if isinstance(made, Call):
            made.state = state
        else:  # the attributes of an ordered dict
            _of(dict, made)

    def _resolved(self, identifier: Any) -> Any:
        if self._persistent is None:
            raise ValueError("a persistent id")
        return self._persistent(identifier)


def _of(kind: type[Kind] | tuple[type[Any], ...], value: Any) -> Any:
    """The value, if it is of this kind."""
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} in the place of {kind}")
    return value
