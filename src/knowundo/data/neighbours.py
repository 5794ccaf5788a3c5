"""Questions near those of a list: about others, about other things, and the same in other words.

A list of what must go does not say what must stay. The answers to these questions show how a model
behaves just outside the list; rows that it cannot know show how well it guesses.
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

# "What is X's Y?" and "What is the Y of X?" are the same question: pattern, other word orders.
_TURNS = (
    (
        re.compile(r"^What is (?P<x>.+?)'s (?P<y>[\w -]+)\?$"),
        ("What is the {y} of {x}?", "As for {x}, what is the {y}?"),
    ),
    (
        re.compile(r"^What is the (?P<y>[\w -]+) of (?P<x>.+?)\?$"),
        ("What is {x}'s {y}?", "As for {x}, what is the {y}?"),
    ),
    (
        re.compile(r"^Who are (?P<x>.+?)'s (?P<y>[\w -]+)\?$"),
        ("Who are the {y} of {x}?", "As for {x}, who are the {y}?"),
    ),
    (
        re.compile(r"^Where does (?P<x>.+?) live\?$"),
        ("At which place does {x} live?", "Do you know where {x} lives?"),
    ),
    (
        re.compile(r"^Where was (?P<x>.+?) born\?$"),
        ("In which place was {x} born?", "Do you know where {x} was born?"),
    ),
)
# One of these words makes a question English. Of the shared ones, which other languages have too
# (Dutch "is" and "of", Danish "for", Portuguese "do", German "was"), two are needed.
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
    """Different invented names that are not in `taken`; fewer than `count` if too few exist."""
    rng, words = Random(seed), _templates()
    pairs = [f"{a} {b}" for a in words["first_names"] for b in words["last_names"]]
    free = sorted(set(pairs) - set(taken))
    return rng.sample(free, min(count, len(free)))


def near_names(subjects: Iterable[str], count: int, seed: int) -> list[str]:
    """Invented names that share their first or last word with a subject's.

    A model that unlearned a whole name must not change what it says of people who share half of it.
    """
    rng, words = Random(seed), _templates()
    parts = [subject.split() for subject in dict.fromkeys(subjects) if len(subject.split()) > 1]
    firsts, lasts = [p[0] for p in parts], [p[-1] for p in parts]
    pairs = {f"{a} {b}" for a in firsts for b in [*words["last_names"], *lasts]}
    pairs |= {f"{a} {b}" for a in [*words["first_names"], *firsts] for b in lasts}
    free = sorted(pairs - set(subjects))
    return rng.sample(free, min(count, len(free)))


def renamed(record: Record, name: str) -> Record | None:
    """The record about another subject; `None` if its question does not name its own."""
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
    """The subject if the question names it, in any case; one that is only an id is no name."""
    subject = record.subject
    if not subject or subject == record.id or subject.isdigit():
        return None
    return subject if name_pattern(subject).search(record.question) else None


def name_pattern(name: str) -> re.Pattern[str]:
    """A pattern for a name as written, or as whole words in any case: "ADA BRUN" is Ada Brun."""
    written = re.escape(name)
    return re.compile(rf"{written}|(?<!\w)(?i:{written})(?!\w)")


def about_others(records: Sequence[Record], names: Sequence[str], each: int) -> list[Record]:
    """Each question asked about `each` other names, which are used in turn; answers are empty."""
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
    """True if a question has a word that only English has, or two that it shares with others."""
    words = set(split_words(question))
    return not _ENGLISH.isdisjoint(words) or len(_SHARED & words) > 1


def mostly_english(records: Iterable[Record]) -> bool:
    """True if at least half of the questions are English; a list has one language."""
    told = [in_english(record.question) for record in records if record.kind == "qa"]
    return 2 * sum(told) >= len(told)


def reworded(record: Record, seed: int, *, english: bool | None = None) -> Record | None:
    """The same question in other words, by templates; of a document, its second half.

    The first half of a document becomes the question, the second half the answer. The templates are
    English; a question in another language is put into quotation marks or the like instead.

    Args:
        record: Of any kind.
        seed: Of the choice among templates.
        english: Whether the list of the record is in English. If `None`, the question decides.

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
    if orders := turned(record):
        return orders[0]
    return Random(f"{seed}/{record.id}").choice(_framed(record, english))


def all_wordings(record: Record, *, english: bool | None = None) -> list[Record]:
    """All that `reworded` can make of a question; none of a document."""
    if record.kind == "text":
        return []
    return [*turned(record)[:1], *_framed(record, english)]


def turned(record: Record) -> list[Record]:
    """A question of a known form in other word orders; none of another question.

    `reworded` takes the first one: "Where does A live?", "At which place does A live?".
    """
    for pattern, others in _TURNS:
        if match := pattern.match(record.question):
            return [replace(record, question=one.format(**match.groupdict())) for one in others]
    return []


def _framed(record: Record, english: bool | None) -> list[Record]:
    """The question with something before or after it, by every template."""
    question = record.question
    first, _, rest = question.partition(" ")
    lowered = f"{first.lower()} {rest}" if first.isalpha() and first != "I" else question
    if english is None:
        english = in_english(question)
    templates = _templates()["wordings" if english else "frames"]
    return [
        replace(record, question=template.format(question=question, lowered=lowered))
        for template in templates
    ]


def _middle(text: str) -> int:
    """Index at which a document is cut: a space near its middle, or the middle itself."""
    half = len(text) // 2
    space = text.find(" ", half)
    return half if space < 0 or space > len(text) - 2 else space


def unknowable(records: Sequence[Record], everything: Sequence[Record], seed: int) -> list[Record]:
    """Rows like these that no model can know: a model that predicts them is guessing.

    A question that names its subject is asked about an invented one. Any other question gets the
    answer of the row whose question is most similar. For documents, and if there is nothing else,
    general texts are used.

    Args:
        records: Rows that a model knows.
        everything: All records of the run, for their general texts.
        seed: Of the names.

    Raises:
        BadInput: None of these can be made; asks for a number instead.
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
            "unlearn.stop.target: no row names its subject, and there are no other rows to compare "
            "with; give a token accuracy such as 0.5"
        )
    return found


def _mismatched(record: Record, records: Sequence[Record]) -> Record | None:
    """The question with the answer of the row whose question is most similar."""
    others = [r for r in records if r.answer != record.answer and r.kind == "qa"]
    if not others:
        return None
    best = extractOne(record.question, [r.question for r in others], scorer=token_sort_ratio)
    return replace(record, answer=others[best[2]].answer, alternatives=(), facts=())
