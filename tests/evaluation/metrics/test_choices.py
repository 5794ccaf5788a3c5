"""Choices: the right letter must be likelier than every other."""

from __future__ import annotations

import pytest

from knowundo.data.records import Record
from knowundo.registry import get
from knowundo.scoring.seen import Alternatives


@pytest.mark.parametrize(
    ("kind", "true", "others", "right"),
    [
        ("choice", 0.5, [0.7, 1.0, 2.0], 1.0),
        ("choice", 0.8, [0.7, 1.0, 2.0], 0.0),
        ("choice", 0.7, [0.7, 1.0, 2.0], 0.0),
        ("qa", 0.5, [0.7], None),
    ],
)
def test_choice_accuracy(kind: str, true: float, others: list[float], right: float | None) -> None:
    record = Record("x", "Q\nAnswer:", "A", "unlearn", "val", kind=kind)
    seen = Alternatives(record, true, true, others)
    assert get("scorer", "choice_accuracy")(seen) == right
