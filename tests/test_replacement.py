"""Files that appear complete or not at all, whatever happens to their writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sbdqn import replacement
from sbdqn.replacement import complete_or_absent

fcntl = pytest.importorskip("fcntl", reason="files are locked otherwise on this system")

WRITER = """
import sys, time
from pathlib import Path
from sbdqn.replacement import complete_or_absent
with complete_or_absent(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def final(tmp_path: Path) -> Path:
    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_writer(final: Path) -> subprocess.Popen[bytes]:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(final)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    return writer


def test_the_old_file_stays_until_the_new_one_is_complete(final: Path) -> None:
    with complete_or_absent(final) as file:
        file.write(b"new")
        file.flush()
        assert final.read_bytes() == b"old"
        (temporary,) = set(names(final.parent)) - {"model.zip"}
        assert Path(temporary).suffix != ".zip"
    assert final.read_bytes() == b"new"
    assert names(final.parent) == ["model.zip"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(final: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with complete_or_absent(final) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert names(final.parent) == ["model.zip"]
    assert final.read_bytes() == b"old"


def test_what_a_killed_writer_left_behind_is_removed_and_a_living_ones_is_not(final: Path) -> None:
    killed, alive = start_writer(final), start_writer(final)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(names(final.parent)) == 3
        with complete_or_absent(final) as file:
            file.write(b"new")
            assert len(names(final.parent)) == 3  # the living one's, this one's, and the final
        (temporary,) = set(names(final.parent)) - {"model.zip"}
        assert (final.parent / temporary).read_bytes() == b"half"
    finally:
        alive.kill()
        alive.communicate()
    with complete_or_absent(final) as file:
        file.write(b"newer")
    assert names(final.parent) == ["model.zip"]
    assert final.read_bytes() == b"newer"


def test_files_of_other_names_are_never_removed(final: Path) -> None:
    others = [
        ".model.zip.backup12",
        ".model.zip.sbdqn-short",
        ".model.zip.sbdqn-muchlonger",
        ".model.zip.sbdqn-UPPER123",
        ".other.zip.sbdqn-abcdefgh",
        "model.zip.sbdqn-abcdefgh",
    ]
    for other in [*others, ".model.zip.sbdqn-abcdefgh"]:
        (final.parent / other).write_bytes(b"")
    (final.parent / ".model.zip.sbdqn-a_folder").mkdir()
    with complete_or_absent(final) as file:
        file.write(b"new")
    assert names(final.parent) == sorted([*others, ".model.zip.sbdqn-a_folder", "model.zip"])


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_temporary_file_is_not_waited_for(final: Path) -> None:
    os.mkfifo(final.parent / ".model.zip.sbdqn-abcdefgh")
    os.mkfifo(final.parent / "pipe")
    (final.parent / ".model.zip.sbdqn-12345678").symlink_to("pipe")
    with complete_or_absent(final) as file:
        file.write(b"new")
    assert final.read_bytes() == b"new"


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = replacement._make_temporary, []

    def robbed(path: Path) -> tuple[int, Path]:
        descriptor, name = make(path)
        if not made:
            name.unlink()
        made.append(descriptor)
        return descriptor, name

    monkeypatch.setattr(replacement, "_make_temporary", robbed)
    with complete_or_absent(final) as file:
        file.write(b"new")
    assert len(made) == 2
    assert final.read_bytes() == b"new"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0] if made[0] != made[1] else 1 << 20)


@pytest.mark.timeout(20)
def test_a_file_that_somebody_else_locks_is_left_to_him(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, locks = replacement._make_temporary, []

    def locked(path: Path) -> tuple[int, Path]:
        descriptor, name = make(path)
        if not locks:
            locks.append(open(name, "rb"))  # noqa: SIM115
            fcntl.flock(locks[0], fcntl.LOCK_EX)
        return descriptor, name

    monkeypatch.setattr(replacement, "_make_temporary", locked)
    with complete_or_absent(final) as file:
        file.write(b"new")
    locks[0].close()
    assert final.read_bytes() == b"new"
    assert names(final.parent) == ["model.zip"]


def test_file_and_folder_are_synchronised_in_this_order(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        seen.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def watched_replace(old: Any, new: Any) -> None:
        seen.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    with complete_or_absent(final) as file:
        file.write(b"new")
    assert seen[1:] == ["replace", str(final.parent.resolve())]
    assert ".model.zip." in seen[0]


@pytest.mark.parametrize("broken", ["flock", "listdir", "open"])
def test_a_system_that_cannot_lock_list_or_open_folders_can_still_be_written_to(
    final: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError("not supported")

    def refuse_folders(path: Any, *args: Any) -> int:
        return refuse() if Path(path).is_dir() else open_file(path, *args)

    open_file = os.open
    abandoned = final.parent / ".model.zip.sbdqn-abcdefgh"
    abandoned.write_bytes(b"half")
    if broken == "flock":
        monkeypatch.setattr(fcntl, broken, refuse)
    elif broken == "listdir":
        monkeypatch.setattr(os, broken, refuse)
    else:
        monkeypatch.setattr(os, broken, refuse_folders)
    with complete_or_absent(final) as file:
        file.write(b"new")
    assert final.read_bytes() == b"new"
    assert abandoned.exists() == (broken != "open")  # that it is abandoned is not known
