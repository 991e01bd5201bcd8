"""The archive: a zip of JSON and safetensors that is read without executing it.

Members:
    metadata.json: what the archive is, and its format version.
    parameters.json: the constructor's parameters.
    state.json: everything else, with references into the tensors.
    tensors.safetensors: all tensors, named by their path in the state.
    objects.pkl: parameters that only Python can describe, by cloudpickle; read
        only where the caller trusts the file.
    environments.pkl: the environments of a checkpoint, likewise.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

from torch import Tensor

from sbdqn.encoding import NotEncodableError, decode, encode
from sbdqn.errors import (
    CheckpointError,
    ConfigurationError,
    FileAccessError,
    MismatchError,
    MissingFileError,
    SbdqnError,
    inaccessible,
)
from sbdqn.replacement import complete_or_absent
from sbdqn.stored_zip import stored_infos
from sbdqn.strict_json import MOST_BYTES, from_json, to_json
from sbdqn.tensor_member import TensorWriter, map_tensors, read_tensors

FORMAT_VERSION = 1
_TENSORS = "tensors.safetensors"
_OBJECTS, _ENVIRONMENTS = "objects.pkl", "environments.pkl"
_MEMBERS = ("metadata.json", "parameters.json", "state.json", _TENSORS, _OBJECTS, _ENVIRONMENTS)
_WRITTEN_BY_SB3 = "_stable_baselines3_version"  # a member that its archives have
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and its extras
_PIECE = 1 << 20  # bytes that are read at a time
_READERS = {
    "model": "DQN.load or load_policy reads it",
    "replay": "load_replay_buffer reads it",
    "checkpoint": "DQN.resume reads it, and makes a model of it that can be saved",
}  # by the kind of what they read
PathOrFile: TypeAlias = str | os.PathLike[str] | IO[bytes]


class Archive(NamedTuple):
    """What an archive holds.

    Attributes:
        parameters: those that JSON can describe.
        objects: names of those that only Python can.
        state: everything else.
        pickled: the objects as cloudpickle wrote them, never read here.
        environments: those of a checkpoint, likewise; empty if it has none.
    """

    parameters: dict[str, Any]
    objects: tuple[str, ...]
    state: dict[str, Any]
    pickled: bytes
    environments: bytes


def write_archive(
    path: PathOrFile,
    kind: str,
    parameters: Mapping[str, Any],
    state: Mapping[str, Any],
    environments: bytes = b"",
) -> None:
    """Write an archive; a file appears under its name complete or not at all.

    Args:
        path: where to; `.zip` is added to a name without a suffix.
        kind: what is in it.
        parameters: of the constructor.
        state: nested dicts and lists of what JSON can hold, and tensors.
        environments: as they were pickled.

    Raises:
        CheckpointError: if a parameter, or something in the state, can be described in
            no way.
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
    try:
        encoded_state = encode(dict(state), tensors)
    except NotEncodableError as error:
        raise CheckpointError(
            f"the state cannot be saved: {error}; what _state_dict of a callback gives must be of "
            f"lists, tuples, dicts, strings, numbers and tensors"
        ) from error
    writer = TensorWriter(tensors)
    metadata = {"format": "sbdqn", "kind": kind, "format_version": FORMAT_VERSION}
    members = {
        "metadata.json": to_json("metadata.json", {**metadata, "objects": list(objects)}),
        "parameters.json": to_json("parameters.json", described),
        "state.json": to_json("state.json", encoded_state),
    }
    pickled = _pickle(objects) if objects else b""
    with _destination(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(_member(name), content)
        _write_tensors(file, archive, writer)
        if objects:
            archive.writestr(_member(_OBJECTS), pickled)
        if environments:
            archive.writestr(_member(_ENVIRONMENTS), environments)


def read_archive(path: PathOrFile, kind: str, mapped: bool = False) -> Archive:
    """Read an archive without executing anything from it.

    Args:
        path: the file.
        kind: what must be in it.
        mapped: whether large tensors may be views of a file that is given by its path,
            which spares memory; they must be copied before somebody changes the file.

    Raises:
        CheckpointError: if it is damaged, of another kind, or newer than this
            version of the library.
        FileAccessError: if it cannot be opened; `MissingFileError` if there is none.
    """
    with source_of(path) as source, _reading(_name(path)):
        with zipfile.ZipFile(source) as archive:
            if _WRITTEN_BY_SB3 in archive.namelist():
                raise CheckpointError("Stable-Baselines3 wrote it; DQN.from_sb3 reads its models")
            members = _Members(source, archive)
            metadata = members.json("metadata.json", "it was not written by sbdqn")
            _check_metadata(metadata, kind)
            members.require_sound()
            is_file = isinstance(path, (str, os.PathLike))
            tensors = members.tensors(mapped=mapped and is_file)
            described = list(members.json("parameters.json").items())
            parameters = decode({"$dict": described})  # at once: large spaces are added up
            state = decode(members.json("state.json"), tensors)
            pickled = [
                members.content(name) if name in members else b""
                for name in (_OBJECTS, _ENVIRONMENTS)
            ]
        objects = metadata["objects"]
        if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
            raise CheckpointError("the archive is damaged: its objects have no names")
        if not isinstance(state, dict):
            raise CheckpointError(f"the archive is damaged: its state is a {type(state).__name__}")
        return Archive(parameters, tuple(objects), state, *pickled)


def require_trust(objects: Sequence[str], trusted: bool) -> None:
    """Refuse to read parameters that only Python can describe.

    Raises:
        CheckpointError: if there are some, and the file is not trusted.
    """
    if objects and not trusted:
        raise CheckpointError(
            f"the parameters {', '.join(objects)} were saved as Python objects, and reading those "
            f"can execute anything; pass them, as in {objects[0]}=..., or, if you trust the "
            f"file, trusted=True"
        )


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
    """Within the block, whatever the content of a file leads to is a `CheckpointError`.

    Constructors, torch and NumPy refuse senseless values in too many ways to name them.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the file does not fit these parameters, or is damaged: {_told(error)}"
        ) from error


@contextmanager
def fitting() -> Iterator[None]:
    """Within the block, to refuse what a file holds is a `MismatchError`."""
    try:
        yield
    except ConfigurationError as error:
        raise MismatchError(str(error)) from error


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
        try:
            yield _open_file(path, "write")
        except OSError as error:
            raise inaccessible("the file cannot be written", error) from error
        return
    final = with_suffix(path)
    try:
        _require_place(final)
        with complete_or_absent(final) as file:
            yield file
    except SbdqnError:
        raise
    except OSError as error:
        raise inaccessible(f"{final} cannot be written", error) from error


def _require_place(final: Path) -> None:
    if final.is_dir():
        raise FileAccessError(f"{final} is a folder; name a file in it")
    make_folder(final.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in, unless they are there.

    Raises:
        FileAccessError: if it cannot be made.
    """
    try:
        for each in (path, *path.parents):
            if each.exists() and not each.is_dir():
                raise FileAccessError(
                    f"the folder {path} cannot be made: {each} is a file, not a folder"
                )
        path.mkdir(parents=True, exist_ok=True)
    except SbdqnError:
        raise
    except OSError as error:
        raise inaccessible(f"the folder {path} cannot be made", error) from error


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
        if not source.is_file():  # a pipe without a writer would never be opened
            raise FileAccessError(f"{source} is a device or a pipe, not a file")
        file = source.open("rb")
    except SbdqnError:
        raise
    except OSError as error:
        raise inaccessible(f"{source} cannot be read", error) from error
    with file:
        yield file


def _open_file(given: Any, verb: str) -> IO[bytes]:
    if isinstance(given, io.TextIOBase) or not callable(getattr(given, verb, None)):
        raise ConfigurationError(
            f"path must be a path or a file that is open in binary mode, not {given!r}"
        )
    file: IO[bytes] = given
    return file


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Within the block, whatever a file does to its readers is a `CheckpointError`."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{name} cannot be loaded: {error}") from error
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{name} is no readable zip archive: {_told(error)}") from error
    except Exception as error:  # constructors refuse senseless values in many ways
        raise CheckpointError(f"{name} is damaged: {_told(error)}") from error


