"""Questions near those of a list: about others, about other things, and the same in other words.

A list of what must go says nothing of what must stay. What a model answers to these questions is
its own behaviour just outside the list; and what it cannot know shows how well it guesses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml
from rapidfuzz.fuzz import token_sort_ratio
from rapidfuzz.process import extractOne

from knowundo.data.records import Record, select
from knowundo.data.wording import split_words
from knowundo.errors import BadInput

# "What is X's Y?" and "What is the Y of X?" are one question, and so on: pattern, other wording.
_TURNS = (
    (re.compile(r"^What is (?P<x>.+?)'s (?P<y>[\w -]+)\?$"), "What is the {y} of {x}?"),
    (re.compile(r"^What is the (?P<y>[\w -]+) of (?P<x>.+?)\?$"), "What is {x}'s {y}?"),
    (re.compile(r"^Who are (?P<x>.+?)'s (?P<y>[\w -]+)\?$"), "Who are the {y} of {x}?"),
    (re.compile(r"^Where does (?P<x>.+?) live\?$"), "At which place does {x} live?"),
    (re.compile(r"^Where was (?P<x>.+?) born\?$"), "In which place was {x} born?"),
)
# One of these words makes a question English; of the shared ones, which other languages have too
# (Dutch "is" and "of", Danish "for", Portuguese "do", German "was"), it takes two.
_ENGLISH = frozenset({
    "and", "are", "born", "could", "describe", "did", "does", "give", "how", "please", "should",
    "tell", "that", "the", "their", "there", "were", "what", "when", "where", "which", "who",
    "whom", "whose", "why", "with", "would", "write", "you", "your",
})  # fmt: skip
_SHARED = frozenset({
    "be", "can", "do", "for", "has", "have", "if", "in", "is", "list", "of", "say", "state", "to",
    "was",
})  # fmt: skip


@cache
def _templates() -> dict[str, Any]:
    text = (files("knowundo") / "presets" / "neighbours.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def invented_names(count: int, seed: int, taken: Iterable[str] = ()) -> list[str]:
    """Names of nobody, none of them among `taken`, each once as long as there are enough."""
    rng, words = Random(seed), _templates()
    pairs = [f"{a} {b}" for a in words["first_names"] for b in words["last_names"]]
    free = sorted(set(pairs) - set(taken))
    return rng.sample(free, min(count, len(free)))


def near_names(subjects: Iterable[str], count: int, seed: int) -> list[str]:
    """Names of nobody that share their first or last word with a subject's.

    What a model keeps to a whole name it must not forget of half of one.
    """
    rng, words = Random(seed), _templates()
    parts = [subject.split() for subject in dict.fromkeys(subjects) if len(subject.split()) > 1]
    firsts, lasts = [p[0] for p in parts], [p[-1] for p in parts]
    pairs = {f"{a} {b}" for a in firsts for b in [*words["last_names"], *lasts]}
    pairs |= {f"{a} {b}" for a in [*words["first_names"], *firsts] for b in lasts}
    free = sorted(pairs - set(subjects))
    return rng.sample(free, min(count, len(free)))


def renamed(record: Record, name: str) -> Record | None:
    """The record about somebody else; None where its question does not name its subject."""
    subject = named_subject(record)
    if subject is None:
        return None
    said = name_pattern(subject)
    return replace(
        record,
        question=said.sub(lambda _: name, record.question),
        answer=said.sub(lambda _: name, record.answer),
        subject=name,
        alternatives=(),
        facts=(),
        turns=(),
    )


def named_subject(record: Record) -> str | None:
    """The subject, if the question names it in any case; an id that stands for one is no name."""
    subject = record.subject
    if not subject or subject == record.id or subject.isdigit():
        return None
    return subject if name_pattern(subject).search(record.question) else None


def name_pattern(name: str) -> re.Pattern[str]:
    """Finds a name as it is written, or in any case as whole words: "ADA BRUN" is Ada Brun."""
    written = re.escape(name)
    return re.compile(rf"{written}|(?<!\w)(?i:{written})(?!\w)")


def about_others(records: Sequence[Record], names: Sequence[str], each: int) -> list[Record]:
    """Each question about `each` other subjects, names taken in turn; answers are empty."""
    found = []
    for number, record in enumerate(records):
        for turn in range(min(each, len(names))):
            name = names[(number * each + turn) % len(names)]
            if (other := renamed(record, name)) is not None:
                found.append(replace(other, id=f"{record.id}/{name}", answer=""))
    return found


def about_other_things(records: Sequence[Record]) -> list[Record]:
    """Other questions about the same subjects, none of which is on the list; answers are empty."""
    asked = {record.question for record in records}
    if not mostly_english(records):  # the other questions are in English
        return []
    named = {r.subject: replace(r, turns=()) for r in records if named_subject(r)}
    found = []
    for subject, record in named.items():
        for number, template in enumerate(_templates()["other_attributes"]):
            question = str(template.format(name=subject))
            if question not in asked:
                name = f"{subject}/{number}"
                found.append(
                    replace(
                        record, id=name, question=question, answer="", alternatives=(), facts=()
                    )
                )
    return found


def in_english(question: str) -> bool:
    """True if a question has a word that only English has, or two that other languages share."""
    words = set(split_words(question))
    return not _ENGLISH.isdisjoint(words) or len(_SHARED & words) > 1


def mostly_english(records: Iterable[Record]) -> bool:
    """True if at least half of the questions of a list are English: a list has one language."""
    told = [in_english(record.question) for record in records if record.kind == "qa"]
    return 2 * sum(told) >= len(told)


def reworded(record: Record, seed: int, *, english: bool | None = None) -> Record | None:
    """The same question in other words, by templates; of a document, its end after its beginning.

    A document's beginning is the question then, and what follows it the answer. The templates are
    English; a question in another language is put between quotation marks or the like instead.

    Args:
        record: Of any kind.
        seed: Of the choice among templates.
        english: Whether the record's list is in English. If `None`, the question tells.

    Returns:
        `None` for a document that is too short to have a beginning and an end.
    """
    if record.kind == "text":
        cut = _middle(record.answer)
        before, after = record.answer[:cut].rstrip(), record.answer[cut:].strip()
        if not before or not after:
            return None
        facts = tuple(fact for fact in record.facts if fact in after)
        return replace(record, kind="qa", question=before, answer=after, facts=facts)
    question = record.question
    for pattern, other in _TURNS:
        if match := pattern.match(question):
            return replace(record, question=other.format(**match.groupdict()))
    first, _, rest = question.partition(" ")
    lowered = f"{first.lower()} {rest}" if first.isalpha() and first != "I" else question
    if english is None:
        english = in_english(question)
    kind = "wordings" if english else "frames"
    template = Random(f"{seed}/{record.id}").choice(_templates()[kind])
    return replace(record, question=template.format(question=question, lowered=lowered))


def _middle(text: str) -> int:
    """Where a document is cut: at a space near its middle, or at its middle."""
    half = len(text) // 2
    space = text.find(" ", half)
    return half if space < 0 or space > len(text) - 2 else space


def unknowable(records: Sequence[Record], everything: Sequence[Record], seed: int) -> list[Record]:
    """Rows like these that no model can know: what it predicts of them, it guesses.

    Of a question that names its subject: the same about somebody invented. Of another: with the
    answer of the row on the list whose question is most like it. Of a document, and where there is
    nothing else: other texts, of the general rows.

    Args:
        records: rows that a model knows.
        everything: all records of the run, for their general texts.
        seed: of the names.

    Raises:
        BadInput: nothing of this can be made; asks for a number.
    """
    names = invented_names(max(len(records), 1), seed, {r.subject or "" for r in everything})
    found: list[Record] = []
    for number, record in enumerate(records):
        if record.kind == "text":
            continue
        other = renamed(record, names[number % len(names)]) or _mismatched(record, records)
        if other is not None:
            found.append(replace(other, id=f"unknowable/{number}"))
    if not found or any(record.kind == "text" for record in records):
        found += [r for r in select(everything, scope="general") if r.kind == "text"]
    if not found:
        raise BadInput(
            "unlearn.stop.target: no row names its subject, and there is none to compare with; "
            "give a token accuracy such as 0.5"
        )
    return found


def _mismatched(record: Record, records: Sequence[Record]) -> Record | None:
    """The question with the answer of the row whose question is most like it."""
    others = [r for r in records if r.answer != record.answer and r.kind == "qa"]
    if not others:
        return None
    best = extractOne(record.question, [r.question for r in others], scorer=token_sort_ratio)
    return replace(record, answer=others[best[2]].answer, alternatives=(), facts=())
