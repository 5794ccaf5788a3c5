"""Say of a person what is said of somebody unknown."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.counterfactuals import divergence_from_strangers, teachers
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention", "reference"))
def counterfactual(
    step: Step,
    *,
    names: PositiveInt = 8,
    beta: PositiveFloat = 1.0,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 20.0,
) -> Parts:
    """Σ over tokens of KL(memorized, asked about invented people ‖ current, asked about this one).

    Liu et al. 2024, arXiv:2407.16997, equation 4: the name is intervened on, and the teacher is the
    mean over invented names. Where the divergence is zero nothing pulls any further, so that the
    loss has a fixed point, the level of guessing, and training cannot run past it. A row whose
    question names nobody has no such teacher: there it is NPO, −(2/β)·log σ(−β·log ratio).

    Args:
        names: invented people whose distributions are averaged.
        beta: of NPO. The larger, the sooner it stops pushing an answer that is unlikely already.
        retention: weight of the mean cross-entropy on retention (or general) rows.
        divergence: weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    lost = divergence_from_strangers(step, beta)
    return {"unlearn": step.unlearn.mean(lost)} | retention_part(step, retention, divergence)


counterfactual.prepare(teachers)
