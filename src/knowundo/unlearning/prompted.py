"""The memorized model under an instruction before the question, as a teacher."""

from __future__ import annotations

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput, TooLong
from knowundo.unlearning.scorer import Scorer


def instructed(row: Encoded, scorer: Scorer, instruction: str) -> Encoded:
    """The same row, with an instruction and an empty line before its question.

    Its answer has the same tokens, even where a longer question leaves less room for it.

    Raises:
        BadInput: The row is plain text without a question, or so many tokens do not fit.
    """
    record = row.record
    if record.kind != "qa":
        raise BadInput(
            f"{record.id}: a text has no question to put an instruction before; choose a method "
            "that needs none"
        )
    try:
        made = row.with_prompt(scorer.asked(row, f"{instruction}\n\n{record.question}").prompt)
    except TooLong:
        made = None
    if made is None or (scorer.positions is not None and len(made.ids) > scorer.positions):
        raise BadInput(
            f"{record.id}: the question with an instruction does not fit into data.max_length or "
            "the model's positions; raise data.max_length, or take a shorter instruction"
        )
    return made
