"""Which generated rows the model demonstrably knows: the same answer however it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.neighbours import all_wordings, mostly_english
from knowundo.data.records import Record
from knowundo.modeling.model import Model
from knowundo.scoring.answers import answered
from knowundo.scoring.teacher_forcing import SURE, answer_probability, teacher_forced

# Rows that are asked again at most, and in how many other wordings.
MOST, WORDINGS = 160, 3

Encode = Callable[[Sequence[Record]], list[Encoded]]


def demonstrably_known(
    model: Model, rows: Sequence[Record], encode: Encode, *, seed: int
) -> set[str]:
    """Ids of the question rows whose answer the model holds on to.

    A model answers any question. What it makes up changes with the wording and from one sample to
    the next (Manakul et al. 2023, SelfCheckGPT, arXiv:2303.08896). A row counts as known if its
    answer has a probability of at least `SURE`, so that most samples would be the same, and if more
    than half of `WORDINGS` other wordings are answered with it.

    Args:
        model: Not changed.
        rows: With the model's own greedy answers.
        encode: As rows of the run are encoded.
        seed: Of the rows that are asked again, at most `MOST`, and of the wordings.
    """
    encoded = fitting([row for row in rows if row.kind == "qa"], encode)
    forced = teacher_forced(model, encoded)
    sure = [row for row in encoded if answer_probability(row, forced[row.record.id]) >= SURE]
    asked = [row.record for row in Random(seed).sample(sure, min(MOST, len(sure)))]
    english = mostly_english(asked)
    random, again = Random(seed), dict[str, Record]()
    for record in asked:
        wordings = all_wordings(record, english=english)
        chosen = random.sample(wordings, min(WORDINGS, len(wordings)))
        again |= {f"{record.id}/{number}": other for number, other in enumerate(chosen)}
    others = fitting([replace(r, id=name) for name, r in again.items()], encode)
    said = answered(model, others)
    votes: dict[str, list[bool]] = {}
    for name, record in again.items():
        if name in said:
            votes.setdefault(record.id, []).append(said[name].exact)
    return {name for name, same in votes.items() if 2 * sum(same) > len(same)}
