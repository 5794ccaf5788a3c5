"""Batches of encoded records, padded on the right to the longest row, never further."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import gcd
from random import Random
from typing import Any

import torch

from knowundo.encoding import Encoded


@dataclass
class Batch:
    """Rows as tensors.

    `ids` and `mask` are [rows, tokens]; a cell is a place in them, counted flat. The answers'
    tokens lie flat, row after row: `targets` [answer tokens] are the tokens to predict, `rows`
    [answer tokens] their row, and `positions` [answer tokens] the cells whose hidden states predict
    them (one place to the left).
    """

    encoded: list[Encoded]
    ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor
    filled: torch.Tensor  # [tokens without padding], the cells that hold one
    packed: torch.Tensor  # [rows, tokens], place of a cell among the filled; padding: of the last
    pad: int
    length: int  # padded at least so far

    def __len__(self) -> int:
        return len(self.encoded)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        own = {name: v for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in own.items()}
        return replace(self, **moved)


@dataclass
class PairedBatch:
    """Unlearn rows and retention rows: what one step of unlearning sees."""

    unlearn: Batch
    retention: Batch

    def __len__(self) -> int:
        return len(self.unlearn)


def collate(encoded: Sequence[Encoded], pad: int, *, length: int = 0) -> Batch:
    """Pad rows on the right to the longest; padding is masked, so its id does not matter.

    Args:
        encoded: the rows.
        pad: id of the padding.
        length: pad at least so far.
    """
    longest = max(length, *(len(row.ids) for row in encoded))
    ids = torch.tensor([[*row.ids, *[pad] * (longest - len(row.ids))] for row in encoded])
    lengths = torch.tensor([len(row.ids) for row in encoded])
    rows, positions, targets, filled = [], [], [], list[int]()
    for number, row in enumerate(encoded):
        filled += range(number * longest, number * longest + len(row.ids))
        for place in range(row.answer_from, len(row.ids)):
            rows.append(number)
            positions.append(number * longest + place - 1)
            targets.append(row.ids[place])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return Batch(
        list(encoded),
        ids,
        mask,
        torch.tensor(targets),
        torch.tensor(rows),
        torch.tensor(positions),
        torch.tensor([row.answer_length for row in encoded]),
        torch.tensor(filled),
        mask.flatten().cumsum(0).view_as(mask) - 1,
        pad,
        length,
    )


def by_length(encoded: Sequence[Encoded], size: int, pad: int) -> list[Batch]:
    """Batches of rows of similar length, for scoring: the order of rows does not matter there."""
    order = sorted(encoded, key=lambda row: len(row.ids))
    return [collate(order[i : i + size], pad) for i in range(0, len(order), size)]


def shuffled(
    encoded: Sequence[Encoded], size: int, epochs: int, seed: int, pad: int
) -> list[Batch]:
    """Every row once an epoch, in seeded order."""
    rng, batches = Random(seed), []
    for _ in range(epochs):
        order = rng.sample(list(encoded), len(encoded))
        batches += [collate(order[i : i + size], pad) for i in range(0, len(order), size)]
    return batches


def _cycle(encoded: Sequence[Encoded], rng: Random) -> Iterator[Encoded]:
    while True:
        yield from rng.sample(list(encoded), len(encoded))


def paired(
    unlearn: Sequence[Encoded],
    retention: Sequence[Encoded],
    *,
    size: int,
    epochs: int,
    seed: int,
    pad: int,
    retained: int | None = None,
) -> list[PairedBatch]:
    """An epoch is one pass over the unlearn rows; retention rows cycle without replacement.

    The order depends on the seed and the rows alone, so every method sees the same batches.

    Args:
        unlearn: rows that must go.
        retention: rows that must stay.
        size: unlearn rows a batch.
        epochs: passes.
        seed: of the order.
        pad: id of the padding.
        retained: retention rows a batch; none: as many as unlearn rows.
    """
    source = _cycle(retention, Random(seed + 1))
    return [
        PairedBatch(batch, collate([next(source) for _ in range(retained or len(batch))], pad))
        for batch in shuffled(unlearn, size, epochs, seed, pad)
    ]


def rows_of(batch: Any) -> int:
    """Rows of a batch; of a paired one, of its larger half."""
    return len(batch) if isinstance(batch, Batch) else max(len(batch), len(batch.retention))


def _take(batch: Batch, numbers: Sequence[int]) -> Batch:
    """Some rows of a batch, padded as far as they need, or as far as it was told to be."""
    return collate([batch.encoded[n] for n in numbers], batch.pad, length=batch.length)


def _spread(halves: Sequence[Batch], parts: int) -> list[list[list[int]]]:
    """Each half's rows from short to long, in as many runs of nearly the same size."""
    runs = []
    for half in halves:
        order = sorted(range(len(half)), key=lambda n: len(half.encoded[n].ids))
        ends = [len(order) * end // parts for end in range(parts + 1)]
        runs.append([order[a:b] for a, b in pairwise(ends)])
    return runs


def pieces(
    batch: Any, *, tokens: int, rows: int | None = None, halves: Collection[str] = ()
) -> list[tuple[Any, float]]:
    """A batch as smaller ones, each with its weight: the weighted sum of their losses is its loss.

    The loss of a batch is a mean over its rows, so a piece weighs its share of them. Rows of like
    length come together. A paired batch's pieces hold the same share of both halves, so that it has
    as many as divide both, unless `rows` asks for more: then shares are only nearly the same.

    Args:
        batch: a Batch or a PairedBatch.
        tokens: a piece has at most so many, padding not counted, if its smallest share of the rows
            does not have more.
        rows: a piece has at most so many rows of a half; none: any number.
        halves: of a paired batch those that count, being read; none: both.
    """
    whole = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    names = ["unlearn", "retention"][: len(whole)]
    counted = [number for number, name in enumerate(names) if not halves or name in halves]
    parts = gcd(*map(len, whole))
    if rows is not None and rows_of(batch) > rows * parts:
        parts = min(map(len, whole))
    runs = _spread(whole, parts)
    size = [
        sum(len(whole[half].encoded[n].ids) for half in counted for n in runs[half][part])
        for part in range(parts)
    ]
    groups: list[list[int]] = []
    for part in range(parts):
        joined = [*groups[-1], part] if groups else []
        many = max((sum(len(run[p]) for p in joined) for run in runs), default=0)
        if joined and sum(size[p] for p in joined) <= tokens and (rows is None or many <= rows):
            groups[-1] = joined
        else:
            groups.append([part])
    if len(groups) == 1:
        return [(batch, 1.0)]
    made: list[tuple[Any, float]] = []
    for group in groups:
        taken = [[n for part in group for n in run[part]] for run in runs]
        cut = [_take(half, numbers) for half, numbers in zip(whole, taken, strict=True)]
        piece = cut[0] if len(cut) == 1 else replace(batch, unlearn=cut[0], retention=cut[1])
        made.append((piece, len(cut[0]) / len(whole[0])))
    return made