class _Members:
    """The members of an archive, none of which is larger than the file has room for.

    Args:
        source: the file.
        archive: the same.

    Raises:
        CheckpointError: if it is none of this library's.
    """

    def __init__(self, source: IO[bytes], archive: zipfile.ZipFile) -> None:
        self._source = source
        self._archive = archive
        self._infos = stored_infos(archive, source)

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def require_sound(self) -> None:
        """Refuse members that no archive has; those of a newer version are its own."""
        unknown = [name for name in self._infos if name not in _MEMBERS]
        if unknown:
            raise CheckpointError(f"the archive is damaged: it has a member {unknown[0]!r}")

    def content(self, name: str) -> bytes:
        """What a member holds."""
        return self._archive.read(self._info(name))

    def json(self, name: str, complaint: str = "the archive is damaged") -> dict[str, Any]:
        """What a member describes."""
        if self._info(name, complaint).file_size > MOST_BYTES:
            raise CheckpointError(
                f"the archive is damaged: {name} has more than {MOST_BYTES} bytes"
            )
        return from_json(name, self.content(name))

    def tensors(self, mapped: bool) -> dict[str, Tensor]:
        """The tensors, as views of the file or read into memory."""
        info = self._info(_TENSORS)
        with self._archive.open(info) as member:
            if not mapped:
                tensors = read_tensors(member, info.file_size)
            while member.read(_PIECE):  # up to the end, where zipfile compares the checksum
                pass
        if not mapped:
            return tensors
        self._source.seek(info.header_offset)
        lengths = _LOCAL_HEADER.unpack(self._source.read(_LOCAL_HEADER.size))
        offset = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
        return map_tensors(self._source, offset, info.file_size)

    def _info(self, name: str, complaint: str = "the archive is damaged") -> zipfile.ZipInfo:
        if name not in self._infos:
            raise CheckpointError(f"{complaint}: it has no {name}")
        return self._infos[name]


