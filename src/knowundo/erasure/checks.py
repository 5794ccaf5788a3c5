"""Checks of a request's lists: repeats, contradictions, and what the model knows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from rapidfuzz.fuzz import token_sort_ratio
from rapidfuzz.process import cdist

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.neighbours import invented_names, renamed
from knowundo.data.records import Record
from knowundo.data.wording import folded, split_words, unspaced
from knowundo.erasure.list_check import ListCheck
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.scoring.answers import answered
from knowundo.scoring.teacher_forcing import teacher_forced

# Two questions at least this similar (rapidfuzz, 0 to 100) are probably one question.
SIMILAR = 92
# Number of invented people who are asked about, to see whether an answer is a guess.
STRANGERS = 8
# Percent of a list's rows that may still be answered exactly if the list counts as erased.
LEFT = 5.0

Encode = Callable[[Sequence[Record]], list[Encoded]]


def without_repeats(records: Sequence[Record]) -> tuple[list[Record], list[list[str]]]:
    """Rows of which no other asks and answers the same, and the ids of those left out."""
    first: dict[tuple[str, str], str] = {}
    kept, repeated = [], []
    for record in records:
        key = record.question.strip().lower(), record.answer.strip()
        if key in first:
            repeated.append([first[key], record.id])
        else:
            first[key] = record.id
            kept.append(record)
    return kept, repeated


def similar_questions(unlearn: Sequence[Record], retention: Sequence[Record]) -> list[list[str]]:
    """Pairs of ids whose questions are almost the same.

    Raises:
        BadInput: a question stands in both lists.
    """
    first = [record.question or record.answer for record in unlearn]
    second = [record.question or record.answer for record in retention]
    if not first or not second:
        return []
    places = {text.strip().lower(): n for n, text in enumerate(second)}
    for record, text in zip(unlearn, first, strict=True):
        if (place := places.get(text.strip().lower())) is not None:
            raise BadInput(
                f"{record.id}: stands in the retention list too, as {retention[place].id}; remove "
                "it from one of the two lists"
            )
    table = cdist(first, second, scorer=token_sort_ratio, score_cutoff=SIMILAR)
    return [[unlearn[a].id, retention[b].id] for a, b in zip(*table.nonzero(), strict=True)]


def same_answers(unlearn: Sequence[Record], retention: Sequence[Record]) -> list[list[str]]:
    """Pairs of ids where a retention row has an answer, or holds a fact, that must go.

    One or two words without a digit, such as "Yes" or "Paris", are the answer to many a question:
    they count only if both rows have one subject. So does a fact of that kind, or of one or two
    characters ("7"). A fact is looked for as whole words: "art" does not stand in "party".
    """
    by_answer: dict[str, list[Record]] = {}
    for record in unlearn:
        by_answer.setdefault(folded(record.answer), []).append(record)
    facts = [
        (spaced, short(fact) or len(spaced.strip()) < 3, record)
        for record in unlearn
        for fact in record.facts
        if (spaced := _spaced(fact)).strip()
    ]
    found = []
    for record in retention:
        answer = _spaced(record.answer)
        holders = [(short(r.answer), r) for r in by_answer.get(folded(record.answer), [])]
        holders += [(is_short, r) for fact, is_short, r in facts if fact in answer]
        same = [r for is_short, r in holders if not is_short or r.subject == record.subject]
        found += [[other.id, record.id] for other in dict.fromkeys(same)]
    return found


def _spaced(text: str) -> str:
    """The words of a text, each between spaces, so that whole words can be looked for."""
    return f" {' '.join(split_words(text))} "


def short(text: str) -> bool:
    """True of one or two words without a digit: many a question has such an answer."""
    words = split_words(text)
    return len(words) <= (4 if unspaced(text) else 2) and not any(map(str.isdigit, "".join(words)))


def guessed(model: Model, records: Sequence[Record], encode: Encode, *, seed: int) -> list[str]:
    """Ids of rows whose short answer the model gives about half of all invented people, too.

    To ask whether it still gives such an answer shows nothing: it is what the model guesses.
    Invented people whose name makes a row too long are not asked about.
    """
    strangers = invented_names(STRANGERS, seed, {record.subject or "" for record in records})
    rows = [r for r in records if r.kind == "qa" and short(r.answer)]
    asked = [
        replace(other, id=f"{number}/{record.id}")
        for record in rows
        for number, name in enumerate(strangers)
        if (other := renamed(record, name)) is not None
    ]
    if not (fit := fitting(asked, encode)):
        return []
    forced = teacher_forced(model, fit)
    right = [row.record.id for row in fit if forced[row.record.id]["token_accuracy"] == 1]
    made, hits = (
        Counter(name.partition("/")[2] for name in names)
        for names in ([row.record.id for row in fit], right)
    )
    return [r.id for r in rows if made[r.id] and 2 * hits[r.id] >= made[r.id]]


def describe_rows(check: ListCheck, name: str, encoded: Sequence[Encoded]) -> None:
    """Counts and lengths of one list."""
    lengths = [len(row.ids) for row in encoded]
    check.rows[name] = len(encoded)
    about = {row.record.subject for row in encoded if row.record.subject != row.record.id}
    check.subjects[name] = len(about)
    check.nameless[name] = sum(row.record.subject == row.record.id for row in encoded)
    check.tokens[name] = [min(lengths), median(lengths), max(lengths)]


def known_from(level: float) -> float:
    """Token accuracy beyond which rows count as known: half of the way from guessing to all."""
    return (1 + level) / 2


def ask_model(check: ListCheck, model: Model, encoded: Sequence[Encoded], level: float) -> None:
    """What the model knows of the unlearn rows.

    A row counts as verbatim if it is answered exactly, and as known if its token accuracy lies in
    the upper half between `level`, which guessing reaches, and 1.

    Args:
        check: gets what is found.
        model: in the state that knows the list.
        encoded: the unlearn rows.
        level: token accuracy on rows that the model cannot know, in [0, 1].
    """
    check.level = level
    forced = teacher_forced(model, encoded)
    said = answered(model, [row for row in encoded if row.record.kind == "qa"])
    for row in encoded:
        name, accuracy = row.record.id, forced[row.record.id]["token_accuracy"]
        if (name in said and said[name].exact) or accuracy == 1:
            check.verbatim.append(name)
        elif accuracy is not None and accuracy > known_from(level):
            check.known.append(name)
        else:
            check.not_known.append(name)
