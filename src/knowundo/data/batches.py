"""Batches of encoded records, padded on the right to the longest row, never further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from random import Random
from typing import Any

import torch

from knowundo.data.encoded import Encoded


@dataclass
class Batch:
    """Rows as tensors.

    `ids` and `mask` are [rows, tokens]; a cell is an index into their flattened form. The tokens of
    all answers are flat, row after row: `targets` [answer tokens] are the tokens to predict, `rows`
    [answer tokens] their row, and `positions` [answer tokens] the cells whose hidden states predict
    them (one to the left). Rows with a common prefix share its tokens, since a causal model
    computes the same hidden states for them; but see `apart`.
    """

    encoded: list[Encoded]
    ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor
    filled: torch.Tensor  # [tokens], one cell of each token, without padding and shared prefixes
    packed: torch.Tensor  # [rows, tokens], the token of a cell; of padding, the row's last token
    again: torch.Tensor  # [repetitions], cells whose token is that of another cell
    pad: int
    length: int  # minimum padded length
    whole: Sequence[Encoded]  # rows of the batch that this is a part of, which means are over

    def __len__(self) -> int:
        return len(self.encoded)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        own = {name: v for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in own.items()}
        return replace(self, **moved)

    def apart(self) -> Batch:
        """The same rows without shared prefixes, as dropout needs it: it differs by row."""
        filled = self.mask.flatten().nonzero()[:, 0]
        packed = self.mask.flatten().cumsum(0).view_as(self.mask) - 1
        return replace(self, filled=filled, packed=packed, again=self.again[:0])


@dataclass
class PairedBatch:
    """Unlearn rows and retention rows of one optimizer step."""

    unlearn: Batch
    retention: Batch
    epoch: int = field(default=0, kw_only=True)  # pass over the unlearn rows, from 0

    def __len__(self) -> int:
        return len(self.unlearn)


def collate(
    encoded: Sequence[Encoded],
    pad: int,
    *,
    length: int = 0,
    whole: Sequence[Encoded] | None = None,
) -> Batch:
    """Pad rows on the right to the longest; padding is masked, so its id does not matter.

    Args:
        encoded: The rows.
        pad: Id of the padding.
        length: Minimum padded length.
        whole: Rows of the batch that these are a part of. If `None`, these are all.
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
        list(encoded) if whole is None else whole,
    )


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two rows, in tokens."""
    ends = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(ends, min(len(one), len(other)))


def _in_common(
    rows: Sequence[tuple[int, ...]], longest: int
) -> tuple[list[int], list[list[int]], list[int]]:
    """A Batch's `filled`, `packed` and `again`; sorted neighbours share the longest prefix."""
    filled, packed, again = list[int](), [list[int]() for _ in rows], list[int]()
    before, tokens = -1, list[int]()
    for number in sorted(range(len(rows)), key=lambda n: rows[n]):
        row, first = rows[number], number * longest
        common = 0 if before < 0 else common_prefix(rows[before], row)
        tokens = [*tokens[:common], *range(len(filled), len(filled) + len(row) - common)]
        again += range(first, first + common)
        filled += range(first + common, first + len(row))
        packed[number] = [*tokens, *[tokens[-1]] * (longest - len(row))]
        before = number
    return filled, packed, again


def by_length(encoded: Sequence[Encoded], size: int, pad: int) -> list[Batch]:
    """Batches of rows of similar length, for scoring, where the order does not matter."""
    order = sorted(encoded, key=lambda row: len(row.ids))
    return [collate(order[i : i + size], pad) for i in range(0, len(order), size)]


def shuffled(
    encoded: Sequence[Encoded], size: int, epochs: int, seed: int, pad: int
) -> list[Batch]:
    """Batches with every row once per epoch, in an order that the seed gives."""
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
    *retention: Sequence[Encoded],
    size: int,
    epochs: int,
    seed: int,
    pad: int,
    retained: int | None = None,
) -> list[PairedBatch]:
    """Batches of unlearn and retention rows; the latter cycle without replacement.

    The order depends only on the seed and the rows, so every method sees the same batches.

    Args:
        unlearn: Rows that must go; an epoch is one pass over them.
        retention: Rows that must stay; of several lists, a row of each in turn.
        size: Unlearn rows per batch.
        epochs: Number of epochs.
        seed: Of the order.
        pad: Id of the padding.
        retained: Retention rows per batch. If `None`, as many as unlearn rows, and at least one of
            each list.
    """
    sources = cycle([_cycle(rows, Random(seed + 1)) for rows in retention])

    def kept(count: int) -> Batch:
        return collate([next(source) for source in islice(sources, count)], pad)

    batches = shuffled(unlearn, size, epochs, seed, pad)
    # A loss reads the memorized model of all lists in its first step, so no list may be missing.
    halves = [(batch, kept(retained or max(len(batch), len(retention)))) for batch in batches]
    return [
        PairedBatch(*both, epoch=number * epochs // len(batches))
        for number, both in enumerate(halves)
    ]


def rows_of(batch: Any) -> int:
    """Number of rows of a batch; of a paired one, that of its larger half."""
    return len(batch) if isinstance(batch, Batch) else max(len(batch), len(batch.retention))
