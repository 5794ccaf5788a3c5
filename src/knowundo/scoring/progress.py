"""How far the scoring of a list of rows got, for checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from knowundo.data.encoded import Encoded
from knowundo.distributed.group import gathered, group
from knowundo.storage.checkpoints import Checkpoint

Scores = TypeVar("Scores")


class Said(NamedTuple):
    """A generated answer."""

    text: str
    exact: bool  # it is the true answer: see `decoding.said_verbatim`


class ScoringState:
    """How far the scoring of a list of rows got: what is known of each row, by adapter."""

    def __init__(self, adapters: int, checkpoint: Checkpoint | None = None) -> None:
        """Resume from the checkpoint, if there is one."""
        self.checkpoint = checkpoint
        state = checkpoint.read() if checkpoint else None
        self.forced: list[dict[str, dict[str, Any]]] = [{} for _ in range(adapters)]
        self.said: list[dict[str, Said]] = [{} for _ in range(adapters)]
        if state:
            self.forced = state.facts["forced"]
            self.said = [
                {name: Said(*said) for name, said in rows.items()} for rows in state.facts["said"]
            ]

    def keep(self, *, over: bool = False) -> None:
        """Write it down, if it is time to, or all is over."""
        if self.checkpoint and (over or self.checkpoint.due()):
            self.checkpoint.write({"forced": self.forced, "said": self.said}, {})


def merged(found: list[dict[str, Scores]], encoded: Sequence[Encoded]) -> list[dict[str, Scores]]:
    """What all processes found of rows, by model; the same as before where there is only one.

    Args:
        found: By model, what this process found, by record id.
        encoded: All rows; what was found of them comes in their order.
    """
    if group().size == 1:
        return found
    models = list[dict[str, Scores]]()
    for each in zip(*gathered(found), strict=True):
        held: dict[str, Scores] = {name: one for rows in each for name, one in rows.items()}
        order = [row.record.id for row in encoded]
        models.append({name: held[name] for name in dict.fromkeys([*order, *held])})
    return models
