"""The log of erasure requests that a model has been through. It travels with the model.

It holds no text of any list. The rows of an earlier request stay in the directory of the run that
erased them: they are read from there, compared with the hash in the log, and asked again at every
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from knowundo.evaluation.result_rows import EARLIER
from knowundo.storage.files import file_hash, write_json
from knowundo.storage.versioned import Versioned, read_versioned

LOG_FILE, SCHEMA_VERSION = "erasure_ledger.json", 1


class LoggedRequest(BaseModel):
    """One request, and what was measured before and after it."""

    model_config = ConfigDict(extra="forbid")

    number: int = Field(ge=1, description="place in the order of requests, from 1")
    date: str = Field(description="UTC, ISO 8601")
    list_sha256: str = Field(description="hash of the run's lists/unlearn.jsonl")
    rows: int = Field(description="number of rows of the request")
    run: str = Field(description="directory of the run, which holds the rows")
    model: str = Field(description="model or adapter that the rows were erased from")
    weights_sha256: dict[str, str] = Field(description="hashes of the model's files afterwards")
    exact_before: float | None = Field(description="percent of rows answered exactly, before")
    exact_after: float | None = Field(description="percent of rows answered exactly, afterwards")
    reworded_after: float | None = Field(
        description="percent of val rows, such as reworded questions, answered exactly, afterwards"
    )
    predicted_after: float | None = Field(description="percent of tokens predicted, afterwards")
    rechecked: dict[int, float | None] = Field(
        default_factory=dict,
        description="number of each earlier request → percent of its rows answered exactly, "
        "after this one",
    )


class RequestLog(Versioned):
    """All requests, oldest first."""

    schema_version: int = SCHEMA_VERSION
    requests: list[LoggedRequest] = Field(default_factory=list)


def read_log(folder: Path) -> RequestLog:
    """Read the log in a model's folder; an empty one if there is none.

    Args:
        folder: folder of a model or an adapter. It need not exist.

    Raises:
        BadInput: the file is malformed, or of another schema.
    """
    file = folder / LOG_FILE
    if not file.is_file():
        return RequestLog()
    return read_versioned(file, RequestLog, SCHEMA_VERSION, "restore the file")


def write_log(log: RequestLog, folder: Path) -> None:
    """Write the log into a model's folder."""
    write_json(folder / LOG_FILE, log.model_dump(mode="json"))


def earlier_rows(log: RequestLog, runs: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The unlearn rows of earlier requests, to be asked again.

    Args:
        log: the requests.
        runs: directories to search, beside those that the log names.

    Returns:
        Records of scope unlearn, split probe and subset `request-<number>`; and a line for every
        request that cannot be checked, since its rows are gone or were changed.
    """
    found: list[Record] = []
    missing: list[str] = []
    for request in log.requests:
        files = [folder / "lists" / "unlearn.jsonl" for folder in (Path(request.run), *runs)]
        same = [f for f in files if f.is_file() and file_hash(f) == request.list_sha256]
        if not same:
            missing.append(
                f"request {request.number} of {request.date[:10]} cannot be checked again: its "
                f"rows are not in {request.run}; name its directory with --earlier"
            )
            continue
        subset = f"{EARLIER}{request.number}"
        for record in read_list(same[0], scope="unlearn", split="train"):
            if record.split == "train":
                name = f"{subset}/{record.id}"
                found.append(replace(record, id=name, split="probe", subset=subset))
    return found, missing


def weight_hashes(folder: Path) -> dict[str, str]:
    """Hashes of a folder's weight files, by file name."""
    return {file.name: file_hash(file) for file in sorted(folder.glob("*.safetensors"))}
