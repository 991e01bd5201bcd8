"""The archive: a zip of JSON and safetensors that is read without executing it.

Members:
    metadata.json: what the archive is, and its format version.
    parameters.json: the constructor's parameters.
    state.json: everything else, with references into the tensors.
    tensors.safetensors: all tensors, named by their path in the state.
    objects.pkl: parameters that only Python can describe, by cloudpickle; read
        only where the caller trusts the file.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

from safetensors.torch import load as load_tensors, save as save_tensors
from torch import Tensor

from sbdqn.encoding import NotEncodableError, decode, encode
from sbdqn.errors import (
    CheckpointError,
    ConfigurationError,
    FileAccessError,
    MissingFileError,
    SbdqnError,
)

FORMAT_VERSION = 1
PathOrFile: TypeAlias = str | os.PathLike[str] | IO[bytes]


class Archive(NamedTuple):
    """What an archive holds.

    Attributes:
        parameters: those that JSON can describe.
        objects: names of those that only Python can.
        state: everything else.
        pickled: the objects as cloudpickle wrote them, never read here.
    """

    parameters: dict[str, Any]
    objects: tuple[str, ...]
    state: dict[str, Any]
    pickled: bytes


def write_archive(
    path: PathOrFile, kind: str, parameters: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """Write an archive; a file appears under its name complete or not at all.

    Args:
        path: where to; `.zip` is added to a name without a suffix.
        kind: what is in it.
        parameters: of the constructor.
        state: nested dicts and lists of what JSON can hold, and tensors.

    Raises:
        CheckpointError: if a parameter can be described in no way.
        FileAccessError: if the file cannot be written.
    """
    described: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, value in parameters.items():
        try:
            described[name] = encode(value)
        except NotEncodableError:
            objects[name] = value
    tensors: dict[str, Tensor] = {}
    encoded_state = encode(dict(state), tensors)
    metadata = {"format": "sbdqn", "kind": kind, "format_version": FORMAT_VERSION}
    members = {
        "metadata.json": _to_json({**metadata, "objects": list(objects)}),
        "parameters.json": _to_json(described),
        "state.json": _to_json(encoded_state),
        "tensors.safetensors": save_tensors(tensors),
    }
    if objects:
        members["objects.pkl"] = _pickle(objects)
    with _destination(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def read_archive(path: PathOrFile, kind: str) -> Archive:
    """Read an archive without executing anything from it.

    Raises:
        CheckpointError: if it is damaged, of another kind, or newer than this
            version of the library.
        FileAccessError: if it cannot be opened; `MissingFileError` if there is none.
    """
    members = _read_members(path)
    if "metadata.json" not in members:
        raise CheckpointError(f"{_name(path)} was not written by sbdqn: it has no metadata.json")
    metadata = _from_json(members, "metadata.json")
    _check_metadata(path, metadata, kind)
    try:
        tensors = load_tensors(members["tensors.safetensors"])
        parameters = {
            str(name): decode(value)
            for name, value in _from_json(members, "parameters.json").items()
        }
        state = decode(_from_json(members, "state.json"), tensors)
        objects = tuple(map(str, metadata["objects"]))
    except CheckpointError:
        raise
    except Exception as error:  # constructors refuse senseless values in many ways
        raise CheckpointError(f"{_name(path)} is damaged: {error!r}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{_name(path)} is damaged: its state is a {type(state).__name__}")
    return Archive(parameters, objects, state, members.get("objects.pkl", b""))


def unpickle(archive: Archive) -> dict[str, Any]:
    """The objects of an archive. Executes what is in it: trusted files only.

    Raises:
        CheckpointError: if they cannot be read, or are not those of the archive.
    """
    import cloudpickle

    try:
        objects: dict[str, Any] = cloudpickle.loads(archive.pickled)
    except Exception as error:
        raise CheckpointError(f"the pickled parameters cannot be read: {error!r}") from error
    if not isinstance(objects, dict) or set(objects) != set(archive.objects):
        raise CheckpointError(
            f"the archive is damaged: {', '.join(archive.objects)} should be pickled in it"
        )
    return objects


@contextmanager
def restoring() -> Iterator[None]:
    """Within the block, what a damaged state does to its readers is a `CheckpointError`."""
    try:
        yield
    except SbdqnError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the file does not fit these parameters, or is damaged: {error}"
        ) from error


def with_suffix(path: str | os.PathLike[str]) -> Path:
    """The path, with `.zip` if it has no suffix.

    Raises:
        FileAccessError: if it cannot be the name of a file.
    """
    named = Path(path)
    if named.name in ("", "..") or "\0" in named.name:
        raise FileAccessError(f"{os.fspath(path)!r} cannot be a file; name one, as in 'model.zip'")
    return named if named.suffix else named.with_suffix(".zip")


def _pickle(objects: dict[str, Any]) -> bytes:
    import cloudpickle

    try:
        pickled: bytes = cloudpickle.dumps(objects)
    except Exception as error:
        raise CheckpointError(
            f"the parameters {', '.join(objects)} can be described neither by JSON nor by "
            f"cloudpickle: {error}"
        ) from error
    return pickled


@contextmanager
def _destination(path: PathOrFile) -> Iterator[IO[bytes]]:
    if not isinstance(path, (str, os.PathLike)):
        yield _open_file(path, "write")
        return
    final = with_suffix(path)
    try:
        _require_place(final)
        with _complete_or_absent(final) as file:
            yield file
    except SbdqnError:
        raise
    except OSError as error:
        raise _inaccessible(f"{final} cannot be written", error) from error


def _require_place(final: Path) -> None:
    if final.is_dir():
        raise FileAccessError(f"{final} is a folder; name a file in it")
    for parent in final.parents:
        if parent.exists() and not parent.is_dir():
            raise FileAccessError(f"{final} cannot be written: {parent} is a file, not a folder")
    final.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _complete_or_absent(final: Path) -> Iterator[IO[bytes]]:
    descriptor, temporary = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        os.replace(temporary, final)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def source_of(path: PathOrFile) -> Iterator[IO[bytes]]:
    """Within the block, the file, open for reading.

    Raises:
        FileAccessError: if it cannot be opened; `MissingFileError` if there is none.
    """
    if not isinstance(path, (str, os.PathLike)):
        yield _open_file(path, "read")
        return
    source = given = Path(path)
    try:
        if not given.is_file():
            source = with_suffix(path)
        if not source.exists() and not given.is_dir():
            raise MissingFileError(f"there is no file {source}")
        if not source.exists() or source.is_dir():
            raise FileAccessError(f"{given} is a folder; name the file in it")
        file = source.open("rb")
    except SbdqnError:
        raise
    except OSError as error:
        raise _inaccessible(f"{source} cannot be read", error) from error
    with file:
        yield file


def _inaccessible(what: str, error: OSError) -> FileAccessError:
    report = FileAccessError(f"{what}: {error.strerror or error}")
    report.errno = error.errno
    return report


def _open_file(given: Any, verb: str) -> IO[bytes]:
    if isinstance(given, io.TextIOBase) or not callable(getattr(given, verb, None)):
        raise ConfigurationError(
            f"path must be a path or a file that is open in binary mode, not {given!r}"
        )
    file: IO[bytes] = given
    return file


def _read_members(path: PathOrFile) -> dict[str, bytes]:
    with source_of(path) as source:
        try:
            with zipfile.ZipFile(source) as archive:
                for info in archive.infolist():
                    if info.compress_type != zipfile.ZIP_STORED:
                        raise CheckpointError(
                            f"{_name(path)} is no archive of sbdqn: it is compressed"
                        )
                return {info.filename: archive.read(info) for info in archive.infolist()}
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise CheckpointError(f"{_name(path)} is no readable zip archive: {error}") from error


def _check_metadata(path: PathOrFile, metadata: Mapping[str, Any], kind: str) -> None:
    if metadata.get("format") != "sbdqn":
        raise CheckpointError(f"{_name(path)} was not written by sbdqn")
    version = metadata.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{_name(path)} has format version {version!r}; this version of sbdqn reads versions "
            f"up to {FORMAT_VERSION}; install a newer one"
        )
    if metadata.get("kind") != kind:
        raise CheckpointError(f"{_name(path)} holds a {metadata.get('kind')!r}, not a {kind!r}")


def _to_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, indent=1).encode()


def _from_json(members: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in members:
        raise CheckpointError(f"the archive is damaged: it has no {name}")
    try:
        value = json.loads(members[name], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the archive is damaged: {name}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"the archive is damaged: {name} is a {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _name(path: PathOrFile) -> str:
    return str(path) if isinstance(path, (str, os.PathLike)) else "the file"
