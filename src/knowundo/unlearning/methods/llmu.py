"""LLMU: ascent, descent on unrelated answers, closeness to the memorized model."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.answers import AnswerSource, alternatives
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "alternative", "retention", "reference"))
def llmu(
    step: Step,
    *,
    answers: AnswerSource = "unknown",
    ascent: PositiveFloat = 0.5,
    mismatch: PositiveFloat = 1.0,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 1.0,
) -> Parts:
    """−ascent·CE(unlearn) + mismatch·CE(another answer) + divergence·KL(memorized ‖ current).

    Yao et al. 2023, arXiv:2310.10683. The authors draw five answers of unrelated questions for each
    row and step; here each row has one other answer. For theirs, name a file of such answers.

    Args:
        step: The step.
        answers: `unknown`, `refusal`, `model` (sampled from the memorized model), `instructed`
            (sampled likewise, after it is shown the answer and asked for another one), `given` (the
            `alternatives` of the rows) or a file with one answer a line.
        ascent: Weight of the ascent on unlearn rows.
        mismatch: Weight of the mean cross-entropy of the other answers.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    other = step.alternative
    return {
        "unlearn": -ascent * step.unlearn.mean(step.unlearn.mean_nll),
        "mismatch": mismatch * other.mean(other.mean_nll),
    } | retention_part(step, retention, divergence)


llmu.prepare(alternatives)
