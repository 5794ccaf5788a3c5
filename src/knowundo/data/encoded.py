"""An encoded record: token ids, where the answer begins, and which tokens hold its facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from knowundo.data.records import Record


@dataclass(frozen=True)
class Encoded:
    """One record as tokens.

    `ids` holds question, answer and, last, `tail` ids that end the answer: end-of-turn or
    end-of-sequence. They are learned like the answer, so `ids[answer_from:]` are the labels and
    `answer_from` ≥ 1, but token accuracy leaves them out. `fact[i]` tells whether token i is part
    of a fact. Truncation removed `cut` ids, the whole tail among them.
    """

    record: Record
    ids: tuple[int, ...]
    answer_from: int
    fact: tuple[bool, ...]
    tail: int = 1
    cut: int = 0

    @property
    def answer_length(self) -> int:
        """Answer tokens, the tail included."""
        return len(self.ids) - self.answer_from

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the answer."""
        return self.ids[: self.answer_from]


class RowText(NamedTuple):
    """A record's text; the answer is `text[start:end]`, its facts lie `shift` characters on."""

    text: str
    start: int
    end: int
    shift: int
    templated: bool  # the text writes its own special tokens
