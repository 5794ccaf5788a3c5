"""The ledger: which requests a model has been through. It travels with the model; no text in it.

The rows of an earlier request lie in the directory of the run that erased them. They are read from
there, compared with the hash in the ledger, and asked again at every evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from knowundo.evaluation.evaluation import EARLIER
from knowundo.results import Versioned, read_versioned
from knowundo.storage.files import file_hash, write_json

LEDGER, SCHEMA_VERSION = "erasure_ledger.json", 1


class Erasure(BaseModel):
    """One request."""

    model_config = ConfigDict(extra="forbid")

    number: int = Field(ge=1, description="in the order of requests")
    date: str = Field(description="UTC, ISO 8601")
    list_sha256: str = Field(description="of the run's lists/unlearn.jsonl")
    rows: int = Field(description="rows of the request")
    run: str = Field(description="directory of the run, where the rows lie")
    model: str = Field(description="what the rows were erased from")
    weights_sha256: dict[str, str] = Field(description="of the model's files afterwards")
    exact_before: float | None = Field(description="percent of rows answered exactly, before")
    exact_after: float | None = Field(description="and afterwards")
    reworded_after: float | None = Field(description="the same of val rows, such as re-worded ones")
    predicted_after: float | None = Field(description="percent of tokens predicted, afterwards")
    rechecked: dict[int, float | None] = Field(
        default_factory=dict, description="earlier request → percent answered exactly afterwards"
    )


class Ledger(Versioned):
    """All requests, oldest first."""

    schema_version: int = SCHEMA_VERSION
    requests: list[Erasure] = Field(default_factory=list)


def read_ledger(folder: Path) -> Ledger:
    """The ledger that lies with a model; an empty one where there is none.

    Raises:
        BadInput: it is malformed, or of another schema.
    """
    file = folder / LEDGER
    if not file.is_file():
        return Ledger()
    return read_versioned(file, Ledger, SCHEMA_VERSION, "restore the file")


def write_ledger(ledger: Ledger, folder: Path) -> None:
    """Write the ledger beside a model."""
    write_json(folder / LEDGER, ledger.model_dump(mode="json"))


def earlier_rows(ledger: Ledger, runs: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The unlearn rows of earlier requests, to be asked again.

    Args:
        ledger: the requests.
        runs: directories to look in, beside those that the ledger names.

    Returns:
        Records of scope unlearn, split probe and subset `request-<number>`; and a line for every
        request whose rows are gone or were changed, so that it cannot be checked.
    """
    found: list[Record] = []
    missing: list[str] = []
    for request in ledger.requests:
        files = [folder / "lists" / "unlearn.jsonl" for folder in (Path(request.run), *runs)]
        held = [f for f in files if f.is_file() and file_hash(f) == request.list_sha256]
        if not held:
            missing.append(
                f"request {request.number} of {request.date[:10]} cannot be checked again: its "
                f"rows are not in {request.run}; name its directory with --earlier"
            )
            continue
        subset = f"{EARLIER}{request.number}"
        for record in read_list(held[0], scope="unlearn", split="train"):
            if record.split == "train":
                name = f"{subset}/{record.id}"
                found.append(replace(record, id=name, split="probe", subset=subset))
    return found, missing


def weights(folder: Path) -> dict[str, str]:
    """Hashes of a folder's weights."""
    return {file.name: file_hash(file) for file in sorted(folder.glob("*.safetensors"))}
