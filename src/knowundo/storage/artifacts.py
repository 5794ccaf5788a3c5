"""Artifacts: folders and files that appear whole or not at all, with a manifest."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowundo.distributed.group import barrier, group, sink
from knowundo.errors import BadInput
from knowundo.storage.files import (
    PARTIAL,
    file_hash,
    fingerprint,
    flush,
    is_inside,
    read_json,
    room_checked,
    write_json,
)

MANIFEST, SCHEMA_VERSION = "manifest.json", 1

# Weights that a variant had at an earlier step, in a folder next to the variant's own.
KEPT_NAME = re.compile(r".+\.step-[1-9][0-9]*")


def kept_name(variant: str, step: int) -> str:
    """Name of the model with the weights that a variant had after an optimizer step."""
    return f"{variant}.step-{step}"


@contextmanager
def new_folder(
    path: Path, inputs: Any, later: Mapping[str, Any] | None = None, **facts: Any
) -> Iterator[Path]:
    """A temporary sibling that becomes `path`, with a manifest, when the block ends well.

    Of several processes only the main one writes it; the others go on once it is there.

    Args:
        path: the artifact's folder; an older one is replaced.
        inputs: what the artifact depends on; its fingerprint goes into the manifest.
        later: further entries of the manifest, read when the block ends: it may still add some.
        facts: further entries of the manifest.
    """
    if not group().main:
        with sink() as folder:
            yield folder
        barrier()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f"{PARTIAL}{path.name}.{os.getpid()}"
    with room_checked(path):
        try:
            shutil.rmtree(aside, ignore_errors=True)  # left by a dead process that had this pid
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
                **(later or {}),
            }
            write_json(aside / MANIFEST, manifest)
            for inside in (*files, *(f for f in aside.rglob("*") if f.is_dir()), aside):
                flush(inside)
            _take_place(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    barrier()


def _take_place(aside: Path, path: Path) -> None:
    """Rename a finished folder into place; an older one is first renamed away as a whole."""
    old = path.parent / f"{PARTIAL}old.{path.name}.{os.getpid()}"
    if path.exists():
        os.replace(path, old)
    os.replace(aside, path)
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def clear_partials(folder: Path) -> None:
    """Remove unfinished files and folders that killed processes left."""
    for left in list(folder.rglob(f"{PARTIAL}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        BadInput: Missing, malformed, or of another schema; names the field.
    """
    file = folder / MANIFEST
    found = read_json(file)
    if (wrong := _wrong(found)) is not None:
        raise BadInput(f"{file}: {wrong}; remove {folder} to make it again")
    return dict(found)


def _wrong(manifest: Any) -> str | None:
    """What is wrong with a manifest; `None` if nothing is."""
    if not isinstance(manifest, dict):
        return "not a manifest"
    if (held := manifest.get("schema_version")) != SCHEMA_VERSION:
        return f"schema_version is {held!r}, this version reads {SCHEMA_VERSION}"
    outputs = manifest.get("outputs")
    if not _is_hash(manifest.get("inputs")):
        return "inputs is not a sha256"
    if not isinstance(outputs, dict):
        return "outputs is not a mapping of files to their sha256"
    for name, digest in outputs.items():
        if not is_inside(name):
            return f"outputs names {name!r}, which is outside of the folder"
        if not _is_hash(digest):
            return f"outputs of {name!r} is not a sha256"
    return None


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_done(path: Path, inputs: Any) -> bool:
    """True if the artifact at `path` was made from these inputs and its files are unchanged.

    Raises:
        BadInput: A file of it is missing or was changed.
    """
    if not (path / MANIFEST).exists():
        return False
    if read_manifest(path).get("inputs") != fingerprint(inputs):
        return False
    verified(path)
    return True


def verified(path: Path) -> dict[str, str]:
    """Hashes of an artifact's files, each compared with the file.

    Raises:
        BadInput: A file is missing or was changed.
    """
    outputs: dict[str, str] = read_manifest(path)["outputs"]
    for name, digest in outputs.items():
        if not (path / name).is_file() or file_hash(path / name) != digest:
            raise BadInput(f"{path / name}: changed since it was written; remove {path} to redo it")
    return outputs
