"""Rows of a benchmark from the hub's cache, or from a folder in any layout in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from knowundo.data.records import Record
from knowundo.errors import BadInput, first_line
from knowundo.storage.files import read_json, read_jsonl, read_text


class ResolvedRecords(list[Record]):
    """Records of which some were read from the hub: what a benchmark may return for a list."""

    def __init__(self, records: Iterable[Record], commits: Mapping[str, str]) -> None:
        """Records, and the commit of each repository that they were read from, by its name."""
        super().__init__(records)
        self.commits = dict(commits)


class Snapshot(NamedTuple):
    """A folder of the hub's cache, and the repository's commit that it holds, by its name."""

    folder: Path
    commits: dict[str, str]


def from_hub(repository: str, *, revision: str | None, patterns: Sequence[str]) -> Snapshot:
    """The local snapshot of a dataset repository, downloaded where it is not cached yet.

    The cache is huggingface_hub's own, which `datasets` fills too. With HF_HUB_OFFLINE=1 nothing
    else is read.

    Args:
        repository: Name on the hub.
        revision: A full commit hash, tag or branch. If `None`, the newest commit.
        patterns: Files that are needed.

    Raises:
        BadInput: It is neither cached nor can it be downloaded; says what to download, and where
            to put it.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
            )
        )
    except Exception as error:  # the client's own errors, and whatever its transports raise
        reason = first_line(error)
        at = f" --revision {revision}" if revision else ""
        raise BadInput(
            f"{repository}: not in the local cache, and the hub gave none ({reason}); run "
            f"`hf download {repository} --repo-type dataset{at}` where there is a network and "
            "copy the cache (HF_HOME) here, or name a folder that holds its files"
        ) from None
    # The cache names a snapshot's folder after its commit, whatever branch or tag was asked for.
    return Snapshot(folder, {repository: folder.name})


class Found(NamedTuple):
    """Rows, and the file or folder they were read from."""

    rows: list[Any]
    place: Path


def read_rows(stem: Path, *, lines: bool = False) -> Found | None:
    """Rows of the table `stem`, in whichever format it is there; `None` if it is not.

    Looked for, in this order: `stem.json` (a list), `stem.jsonl`, the folder `stem` as datasets'
    `save_to_disk` writes it, and Parquet: `stem.parquet`, `stem-*.parquet`, or any in the folder
    `stem`.

    Args:
        stem: Path of the table without its ending.
        lines: `stem.json` may also hold one object a line, as TOFU's files do.

    Raises:
        BadInput: The table is malformed.
    """
    if (file := stem.with_name(f"{stem.name}.json")).is_file():
        if lines and not read_text(file).lstrip().startswith("["):
            return Found(read_jsonl(file), file)
        rows = read_json(file)
        if not isinstance(rows, list):
            raise BadInput(f"{file}: expected a list with one object, or of rows")
        return Found(rows, file)
    if (file := stem.with_name(f"{stem.name}.jsonl")).is_file():
        return Found(read_jsonl(file), file)
    if (stem / "dataset_info.json").is_file() and (stem / "state.json").is_file():
        return Found(_saved(stem), stem)
    return read_parquet_table(stem)


def read_parquet_table(stem: Path) -> Found | None:
    """Rows of the Parquet files of a table; `None` if there are none. Raises as `read_rows`."""
    patterns = (f"{stem.name}.parquet", f"{stem.name}-*.parquet", f"{stem.name}/*.parquet")
    parquet = next(filter(None, (sorted(stem.parent.glob(p)) for p in patterns)), None)
    return Found(read_parquet(parquet), parquet[0]) if parquet else None


def _saved(folder: Path) -> list[Any]:
    """Rows of a folder that datasets' `save_to_disk` wrote."""
    import datasets

    try:
        return list(datasets.load_from_disk(str(folder)))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder}: damaged ({error}); save it again") from None


def read_parquet(files: Sequence[Path]) -> list[Any]:
    """Rows of Parquet files, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Any] = []
    for file in files:
        try:
            rows += pq.read_table(file).to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = first_line(error)
            raise BadInput(f"{file}: not readable as Parquet ({reason})") from None
    return rows
