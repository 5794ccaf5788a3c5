"""The directory of a run: where its artifacts are, and which of them are its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowundo.distributed.group import from_main, group
from knowundo.errors import BadInput
from knowundo.storage.artifacts import MANIFEST, is_done, verified
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.integrity import check_seal, seal

CHECKPOINTS = "checkpoints"


class RunDirectory:
    """Paths of a run, and the state of what is there."""

    def __init__(self, out: Path) -> None:
        """Nothing is read or written.

        Args:
            out: The directory, which need not exist yet.
        """
        self.out = out

    @property
    def memorized(self) -> Path:
        """Folder of the memorized model."""
        return self.out / "memorized"

    @property
    def retain(self) -> Path:
        """Folder of the retain model, which never saw the unlearn scope."""
        return self.out / "retain"

    @property
    def regions(self) -> Path:
        """Folder of the located regions and their controls."""
        return self.out / "regions"

    def region_file(self, name: str) -> Path:
        """File of a region: one that localize found, or the JSON file that the name is."""
        return Path(name) if name.endswith(".json") else self.regions / f"{name}.json"

    def unlearned(self, name: str) -> Path:
        """Folder of an unlearned variant."""
        return self.out / "unlearned" / name

    def scores(self, name: str) -> Path:
        """Folder of the scores of a variant."""
        return self.out / "scores" / name

    def attack_scores(self, name: str, attack: str) -> Path:
        """Folder of the scores of a variant under an attack; no variant's name has an @."""
        return self.out / "scores" / f"{name}@{attack}"

    def done(self, artifact: Path, inputs: Sequence[Any]) -> bool:
        """True if an artifact of these inputs is there, whole, and the one that this run made.

        Raises:
            BadInput: A file of it was changed, or it is another run's or another artifact.
        """
        return from_main(lambda: self._done(artifact, inputs))

    def _done(self, artifact: Path, inputs: Sequence[Any]) -> bool:
        if not is_done(artifact, inputs):
            return False
        # The manifest shows that files and inputs fit each other. Only the seal shows that the
        # folder is not another artifact that was copied here together with its manifest.
        check_seal(self.out, artifact)
        return True

    def made(self, folder: Path, stage: str) -> dict[str, str]:
        """Hashes of an artifact's files, each compared with the file.

        Raises:
            BadInput: It is not there yet, or was changed.
        """
        if not (folder / MANIFEST).exists():
            raise BadInput(f"{folder}: not there; run `knowundo {stage} --out {self.out}` first")
        return verified(folder)

    def seal(self, *paths: Path) -> None:
        """Note finished artifacts as this run's own."""
        seal(self.out, *paths)

    def checkpoint(self, artifact: Path, inputs: Sequence[Any]) -> Checkpoint:
        """Where the making of an artifact keeps how far it got."""
        return Checkpoint(self.out / CHECKPOINTS / artifact.relative_to(self.out), inputs)

    def clear(self, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint whose artifact is there, and folders that are empty then."""
        checkpoint.clear()
        if not group().main:
            return
        # A finished run has no folder `checkpoints`, so one that is there can be resumed.
        for folder in checkpoint.folder.parents:
            if folder == self.out or not folder.exists() or any(folder.iterdir()):
                return
            folder.rmdir()
