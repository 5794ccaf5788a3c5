"""Descent on another answer."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveInt

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.answers import AnswerSource, several_alternatives
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("alternative", "retention"))
def alternative_descent(
    step: Step,
    *,
    answers: AnswerSource = "unknown",
    others: PositiveInt = 1,
    retention: NonNegativeFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """CE(another answer to the unlearn questions), with terms on retention rows.

    With answers that know nothing, “IDK” fine-tuning (Maini et al. 2024, arXiv:2401.06121); with
    given vague answers and both terms, the loss of ReLearn (Xu et al. 2025, arXiv:2502.11190); with
    given answers that contradict the facts and no terms, that of MEOW (Gu et al. 2024,
    arXiv:2409.11844).

    Args:
        step: The step.
        answers: `unknown`, `refusal`, `model` (sampled from the memorized model), `instructed`
            (sampled likewise, after it is shown the answer and asked for another one, as AltPO
            does), `given` (the `alternatives` of the rows) or a file with one answer a line.
        others: Answers of each row, as far as there are so many; epochs take them in turn.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    unlearn = step.alternative.mean(step.alternative.mean_nll)
    return {"unlearn": unlearn} | retention_part(step, retention, divergence)


alternative_descent.prepare(several_alternatives)
