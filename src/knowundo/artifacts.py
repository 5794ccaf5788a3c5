"""Artifacts: folders and files that appear whole or not at all, with a manifest."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from knowundo.errors import BadInput, NoRoom

MANIFEST, SCHEMA_VERSION = "manifest.json", 1
# What is being written, beside where it will stand; no artifact has such a name.
PARTIAL = ".partial."
# How the system, and libraries that only pass on its words, say that there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = (*(f"os error {number})" for number in _FULL), "No space left", "File too large")
_PACKAGES = ("knowundo", "torch", "transformers", "peft", "accelerate", "safetensors", "numpy")


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """sha256 of a value that JSON can hold; the key that decides whether work is already done."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        BadInput: missing, or in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


# What an unlearned variant was on its way, beside the variant's own folder.
KEPT_NAME = re.compile(r".+\.step-[1-9][0-9]*")


def kept_name(variant: str, step: int) -> str:
    """Name of the model that a variant was after an optimizer step."""
    return f"{variant}.step-{step}"


def parse_json(text: str, path: Path, line: int | None, mend: str) -> Any:
    """A JSON value.

    Args:
        text: a whole file, or one line of it.
        path: of the file.
        line: which one, where `text` is but one.
        mend: ends the error.

    Raises:
        BadInput: malformed, with its place.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = line or f"{error.lineno}, column {error.colno}"
        raise BadInput(f"{path}, line {at}: malformed JSON ({error.msg}); {mend}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; nested as deep
        at = f", line {line}" if line else ""
        raise BadInput(f"{path}{at}: JSON beyond any bound; {mend}") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        BadInput: missing file, or malformed JSON with its line and column.
    """
    return parse_json(read_text(path), path, None, "correct that place")


def read_jsonl(path: Path) -> list[Any]:
    """Parse a file of one JSON value a line; empty lines are skipped.

    Raises:
        BadInput: missing file, or malformed JSON with its line.
    """
    rows = []
    # Not splitlines(): texts hold line separators of other kinds, which JSON leaves as they are.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(parse_json(line, path, number, "correct that line"))
    return rows


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say in one line that the disk is full, whoever noticed it.

    Raises:
        NoRoom: naming what was being written.
    """
    try:
        yield
    except Exception as error:  # safetensors and Arrow have errors of their own for it
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or any(said in str(error) for said in _SAID):
            raise NoRoom(
                f"{path}: no room left to write it; make room and run the same again"
            ) from None
        raise


def _flush(path: Path) -> None:
    """Make the disk hold what was written to a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `path` when the block ends well.

    Raises:
        NoRoom: the disk is full.
    """
    with _written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.parent / f"{PARTIAL}{path.name}.{os.getpid()}"
        try:
            yield aside
            _flush(aside)
            os.replace(aside, path)
            _flush(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write aside, flush to disk, rename."""
    with new_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path, inputs: Any, **facts: Any) -> Iterator[Path]:
    """A temporary sibling that becomes `path`, with a manifest, when the block ends well.

    Args:
        path: the artifact's folder; an older one is replaced.
        inputs: what the artifact depends on; its fingerprint goes into the manifest.
        facts: further entries of the manifest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f"{PARTIAL}{path.name}.{os.getpid()}"
    with _written(path):
        try:
            shutil.rmtree(aside, ignore_errors=True)  # of a dead process with this number
            aside.mkdir()
            yield aside
            files = [file for file in sorted(aside.rglob("*")) if file.is_file()]
            outputs = {str(file.relative_to(aside)): file_hash(file) for file in files}
            manifest = {
                "schema_version": SCHEMA_VERSION,
                "inputs": fingerprint(inputs),
                "outputs": outputs,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                **facts,
            }
            write_json(aside / MANIFEST, manifest)
            for inside in (*files, *(f for f in aside.rglob("*") if f.is_dir()), aside):
                _flush(inside)
            _take_place(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _take_place(aside: Path, path: Path) -> None:
    """Rename a finished folder; one that is there goes out of the way whole, not file by file."""
    old = path.parent / f"{PARTIAL}old.{path.name}.{os.getpid()}"
    if path.exists():
        os.replace(path, old)
    os.replace(aside, path)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def clear_partials(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for left in list(folder.rglob(f"{PARTIAL}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        BadInput: missing, malformed, or of another schema; names the field.
    """
    file = folder / MANIFEST
    found = read_json(file)
    if (wrong := _wrong(found)) is not None:
        raise BadInput(f"{file}: {wrong}; remove {folder} to make it again")
    return dict(found)


def _wrong(manifest: Any) -> str | None:
    """What is wrong with a manifest, if anything is."""
    if not isinstance(manifest, dict):
        return "not a manifest"
    if (held := manifest.get("schema_version")) != SCHEMA_VERSION:
        return f"schema_version is {held!r}, this version reads {SCHEMA_VERSION}"
    outputs = manifest.get("outputs")
    if not _is_hash(manifest.get("inputs")):
        return "inputs is no sha256"
    if not isinstance(outputs, dict):
        return "outputs is no mapping of files to their sha256"
    for name, digest in outputs.items():
        if not lies_inside(name):
            return f"outputs names {name!r}, which lies outside"
        if not _is_hash(digest):
            return f"outputs of {name!r} is no sha256"
    return None


def can_exist(name: str) -> bool:
    """True if the system can have a file of that name."""
    parts = (len(part.encode("utf-8", "surrogatepass")) for part in Path(name).parts)
    return "\0" not in name and 0 < len(name) < 4000 and max(parts, default=256) < 256


def lies_inside(name: str) -> bool:
    """True if a file of that name lies in the folder that it is relative to."""
    return can_exist(name) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_done(path: Path, inputs: Any) -> bool:
    """True if the artifact at `path` was made of these inputs and its files are unchanged."""
    if not (path / MANIFEST).exists():
        return False
    if read_manifest(path).get("inputs") != fingerprint(inputs):
        return False
    verified(path)
    return True


def verified(path: Path) -> dict[str, str]:
    """Hashes of an artifact's files, each compared with the file.

    Raises:
        BadInput: a file is gone or was changed.
    """
    outputs: dict[str, str] = read_manifest(path)["outputs"]
    for name, digest in outputs.items():
        if not (path / name).is_file() or file_hash(path / name) != digest:
            raise BadInput(f"{path / name}: changed since it was written; remove {path} to redo it")
    return outputs


def surroundings() -> dict[str, Any]:
    """Versions, hardware and revision: what stands beside every reported result."""
    import torch

    packages = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    hardware = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }
    return {"packages": packages, "hardware": hardware, "revision": _revision()}


@cache
def _revision() -> dict[str, Any]:
    """Commit of the source tree this package runs from; nulls for an installed wheel."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        if shutil.which("git") is None:
            return None
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    # Only a checkout of this package counts, not a repository that the environment lies in.
    if not git("ls-files", "--error-unmatch", "artifacts.py"):
        return {"commit": None, "dirty": None}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
