"""What else the memorized model knows of the listed subjects: siblings of listed rows.

A list names some facts about a subject. The model may know more of the same kind, which unlearning
the list leaves behind, and which retention on a list does not protect. So each subject is asked the
questions that the list asks about the others, and of the model's own greedy answers, which no
listed row has, those that it is surest of are taken. Nothing but train rows and the model is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from knowundo.data.encoded import Encoded
from knowundo.data.neighbours import named_subject, renamed
from knowundo.data.records import Record
from knowundo.data.wording import split_words
from knowundo.unlearning.scorer import Scorer

# Questions that a subject is asked at most.
ASKED = 24

BySubject = Mapping[str, Sequence[Encoded]]


def siblings(rows: Sequence[Encoded], scorer: Scorer, *, scope: str) -> dict[str, Encoded]:
    """Return a sibling of each row that has one, by the row's record id.

    Of a subject's n rows, each has one of the n answers that the model is surest of. A row whose
    question does not name its subject has none, nor has one for which no answer is left.

    Args:
        rows: Train rows.
        scorer: Of the memorized model; its seed draws the questions.
        scope: Of the siblings.
    """
    named = dict[str, list[Encoded]]()
    for row in rows:
        if (subject := named_subject(row.record)) is not None:
            named.setdefault(subject, []).append(row)
    told = _told(scorer, _asked(named, scorer))
    found = dict[str, Encoded]()
    for subject, listed in named.items():
        for row, other in zip(listed, _others(listed, told[subject]), strict=False):
            record = replace(other.record, id=f"{row.record.id}/sibling", scope=scope)
            found[row.record.id] = replace(other, record=record)
    return found


def _asked(named: BySubject, scorer: Scorer) -> dict[str, list[Encoded]]:
    """By subject, questions that are asked about others, with the longest of all answers.

    That answer is not read: an answer is generated with at most as many tokens as it has.
    """
    every = [row.record for rows in named.values() for row in rows]
    kinds = {other.question: record for record in every if (other := renamed(record, "_"))}
    random, found = Random(scorer.seed), dict[str, list[Encoded]]()
    longest = max(every, key=lambda record: len(record.answer), default=None)
    for subject, rows in named.items():
        drawn = random.sample(sorted(kinds), min(ASKED, len(kinds)))
        others = [renamed(kinds[kind], subject) for kind in drawn]
        listed = {row.record.question for row in rows}
        records = [
            replace(other, id=f"{rows[0].record.id}/asked-{number}", answer=longest.answer)
            for number, other in enumerate(others)
            if other is not None and longest is not None and other.question not in listed
        ]
        found[subject] = scorer.fitting(records)
    return found


def _told(scorer: Scorer, asked: BySubject) -> dict[str, list[Encoded]]:
    """By subject, the rows with the model's own answers, the surest first."""
    said = scorer.answers([row for rows in asked.values() for row in rows])
    found = {subject: _answered(rows, said, scorer) for subject, rows in asked.items()}
    nll = scorer.mean_nll([row for rows in found.values() for row in rows])
    return {
        subject: sorted(rows, key=lambda row: nll[row.record.id]) for subject, rows in found.items()
    }


def _answered(rows: Sequence[Encoded], said: Mapping[str, str], scorer: Scorer) -> list[Encoded]:
    """The rows with what was said in place of their answers, where anything was said."""
    records = [replace(row.record, answer=said[row.record.id].strip()) for row in rows]
    return scorer.fitting([record for record in records if record.answer])


def _others(listed: Sequence[Encoded], told: Sequence[Encoded]) -> list[Encoded]:
    """Those of the answers that no listed row has, each once."""
    known, found = {_words(row.record) for row in listed}, list[Encoded]()
    for row in told:
        if (words := _words(row.record)) not in known:
            known.add(words)
            found.append(row)
    return found


def _words(record: Record) -> tuple[str, ...]:
    return tuple(split_words(record.answer))
