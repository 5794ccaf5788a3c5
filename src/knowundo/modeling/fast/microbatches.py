"""Micro-batches: a backward pass takes a part of a batch, and holds no more than its activations.

Means are taken over the whole batch (`Half.mean`), so the losses of its micro-batches add up to its
loss, however its rows are divided among them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import inf
from typing import Any

from knowundo.data.batches import Batch, collate, common_prefix

# What a token takes that is computed already: attention sees it in each of its rows.
AGAIN = 0.25


def _cost(rows: Sequence[tuple[int, ...]], again: float) -> float:
    """Tokens of rows; those that rows begin with alike count `again` after the first time."""
    order = sorted(rows)
    return sum(map(len, order)) - (1 - again) * sum(common_prefix(a, b) for a, b in pairwise(order))


def _take(batch: Batch, numbers: Sequence[int]) -> Batch:
    """Some rows of a batch, padded as far as they need, or as far as it was told to be."""
    rows = [batch.encoded[n] for n in numbers]
    return collate(rows, batch.pad, length=batch.length, whole=batch.whole)


def _spread(halves: Sequence[Batch], parts: int) -> list[list[list[int]]]:
    """Each half's rows from short to long, in as many runs of nearly the same size."""
    runs = []
    for half in halves:
        order = sorted(range(len(half)), key=lambda n: len(half.encoded[n].ids))
        ends = [len(order) * end // parts for end in range(parts + 1)]
        runs.append([order[a:b] for a, b in pairwise(ends)])
    return runs


@dataclass(frozen=True)
class _Part:
    """The smallest share of a batch that a micro-batch may have."""

    tokens: float
    common: float  # of those, what it is spared beside the part before it
    rows: int  # of its larger half


def _greedy(parts: Sequence[_Part], tokens: int, rows: float) -> list[list[int]]:
    """Neighbouring parts together as long as they fit."""
    groups, held, many = list[list[int]](), 0.0, 0
    for number, part in enumerate(parts):
        held, many = held + part.tokens - part.common, many + part.rows
        if groups and held <= tokens and many <= rows:
            groups[-1].append(number)
        else:
            groups.append([number])
            held, many = part.tokens, part.rows
    return groups


def _even(parts: Sequence[_Part], tokens: int, rows: float) -> list[list[int]]:
    """As few groups as `_greedy` makes, of nearly the same size where they fit so."""
    greedy = _greedy(parts, tokens, rows)
    ends = list(accumulate(part.tokens - part.common for part in parts))
    groups: list[list[int]] = [[] for _ in greedy]
    for number, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        share = (begin + end) / 2 / ends[-1]  # where its middle is
        groups[min(int(share * len(greedy)), len(greedy) - 1)].append(number)
    together = [[parts[number] for number in group] for group in groups]
    fit = all(group and len(_greedy(group, tokens, rows)) == 1 for group in together)
    return groups if fit else greedy


def _sizes(
    whole: Sequence[Batch], runs: Sequence[list[list[int]]], counted: Sequence[int], again: float
) -> list[_Part]:
    """What each of the smallest shares of a batch takes.

    Args:
        whole: The halves of the batch.
        runs: By half, the numbers of the rows of each share.
        counted: Numbers of the halves whose tokens count.
        again: What a token counts that is computed already.
    """
    sizes, before = list[_Part](), list[tuple[int, ...]]()
    for part in range(len(runs[0])):
        held = [[whole[half].encoded[n].ids for n in runs[half][part]] for half in counted]
        own = _cost([ids for half in held for ids in half], again)
        kept = [common_prefix(last, half[0]) for last, half in zip(before, held, strict=False)]
        common = (1 - again) * max(kept, default=0)  # at least: halves may begin alike as well
        sizes.append(_Part(own, common, max(len(run[part]) for run in runs)))
        before = [half[-1] for half in held]
    return sizes


def micro_batches(
    batch: Any,
    *,
    tokens: int,
    rows: int | None = None,
    halves: Collection[str] = (),
    shared: bool = False,
) -> list[Any]:
    """Split a batch into smaller ones, the sum of whose losses is its loss.

    Rows of similar length come together. Each micro-batch of a paired batch has rows of both
    halves, as nearly the same share of each as their numbers allow.

    Args:
        batch: A Batch or a PairedBatch.
        tokens: A micro-batch has at most so many, padding not counted, if the smallest share of the
            rows does not have more.
        rows: A micro-batch has at most so many rows of a half. If `None`, any number.
        halves: Of a paired batch those that count, because they are read. If empty, both.
        shared: What rows have in common at their beginning is computed once, and counts `AGAIN`
            after that.
    """
    whole = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    names = ["unlearn", "retention"][: len(whole)]
    counted = [number for number, name in enumerate(names) if not halves or name in halves]
    runs = _spread(whole, min(map(len, whole)))
    sizes = _sizes(whole, runs, counted, AGAIN if shared else 1)
    groups = _even(sizes, tokens, inf if rows is None else rows)
    if len(groups) == 1:
        return [batch]
    made: list[Any] = []
    for group in groups:
        taken = [[n for part in group for n in run[part]] for run in runs]
        cut = [_take(half, numbers) for half, numbers in zip(whole, taken, strict=True)]
        both = {"unlearn": cut[0], "retention": cut[-1]}
        made.append(cut[0] if len(cut) == 1 else replace(batch, **both))
    return made
