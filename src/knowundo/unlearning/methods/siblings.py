"""Siblings: unlearn the list, and what else of its kind the model knows of its subjects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch.nn.functional import logsigmoid

from knowundo.data.encoded import Encoded
from knowundo.modeling.half import Columns, Half
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import divergence_from_memorized
from knowundo.unlearning.scorer import Scorer
from knowundo.unlearning.siblings import siblings as siblings_of


@method(reads=("unlearn", "alternative", "retention", "reference"))
def siblings(
    step: Step,
    *,
    beta: PositiveFloat = 0.1,
    sibling: NonNegativeFloat = 1.0,
    retention: PositiveFloat = 10.0,
    general: PositiveFloat = 50.0,
) -> Parts:
    """(NPO(unlearn) + sibling·NPO(siblings)) / (1 + sibling), near the memorized model elsewhere.

    NPO is −(2/β)·log σ(−β·log(current / memorized)) of a whole answer (Zhang et al. 2024,
    arXiv:2404.05868). A sibling of a row is another row about its subject: a question that the list
    asks about somebody else, with the memorized model's own answer (`unlearning.siblings`). The
    rows elsewhere are those that `retain_on` names; siblings of retention rows count as these.

    Args:
        step: The step.
        beta: Inverse temperature β of NPO.
        sibling: Weight of the siblings. If 0, they are not read.
        retention: Weight of KL(memorized ‖ current) on retention rows, mean per answer token.
        general: Weight of the same on general rows, where `retain_on` names them.
    """
    lost = step.unlearn.mean(_preference(step.unlearn, step.reference.unlearn, beta))
    if sibling:
        half = step.alternative
        other = half.mean(_preference(half, step.reference.alternative, beta))
        lost = (lost + sibling * other) / (1 + sibling)
    half, damage = step.retention, divergence_from_memorized(step)
    parts = {"unlearn": lost, "retention": retention * _mean_of(half, damage, general=False)}
    if any(_is_general(row) for row in half.batch.whole):
        parts["general"] = general * _mean_of(half, damage, general=True)
    return parts


@siblings.prepare
def alternatives(records: Sequence[Encoded], scorer: Scorer) -> Columns:
    """Make the column `alternative`: of each row its sibling or, if it has none, the row itself."""
    found = siblings_of(records, scorer, scope="unlearn")
    if len(found) < len(records):
        scorer.note(
            f"siblings: {len(found)} of {len(records)} unlearn rows have one; the questions of the "
            "others do not name their subject, or the model has no other answer about it"
        )
    return {"alternative": {row.record.id: found.get(row.record.id, row) for row in records}}


def _preference(now: Half, memorized: Half, beta: float) -> torch.Tensor:
    """NPO of each row, [rows]."""
    return -2 / beta * logsigmoid(-beta * (memorized.nll - now.nll))


def _is_general(row: Encoded) -> bool:
    return row.record.scope == "general"


def _mean_of(half: Half, values: torch.Tensor, *, general: bool) -> torch.Tensor:
    """Mean over the batch's rows that are general, or over those that are not; [rows] → scalar."""
    chosen = [_is_general(row) == general for row in half.batch.encoded]
    count = sum(_is_general(row) == general for row in half.batch.whole)
    return (values * torch.tensor(chosen, device=values.device)).sum() / max(count, 1)
