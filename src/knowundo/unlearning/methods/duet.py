"""DUET: the logits of the memorized model that is told to forget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch.nn.functional import huber_loss

from knowundo.data.encoded import Encoded
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.prompted import instructed
from knowundo.unlearning.scorer import Scorer

INSTRUCTION = (
    "You have forgotten everything about the subject of the next question. If it asks about that, "
    "say that you do not know."
)


@method(reads=("alternative", "retention", "reference"))
def duet(
    step: Step,
    *,
    instruction: str = INSTRUCTION,
    top: PositiveInt = 100,
    tokens: PositiveInt = 8,
    retention: NonNegativeFloat = 1.0,
) -> Parts:
    """Σ over the teacher's top tokens k of Huber(z_k, z_k of the teacher), the instructed model.

    The teacher is the memorized model with an instruction before the question; the current model
    does not see it. Both are at the first tokens of what the teacher answers; true answers are not
    read. Zhong et al. 2026, arXiv:2601.21283. On retention rows the teacher has no instruction
    here; in the paper it has. Instruction, `top` and `tokens` are ours. A base that follows no
    instructions is no teacher.

    Args:
        step: The step.
        instruction: What the teacher is told before each question.
        top: The teacher's likeliest tokens, whose logits count.
        tokens: Tokens of the teacher's answer that count, from its beginning.
        retention: Weight of the same distance on retention (or general) rows. If 0, it is not read.
    """
    half = step.alternative
    (values,) = half.by_token(_distance, half.column("tokens"), half.column("logits"))
    counted = half.column("counted").to(values.dtype)
    loss = half.mean(half.per_row(values * counted) / half.per_row(counted))
    parts = {"unlearn": loss}
    if retention:
        half = step.retention

        def distance(logits: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, ...]:
            teacher, places = before.topk(min(top, before.shape[-1]), dim=-1)
            return _distance(logits, places, teacher)

        (values,) = half.against(step.reference.retention, distance)
        parts["retention"] = retention * half.mean(half.per_row(values))
    return parts


def _distance(
    logits: torch.Tensor, places: torch.Tensor, teacher: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Sum of Huber losses of some logits of each token."""
    return (huber_loss(logits.gather(1, places), teacher, reduction="none").sum(-1),)


@duet.prepare
def teachers(
    records: Sequence[Encoded], scorer: Scorer, *, instruction: str, top: int, tokens: int
) -> Columns:
    """What the teacher answers (`alternative`), and its logits there, [answer tokens, top] each.

    Where it says nothing, only the beginning of an answer counts, which no true token precedes.

    Raises:
        BadInput: A row has no question, or has no room for the instruction.
    """
    asked = {row.record.id: instructed(row, scorer, instruction) for row in records}
    said = scorer.answers(list(asked.values()))
    columns: dict[str, dict[str, object]] = {
        name: {} for name in ("alternative", "tokens", "logits", "counted")
    }
    for row in records:
        name = row.record.id
        text = said[name].strip()
        other = scorer.answered(row, text) if text else row
        ((_, logits),) = scorer.logits([instructed(other, scorer, instruction)])
        values, places = logits.topk(min(top, logits.shape[-1]), dim=-1)
        counted = torch.arange(len(logits)) < (tokens if text else 1)
        found = (other, places, values, counted)
        for column, value in zip(columns.values(), found, strict=True):
            column[name] = value
    return columns
