"""The seal of a run's directory: which artifacts belong to it, by their sha256.

An artifact's own manifest tells whether its files are what was written. It cannot tell that it is
the artifact that this run made: two adapters that change places each fit their manifest. So the
directory has a manifest of its own, `manifest.json`: of each folder the sha256 of its manifest, of
each file that stands alone its own, of each input the one that it had. It is a checksum and no
signature: who may write here can make both anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from knowundo.errors import BadInput
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import can_exist, file_hash, lies_inside, read_json, write_json
from knowundo.version import __version__

SCHEMA_VERSION = 1
# Written for its user to edit; the run that follows takes it as it is then.
EDITABLE = ("lists",)


class Seal(BaseModel):
    """manifest.json of a run's directory."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    knowundo: str = __version__
    updated: str = ""
    files: dict[str, str] = Field(default_factory=dict, description="name → sha256 of what it is")
    inputs: dict[str, str] = Field(default_factory=dict, description="file read → its sha256")
    purged: dict[str, str] = Field(default_factory=dict, description="name → sha256 that it had")

    @field_validator("files", "purged")
    @classmethod
    def _inside(cls, value: dict[str, str]) -> dict[str, str]:
        if strange := [name for name in value if not lies_inside(name)]:
            raise ValueError(f"{strange[0]!r} lies outside")
        return value

    @field_validator("inputs")
    @classmethod
    def _possible(cls, value: dict[str, str]) -> dict[str, str]:
        if strange := [name for name in value if not can_exist(name)]:
            raise ValueError(f"{strange[0]!r} cannot be a file")
        return value


def read_seal(out: Path) -> Seal:
    """The seal of a directory; an empty one where there is none yet.

    Raises:
        BadInput: malformed, or of another schema.
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
            f"{file}: {where}: {first['msg']}; the directory's seal is damaged: make the run again "
            "in another directory"
        ) from None
    if found.schema_version != SCHEMA_VERSION:
        raise BadInput(
            f"{file}: schema {found.schema_version}, this version reads {SCHEMA_VERSION}; make the "
            "run again in another directory"
        )
    return found


def write_seal(out: Path, seal: Seal) -> None:
    """Write the seal."""
    seal.updated = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(out / MANIFEST, seal.model_dump(mode="json"))


def mark(path: Path) -> str:
    """What stands for an artifact: sha256 of the file, or of the folder's manifest."""
    return file_hash(path / MANIFEST if path.is_dir() else path)


def seal(out: Path, *paths: Path, inputs: Mapping[str, str] | None = None) -> None:
    """Note artifacts, and input files, as belonging to this run."""
    held = read_seal(out)
    marks = {str(path.relative_to(out)): mark(path) for path in paths}
    if marks.items() <= held.files.items() and (inputs or {}).items() <= held.inputs.items():
        return
    held.files |= marks
    held.inputs |= inputs or {}
    for name in marks:
        held.purged.pop(name, None)
    write_seal(out, held)


def unseal(out: Path, name: str, *, purged: bool = False) -> None:
    """Forget an artifact, or all in a folder of them, that is about to be removed.

    Args:
        out: the run's directory.
        name: of the artifact or the folder.
        purged: keep what it was in mind.
    """
    held = read_seal(out)
    gone = {n: value for n, value in held.files.items() if name == n or _inside(n, name)}
    if gone:
        held.files = {n: value for n, value in held.files.items() if n not in gone}
        held.purged |= gone if purged else {}
        write_seal(out, held)


def check_seal(out: Path, path: Path) -> None:
    """Refuse an artifact that is not the one that this run made.

    Raises:
        BadInput: sealed as another; names what it is, if that is known.
    """
    files, name = read_seal(out).files, str(path.relative_to(out))
    if name not in files or mark(path) == files[name]:
        return
    raise BadInput(f"{path}: {_differs(path, name, files)}; remove it to make it again")


def _differs(path: Path, name: str, files: Mapping[str, str]) -> str:
    """Why an artifact does not fit its seal."""
    own = mark(path)
    others = [other for other, value in files.items() if value == own and other != name]
    if others:
        return f"swapped: it is what was made as {others[0]}"
    return f"changed: {MANIFEST}" if path.is_dir() else "changed since it was written"


class Finding(BaseModel):
    """One line of `verify`."""

    name: str
    state: str = Field(description="ok, edited, purged, unfinished; or what is wrong with it")
    detail: str = ""

    @property
    def bad(self) -> bool:
        """True if the evidence does not hold any more."""
        return self.state not in ("ok", "edited", "purged", "unfinished")


def verify(out: Path) -> list[Finding]:
    """Hash everything in a run's directory again, and compare.

    Raises:
        BadInput: no run there, or its seal is damaged.
    """
    if not (out / MANIFEST).is_file():
        raise BadInput(f"{out}: holds no sealed run (no {MANIFEST}); name a run's directory")
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
        Finding(name=name, state="not sealed", detail="killed before it was; run it again")
        for name in sorted(top - set(held.files))
    ]
    found += [
        Finding(name=str(folder.relative_to(out)), state="unfinished", detail="may be gone on from")
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
        return Finding(name=name, state=state, detail=f"{strange[0]} is none of its files")
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
