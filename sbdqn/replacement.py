"""Files that appear under their name complete or not at all."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

_MARK = "sbdqn-"  # in the names of temporary files
_RANDOM = "[a-z0-9_]{8}"  # how they end; earlier versions took more letters


@contextmanager
def complete_or_absent(final: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes this name when the block ends.

    Until then, and for ever if the block or the process ends early, the file that had
    the name before keeps it. What killed writers to it left behind is removed.

    Args:
        final: the name, in a folder that exists.

    Raises:
        OSError: if it cannot be written.
    """
    remove_abandoned(final.parent, re.escape(final.name))
    with _temporary(final) as (descriptor, temporary):
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync(final.parent)


@contextmanager
def _temporary(final: Path) -> Iterator[tuple[int, Path]]:
    """An open file beside the final one, and its name, which no archive has.

    It is locked, which says that its writer lives: the system takes the lock away from
    a process that ends, however it ends. A process number would say it of processes on
    this machine and in this container alone.
    """
    if sys.platform == "win32":
        yield _make_temporary(final)
        return
    while True:
        descriptor, name = _make_temporary(final)
        lock = os.dup(descriptor)  # the file will be closed before it is renamed
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # others may read it, and keep the lock for ever
                name.unlink(missing_ok=True)
            except OSError:  # where nobody can lock, nobody removes
                pass
            if name.exists():
                yield descriptor, name
                return
            os.close(descriptor)  # somebody was faster with the lock
        finally:
            os.close(lock)


def _make_temporary(final: Path) -> tuple[int, Path]:
    # `tempfile` lets nobody else read its files, and to ask for the umask is to change it.
    name = final.with_name(f".{final.name}.{_MARK}{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if sys.platform == "win32":
        flags |= os.O_BINARY
    return os.open(name, flags, 0o666), name


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove the temporary files whose writers live no longer.

    Args:
        folder: where they are, if it exists.
        pattern: of the names that they were to have.
    """
    if sys.platform == "win32":
        return
    temporary = re.compile(rf"\.{pattern}\.{_MARK}{_RANDOM}")
    names: list[str] = []
    with suppress(OSError):  # one may write to folders that one may not read
        names = os.listdir(folder)
    for name in filter(temporary.fullmatch, names):
        # It may be somebody else's, or somebody else may have removed it.
        with suppress(OSError), open(folder / name, "rb", opener=_without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(folder / name)


def _without_waiting(name: str, flags: int) -> int:
    """Open it; a pipe that somebody left there would make others wait for its writer."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _sync(folder: Path) -> None:
    """Let a name outlast a loss of power."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # some systems cannot; the file itself is complete
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
