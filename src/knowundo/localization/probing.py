"""The whole model as a localizer sees it that measures causes: rows, losses, and other weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from knowundo.data.encoded import Encoded
from knowundo.localization.choosing import module_name
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.model import Model

REVERTED = "reverted"


@dataclass(frozen=True)
class Probe:
    """The memorized model, with its rows as they are, without noise.

    Attributes:
        model: Whatever a localizer changes, it changes back.
        unlearn: Rows that must go.
        retention: Rows that must stay.
        names: The parameters to score.
    """

    model: Model
    unlearn: Sequence[Encoded]
    retention: Sequence[Encoded]
    names: Sequence[str]

    @property
    def modules(self) -> Mapping[str, list[str]]:
        """Names of the parameters of each module: A and B of a LoRA, or a weight and its bias."""
        found: dict[str, list[str]] = {}
        for name in self.model.parameters():
            found.setdefault(module_name(name), []).append(name)
        wanted = set(self.names)
        return {module: names for module, names in found.items() if wanted & set(names)}

    def losses(self, rows: int | None = None) -> tuple[float, float]:
        """Mean negative log-likelihood per answer token of the rows of each scope, in nats.

        Args:
            rows: At most so many of each scope, spread evenly. If `None`, all.
        """
        return self._loss(self.unlearn, rows), self._loss(self.retention, rows)

    def _loss(self, encoded: Sequence[Encoded], rows: int | None) -> float:
        encoded = spread(encoded, rows)
        total = 0.0
        for row, logits in answer_logits(Forward(self.model), encoded):
            labels = torch.tensor(row.ids[row.answer_from :], device=logits.device)
            total += float(cross_entropy(logits, labels))
        return total / len(encoded)

    @contextmanager
    def reverted(self, names: Sequence[str]) -> Iterator[None]:
        """Within it, some parameters are those of the base; of a LoRA, they have no effect."""
        held = self.model.snapshot(REVERTED, names)
        initial = self.model.initial.tensors
        self.model.overwrite({name: initial[name] for name in names if name in initial})
        try:
            yield
        finally:
            self.model.overwrite(held.tensors)


def spread(encoded: Sequence[Encoded], rows: int | None) -> Sequence[Encoded]:
    """At most so many rows, spread evenly over all of them."""
    if rows is None or len(encoded) <= rows:
        return encoded
    return [encoded[place * len(encoded) // rows] for place in range(rows)]
