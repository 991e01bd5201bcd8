"""Zip archives whose members are stored as they are, so that none can be larger than the file."""

from __future__ import annotations

import os
import zipfile
from typing import IO

from sbdqn.errors import CheckpointError


def stored_infos(archive: zipfile.ZipFile, file: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    """The members by name, before any is read.

    Args:
        archive: the archive.
        file: the same.

    Raises:
        CheckpointError: if one is compressed or there twice, or if together they are
            larger than the file.
    """
    infos = {info.filename: info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()):
        raise CheckpointError("the archive is damaged: it has a member twice")
    for info in infos.values():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError("it is compressed, so it was not written as such an archive")
    if sum(info.file_size for info in infos.values()) > file.seek(0, os.SEEK_END):
        raise CheckpointError("the archive is damaged: its members are larger than the file")
    return infos
