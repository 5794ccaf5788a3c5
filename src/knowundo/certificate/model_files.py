"""The files of a model in a folder, by their content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from knowundo.certificate.evidence import FileHash
from knowundo.errors import BadInput
from knowundo.storage.artifacts import MANIFEST
from knowundo.storage.files import file_hash

# As modeling.guard_files names it, which needs torch.
GUARD = "guard.json"

# What a loader reads; curves, logs and cards say nothing that changes an answer.
_READ = (".safetensors", ".json", ".jinja", ".model", ".txt")
_ASIDE = (MANIFEST, "curve.json", "erasure_ledger.json", "training.json")


def model_files(folder: Path) -> list[FileHash]:
    """The files of a model that change what it answers, by their sha256.

    Raises:
        BadInput: There are no weights.
    """
    files = [file for file in sorted(folder.rglob("*")) if _is_read(file)]
    # A guard may have learned nothing: its settings are all there is of it.
    if not any(file.suffix == ".safetensors" or file.name == GUARD for file in files):
        raise BadInput(f"{folder}: holds no weights (.safetensors); name the model's folder")
    names = [file.relative_to(folder).as_posix() for file in files]
    return [FileHash(name=n, sha256=file_hash(f)) for n, f in zip(names, files, strict=True)]


def hashes(files: Iterable[Path]) -> list[FileHash]:
    """The sha256 of those files that a loader reads, by name."""
    kept = [file for file in files if file.is_file() and _is_read(file)]
    return [FileHash(name=file.name, sha256=file_hash(file)) for file in sorted(kept)]


def _is_read(file: Path) -> bool:
    return file.suffix in _READ and file.name not in _ASIDE
