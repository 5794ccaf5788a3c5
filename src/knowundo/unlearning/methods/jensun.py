"""JensUn: Jensen-Shannon divergences on what must go and on what must stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.jensen_shannon import jensen_shannon_part, to_one_token
from knowundo.unlearning.scorer import Scorer


@method(reads=("unlearn", "retention", "reference"))
def jensun(
    step: Step,
    *,
    target: str = "No idea",
    unlearn: PositiveFloat = 1.0,
    retention: NonNegativeFloat = 1.0,
) -> Parts:
    """mean over tokens t of JSD(onehot(target_t), p_t); retention: JSD(memorized, current).

    JSD(p, q) = ½·KL(p ‖ m) + ½·KL(q ‖ m) with m = ½·(p + q), which is bounded by ln 2. Singh et al.
    2025, arXiv:2509.02820.

    Args:
        step: The step.
        target: Text whose tokens, repeated, stand in place of an answer's tokens.
        unlearn: Weight of the divergence on unlearn rows.
        retention: Weight of the divergence on retention (or general) rows. If 0, it is not read.
    """
    half = step.unlearn
    (values,) = half.by_token(to_one_token, half.column("target"))
    loss = half.mean(half.per_row(values))
    return {"unlearn": unlearn * loss} | jensen_shannon_part(step, retention)


@jensun.prepare
def targets(records: Sequence[Encoded], scorer: Scorer, *, target: str) -> Columns:
    """Repeat the target's tokens over each answer.

    Raises:
        BadInput: The target has no token.
    """
    if not (ids := scorer.tokens(target)):
        raise BadInput("method jensun: target: it has no token; give a text such as 'No idea'")
    labels = {r.record.id: [ids[n % len(ids)] for n in range(r.answer_length)] for r in records}
    return {"target": {name: torch.tensor(row) for name, row in labels.items()}}
