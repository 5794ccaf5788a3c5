"""Whether a text repeats what must go.

The model answers questions near the list, and what it says may hold the list's own secrets. Such an
answer must not become a retention row, which training would make it say again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from rapidfuzz.fuzz import partial_ratio

from knowundo.data.neighbours import named_subject
from knowundo.data.records import Record
from knowundo.data.wording import unspaced

# Similarity (rapidfuzz, 0 to 100) to a protected answer from which a text repeats it.
SIMILARITY = 80


class Leaks:
    """Tells whether a text repeats what must go."""

    def __init__(self, secret: Sequence[Record]) -> None:
        """Take what must not be repeated.

        Args:
            secret: all rows that must not come back: the list's, val rows, earlier requests'.
        """
        self.facts = [_composed(fact) for record in secret for fact in record.facts]
        self.answers = [_composed(record.answer) for record in secret]
        self.subjects = {subject for r in secret if (subject := named_subject(r)) is not None}
        self.marks = [marks(record) for record in secret]
        self.words: dict[str, set[str]] = {}
        for record in secret:
            told = {
                word
                for word in content_words(record.answer)
                if word not in content_words(record.question)
            }
            self.words.setdefault(record.subject or "", set()).update(told)

    def repeats(self, text: str) -> bool:
        """True if the text holds a fact, what marks a protected answer, or much of one.

        A text without capitals is compared without them: some tokenizers write none.
        """
        text = _composed(text)
        lower = text == text.lower()

        def as_written(secret: str) -> str:
            return secret.lower() if lower else secret

        if any(as_written(fact) in text for fact in self.facts):
            return True
        words = set(_words(text))
        for marked in self.marks:
            found = {as_written(word) for word in marked} & words
            if any(map(_is_code, found)) or len(found) > 1:
                return True
        # A short text is part of many a long answer, so it repeats short answers only.
        long = [answer for answer in self.answers if 2 * len(text) >= len(answer)]
        return any(partial_ratio(as_written(answer), text) >= SIMILARITY for answer in long)

    def tells_of(self, subject: str | None, text: str, common: set[str]) -> bool:
        """True if it has a word of a protected answer about the subject, other than common ones.

        Args:
            subject: what the text is about.
            text: an answer of the model.
            common: words that the model says about others too.
        """
        return bool((content_words(text) & self.words.get(subject or "", set())) - common)

    def names(self, text: str) -> bool:
        """True if the text names a subject of the list."""
        return any(_stands_in(subject, text) for subject in self.subjects)


def _composed(text: str) -> str:
    """With letters and accents as one (NFC), which tokenizers compose and files may not."""
    return normalize("NFC", text)


def _stands_in(name: str, text: str) -> bool:
    """True if the name is said; where words have spaces between them, not within a word."""
    name, text = _composed(name), _composed(text)
    if text == text.lower():
        name = name.lower()
    if unspaced(name):
        return name in text
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def content_words(text: str) -> set[str]:
    """Words of more than three letters in lower case: shorter ones are mostly grammar."""
    return {word.lower() for word in _words(text) if len(word) > 3}


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?()\"'’“”") for word in _composed(text).split()]


def _is_code(word: str) -> bool:
    """Numbers, addresses, accounts: one alone gives a secret away."""
    return len(word) > 3 and any(letter.isdigit() or letter == "@" for letter in word)


def marks(record: Record) -> set[str]:
    """Words of an answer that make it this one: codes, and names other than the subject's.

    The first word of an answer is no name, it only has a capital.
    """
    own = set(_words(record.subject or "")) | set(_words(record.question))
    words = _words(record.answer)
    named = {word for word in words[1:] if word[:1].isupper() and len(word) > 1}
    return {word for word in named | set(filter(_is_code, words)) if word not in own}
