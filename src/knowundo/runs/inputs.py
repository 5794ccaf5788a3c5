"""What an artifact depends on, as hashes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from knowundo.storage.files import file_hash


def input_hash(file: Path) -> str:
    """sha256 of a file that is only read; a base of many gigabytes is read once a process."""
    stat = file.stat()
    return _hashed(file.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _hashed(file: Path, size: int, changed: int) -> str:
    return file_hash(file)
