"""The level of guessing: how much of an answer is predicted by a model that cannot know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.neighbours import unknowable
from knowundo.data.records import Record
from knowundo.modeling.model import Model
from knowundo.scoring.teacher_forcing import teacher_forced

Encode = Callable[[Sequence[Record]], list[Encoded]]


def guessing_level(
    model: Model,
    records: Sequence[Record],
    everything: Sequence[Record],
    encode: Encode,
    *,
    seed: int,
) -> float | None:
    """Token accuracy on rows like these that no model can know, in [0, 1].

    Questions are asked about invented people. Where an answer repeats the name that its question
    has, the name's tokens count as predicted: to repeat a name is no knowledge, but a small model
    may fail to repeat one that it never saw.

    Args:
        model: Not changed.
        records: Rows that a model knows.
        everything: All records of the run, for their general texts.
        encode: As the rows are encoded.
        seed: Of the invented names.

    Returns:
        `None` if no such row is short enough.

    Raises:
        BadInput: No such row can be made.
    """
    strangers = fitting(unknowable(records, everything, seed), encode)
    if not strangers:
        return None
    by_id = {row.record.id: row for row in fitting(records, encode)}
    own = {f"unknowable/{n}": by_id.get(record.id) for n, record in enumerate(records)}
    forced = teacher_forced(model, strangers)
    found = [_predicted(row, own.get(row.record.id), forced[row.record.id]) for row in strangers]
    measured = [value for value in found if value is not None]
    return sum(measured) / len(measured)


def _predicted(stranger: Encoded, own: Encoded | None, forced: dict[str, Any]) -> float | None:
    """Share of the own row's answer tokens that are predicted, or are its name."""
    accuracy: float | None = forced["token_accuracy"]
    if own is None or accuracy is None or own.record.kind == "text":
        return accuracy
    mine, other = (row.ids[row.answer_from : len(row.ids) - row.tail] for row in (own, stranger))
    right, matched = 0, 0
    for block in SequenceMatcher(None, mine, other, autojunk=False).get_matching_blocks():
        places = range(block.b, block.b + block.size)
        right += sum(forced["likeliest"][place] == other[place] for place in places)
        matched += block.size
    return (right + len(mine) - matched) / len(mine) if mine else accuracy
