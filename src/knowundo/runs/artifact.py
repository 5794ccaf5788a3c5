"""The artifact job: one artifact of a run from the question whether it is there to its seal.

    with run.artifact(run.regions, inputs) as job:
        if job.done:
            return
        found = find_regions(..., checkpoint=job.checkpoint)
        job.facts["parameters"] = found["parameters"]
        write_json(job.aside / "tensors.json", found["tensors"])

The order of the last steps is what makes a kill at any moment harmless: the files are written
aside, the old seal is broken, the folder takes its place, the new seal is set, and only then does
the checkpoint go. A process that ends in between leaves either a checkpoint to resume from or a
whole artifact that the next run seals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from knowundo.runs.directory import RunDirectory
from knowundo.storage.artifacts import new_folder
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.integrity import unseal


class ArtifactJob:
    """The making of one artifact: a context manager that writes it on a clean exit.

    Attributes:
        path: The artifact's folder.
        done: True if it was there already, made of the same inputs and unchanged. It is sealed
            then, and the block has nothing to do.
        checkpoint: How far the job got; removed on a clean exit.
        facts: Entries of the manifest. On a clean exit the common ones are added that are not set
            yet: seconds, and what the run says of every artifact.
    """

    def __init__(
        self,
        directory: RunDirectory,
        path: Path,
        inputs: Sequence[Any],
        *,
        way: Sequence[Any] = (),
        shared: Checkpoint | None = None,
        common_facts: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Look whether the artifact is there; nothing is written but its seal.

        Args:
            directory: Of the run.
            path: The artifact's folder.
            inputs: What the artifact depends on; an artifact of other inputs is replaced.
            way: What beside the inputs the way to the artifact depends on, though not the artifact
                itself: a checkpoint of another way is not resumed from.
            shared: Checkpoint of a greater job, to which this one belongs and which clears it. If
                `None`, the job has one of its own.
            common_facts: What stands in every manifest of the run; called on a clean exit.

        Raises:
            BadInput: A file of the artifact was changed, or it is not the one that this run made.
        """
        self.path, self.inputs = path, inputs
        self.facts: dict[str, Any] = {}
        self._directory, self._common_facts = directory, common_facts
        self._shared = shared is not None
        self._resumed_by = [*inputs, *way]
        self.checkpoint = shared or directory.checkpoint(path, self._resumed_by)
        self._stack = ExitStack()
        self._aside: Path | None = None
        self.done = directory.done(path, inputs)
        if self.done:
            # It is sealed already, unless the process was killed between folder and seal.
            directory.seal(path)

    @property
    def aside(self) -> Path:
        """The folder to write the artifact's files into; it takes its place on a clean exit."""
        if self._aside is None:
            self._aside = self._stack.enter_context(new_folder(self.path, self.inputs, self.facts))
        return self._aside

    def __enter__(self) -> Self:
        """Begin the work; whether there is any was decided before."""
        if not self._shared:
            # A checkpoint counts seconds from when it is made, and jobs may be made long before
            # their blocks begin: `unlearn` makes those of all variants first.
            self.checkpoint = self._directory.checkpoint(self.path, self._resumed_by)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the artifact in its place; after an exception, drop what was written of it.

        Raises:
            RuntimeError: The block ended well and wrote nothing, though there was work to do.
        """
        if kind is not None:
            # The checkpoint stays: the next call of the stage resumes from it.
            self._stack.__exit__(kind, error, trace)
        elif not self.done:
            self._finish()

    def _finish(self) -> None:
        if self._aside is None:
            raise RuntimeError(f"{self.path}: the block wrote no file of this artifact")
        self.facts.setdefault("seconds", round(self.checkpoint.seconds, 2))
        for name, value in self._common_facts().items():
            self.facts.setdefault(name, value)
        # The seal of an older artifact goes first: with it, a process killed after the folder took
        # its place would leave a whole artifact that seems to be another one's.
        unseal(self._directory.out, str(self.path.relative_to(self._directory.out)))
        self._stack.close()  # writes the manifest and renames the folder into its place
        self._directory.seal(self.path)
        self.done = True
        # Last: killed before this line, the next call finds a whole artifact and ignores the
        # checkpoint. The other order would lose the work if the seal failed.
        if not self._shared:
            self._directory.clear(self.checkpoint)


@contextmanager
def shared_checkpoint(
    directory: RunDirectory, path: Path, inputs: Sequence[Any]
) -> Iterator[Checkpoint]:
    """The checkpoint of several artifacts that are made in one go; cleared on a clean exit.

    Args:
        directory: Of the run.
        path: Folder of one of the artifacts, after which the checkpoint is named.
        inputs: What all of them depend on.
    """
    checkpoint = directory.checkpoint(path, inputs)
    yield checkpoint
    # No `finally`: after an exception the checkpoint is what the next call resumes from.
    directory.clear(checkpoint)
