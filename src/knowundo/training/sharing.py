"""Which micro-batches of a batch this process takes, of several that train together."""

from __future__ import annotations

from typing import Any

from knowundo.data.batches import rows_of
from knowundo.distributed.group import group
from knowundo.distributed.sums import own_share
from knowundo.training.settings import Split


def own_parts(split: Split, batch: Any, row_limit: int | None) -> list[Any]:
    """Micro-batches of this process: with those of the others they are the whole batch.

    The recipe's batch is that of all processes together, so that any number of them makes the same
    step. It is first split into equal shares, in a way that depends on the batch alone; then each
    share as this process's memory demands.

    Args:
        split: Splits a batch into micro-batches.
        batch: Of all processes.
        row_limit: The most rows that a micro-batch may have here. If `None`, any number.
    """
    size = group().size
    if size == 1:
        return split(batch, row_limit)
    own = split(batch, -(-rows_of(batch) // size))[own_share()]
    if row_limit is None:
        return own
    return [part for share in own for part in split(share, row_limit)]
