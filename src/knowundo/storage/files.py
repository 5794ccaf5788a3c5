"""Reading and writing files: JSON, hashes, and writes that happen whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowundo.distributed.group import may_write, sink
from knowundo.errors import BadInput, NoRoom

# Prefix of unfinished files and folders; no artifact has such a name.
PARTIAL = ".partial."
# How the system, and libraries that only pass on its message, report a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = (*(f"os error {number})" for number in _FULL), "No space left", "File too large")


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """sha256 of a JSON value; the key that decides whether work is already done."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        BadInput: Missing, not readable, or in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def parse_json(text: str, path: Path, line: int | None, fix: str) -> Any:
    """Parse a JSON value.

    Args:
        text: A whole file, or one line of it.
        path: Of the file.
        line: Number of the line, if `text` is only one. If `None`, the whole file.
        fix: What the user can do; ends the message.

    Raises:
        BadInput: Malformed; names the place.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = line or f"{error.lineno}, column {error.colno}"
        raise BadInput(f"{path}, line {at}: malformed JSON ({error.msg}); {fix}") from None
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        at = f", line {line}" if line else ""
        raise BadInput(f"{path}{at}: JSON too deep or a number too long; {fix}") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        BadInput: Missing file, or malformed JSON; names line and column.
    """
    return parse_json(read_text(path), path, None, "correct that place")


def read_jsonl(path: Path) -> list[Any]:
    """Parse a file with one JSON value per line; empty lines are skipped.

    Raises:
        BadInput: Missing file, or malformed JSON; names the line.
    """
    rows = []
    # Not splitlines(): JSON texts may contain other line separators (U+2028, U+0085) unescaped.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(parse_json(line, path, number, "correct that line"))
    return rows


@contextmanager
def room_checked(path: Path) -> Iterator[None]:
    """Turn any error that means a full disk into one line.

    Raises:
        NoRoom: Names what was being written.
    """
    try:
        yield
    except Exception as error:  # safetensors and Arrow raise errors of their own
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or any(said in str(error) for said in _SAID):
            raise NoRoom(
                f"{path}: no room left to write it; make room and run the same again"
            ) from None
        raise


def flush(path: Path) -> None:
    """fsync a file, or a folder's directory entries, so that they survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `path` when the block ends well.

    Of several processes only the main one writes; what the others write is dropped.

    Raises:
        NoRoom: The disk is full.
    """
    if not may_write(path):
        with sink() as folder:
            yield folder / path.name
        return
    with room_checked(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.parent / f"{PARTIAL}{path.name}.{os.getpid()}"
        try:
            yield aside
            flush(aside)
            os.replace(aside, path)
            flush(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a temporary file, flush it to disk and rename it."""
    with new_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def can_exist(name: str) -> bool:
    """True if a file can have that name on this system."""
    parts = (len(part.encode("utf-8", "surrogatepass")) for part in Path(name).parts)
    return "\0" not in name and 0 < len(name) < 4000 and max(parts, default=256) < 256


def is_inside(name: str) -> bool:
    """True if the relative name stays inside the folder that it starts from."""
    return can_exist(name) and not Path(name).is_absolute() and ".." not in Path(name).parts
