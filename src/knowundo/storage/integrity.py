"""The seal of a run's directory: which artifacts belong to it, by their sha256.

The manifest of an artifact shows whether its files are what was written, but not whether it is the
artifact that this run made: two swapped adapters each match their own manifest. So the directory
has a manifest too, `manifest.json`, with the sha256 of the manifest of each artifact folder, of
each single file, and of each input as it was read. It is a checksum, not a signature: whoever can
write here can rewrite both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from knowundo.distributed.group import barrier, group
from knowundo.errors import BadInput
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import can_exist, file_hash, is_inside, read_json, write_json
from knowundo.version import __version__

SCHEMA_VERSION = 1
# Artifacts that the user may edit; the run that follows uses them as they are then.
EDITABLE = ("lists",)


class Seal(BaseModel):
    """manifest.json of a run's directory: the sha256 of everything that belongs to the run."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    knowundo: str = __version__
    updated: str = ""
    files: dict[str, str] = Field(default_factory=dict, description="artifact → its sha256")
    inputs: dict[str, str] = Field(
        default_factory=dict, description="input file → its sha256 when it was read"
    )
    purged: dict[str, str] = Field(
        default_factory=dict, description="purged artifact → the sha256 that it had"
    )

    @field_validator("files", "purged")
    @classmethod
    def _inside(cls, value: dict[str, str]) -> dict[str, str]:
        if strange := [name for name in value if not is_inside(name)]:
            raise ValueError(f"{strange[0]!r} is outside of the folder")
        return value

    @field_validator("inputs")
    @classmethod
    def _possible(cls, value: dict[str, str]) -> dict[str, str]:
        if strange := [name for name in value if not can_exist(name)]:
            raise ValueError(f"{strange[0]!r} is not a possible file name")
        return value


def read_seal(out: Path) -> Seal:
    """The seal of a directory; an empty one if there is none yet.

    Raises:
        BadInput: Malformed, or of another schema.
    """
    file = out / MANIFEST
    if not file.exists():
        return Seal()
    try:
        found = Seal.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"{file}: {where}: {first['msg']}; the directory's seal is damaged: repeat the run "
            "in another directory"
        ) from None
    if found.schema_version != SCHEMA_VERSION:
        raise BadInput(
            f"{file}: schema {found.schema_version}, this version reads {SCHEMA_VERSION}; "
            "repeat the run in another directory"
        )
    return found


def write_seal(out: Path, seal: Seal) -> None:
    """Write the seal."""
    seal.updated = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(out / MANIFEST, seal.model_dump(mode="json"))


def mark(path: Path) -> str:
    """Digest of an artifact: sha256 of the file, or of the folder's manifest."""
    return file_hash(path / MANIFEST if path.is_dir() else path)


def seal(out: Path, *paths: Path, inputs: Mapping[str, str] | None = None) -> None:
    """Record artifacts and input files as belonging to this run.

    The main process does; the others go on once it is done.
    """
    if group().main:
        _seal(out, paths, inputs or {})
    barrier()


def _seal(out: Path, paths: Iterable[Path], inputs: Mapping[str, str]) -> None:
    held = read_seal(out)
    marks = {str(path.relative_to(out)): mark(path) for path in paths}
    if marks.items() <= held.files.items() and inputs.items() <= held.inputs.items():
        return
    held.files |= marks
    held.inputs |= inputs
    for name in marks:
        held.purged.pop(name, None)
    write_seal(out, held)


def unseal(out: Path, name: str, *, purged: bool = False) -> None:
    """Remove an artifact, or all in a folder of them, from the seal before it is deleted.

    Args:
        out: The run's directory.
        name: Of the artifact or the folder.
        purged: Record the digest that it had.
    """
    if not group().main:
        return
    held = read_seal(out)
    gone = {n: value for n, value in held.files.items() if name == n or _inside(n, name)}
    if gone:
        held.files = {n: value for n, value in held.files.items() if n not in gone}
        held.purged |= gone if purged else {}
        write_seal(out, held)


