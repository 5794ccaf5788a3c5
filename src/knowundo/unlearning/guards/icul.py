"""ICUL: unlearn rows with other answers, then retention rows, stand before every question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from knowundo.data.encoded import Encoded
from knowundo.modeling.guard import Asked
from knowundo.registry import guard
from knowundo.unlearning import contexts
from knowundo.unlearning.answers import AnswerSource, alternatives
from knowundo.unlearning.scorer import Scorer


@guard(changes="prompt")
def icul(
    asked: Asked,
    ids: tuple[int, ...],
    *,
    forgotten: PositiveInt = 1,
    kept: NonNegativeInt = 4,
    answers: AnswerSource = "unknown",
) -> tuple[int, ...]:
    """The nearest unlearn rows with other answers, then retention rows, before every question.

    Pawelczyk et al. 2023, arXiv:2310.07579: a few examples of a classification with flipped labels,
    then others. Here, of a longer list, those whose questions share most tokens with the prompt.

    Args:
        asked: The prompt and the rows.
        ids: Of the prompt.
        forgotten: Unlearn rows that are shown.
        kept: Retention rows that are shown after them, the same ones for every prompt.
        answers: Other answers of the unlearn rows, see `alternatives`.
    """
    learned = asked.learned
    chosen = contexts.nearest(ids, learned["questions"], forgotten)
    shown = [*(learned["forgotten"][number] for number in chosen), *learned["kept"]]
    return contexts.put_before_question(ids, learned["head"], [i for one in shown for i in one])


@icul.prepare
def examples(
    rows: Mapping[str, Sequence[Encoded]], scorer: Scorer, *, kept: int, answers: AnswerSource
) -> dict[str, Any]:
    """All unlearn rows with other answers, and some retention rows, as ids."""
    asked, stay = (contexts.with_questions(rows[s], "icul") for s in ("unlearn", "retention"))
    head = contexts.prompt_head(asked[0], scorer)
    other = alternatives(asked, scorer, answers=answers)["alternative"].values()
    drawn = Random(scorer.seed).sample(stay, min(kept, len(stay)))
    return {
        "head": list(head),
        "questions": [list(row.prompt[len(head) :]) for row in asked],
        "forgotten": [contexts.example_ids(row, head, scorer) for row in other],
        "kept": [contexts.example_ids(row, head, scorer) for row in drawn],
    }
