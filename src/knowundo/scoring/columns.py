"""Which columns a table of scores has: fixed ones, and one for each scorer that runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from knowundo.entry import Entry
from knowundo.errors import BadInput
from knowundo.registry import entries, get

# Counts up where a fixed column comes to mean something else, so that scores are made again.
VERSION = 2
# Of every table, in this order; the scorers' columns follow.
FIXED = (
    "id", "scope", "split", "subset", "subject", "question", "answer", "said",
    "token_ends", "token_probabilities",
    "tokens", "token_accuracy", "fact_accuracy", "mean_nll", "exact_match", "rouge_l",
    "forced_rouge_l",
)  # fmt: skip
# Those that hold numbers.
NUMBERS = FIXED[FIXED.index("tokens") + 1 :]


def scorers(metrics: Sequence[str] = ()) -> list[Entry]:
    """The scorers that run, by name: all but those that only other metrics ask for.

    Args:
        metrics: Metrics that a recipe names (`evaluate.metrics`).

    Raises:
        BadInput: There is no such metric, or it asks for a scorer that is not there, or one has
            the name of a fixed column.
    """
    entries("metric")  # a file of another package may be registered for its metric alone
    wanted = {name for metric in metrics for name in get("metric", metric).facts["asks"]}
    for name in wanted:
        get("scorer", name)
    known = entries("scorer").items()
    found = [entry for name, entry in known if not entry.facts["asked"] or name in wanted]
    for entry in found:
        if entry.name in FIXED:
            raise BadInput(f"scorer {entry.name}: scores have a column of this name; rename it")
    return found


def columns(metrics: Sequence[str] = ()) -> tuple[str, ...]:
    """All columns of a table of scores, in their order."""
    return (*FIXED, *(entry.name for entry in scorers(metrics)))


def identity(metrics: Sequence[str] = ()) -> list[Any]:
    """What makes scores with other columns, or with columns of another meaning, others."""
    return [VERSION, list(FIXED), [[entry.name, entry.source] for entry in scorers(metrics)]]


def seen_by(running: Sequence[Entry], needs: str) -> list[Entry]:
    """Those of the scorers that need this."""
    return [entry for entry in running if entry.facts["needs"] == needs]


def numbers(running: Sequence[Entry], seen: Any) -> dict[str, float | None]:
    """What scorers make of a record, by column; what is no finite number is `None`."""
    found = {entry.name: entry(seen) for entry in running}
    return {
        name: float(value) if value is not None and math.isfinite(value) else None
        for name, value in found.items()
    }
