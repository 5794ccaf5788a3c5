"""A guard made for a memorized model: what it learns of the train rows, and its assistant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowundo.entry import Entry
from knowundo.modeling.guard import Guard
from knowundo.unlearning.start import Start


def prepare_guard(start: Start, entry: Entry, arguments: Mapping[str, Any]) -> Guard:
    """A guard with what its `prepare` makes of the memorized model's train rows.

    Args:
        start: The memorized model with the train rows of each scope; not changed.
        entry: A registered guard.
        arguments: Its hyper-parameters, as given.

    Raises:
        BadInput: An argument is unknown or out of range, or the rows do not suit the guard.
    """
    bound, learned = entry.bind(dict(arguments)), dict[str, Any]()
    start.restore()
    if (prepare := entry.prepare_function) is not None:
        rows = {"unlearn": start.unlearn_rows, **start.retention_rows}
        learned = dict(prepare(rows, start.scorer(), **entry.prepare_arguments(bound)))
    return Guard(entry, bound, learned, start.model.positions)
