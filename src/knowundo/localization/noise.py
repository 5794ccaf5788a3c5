"""Noisy copies of rows: KnowUnDo localizes on perturbed answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from knowundo.data.encoded import Encoded


def noisy_copies(
    encoded: Sequence[Encoded], *, copies: int, vocabulary: int, seed: int
) -> list[Encoded]:
    """Copies of each row with half of its answer's tokens replaced by random ones.

    As in KnowUnDo's repository: the tokens change in the input and in the labels together, and the
    end of sequence stays.

    Args:
        encoded: The rows.
        copies: Copies of each row.
        vocabulary: Tokens to draw from.
        seed: Seed of places and tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = []
    for row in encoded:
        length = row.answer_length - row.tail
        for _ in range(copies):
            ids = list(row.ids)
            # With replacement, so that fewer than half of the tokens change.
            places = torch.randint(max(length, 1), (length // 2,), generator=generator)
            tokens = torch.randint(vocabulary, (length // 2,), generator=generator)
            for place, token in zip(places.tolist(), tokens.tolist(), strict=True):
                ids[row.answer_from + place] = token
            noisy.append(replace(row, ids=tuple(ids)))
    return noisy
