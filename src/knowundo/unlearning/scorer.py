"""What a method's or a guard's `prepare` may ask of the memorized model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import torch

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.neighbours import renamed
from knowundo.data.records import Record
from knowundo.errors import KnowUndoError
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.model import Model
from knowundo.modeling.squared_gradients import mean_squares
from knowundo.scoring.answers import generate
from knowundo.scoring.generation import sample
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.unlearning.reinforced_model import reinforced_states

Encode = Callable[[list[Record]], list[Encoded]]


class Scorer:
    """What a method's `prepare` may ask of the memorized model.

    Attributes:
        seed: Seed of whatever `prepare` draws.
        special: Ids of the special tokens, sorted.
        retention: Rows that must stay.
    """

    def __init__(
        self,
        model: Model,
        seed: int,
        encode: Encode | None = None,
        restore: Callable[[], object] | None = None,
        retention: Sequence[Encoded] = (),
    ) -> None:
        """Ask nothing yet.

        Args:
            model: The memorized model.
            seed: Seed of whatever `prepare` draws.
            encode: Encodes records as the rows were encoded; only other answers need it.
            restore: Makes the model the memorized one again; only `reinforced` needs it.
            retention: Rows that must stay.
        """
        self._model, self.seed, self._encode = model, seed, encode
        self._restore, self.retention = restore, retention
        self.special = sorted(model.tokenizer.all_special_ids)

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the model can emit."""
        return len(self._model.tokenizer)

    @property
    def hidden_size(self) -> int:
        """Numbers of a hidden state."""
        module: Any = self._model.causal_lm()
        return int(module.config.get_text_config().hidden_size)

    @property
    def positions(self) -> int | None:
        """Tokens that a row may have. If `None`, any number."""
        return self._model.positions

    def logits(self, encoded: Sequence[Encoded]) -> Any:
        """Return pairs of row and logits at its answer positions, [answer tokens, vocabulary]."""
        return answer_logits(Forward(self._model), encoded)

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a text's tokens, without special tokens around it."""
        ids: list[int] = self._model.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def embeddings(self, ids: Sequence[int]) -> torch.Tensor:
        """Return what the model's embedding layer makes of ids, [tokens, hidden]."""
        layer: Any = self._model.causal_lm().get_input_embeddings()  # type: ignore[operator]
        with torch.no_grad():
            found: torch.Tensor = layer(torch.tensor([list(ids)], device=self._model.device))[0]
        return found

    def answered(self, row: Encoded, text: str) -> Encoded:
        """Return the same record with another answer, encoded as the row was.

        Raises:
            KnowUndoError: There is no `encode`.
        """
        return self._encoded(replace(row.record, answer=text, alternatives=(), facts=()))

    def asked(self, row: Encoded, question: str) -> Encoded:
        """Return the same record with another question, encoded as the row was.

        Raises:
            KnowUndoError: There is no `encode`.
        """
        return self._encoded(replace(row.record, question=question))

    def about(self, row: Encoded, name: str) -> Encoded | None:
        """The same question and answer about somebody else, encoded as the row was.

        Returns:
            `None` where the question does not name its subject.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        other = renamed(row.record, name)
        return None if other is None else self._encoded(other)

    def _encoded(self, record: Record) -> Encoded:
        return self._of_records([record])[0]

    def _of_records(self, records: Sequence[Record]) -> list[Encoded]:
        # Most methods need no other answers, so `encode` may be left out of a Start.
        if self._encode is None:
            raise KnowUndoError("other answers need Start(…, encode=…), which encodes records")
        return self._encode(list(records))

    def fitting(self, records: Sequence[Record]) -> list[Encoded]:
        """Return records encoded as the rows were, without those that are too long.

        Raises:
            KnowUndoError: There is no `encode`.
        """
        return fitting(records, self._of_records)

    def note(self, text: str) -> None:
        """Tell the user, and put it into the manifest."""
        self._model.notes.add(text)

    def sample(
        self, rows: Sequence[Encoded], *, n: int, temperature: float, seed: int
    ) -> dict[str, list[str]]:
        """Draw `n` answers of the memorized model to each row's question, by record id."""
        return sample(self._model, rows, n=n, temperature=temperature, seed=seed)

    def answers(self, rows: Sequence[Encoded]) -> dict[str, str]:
        """Return the memorized model's greedy answer to each row's question, by record id."""
        return generate(self._model, rows)

    def mean_nll(self, rows: Sequence[Encoded]) -> dict[str, float]:
        """Return nats per token of each row's answer, by record id; infinity if not finite."""
        found = teacher_forced(self._model, rows)
        return {
            name: inf if row["mean_nll"] is None else row["mean_nll"] for name, row in found.items()
        }

    def squared_gradients(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Return mean squared gradients over rows by parameter name, in the host's memory."""
        found = mean_squares(self._model, rows, self._model.parameters())
        return {name: values.cpu() for name, values in found.items()}

    def reinforced(
        self, rows: Sequence[Encoded], *, epochs: int, lr: float
    ) -> dict[str, torch.Tensor]:
        """See `reinforced_states`; the model is the memorized one again afterwards.

        Raises:
            KnowUndoError: There is no `restore`.
        """
        if self._restore is None:
            raise KnowUndoError("a reinforced model needs Scorer(…, restore=…)")
        try:
            return reinforced_states(self._model, rows, epochs=epochs, lr=lr, seed=self.seed)
        finally:
            self._restore()