def _write_tensors(file: IO[bytes], archive: zipfile.ZipFile, writer: TensorWriter) -> None:
    """Write them one after the other, where they can be mapped into memory later."""
    member = _member(_TENSORS)
    member.file_size = writer.nbytes(0)  # or it could not become larger than 2 GB
    with archive.open(member, "w") as destination:
        writer.write(destination, file.tell() if file.seekable() else 0)


def _member(name: str) -> zipfile.ZipInfo:
    """A member that is the same whenever it is written."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o600 << 16  # who may read it once it is extracted
    return member


def _check_metadata(metadata: Mapping[str, Any], kind: str) -> None:
    if metadata.get("format") != "sbdqn":
        raise CheckpointError("it was not written by sbdqn")
    version = metadata.get("format_version")
    if type(version) is not int or version > FORMAT_VERSION:
        raise CheckpointError(
            f"it has format version {version!r}, and this version of sbdqn reads versions up to "
            f"{FORMAT_VERSION}; install a newer one"
        )
    if version < 1:
        raise CheckpointError(f"the archive is damaged: format version {version} has never been")
    held = metadata.get("kind")
    if held != kind:
        advice = f"; {_READERS[held]}" if isinstance(held, str) and held in _READERS else ""
        raise CheckpointError(f"it holds a {held!r}, not a {kind!r}{advice}")


def _told(error: Exception) -> str:
    """What an error says; some say nothing but their kind."""
    return str(error) or type(error).__name__


def _name(path: PathOrFile) -> str:
    return str(path) if isinstance(path, (str, os.PathLike)) else "the file"
