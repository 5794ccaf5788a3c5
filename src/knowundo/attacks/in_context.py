"""In-context relearning: a few answers in the prompt, instead of training on them."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Annotated

from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.errors import BadInput
from knowundo.registry import attack


@attack(changes="questions")
def in_context(
    attacked: Attacked,
    *,
    counts: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (4,),
) -> None:
    """Show rows of the unlearn scope with their answers before each question.

    Shumailov et al. 2024, arXiv:2407.00106 (UnUnlearning): what was unlearned can be brought back
    in the context. Rows whose answer is shown are not scored; those that become too long are left
    out.

    Args:
        attacked: The model.
        counts: Rows that are shown, drawn by the seed from the unlearn train rows.

    Raises:
        BadInput: There are fewer rows than are to be shown.
    """
    there = [row.record for row in attacked.train["unlearn"] if row.record.kind == "qa"]
    if max(counts) >= len(there):
        raise BadInput(
            f"attack in_context: {max(counts)} rows are to be shown, and there are {len(there)} "
            "unlearn/train questions, of which one must be left; lower counts"
        )
    for count in counts:
        shown = Random(attacked.seed).sample(there, count)
        told = {record.answer for record in shown}
        turns = tuple(
            turn for one in shown for turn in (("user", one.question), ("assistant", one.answer))
        )
        asked = [
            replace(row.record, turns=(*turns, *row.record.turns))
            for row in attacked.rows
            if row.record.kind == "qa" and row.record.answer not in told
        ]
        attacked.score_records(f"{count} rows", asked)
