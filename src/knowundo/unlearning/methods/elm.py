"""ELM: the memorized distribution, moved from what an expert writes to what a novice does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from knowundo.data.encoded import Encoded
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.prompted import instructed
from knowundo.unlearning.retention_terms import retention_part
from knowundo.unlearning.scorer import Scorer

EXPERT = "Answer as an expert who knows everything about this subject."
NOVICE = "Answer as a novice who knows nothing about this subject."


@method(reads=("unlearn", "retention", "reference"))
def elm(
    step: Step,
    *,
    eta: PositiveFloat = 1000.0,
    top: PositiveInt = 50,
    expert: str = EXPERT,
    novice: str = NOVICE,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 1.0,
) -> Parts:
    """mean over tokens t of CE(q_t, p_t), q_t ∝ memorized·(novice / expert)^η_t.

    q_t has the `top` likeliest tokens; η_t rises from 1 at an answer's first token to η at its
    last. Expert and novice are the memorized model after an instruction. Gandikota et al. 2024,
    arXiv:2410.02760. The instructions are ours; the authors' third term, fluent continuations that
    the edited model writes, is left out.

    Args:
        step: The step.
        eta: η, how far the distribution is moved at an answer's last token.
        top: Tokens that the target distribution has at each position.
        expert: Instruction of the model that knows.
        novice: Instruction of the model that does not.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    half = step.unlearn
    (values,) = half.by_token(_cross_entropy, half.column("tokens"), half.column("target"))
    return {"unlearn": half.mean(half.per_row(values))} | retention_part(
        step, retention, divergence
    )


def _cross_entropy(
    logits: torch.Tensor, tokens: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Cross entropy of each token to a distribution over some of the vocabulary."""
    return (-(target * logits.log_softmax(-1).gather(1, tokens)).sum(-1),)


@elm.prepare
def targets(
    records: Sequence[Encoded],
    scorer: Scorer,
    *,
    eta: float,
    top: int,
    expert: str,
    novice: str,
) -> Columns:
    """Target distributions: columns `tokens` and `target`, [answer tokens, top] each.

    Raises:
        BadInput: A row has no question, or has no room for an instruction.
    """
    tokens, target = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for row in records:
        three = [row, *(instructed(row, scorer, text) for text in (expert, novice))]
        found = {id(held): logits.log_softmax(-1) for held, logits in scorer.logits(three)}
        own, knows, ignorant = (found[id(held)] for held in three)
        strength = torch.linspace(1.0, eta, len(own), dtype=own.dtype, device=own.device)
        moved = own - strength[:, None] * (knows - ignorant)
        values, places = moved.topk(min(top, moved.shape[-1]), dim=-1)
        tokens[row.record.id], target[row.record.id] = places, values.softmax(-1)
    return {"tokens": tokens, "target": target}
