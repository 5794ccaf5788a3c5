"""Hashes of files that a run only reads."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from knowundo.modeling.base import base_files
from knowundo.storage.files import file_hash


def input_hash(file: Path) -> str:
    """sha256 of a file that is only read; a base of many gigabytes is read once a process."""
    # Size and time of change belong to the key: a file that is replaced while the process lives, as
    # in a notebook, is hashed again.
    stat = file.stat()
    return _hashed(file.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _hashed(file: Path, size: int, changed: int) -> str:
    return file_hash(file)


def named_files(base: str) -> list[Path]:
    """Files of a base or an adapter that its user keeps in a folder; none of the package's own."""
    return [] if base == "embedded" else base_files(base)
