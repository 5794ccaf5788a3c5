"""The user's files of a request, as records."""

from __future__ import annotations

from dataclasses import dataclass, replace

from knowundo.data.general import read_general
from knowundo.data.lists.reading import read_list
from knowundo.data.lists.rows import RowSource
from knowundo.data.records import Record
from knowundo.erasure.request import ErasureRequest


@dataclass(frozen=True)
class GivenLists:
    """What the user gave, as records. A list is `None` if there is no such file."""

    unlearn: list[Record]
    val: list[Record] | None
    retention: list[Record] | None
    general: list[Record] | None


def read_given(request: ErasureRequest) -> GivenLists:
    """Read the user's files, each checked for itself.

    Ids get their scope and split in front, so that two files may both count from 1. A question of
    the unlearn or the retention list may lack its answer, which is then empty: see answering.py.

    Args:
        request: names the files and their columns.

    Raises:
        BadInput: see `data.lists.reading.read_list`.
    """

    def rows(source: RowSource, scope: str, split: str) -> list[Record]:
        found = read_list(
            source, scope=scope, split=split, columns=request.columns, unanswered=split == "train"
        )
        head = f"{scope}/{split}/"
        return [replace(r, id=head + r.id.removeprefix(head)) for r in found]

    val, retention, general = request.val, request.retention, request.general
    # Whatever a column says about splits: all of the unlearn list must go, and rows of the file of
    # other questions are only asked.
    unlearn = [replace(r, split="train") for r in rows(request.unlearn, "unlearn", "train")]
    return GivenLists(
        unlearn,
        None if val is None else [replace(r, split="val") for r in rows(val, "unlearn", "val")],
        None if retention is None else rows(retention, "retention", "train"),
        None if general is None else read_general(general),
    )
