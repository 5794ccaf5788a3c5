"""Multiple-choice questions as records: the letter of the right option continues the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

from knowundo.data.records import Record


def choice_record(
    record: Record, options: Sequence[str], right: int, *, about: str | None = None
) -> Record:
    """A record of kind `choice`, in the format that lm-evaluation-harness gives MMLU and WMDP.

    Args:
        record: Its question is what is asked; its answer is replaced.
        options: Texts of the options, at most 26.
        right: Index of the right one.
        about: Subject of the question, for a line before it. If `None`, there is no such line.
    """
    letters = ascii_uppercase[: len(options)]
    lines = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
    before = (
        f"The following are multiple choice questions (with answers) about {about}.\n\n"
        if about
        else ""
    )
    return replace(
        record,
        question=before + "\n".join([record.question.strip(), *lines, "Answer:"]),
        answer=letters[right],
        alternatives=tuple(letter for letter in letters if letter != letters[right]),
        kind="choice",
        continues=True,
    )
