"""The memorized model under an instruction before the question, as a teacher."""

from __future__ import annotations

from dataclasses import replace

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput, TooLong
from knowundo.unlearning.start import Scorer


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
        prompt = scorer.asked(row, f"{instruction}\n\n{record.question}").prompt
    except TooLong:
        prompt = ()
    ids = (*prompt, *row.ids[row.answer_from :])
    if not prompt or (scorer.positions is not None and len(ids) > scorer.positions):
        raise BadInput(
            f"{record.id}: the question with an instruction does not fit into data.max_length or "
            "the model's positions; raise data.max_length, or take a shorter instruction"
        )
    fact = (*[False] * len(prompt), *row.fact[row.answer_from :])
    return replace(row, ids=ids, answer_from=len(prompt), fact=fact)
