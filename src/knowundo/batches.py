"""Batches of encoded records, padded on the right to the longest row, never further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch

from knowundo.encoding import Encoded


@dataclass
class Batch:
    """Rows as tensors.

    `ids` and `mask` are [rows, tokens]. The answers' tokens lie flat, row after row: `targets`
    [answer tokens] are the tokens to predict, `rows` [answer tokens] their row, and `positions`
    [answer tokens] index the flattened [rows × tokens] hidden states that predict them (one
    place to the left).
    """

    encoded: list[Encoded]
    ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor

    def __len__(self) -> int:
        return len(self.encoded)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors = {k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, torch.Tensor)}
        return Batch(self.encoded, **tensors)


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
    rows, positions, targets = [], [], []
    for number, row in enumerate(encoded):
        for place in range(row.answer_from, len(row.ids)):
            rows.append(number)
            positions.append(number * longest + place - 1)
            targets.append(row.ids[place])
    return Batch(
        list(encoded),
        ids,
        (torch.arange(longest) < lengths[:, None]).long(),
        torch.tensor(targets),
        torch.tensor(rows),
        torch.tensor(positions),
        torch.tensor([row.answer_length for row in encoded]),
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


def _part(batch: Batch, number: int, count: int) -> Batch:
    """One of `count` runs of a batch's rows, of nearly the same size."""
    first, last = (len(batch) * end // count for end in (number, number + 1))
    inside = (batch.rows >= first) & (batch.rows < last)
    return Batch(
        batch.encoded[first:last],
        batch.ids[first:last],
        batch.mask[first:last],
        batch.targets[inside],
        batch.rows[inside] - first,
        batch.positions[inside] - first * batch.ids.shape[1],
        batch.lengths[first:last],
    )


def pieces(batch: Any, count: int) -> list[tuple[Any, float]]:
    """A batch as `count` smaller ones, each with its weight: the weighted mean is the batch's.

    The loss of a batch is a mean over its rows, so a piece weighs as many rows as it has. A paired
    batch's retention rows are divided alike. Where there are fewer rows than pieces, the rest is
    (None, 0).

    Args:
        batch: a Batch or a PairedBatch.
        count: how many.
    """
    if count == 1:
        return [(batch, 1.0)]
    halves = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    parts = min(count, *map(len, halves))
    made: list[tuple[Any, float]] = []
    for number in range(parts):
        cut = [_part(half, number, parts) for half in halves]
        weight = len(cut[0]) * count / len(halves[0])
        piece = cut[0] if len(cut) == 1 else replace(batch, unlearn=cut[0], retention=cut[1])
        made.append((piece, weight))
    return made + [(None, 0.0)] * (count - parts)
