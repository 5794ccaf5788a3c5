"""purge(): remove the unlearn scope's own data from a run's directory.

Removed are the models that know the unlearn scope, such as the adapter that an erasure was handed,
kept steps of unlearning, guards (what they learned is of the unlearn scope), checkpoints, an
erasure's lists, a report that is not redacted and certificates that show texts. In the scores,
every question and answer of the unlearn scope is replaced by its hash and length. The unlearned
models, regions and numbers stay. Files are removed, which does not wipe a disk.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from knowundo.data.records import redacted
from knowundo.errors import BadInput
from knowundo.modeling.guard_files import is_guard
from knowundo.progress import Reporter
from knowundo.reporting.page import REDACTED
from knowundo.scoring.table import read_scores, write_scores
from knowundo.storage.artifacts import KEPT_NAME, MANIFEST, read_manifest
from knowundo.storage.files import file_hash, new_file, read_json, write_json
from knowundo.storage.integrity import mark, read_seal, seal, unseal
from knowundo.storage.locks import exclusive
from knowundo.version import __version__

RECORD = "purged.json"
# What knows or holds the unlearn scope.
_HOLDERS = ("memorized", "adapter", "retain", "checkpoints", "lists", "report.html")
_TEXT = ("question", "answer", "said")
# What says of a text how long its words are, and how far a model knows them.
_TOKENS = ("token_ends", "token_probabilities")
_SCORES = "scores/"


def holdings(out: Path) -> list[str]:
    """What a purge of a run's directory would remove or redact, as it is now.

    Raises:
        BadInput: There is no run.
    """
    if not (out / "recipe.yaml").is_file():
        raise BadInput(f"{out}: holds no run (no recipe.yaml); name a run's directory")
    found = [name for name in _HOLDERS if (out / name).exists()]
    if "report.html" in found and REDACTED in (out / "report.html").read_text(encoding="utf-8"):
        found.remove("report.html")
    # Early in its training a model still knows what it unlearns.
    made = sorted((out / "unlearned").glob("*"))
    kept = [f for f in made if KEPT_NAME.fullmatch(f.name) or is_guard(f)]
    found += [str(folder.relative_to(out)) for folder in kept]
    found += [str(folder.relative_to(out)) for folder in _revealing(out)]
    return found + [str(f.parent.relative_to(out)) for f in _tables(out) if _shows(f)]


def _revealing(out: Path) -> list[Path]:
    """Folders of certificates that were written with the texts of what had to go."""
    files = sorted((out / "certificate").glob("*/evidence.json"))
    return [
        file.parent
        for file in files
        if any(entry["question"] is not None for entry in read_json(file)["scope"]["entries"])
    ]


def _tables(out: Path) -> list[Path]:
    return sorted((out / "scores").glob("*/rows.parquet"))


def _shows(file: Path) -> bool:
    """True if a table of scores still holds text of the unlearn scope."""
    rows = read_scores(file)
    listed = rows[rows["scope"] == "unlearn"]
    texts = (str(text) for column in _TEXT for text in listed[column].dropna())
    return any(not text.startswith("sha256:") for text in texts)


def purge(out: Path, reporter: Reporter | None = None) -> dict[str, str]:
    """Remove what `holdings` lists, and write down what was removed.

    A purge that was interrupted is resumed by the same call.

    Args:
        out: The run's directory.
        reporter: Told of a process that ended before its work did. If `None`, nobody is told.

    Returns:
        What was removed or redacted: its name, and the sha256 that it had.

    Raises:
        BadInput: There is no run, or another process works in it.
    """
    # Asked before the lock is taken, which would create the directory of a wrong name.
    holdings(out)
    with exclusive(out, reporter):
        held = read_seal(out)
        # What an interrupted purge removed stands in the seal only: its files are gone.
        done = dict(held.purged)
        for name in holdings(out):
            path = out / name
            if name.startswith(_SCORES):
                done[name] = _redact(out, path)
                continue
            whole = path.is_file() or (path / MANIFEST).is_file()
            done[name] = held.files.get(name) or (mark(path) if whole else "")
            # Unsealed before it is removed, so that `verify` never calls it missing.
            unseal(out, name, purged=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        record = {
            "purged": datetime.now(UTC).isoformat(timespec="seconds"),
            "knowundo": __version__,
            "removed": {n: value for n, value in done.items() if not n.startswith(_SCORES)},
            "redacted": {n: value for n, value in done.items() if n.startswith(_SCORES)},
        }
        write_json(out / RECORD, record)
        seal(out, out / RECORD)
    return done


def _redact(out: Path, folder: Path) -> str:
    """Replace the texts of the unlearn scope in a table of scores; returns its earlier sha256."""
    before, file = mark(folder), folder / "rows.parquet"
    rows = read_scores(file)
    listed = rows["scope"] == "unlearn"
    for column in _TEXT:
        shown = listed & rows[column].notna() & ~rows[column].astype(str).str.startswith("sha256:")
        rows.loc[shown, column] = rows.loc[shown, column].map(redacted)
    for column in _TOKENS:
        if column in rows:
            rows[column] = rows[column].astype(object).mask(listed, None)
    with new_file(file) as aside:
        write_scores(rows, aside)
    manifest = read_manifest(folder)
    manifest["outputs"]["rows.parquet"] = file_hash(file)
    write_json(folder / MANIFEST, manifest | {"redacted": True})
    seal(out, folder)
    return before