def check_seal(out: Path, path: Path) -> None:
    """Refuse an artifact that is not the one that this run made.

    Raises:
        BadInput: Its digest is not the sealed one; names what it is, if that is known.
    """
    files, name = read_seal(out).files, str(path.relative_to(out))
    if name not in files or mark(path) == files[name]:
        return
    raise BadInput(f"{path}: {_differs(path, name, files)}; remove it to make it again")


def _differs(path: Path, name: str, files: Mapping[str, str]) -> str:
    """Why an artifact does not match its seal."""
    own = mark(path)
    others = [other for other, value in files.items() if value == own and other != name]
    if others:
        return f"swapped: it is the artifact that was made as {others[0]}"
    return f"changed: {MANIFEST}" if path.is_dir() else "changed since it was written"


class Finding(BaseModel):
    """The state of one artifact or input: a line of `verify`."""

    name: str
    state: str = Field(
        description="ok, edited, purged, unfinished, unsigned or unchecked; else what is wrong"
    )
    detail: str = ""

    @property
    def bad(self) -> bool:
        """True if the artifact is no longer what this run made or read."""
        fine = ("ok", "edited", "purged", "unfinished", "unsigned", "unchecked")
        return self.state not in fine


def verify(out: Path) -> list[Finding]:
    """Hash everything in a run's directory again and compare it with the seal.

    Raises:
        BadInput: There is no run, or its seal is damaged.
    """
    if not (out / MANIFEST).is_file():
        raise BadInput(f"{out}: no sealed run there (no {MANIFEST}); name the directory of a run")
    held = read_seal(out)
    found = [_sealed(out, name, held) for name in sorted(held.files)]
    found += [
        Finding(name=name, state="purged", detail=f"was {digest[:12]}")
        for name, digest in sorted(held.purged.items())
        if name not in held.files
    ]
    there = sorted(str(f.parent.relative_to(out)) for f in out.glob("*/**/" + MANIFEST))
    top = {name for name in there if not any(_inside(name, other) for other in there)}
    found += [
        Finding(name=name, state="not sealed", detail="the process ended before; run it again")
        for name in sorted(top - set(held.files))
    ]
    found += [
        Finding(name=str(folder.relative_to(out)), state="unfinished", detail="can be resumed")
        for folder in sorted({file.parent for file in (out / "checkpoints").glob("**/*.json")})
    ]
    return found + [_input(name, digest) for name, digest in sorted(held.inputs.items())]


def _inside(name: str, other: str) -> bool:
    return name != other and Path(other) in Path(name).parents


def _sealed(out: Path, name: str, held: Seal) -> Finding:
    path = out / name
    if not (path / MANIFEST if path.is_dir() else path).is_file():
        return Finding(name=name, state="missing")
    if mark(path) != held.files[name]:
        state, _, detail = _differs(path, name, held.files).partition(": ")
        return Finding(name=name, state=state.removesuffix(" since it was written"), detail=detail)
    if not path.is_dir():
        return Finding(name=name, state="ok", detail=held.files[name][:12])
    outputs: dict[str, str] = read_manifest(path)["outputs"]
    own = {MANIFEST, *outputs}
    extra = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
    if strange := [file for file in extra if file not in own]:
        state = "edited" if name in EDITABLE else "extra"
        return Finding(name=name, state=state, detail=f"{strange[0]} is not one of its files")
    for file, digest in outputs.items():
        if not (path / file).is_file():
            return Finding(name=name, state="missing", detail=file)
        if file_hash(path / file) != digest:
            edited = name in EDITABLE
            return Finding(name=name, state="edited" if edited else "changed", detail=file)
    return Finding(name=name, state="ok", detail=f"{len(own)} files, {held.files[name][:12]}")


def _input(name: str, digest: str) -> Finding:
    path = Path(name)
    if not path.is_file():
        return Finding(name=name, state="missing", detail="an input")
    state = "ok" if file_hash(path) == digest else "changed"
    return Finding(name=name, state=state, detail="an input")
