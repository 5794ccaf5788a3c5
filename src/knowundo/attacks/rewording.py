"""Rewording: the same question in other words, in sloppy writing, and with typing errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.data.neighbours import name_pattern, named_subject, reworded
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.registry import attack

_WORD = re.compile(r"[^\W\d_]{4,}")


@attack(changes="questions")
def rewording(
    attacked: Attacked,
    *,
    forms: Annotated[tuple[Literal["words", "typos", "lowercase"], ...], Field(min_length=1)] = (
        "words",
        "typos",
    ),
    errors: Annotated[float, Field(gt=0, le=1)] = 0.5,
) -> None:
    """Ask the same in another way; answers and whom the question is about stay.

    Jin et al. 2024, arXiv:2406.10890 (RWKU) ask for forgotten knowledge in nine such ways. These
    need no other model: rules and the seed make them.

    Args:
        attacked: The model.
        forms: `words`: turned round or framed by a template, as probe rows are; `typos`: two
            neighbouring letters inside a word are swapped; `lowercase`: as typed in a hurry,
            without capitals and without the mark at the end.
        errors: Share of the words of four letters or more that get a typing error.

    Raises:
        BadInput: No row can be reworded so.
    """
    asked = [row.record for row in attacked.rows if row.record.kind == "qa"]
    for form in forms:
        change: dict[str, Callable[[Record], Record | None]] = {
            "words": lambda record: reworded(record, attacked.seed),
            "typos": lambda record: mistyped(record, attacked.seed, errors),
            "lowercase": hurried,
        }
        made = [new for one in asked if (new := change[form](one)) and new.question != one.question]
        if not made:
            raise BadInput(f"attack rewording: no question can be changed by {form}; leave it out")
        attacked.score_records(form, made)


def mistyped(record: Record, seed: int, errors: float) -> Record:
    """The question with two inner letters swapped in a share of its words, the name's excepted."""
    drawn = Random(f"{seed} {record.id}")  # a row's errors do not depend on the rows before it
    name = named_subject(record)
    spans = [] if name is None else [m.span() for m in name_pattern(name).finditer(record.question)]

    def swap(found: re.Match[str]) -> str:
        word, (start, end) = found[0], found.span()
        if any(start < last and first < end for first, last in spans) or drawn.random() >= errors:
            return word
        places = [i for i in range(1, len(word) - 2) if word[i] != word[i + 1]]
        if not places:
            return word
        at = drawn.choice(places)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return replace(record, question=_WORD.sub(swap, record.question))


def hurried(record: Record) -> Record:
    """The question without capitals, and without the mark at its end."""
    return replace(record, question=record.question.lower().rstrip(" ?.!"))
