"""How far the scoring of a list of rows got, for checkpoints."""

from __future__ import annotations

from typing import Any, NamedTuple

from knowundo.storage.checkpoints import Checkpoint


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
