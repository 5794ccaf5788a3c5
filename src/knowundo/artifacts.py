"""Artifacts: folders and files that appear whole or not at all, with a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from knowundo.errors import BadInput

MANIFEST = "manifest.json"
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
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        BadInput: missing file, or malformed JSON with its line and column.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg}); "
            "correct that place"
        ) from None


def read_jsonl(path: Path) -> list[Any]:
    """Parse a file of one JSON value a line; empty lines are skipped.

    Raises:
        BadInput: missing file, or malformed JSON with its line.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise BadInput(
                    f"{path}, line {number}: malformed JSON ({error.msg}); correct that line"
                ) from None
    return rows


def write_text(path: Path, text: str) -> None:
    """Write aside, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield aside
        outputs = {
            str(file.relative_to(aside)): file_hash(file)
            for file in sorted(aside.rglob("*"))
            if file.is_file()
        }
        manifest = {"inputs": fingerprint(inputs), "outputs": outputs, **facts}
        write_json(aside / MANIFEST, manifest)
        aside.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact."""
    return dict(read_json(folder / MANIFEST))


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
        if not (path / name).exists() or file_hash(path / name) != digest:
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
