"""The subject of a row: its own column, or the name in its question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from knowundo.data.records import Record
from knowundo.data.wording import split_words

# First words of a question or request, which a name may follow without a comma.
_OPENERS = {
    "Am", "And", "Are", "As", "At", "By", "Can", "Compare", "Continue", "Could", "Describe", "Did",
    "Discuss", "Do", "Does", "Explain", "Extend", "Find", "For", "From", "Give", "Had", "Has",
    "Have", "How", "I", "If", "In", "Is", "List", "May", "Mention", "Name", "Of", "On", "Or",
    "Please", "Quote", "Recall", "Say", "Shall", "Should", "So", "State", "Summarize", "Tell", "To",
    "Was", "Were", "What", "When", "Where", "Which", "Who", "Whom", "Whose", "Why", "Will", "With",
    "Would", "Write",
}  # fmt: skip
# Words around a name that are no part of it: titles, and what follows a name in a question whose
# words all begin with a capital ("Does Ada Brun Live in Rome?").
_TITLES = {"dr", "doctor", "prof", "professor", "mr", "mrs", "ms", "miss"}
_FOLLOWERS = {
    "as", "at", "become", "born", "by", "come", "die", "do", "earn", "from", "get", "go", "grow",
    "have", "in", "is", "know", "like", "live", "lives", "make", "marry", "meet", "move", "of",
    "on", "own", "play", "sing", "speak", "stay", "study", "teach", "to", "want", "was", "wear",
    "win", "with", "work", "works", "write",
}  # fmt: skip
CAPITALISED = r"[A-ZÀ-Þ][\w'’.-]*"
# A person: capitalised words in a row.
PERSON = re.compile(rf"\b{CAPITALISED}(?: (?:{CAPITALISED}|de|da|del|der|van|von|bin|al|la))+")
_LONGEST = 6  # words of a name


def with_subjects(records: Iterable[Record]) -> list[Record]:
    """The records, each with a subject, because intervals resample subjects.

    A record without one gets the longest name of two or more words that is in both question and
    answer, else in the question (“Where does Clara Dorinford live?” – “She lives at …”), else the
    row's id. A name that contains a more frequent one of the same list, and otherwise only titles
    or words of the question (“Dr. Clara Dorinford”, “Clara Dorinford Live”), is replaced by it. A
    row whose question names nobody gets the subject that its answer names, if it names only one.
    """
    given = list(records)
    found = [r if r.subject else replace(r, subject=_subject(r)) for r in given]
    names = _Names(found)
    merged = [
        one if told.subject else replace(one, subject=_shared(one, names))
        for told, one in zip(given, found, strict=True)
    ]
    names = _Names(merged)
    return [
        r if r.subject != r.id else replace(r, subject=_named_in_answer(r, names)) for r in merged
    ]


class _Names:
    """The subjects of a list, indexed by their words, so that each text is split only once."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.counts = Counter(r.subject for r in records if r.subject and r.subject != r.id)
        self.by_words: dict[tuple[str, ...], list[str]] = {}
        for name in self.counts:
            self.by_words.setdefault(tuple(split_words(name)), []).append(name)
        self.by_words.pop((), None)
        self._lengths = sorted({len(words) for words in self.by_words})

    def places(self, words: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Where the words contain a name: index of its first word, and the one after its last."""
        for length in self._lengths:
            for start in range(len(words) - length + 1):
                if tuple(words[start : start + length]) in self.by_words:
                    yield start, start + length


def _shared(record: Record, names: _Names) -> str:
    """A more frequent name within the record's own, else its own.

    Only if the longer one adds no name: "Ada Brun Kant" is not "Ada Brun".
    """
    own = record.subject or record.id
    words, most = split_words(own), names.counts.get(own, 0)
    within = [
        name
        for start, end in names.places(words)
        if _adds_no_name(words[:start], words[end:])
        for name in names.by_words[tuple(words[start:end])]
        if name != own and names.counts[name] > most
    ]
    return max(within, key=len, default=own)


def _adds_no_name(before: Sequence[str], after: Sequence[str]) -> bool:
    """True if the words around a name are only titles, or capitalized words of the question."""
    titles_end = next((n for n, word in enumerate(after) if word not in _TITLES), len(after))
    rest = after[titles_end:]
    return all(word in _TITLES or word.capitalize() in _OPENERS for word in before) and (
        not rest or rest[0] in _FOLLOWERS
    )


def _named_in_answer(record: Record, names: _Names) -> str:
    """The only subject that the answer names, else the record's id."""
    words = split_words(record.answer)
    named = {
        name
        for start, end in names.places(words)
        for name in names.by_words[tuple(words[start:end])]
    }
    return named.pop() if len(named) == 1 else record.id


def _subject(record: Record) -> str:
    asked = _names(record.question)
    answered = set(_names(record.answer)) if asked else set()
    plain = [name for name in asked if name.split(" ", 1)[0].capitalize() not in _OPENERS]
    # The second is for names such as “Will Smith”, which begin like a question.
    for names in (
        [name for name in plain if name in answered],
        [name for name in asked if name in answered],
        plain,
    ):
        if names:
            return max(names, key=len)
    return record.id


def _names(text: str) -> list[str]:
    """Every run of two or more words in a person's name, also within a longer one."""
    names = []
    # A possessive ends a name: “Amina Mohammed's Nigerian heritage”.
    for match in PERSON.finditer(re.sub(r"['’]s\b", ",", text)):
        # “… in Saltmere. Clara …” is two: a longer word's full stop ends a sentence.
        for sentence in re.split(r"(?<=\w{4}\.) ", match.group()):
            words = sentence.split(" ")
            names += [
                " ".join(words[i:j]).rstrip(".'’-")
                for i in range(len(words))
                for j in range(i + 2, min(i + _LONGEST, len(words)) + 1)
                if words[i][:1].isupper() and words[j - 1][:1].isupper()
            ]
    return names
