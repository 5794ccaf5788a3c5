"""An encoded record: token ids, where the answer begins, and which tokens carry its facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from knowundo.data.records import Record


@dataclass(frozen=True)
class Encoded:
    """One record as tokens.

    Attributes:
        record: What was encoded.
        ids: Question, answer and, last, `tail` ids that end the answer: end-of-turn or
            end-of-sequence. They are learned like the answer, but token accuracy leaves them out.
        answer_from: Index of the first label, at least 1: `ids[answer_from:]` are the labels.
        fact: For each id, whether it is part of a fact.
        tail: Number of ids that end the answer.
        cut: Number of ids that truncation removed, the whole tail among them.
        ending: Text that the tail begins with, if a template writes one after the answer.
    """

    record: Record
    ids: tuple[int, ...]
    answer_from: int
    fact: tuple[bool, ...]
    tail: int = 1
    cut: int = 0
    ending: str = ""

    @property
    def answer_length(self) -> int:
        """Answer tokens, the tail included."""
        return len(self.ids) - self.answer_from

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the answer."""
        return self.ids[: self.answer_from]

    def with_prompt(self, prompt: Sequence[int]) -> Encoded:
        """The same answer after other ids, none of which is part of a fact."""
        fact = (*[False] * len(prompt), *self.fact[self.answer_from :])
        ids = (*prompt, *self.ids[self.answer_from :])
        return replace(self, ids=ids, answer_from=len(prompt), fact=fact)


class RowText(NamedTuple):
    """The text of a record.

    Attributes:
        text: Question, answer and what the format writes around them.
        start: Index of the answer's first character.
        end: Index after its last one.
        shift: Index in the text from which the facts' places in the answer count.
        templated: Whether the text contains its own special tokens.
        ending: Text after the answer that is learned as its end; special tokens are not in it.
    """

    text: str
    start: int
    end: int
    shift: int
    templated: bool
    ending: str = ""
