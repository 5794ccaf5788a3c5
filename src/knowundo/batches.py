"""Batches of encoded records, padded on the right to the longest row, never further."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import gcd, inf
from random import Random
from typing import Any

import torch

from knowundo.encoding import Encoded

# What a token takes that is computed already: attention sees it in each of its rows.
AGAIN = 0.25


@dataclass
class Batch:
    """Rows as tensors.

    `ids` and `mask` are [rows, tokens]; a cell is a place in them, counted flat. The answers'
    tokens lie flat, row after row: `targets` [answer tokens] are the tokens to predict, `rows`
    [answer tokens] their row, and `positions` [answer tokens] the cells whose hidden states predict
    them (one place to the left). Rows that begin alike have the tokens that they begin with in
    common, since what is causal makes the same of them; but see `apart`.
    """

    encoded: list[Encoded]
    ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor
    filled: torch.Tensor  # [tokens], a cell of each token, without padding and repetition
    packed: torch.Tensor  # [rows, tokens], the token of a cell; padding: the row's last
    again: torch.Tensor  # [repetitions], cells whose token is another cell's
    pad: int
    length: int  # padded at least so far

    def __len__(self) -> int:
        return len(self.encoded)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        own = {name: v for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in own.items()}
        return replace(self, **moved)

    def apart(self) -> Batch:
        """The same rows with nothing in common, for when something is dropped at random."""
        filled = self.mask.flatten().nonzero()[:, 0]
        packed = self.mask.flatten().cumsum(0).view_as(self.mask) - 1
        return replace(self, filled=filled, packed=packed, again=self.again[:0])


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
    filled, packed, again = _in_common([row.ids for row in encoded], longest)
    ids = torch.tensor([[*row.ids, *[pad] * (longest - len(row.ids))] for row in encoded])
    lengths = torch.tensor([len(row.ids) for row in encoded])
    rows, positions, targets = [], [], []
    for number, row in enumerate(encoded):
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
        torch.tensor(packed),
        torch.tensor(again, dtype=torch.long),
        pad,
        length,
    )


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two rows begin with alike."""
    ends = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(ends, min(len(one), len(other)))


def _in_common(
    rows: Sequence[tuple[int, ...]], longest: int
) -> tuple[list[int], list[list[int]], list[int]]:
    """A Batch's `filled`, `packed` and `again`: in alphabetical order neighbours are most alike."""
    filled, packed, again = list[int](), [list[int]() for _ in rows], list[int]()
    before, tokens = -1, list[int]()
    for number in sorted(range(len(rows)), key=lambda n: rows[n]):
        row, first = rows[number], number * longest
        common = 0 if before < 0 else _alike(rows[before], row)
        tokens = [*tokens[:common], *range(len(filled), len(filled) + len(row) - common)]
        again += range(first, first + common)
        filled += range(first + common, first + len(row))
        packed[number] = [*tokens, *[tokens[-1]] * (longest - len(row))]
        before = number
    return filled, packed, again


def _cost(rows: Sequence[tuple[int, ...]], again: float) -> float:
    """Tokens of rows; those that rows begin with alike count `again` after the first time."""
    order = sorted(rows)
    return sum(map(len, order)) - (1 - again) * sum(_alike(a, b) for a, b in pairwise(order))


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
        order = sorted(range(len(half)), key=lambda n: (len(half.encoded[n].ids), n))
        ends = [len(order) * end // parts for end in range(parts + 1)]
        runs.append([order[a:b] for a, b in pairwise(ends)])
    return runs


@dataclass(frozen=True)
class _Part:
    """The smallest share of a batch that a piece may have."""

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
        share = (begin + end) / 2 / ends[-1]  # where its middle lies
        groups[min(int(share * len(greedy)), len(greedy) - 1)].append(number)
    together = [[parts[number] for number in group] for group in groups]
    fit = all(group and len(_greedy(group, tokens, rows)) == 1 for group in together)
    return groups if fit else greedy


def pieces(
    batch: Any,
    *,
    tokens: int,
    rows: int | None = None,
    halves: Collection[str] = (),
    shared: bool = False,
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
        shared: what rows begin with alike is computed once, and counts `AGAIN` after that.
    """
    whole = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    names = ["unlearn", "retention"][: len(whole)]
    counted = [number for number, name in enumerate(names) if not halves or name in halves]
    parts = gcd(*map(len, whole))
    if rows is not None and rows_of(batch) > rows * parts:
        parts = min(map(len, whole))
    runs = _spread(whole, parts)
    sizes, before, again = list[_Part](), list[tuple[int, ...]](), AGAIN if shared else 1
    for part in range(parts):
        held = [[whole[half].encoded[n].ids for n in runs[half][part]] for half in counted]
        own = _cost([ids for half in held for ids in half], again)
        alike = [_alike(last, half[0]) for last, half in zip(before, held, strict=False)]
        common = (1 - again) * max(alike, default=0)  # at least: halves may begin alike as well
        sizes.append(_Part(own, common, max(len(run[part]) for run in runs)))
        before = [half[-1] for half in held]
    groups = _even(sizes, tokens, inf if rows is None else rows)
    if len(groups) == 1:
        return [(batch, 1.0)]
    made: list[tuple[Any, float]] = []
    for group in groups:
        taken = [[n for part in group for n in run[part]] for run in runs]
        cut = [_take(half, numbers) for half, numbers in zip(whole, taken, strict=True)]
        piece = cut[0] if len(cut) == 1 else replace(batch, unlearn=cut[0], retention=cut[1])
        made.append((piece, len(cut[0]) / len(whole[0])))
    return made
