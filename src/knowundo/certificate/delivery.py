"""Which files a certificate is about, and which they were made from."""

from __future__ import annotations

from pathlib import Path

from knowundo.certificate.evidence import Parent
from knowundo.certificate.model_files import hashes, model_files
from knowundo.errors import BadInput
from knowundo.modeling.base import base_files
from knowundo.modeling.variant import ModelVariant
from knowundo.runs.memory_base import MemoryBase
from knowundo.runs.run import Run
from knowundo.storage.artifacts import MANIFEST, is_done, read_manifest


def delivered_folder(run: Run, variant: ModelVariant, exported: Path | None) -> Path:
    """The folder of a model that is delivered: of the run, or an export of it.

    Raises:
        BadInput: The folder is no export of this model, or the model is the base itself.
    """
    folder = variant.made
    if folder is None:
        raise BadInput(
            f"variant {variant.name}: is the base itself, which nothing was removed from"
        )
    if exported is None:
        return folder
    if not (exported / MANIFEST).is_file():
        raise BadInput(f"--model {exported}: no export (no {MANIFEST}); run `knowundo export`")
    said = read_manifest(exported).get("exported", {})
    if said.get("variant") != variant.name or not _of(exported, folder, said.get("form")):
        raise BadInput(
            f"--model {exported}: not exported of {folder} as it is now; export it again, in "
            "shards of the default size"
        )
    return exported


def _of(exported: Path, folder: Path, form: str | None) -> bool:
    """True if an export was made of the weights that a folder holds, and is unchanged."""
    return is_done(exported, [read_manifest(folder)["outputs"], form, "5GB"])


def parents_of(run: Run, variant: ModelVariant) -> list[Parent]:
    """The base, and the model before unlearning where that is another one."""
    base = run.recipe.model.base
    # Of a model in memory nothing is known but its name: what it was read from may have changed.
    files = [] if isinstance(run.base, MemoryBase) else base_files(base)
    found = [Parent(role="base", name=_last(base), files=hashes(files))]
    start = run.start.folder
    # Behind a guard that model is what answers.
    if start is not None and (variant.guard is not None or start != variant.folder):
        found.append(Parent(role="memorized", name="memorized", files=model_files(start)))
    return found


def _last(name: str) -> str:
    """A folder's last part, since where it was is nobody's business; another name as it is."""
    return Path(name).resolve().name if Path(name).is_dir() else name
