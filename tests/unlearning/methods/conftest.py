"""A model in float64 that has left the memorized one, and plain logits of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from conftest import randomize
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.entry import Entry
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.forward import Forward
from knowundo.modeling.half import Columns
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts, Step
from knowundo.registry import get
from knowundo.unlearning.start import Start

Rows = dict[str, list[Encoded]]


@dataclass
class Moved:
    """Computes the parts of a loss, and what a naive formula is made of.

    Nothing but the whole model's logits of one unpadded row is used for formulas.
    """

    model: Model
    rows: Rows
    start: Start
    columns: Columns = field(default_factory=dict)
    before: dict[Encoded, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memorized = {n: t.clone() for n, t in self.model.state().items()}

    def parts(self, method: str, **arguments: Any) -> Parts:
        """The loss where the model has moved away from the memorized one."""
        return self.of(get("method", method), **arguments)

    def of(self, entry: Entry, **arguments: Any) -> Parts:
        """The same of a loss that no name leads to, such as a guard's assistant's."""
        bound = entry.bind(arguments)
        self.model.restore(self.memorized)
        self.columns = self.start.columns(entry, bound)
        reference = self.start.reference
        reference.hold(reference.rows)
        others = list(self.columns.get("alternative", {}).values())
        reference.hold(others, among=others)
        with torch.no_grad():
            every = [*self.rows["unlearn"], *self.rows["retention"], *others]
            self.before = {row: self.logits(row) for row in every}
        randomize(self.model, seed=9)
        self.model.train_only(self.model.parameters())
        batch = PairedBatch(
            *(collate(self.rows[scope], self.model.pad) for scope in ("unlearn", "retention"))
        )
        forward = Forward(self.model)
        state = entry.first_state(bound)
        step = Step(forward, batch, reference=lambda: reference, columns=self.columns, state=state)
        parts: Parts = entry(step, **bound)
        return parts

    def logits(self, row: Encoded) -> torch.Tensor:
        """Logits at each answer position of one row, [answer tokens, vocabulary]."""
        logits = self.model.net(input_ids=torch.tensor([row.ids])).logits[0]
        return logits[row.answer_from - 1 : -1]

    def memorized_logits(self, row: Encoded) -> torch.Tensor:
        """The memorized model's logits, [answer tokens, vocabulary]."""
        return self.before[row]

    def generic_logits(self, strength: float, epochs: int, rate: float) -> dict[Encoded, Any]:
        """z − α·ReLU(z_reinforced − z) of each unlearn row, [answer tokens, vocabulary]."""
        settings = MemorizeSettings(
            epochs=epochs,
            lr=rate,
            batch_size=8,
            accumulation=4,
            weight_decay=0.01,
            known=None,
            seed=0,
            schedule="linear",
            warmup=1 / epochs,
        )
        found, rows = {}, self.rows["unlearn"]
        with torch.no_grad():
            before = [self.logits(row) for row in rows]
        memorize(self.model, rows, settings=settings)
        with torch.no_grad():
            for row, old in zip(rows, before, strict=True):
                gained = self.logits(row) - old
                found[row] = torch.where(gained > 0, old - strength * gained, old)
        self.model.restore(self.memorized)
        return found

    def other(self, row: Encoded) -> Encoded:
        """The row with its alternative answer."""
        found: Encoded = self.columns["alternative"][row.record.id]
        return found

    def true(self, row: Encoded) -> torch.Tensor:
        """Probability of each token of the row's answer, [answer tokens]."""
        labels = row.ids[row.answer_from :]
        probabilities = self.logits(row).softmax(-1)
        return torch.stack([one[label] for one, label in zip(probabilities, labels, strict=True)])

    def cross_entropy(self, row: Encoded) -> torch.Tensor:
        """Mean cross entropy of a row's answer."""
        return -self.true(row).log().mean()

    def kl(self, row: Encoded) -> torch.Tensor:
        """KL(memorized ‖ current), mean over the answer's tokens."""
        before, now = self.memorized_logits(row).softmax(-1), self.logits(row).softmax(-1)
        return (before * (before / now).log()).sum(-1).mean()

    def mean(
        self, value: Callable[[Encoded], torch.Tensor], scope: str = "unlearn"
    ) -> torch.Tensor:
        """Mean of a row's value over a scope."""
        return torch.stack([value(row) for row in self.rows[scope]]).mean()

    def gradients(self, parts: Parts) -> list[torch.Tensor]:
        """Gradients of the sum of the parts, by parameter."""
        chosen = list(self.model.parameters().values())
        return list(torch.autograd.grad(sum(parts.values()), chosen))  # type: ignore[arg-type]

    def same(self, found: Parts, expected: Parts) -> None:
        """Asserts that values and gradients are those of the naive formula."""
        assert set(found) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        pairs = zip(self.gradients(found), self.gradients(expected), strict=True)
        for one, other in pairs:
            # transformers' RMSNorm works in float32 whatever the dtype
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.fixture
def moved(toy: Model, toy_rows: Rows) -> Moved:
    """Five unlearn and five retention rows of unequal lengths."""
    start = Start(
        toy,
        toy_rows["unlearn"],
        {"retention": toy_rows["retention"]},
        seed=0,
        encode=lambda records: encode(records, toy.tokenizer),
    )
    return Moved(toy, toy_rows, start)
