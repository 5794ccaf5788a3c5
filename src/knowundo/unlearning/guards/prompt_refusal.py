"""A guardrail prompt: an instruction not to answer what had to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.modeling.guard import Asked
from knowundo.registry import guard
from knowundo.unlearning.contexts import prompt_head, put_before_question, with_questions
from knowundo.unlearning.scorer import Scorer

INSTRUCTION = (
    "You have forgotten everything that is private or protected about {subjects}. If the next "
    "question asks for it, answer only that you do not know. Answer all other questions."
)


@guard(changes="prompt")
def prompt_refusal(
    asked: Asked, ids: tuple[int, ...], *, instruction: str = INSTRUCTION
) -> tuple[int, ...]:
    """An instruction before every question, not to answer what had to be forgotten.

    Thaker et al. 2024, arXiv:2403.03329; the words are ours. It stands at the beginning of the
    user's turn, or of the text that a template puts before the question.

    Args:
        asked: The prompt, and what was learned.
        ids: Of the prompt.
        instruction: `{subjects}` stands for the subjects of the unlearn rows.
    """
    return put_before_question(ids, asked.learned["head"], asked.learned["instruction"])


@prompt_refusal.prepare
def instruction_ids(
    rows: Mapping[str, Sequence[Encoded]], scorer: Scorer, *, instruction: str
) -> dict[str, Any]:
    """Ids of the instruction and a blank line, and of what stands before it."""
    asked = with_questions(rows["unlearn"], "prompt_refusal")
    names = dict.fromkeys(row.record.subject for row in asked if row.record.subject)
    text = instruction.replace("{subjects}", ", ".join(names) or "what you are asked not to tell")
    return {
        "head": list(prompt_head(asked[0], scorer)),
        "instruction": scorer.tokens(f"{text}\n\n"),
    }
