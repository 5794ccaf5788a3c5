"""unlearn(): train a method's loss, inside a region, from the memorized model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from knowundo.batches import PairedBatch, paired
from knowundo.encoding import Encoded
from knowundo.forwards import Columns, Parts, Reference, Step, answer_logits
from knowundo.models import Model
from knowundo.registry import get
from knowundo.training import Curve, Progress, train

# Candidate learning rates of `lr: auto`, smallest first.
LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)


class Scorer:
    """What a method's `prepare` may ask of the memorized model."""

    def __init__(self, model: Model, seed: int) -> None:
        self._model, self.seed = model, seed
        self.special = sorted(model.tokenizer.all_special_ids)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model can emit."""
        return len(self._model.tokenizer)

    def logits(self, encoded: Sequence[Encoded]) -> Any:
        """Pairs of row and logits at its answer positions, [answer tokens, vocabulary]."""
        return answer_logits(self._model, encoded)


@dataclass
class Unlearned:
    """What unlearning leaves beside the changed weights."""

    curve: Curve
    facts: dict[str, Any] = field(default_factory=dict)


def unlearn(
    model: Model,
    unlearn_rows: Sequence[Encoded],
    retention_rows: Sequence[Encoded],
    *,
    method: str,
    arguments: dict[str, Any] | None = None,
    region: Sequence[str] | None = None,
    lr: float = 5e-5,
    epochs: int = 2,
    batch_size: int = 16,
    accumulation: int = 1,
    seed: int = 42,
    progress: Progress | None = None,
) -> Unlearned:
    """Train one method (default settings: KnowUnDo's repository).

    Args:
        model: the memorized model; changed in place, inside the region only.
        unlearn_rows: train rows that must go; an epoch is one pass over them.
        retention_rows: rows that fill `step.retention`, of the retention scope or general ones.
        method: a registered name.
        arguments: its hyper-parameters.
        region: parameter names that may change; None: all of the adaptation.
        lr: peak learning rate; warm-up 3 %, then cosine.
        epochs: passes.
        batch_size: unlearn rows (and as many retention rows) a micro-step.
        accumulation: micro-steps an optimizer step.
        seed: of the order of rows and of prepared labels; the same for all methods.
        progress: called after each optimizer step.

    Raises:
        BadInput: unknown method, argument or parameter name.
    """
    entry = get("method", method)
    bound = entry.bind(arguments or {})
    start = time.perf_counter()
    columns: Columns = {}
    if entry.prepare_function:
        columns = entry.prepare_function(unlearn_rows, Scorer(model, seed))

    @cache
    def reference() -> Reference:
        # First asked for inside the first step, before any weight moved.
        return Reference.of(model, [*unlearn_rows, *retention_rows])

    halves: set[str] = set()

    def loss(batch: PairedBatch) -> Parts:
        batch = PairedBatch(batch.unlearn.to(model.device), batch.retention.to(model.device))
        step = Step(model, batch, reference=reference, columns=columns, both=len(halves) == 2)
        parts: Parts = entry(step, **bound)
        halves.update(step.used)
        return parts

    curve = train(
        model,
        paired(
            unlearn_rows, retention_rows, size=batch_size, epochs=epochs, seed=seed, pad=model.pad
        ),
        loss,
        region=model.parameters() if region is None else region,
        lr=lr,
        seed=seed,
        accumulation=accumulation,
        progress=progress,
    )
    facts = {
        "method": method,
        "arguments": bound,
        "lr": lr,
        "epochs": epochs,
        "optimizer_steps": len(curve),
        "reads": sorted(halves),
        "seconds": round(time.perf_counter() - start, 2),
    }
    return Unlearned(curve, facts)


@torch.no_grad()
def token_accuracy(model: Model, encoded: Sequence[Encoded]) -> float:
    """Share of answer tokens predicted, mean over rows, without end-of-sequence."""
    rates = [
        (logits.argmax(-1).tolist()[:-1], row.ids[row.answer_from : -1])
        for row, logits in answer_logits(model, encoded)
    ]
    return sum(
        sum(a == b for a, b in zip(*pair, strict=True)) / max(len(pair[1]), 1) for pair in rates
    ) / len(rates)


def choose_rate(
    attempt: Callable[[float], float], target: float, rates: Sequence[float] = LEARNING_RATES
) -> tuple[float, list[dict[str, float]]]:
    """The rule of `lr: auto`: the smallest rate that forgets as much as never having learned.

    Looks at unlearn/train rows only: `attempt(rate)` trains at a rate and returns the token
    accuracy on them; a rate suffices when it is at most `target`, the level of the base, which
    never saw them. Found by bisection, as forgetting grows with the rate; if no rate suffices,
    the one with the lowest accuracy tried.

    Returns:
        The rate, and every attempt `{"lr", "token_accuracy"}` in order.
    """
    low, high = 0, len(rates)
    tried: dict[int, float] = {}
    while low < high:
        middle = (low + high) // 2
        accuracy = attempt(rates[middle])
        tried[middle] = accuracy if math.isfinite(accuracy) else 1.0
        if tried[middle] <= target:
            high = middle
        else:
            low = middle + 1
    best = high if high < len(rates) else min(tried, key=lambda i: (tried[i], i))
    return rates[best], [{"lr": rates[i], "token_accuracy": tried[i]} for i in tried]
