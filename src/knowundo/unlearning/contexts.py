"""Ids that a guard puts before a question, behind what every prompt begins with."""

from __future__ import annotations

from collections.abc import Sequence

from knowundo.data.batches import common_prefix
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.unlearning.scorer import Scorer


def with_questions(rows: Sequence[Encoded], guard: str) -> list[Encoded]:
    """The rows of a scope that ask a question.

    Raises:
        BadInput: None does.
    """
    asked = [row for row in rows if row.record.kind == "qa"]
    if not asked:
        raise BadInput(f"guard {guard}: a scope has no question to learn from; choose a method")
    return asked


def prompt_head(row: Encoded, scorer: Scorer) -> tuple[int, ...]:
    """Ids before the question: the first special token, a system prompt, a template's header.

    Args:
        row: Any row that has a question; all prompts have the same head.
        scorer: Encodes it with two other questions, whose prompts have nothing else in common.
    """
    one, other = (scorer.asked(row, question).prompt for question in ("Why?", "7 or 8?"))
    return one[: common_prefix(one, other)]


def put_before_question(
    ids: Sequence[int], head: Sequence[int], context: Sequence[int]
) -> tuple[int, ...]:
    """A prompt's ids with a context before its question.

    Args:
        ids: Of the prompt.
        head: What prompts begin with; one that begins otherwise gets the context as soon as it
            differs.
        context: What is put there.
    """
    place = common_prefix(ids, head)
    return (*ids[:place], *context, *ids[place:])


def example_ids(row: Encoded, head: Sequence[int], scorer: Scorer) -> list[int]:
    """A row with its answer as an example before a question, without its prompt's head.

    An end-of-turn stays, and the head is put after it again, as in a conversation; otherwise a
    blank line takes the place of end-of-sequence, behind which a model expects another text.

    Args:
        row: An example.
        head: Of all prompts.
        scorer: Knows the special tokens.
    """
    place = common_prefix(row.ids, head)
    answer_to = len(row.ids) - row.tail
    if any(i in scorer.special for i in row.ids[place : row.answer_from]):
        return [*row.ids[place:], *head]
    return [*row.ids[place:answer_to], *scorer.tokens("\n\n")]


def nearest(ids: Sequence[int], among: Sequence[Sequence[int]], count: int) -> list[int]:
    """Numbers of the rows that share most of their tokens with a prompt, the nearest last.

    Args:
        ids: Of the prompt.
        among: Ids of each row's question.
        count: Of rows.
    """
    own = set(ids)

    def shared(number: int) -> float:
        other = set(among[number])
        return len(own & other) / max(1, len(own | other))

    return sorted(range(len(among)), key=shared)[-count:]
