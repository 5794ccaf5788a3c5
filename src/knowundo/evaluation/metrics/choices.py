"""Multiple choice: is the right option the likeliest? As in MMLU and WMDP."""

from __future__ import annotations

from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Alternatives


@metric(higher_is="remembered", asks=("choice_accuracy",))
@scorer(needs="alternatives", asked=True)
def choice_accuracy(answers: Alternatives) -> float | None:
    """Share of choices whose right letter is likelier than every other (Li et al. 2024, WMDP).

    As lm-evaluation-harness scores WMDP, but that a tie with another letter counts as wrong.
    """
    if answers.record.kind != "choice":
        return None
    return float(answers.true < min(answers.others))
