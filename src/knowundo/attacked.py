"""A model under attack: what an attack may use, and the scores that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.scoring.alternatives import needed_answers
from knowundo.scoring.table import score_adapters
from knowundo.storage.checkpoints import State
from knowundo.storage.job import Job


@dataclass
class Attacked:
    """A model under attack; an attack scores it once in each setting.

    Attributes:
        forward: How the model computes; with the guard, if the variant has one.
        rows: What is scored, of both scopes.
        train: Train rows of `unlearn`, `retention` and `general`: what an attacker may hold.
        encode: Encodes records as those that the run scores.
        memorized: Reads the trainable tensors of the memorized model, by name; `None` if that is
            the base itself.
        generated_splits: Splits whose questions are also answered freely.
        lr: Rate at which the records were learned, the default of attacks that train.
        seed: Of everything random.
        metrics: Metrics whose scorers run only where they are named.
        job: Progress and checkpoint.
        tables: The scores so far, by setting.
    """

    forward: Forward
    rows: Sequence[Encoded]
    train: Mapping[str, Sequence[Encoded]]
    encode: Callable[[Sequence[Record]], list[Encoded]]
    memorized: Callable[[], Mapping[str, torch.Tensor]] | None
    generated_splits: Sequence[str]
    lr: float
    seed: int
    metrics: Sequence[str] = ()
    job: Job = field(default_factory=Job)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take over what an interrupted attack scored."""
        if (held := self._kept.resumed()) is not None:
            self.tables = {name: _table(rows) for name, rows in held.facts["tables"].items()}

    @property
    def model(self) -> Model:
        """The model; an attack on weights changes them in place, and puts the base's back."""
        return self.forward.model

    @property
    def _kept(self) -> Job:
        return self.job.part("kept")

    def score(
        self,
        setting: str,
        rows: Sequence[Encoded] | None = None,
        *,
        forward: Forward | None = None,
    ) -> None:
        """Score the model as it is now, unless this setting was scored before.

        Args:
            setting: Of the attack, such as `20 steps`.
            rows: Questions as the attack asks them; each keeps its record's id. If `None`, `rows`.
            forward: Another way to compute, which cannot generate. If `None`, `forward`.
        """
        if setting in self.tables:
            return
        rows = self.rows if rows is None else rows
        net, training = self.model.net, self.model.net.training
        net.eval()
        (table,) = score_adapters(
            forward or self.forward,
            rows,
            generated_splits=self.generated_splits if forward is None else (),
            metrics=self.metrics,
            alternatives=needed_answers(rows, self.encode, self.metrics),
            progress=self.job.progress,
            checkpoint=self.job.part("scored", setting).checkpoint,
        )
        net.train(training)
        self.keep(setting, table)

    def score_records(self, setting: str, records: Sequence[Record]) -> None:
        """Score other questions; those that are too long are left out.

        Args:
            setting: Of the attack.
            records: Each keeps its id, scope, split and answer.

        Raises:
            BadInput: Not one of them is short enough.
        """
        rows = fitting(records, self.encode)
        if not rows:
            raise BadInput(f"attack: {setting}: every question is too long; raise data.max_length")
        if len(rows) < len(records):
            left = len(records) - len(rows)
            self.model.notes.add(f"attack: {setting}: {left} questions are too long, left out")
        self.score(setting, rows)

    def keep(self, setting: str, table: pd.DataFrame) -> None:
        """Take scores that the attack made itself, with the columns of `scoring.table`.

        Args:
            setting: Of the attack.
            table: What was not measured is missing in it, never 0.
        """
        self.tables[setting] = table
        # At once, and not when it is due: training continues, and does not come back here.
        held = {name: _held(table) for name, table in self.tables.items()}
        self._kept.write(State({"tables": held}))


def _held(table: pd.DataFrame) -> dict[str, Any]:
    """A table as JSON holds it, to the same bits."""
    cells = table.astype(object).where(table.notna(), None)
    return {
        "columns": [[str(name), str(kind)] for name, kind in table.dtypes.items()],
        "rows": cells.to_numpy().tolist(),
    }


def _table(held: Mapping[str, Any]) -> pd.DataFrame:
    """The table that `_held` was made of."""
    kinds = dict(held["columns"])
    return pd.DataFrame(held["rows"], columns=list(kinds), dtype=object).astype(kinds)
