"""Noisy copies of rows."""

from __future__ import annotations

from knowundo.data.encoded import Encoded
from knowundo.localization.noise import noisy_copies

Rows = dict[str, list[Encoded]]


def test_noise_stays_inside_the_answer(toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    noisy = noisy_copies(rows, copies=3, vocabulary=500, seed=0)
    assert len(noisy) == 3 * len(rows)
    changed = 0
    for number, copy in enumerate(noisy):
        row = rows[number // 3]
        assert copy.prompt == row.prompt
        assert copy.ids[-1] == row.ids[-1]
        differ = sum(a != b for a, b in zip(copy.ids, row.ids, strict=True))
        assert differ <= (row.answer_length - 1) // 2
        changed += differ
    assert changed > 0
