"""The exceptions that sbdqn raises.

Every one derives from `SbdqnError` and from the built-in exception that a
caller would catch without knowing this library.
"""

import errno
from math import isfinite
from numbers import Integral, Real
from typing import TypeGuard

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SbdqnError(Exception):
    """Root of all exceptions that sbdqn raises."""


class ConfigurationError(SbdqnError, ValueError):
    """A parameter, or a combination of parameters, that cannot work."""


class SpaceError(SbdqnError, ValueError):
    """An observation or action space, or a value of one, that does not fit."""


class NotReadyError(SbdqnError, RuntimeError):
    """Something is asked of a model that lacks what it needs for it."""


class MissingMethodError(SbdqnError, AttributeError):
    """Something is asked of an environment that its class cannot do."""


class ReplayMemoryError(ConfigurationError, MemoryError):
    """A replay buffer that cannot fit into the memory of its device."""


class NonFiniteError(SbdqnError, FloatingPointError):
    """A NaN or an infinity in rewards, observations or the loss."""


class WorkerError(SbdqnError, RuntimeError):
    """An exception in a worker process of an asynchronous vector environment."""


class CheckpointError(SbdqnError, ValueError):
    """A file that is not a readable archive of this library."""


class MismatchError(CheckpointError, ConfigurationError):
    """A readable archive of something else than it is to be loaded into."""


class FileAccessError(CheckpointError, OSError):
    """A place that an archive cannot be written to, or read from."""


class MissingFileError(FileAccessError, FileNotFoundError):
    """There is no file where an archive should be read from."""


class ExportError(SbdqnError, RuntimeError):
    """An exported policy that does not say what the model says."""


class MissingDependencyError(SbdqnError, ImportError):
    """An optional dependency is needed for this and is not installed."""


def add_note(error: BaseException, note: str) -> None:
    """Add a line that is shown below an exception; Python 3.10 keeps it and does not show it."""
    error.__notes__ = [*getattr(error, "__notes__", ()), note]


def inaccessible(what: str, error: OSError) -> FileAccessError:
    """What the system has refused, with what to do where it lacks room."""
    advice = "; make room for it, or write it elsewhere" if error.errno in _NO_ROOM else ""
    report = FileAccessError(f"{what}: {error.strerror or error}{advice}")
    report.errno = error.errno
    return report


def require(satisfied: bool, name: str, given: object, accepted: str, hint: str = "") -> None:
    """Refuse a value that has no meaning.

    Raises:
        ConfigurationError: if the condition is not satisfied.
    """
    if not satisfied:
        advice = f"; {hint}" if hint else ""
        raise ConfigurationError(f"{name} must be {accepted}, not {given!r}{advice}")


def is_number(given: object) -> TypeGuard[float]:
    """Whether something is a finite real number, and no truth value."""
    # The abstract class alone is slow to ask.
    if not isinstance(given, (float, Real)) or isinstance(given, bool):
        return False
    try:
        return isfinite(given)
    except OverflowError:  # an integer beyond all floats
        return False


def is_integer(given: object) -> TypeGuard[int]:
    """Whether something is an integer, and no truth value."""
    return isinstance(given, Integral) and not isinstance(given, bool)


def require_count(name: str, given: object, lowest: int = 1) -> None:
    """Refuse what is no integer of at least `lowest`.

    Raises:
        ConfigurationError: if it is none.
    """
    counts = is_integer(given) and given >= lowest
    require(counts, name, given, f"an integer of at least {lowest}")
