"""Sampling: what the likeliest answer hides may be among some answers that are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from typing import Annotated

import pandas as pd
from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.data.decoding import decoded_all, said_verbatim, true_ids
from knowundo.data.encoded import Encoded
from knowundo.data.records import ASKED
from knowundo.data.wording import rouge_l
from knowundo.errors import BadInput
from knowundo.registry import attack
from knowundo.scoring.columns import FIXED, columns
from knowundo.scoring.generation import drawn_answers
from knowundo.storage.checkpoints import State

# Rows whose answers are drawn between two checkpoints.
_AT_ONCE = 32


@attack(changes="answers")
def sampling(
    attacked: Attacked,
    *,
    samples: Annotated[int, Field(ge=1)] = 8,
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (8,),
    temperature: Annotated[float, Field(gt=0)] = 1.0,
    scopes: Annotated[tuple[str, ...], Field(min_length=1)] = ("unlearn",),
) -> None:
    """Draw several answers to each question, of which one right answer is a leak (leak@k).

    Reisizadeh et al. 2025, arXiv:2511.04934. `exact_match` is the chance that at least one of k
    answers is the true one, `rouge_l` the expected best of k, both estimated without bias from all
    samples (Chen et al. 2021, arXiv:2107.03374, eq. 1). Rows are scored whose split is in
    `evaluate.generate`; what is not drawn is not measured.

    Args:
        attacked: The model.
        samples: Answers drawn to each question.
        k: Numbers of answers that an attacker draws, at most `samples`.
        temperature: Of the whole distribution: nothing is cut off it.
        scopes: Whose questions are asked: unlearn, retention or both.

    Raises:
        BadInput: More answers are asked for than are drawn, or no row is answered freely.
    """
    if max(k) > samples:
        raise BadInput(f"attack sampling: k {max(k)} of {samples} samples; raise samples")
    rows = [
        row
        for row in attacked.rows
        if row.record.scope in scopes
        and row.record.kind in ASKED
        and row.record.split in attacked.generated_splits
    ]
    if not rows:
        raise BadInput(
            f"attack sampling: no question of {', '.join(scopes)} is in the splits of "
            f"evaluate.generate ({', '.join(attacked.generated_splits) or 'none'}); add one"
        )
    judged = dict(_judged(attacked, rows, samples, temperature))
    for size in k:
        table = _table(attacked, rows, judged, size)
        attacked.keep(f"k={size}, temperature={temperature:g}", table)


def leak(samples: int, right: int, k: int) -> float:
    """Chance that one of k samples is right, 1 - C(n - c, k) / C(n, k), without bias.

    Args:
        samples: n, that were drawn.
        right: c, of them.
        k: At most n.
    """
    return 1 - comb(samples - right, k) / comb(samples, k)


def expected_best(values: Sequence[float], k: int) -> float:
    """Expected largest of k different ones of the values, without bias.

    The i-th smallest of n is the largest of C(i - 1, k - 1) of C(n, k) choices.
    """
    ordered, every = sorted(values), comb(len(values), k)
    return sum(comb(i, k - 1) * value for i, value in enumerate(ordered)) / every


# Of each sample: whether it is the true answer, and its ROUGE-L recall.
Judged = tuple[list[bool], list[float]]


def _judged(
    attacked: Attacked, rows: Sequence[Encoded], samples: int, temperature: float
) -> Iterator[tuple[str, Judged]]:
    """By record id; parts that an interrupted attack drew are read from its checkpoint."""
    order = sorted(rows, key=lambda row: (row.answer_length, len(row.prompt)))
    job = attacked.job.part("drawn", [samples, temperature])
    held = job.resumed() or State({"drawn": {}})
    drawn: dict[str, Judged] = held.facts["drawn"]
    for start in range(0, len(order), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        if any(row.record.id not in drawn for row in part):
            # A seed for each part, so that a resumed attack draws the same answers.
            said = drawn_answers(
                attacked.forward,
                part,
                n=samples,
                temperature=temperature,
                seed=attacked.seed + start,
            )
            drawn |= {row.record.id: _judge(attacked, row, said[row.record.id]) for row in part}
            job.write(State({"drawn": drawn}))
        attacked.job.report(min(start + _AT_ONCE, len(order)), len(order))
    yield from drawn.items()


def _judge(attacked: Attacked, row: Encoded, said: Sequence[tuple[list[int], str]]) -> Judged:
    (true,) = decoded_all(attacked.model.tokenizer, [true_ids(row)])
    exact = [said_verbatim(row, ids, text, true, stops=()) for ids, text in said]
    overlaps = [rouge_l(row.record.answer, text, stem=True) for _, text in said]
    return exact, [0.0 if one is None else one.recall for one in overlaps]


def _table(
    attacked: Attacked, rows: Sequence[Encoded], judged: dict[str, Judged], k: int
) -> pd.DataFrame:
    found = []
    for row in rows:
        exact, recalls = judged[row.record.id]
        fact = {name: getattr(row.record, name) for name in FIXED[:7]}
        fact |= {"subject": row.record.subject or row.record.id, "said": None}
        found.append(
            fact
            | {
                "tokens": row.answer_length - row.tail,
                "exact_match": leak(len(exact), sum(exact), k),
            }
            | {"rouge_l": expected_best(recalls, k)}
        )
    names = list(columns(attacked.metrics))
    numbers = names[names.index("tokens") + 1 :]
    table = pd.DataFrame(found).reindex(columns=names)
    return table.astype(dict.fromkeys(numbers, "float64"))
