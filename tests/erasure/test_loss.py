"""What an erasure cost is counted on what the model knew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from erasure_facts import score_row
from knowundo.data.records import Record
from knowundo.erasure.loss import loss_of, measured_loss
from knowundo.erasure.score_pair import ScorePair
from knowundo.recipes.presets import read_preset
from knowundo.recipes.schema import Recipe
from knowundo.runs.run import Run

DATA = {"benchmark": "lists", "domain": "lists"}


def pair_of(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> ScorePair:
    return ScorePair(*(pd.DataFrame(rows).set_index("id") for rows in (before, after)))


def scored(subset: str | None, exact: list[float], accuracy: float) -> list[dict[str, Any]]:
    """Val rows that must stay, of a subset; those that are not exact have this token accuracy."""
    return [
        score_row(
            f"{subset}/{n}", "retention", "val", subset=subset, exact_match=hit,
            token_accuracy=1.0 if hit else accuracy,
        )
        for n, hit in enumerate(exact)
    ]  # fmt: skip


def test_answers_that_were_exact_and_no_longer_are() -> None:
    # A third of eight exact answers is gone; that another one has become exact is no excuse.
    before = scored(None, [1.0] * 9 + [0.0], 0.5)
    after = scored(None, [1.0] * 6 + [0.0] * 3 + [1.0], 0.9)
    lost = measured_loss(pair_of(before, after), answers=True)
    assert lost is not None
    assert (lost.amount, lost.counted) == (pytest.approx(100 / 3), "answers")
    tokens = measured_loss(pair_of(before, after), answers=False)
    assert tokens is not None
    assert tokens.amount == pytest.approx(100 * (0.95 - 0.97))


def test_tokens_count_where_few_answers_were_exact() -> None:
    before, after = scored(None, [1.0] * 7 + [0.0], 0.8), scored(None, [0.0] * 8, 0.8)
    lost = measured_loss(pair_of(before, after), answers=True)
    assert lost is not None
    assert (lost.amount, lost.counted) == (pytest.approx(17.5), "tokens")


@pytest.mark.parametrize(
    ("subset", "known"),
    [
        (None, True),
        ("reworded", True),
        ("generated: known other subject", True),
        ("generated: other subject", False),
    ],
)
def test_what_the_model_made_up_does_not_count(
    monkeypatch: pytest.MonkeyPatch, subset: str | None, known: bool
) -> None:
    """Not even beside a row that it knew: eight are needed."""
    mine, made = (subset, 8), ("generated: other subject" if known else "given", 7)
    rows = [(f"{s}/{n}", s) for s, count in (mine, made) for n in range(count)]
    records = [Record(i, "Who?", "Ada.", "retention", "val", subset=s) for i, s in rows]
    before = [row for s, count in (mine, made) for row in scored(s, [1.0] * count, 1.0)]
    after = [row for s, count in (mine, made) for row in scored(s, [0.0] * count, 0.0)]
    monkeypatch.setattr(ScorePair, "of", lambda _: pair_of(before, after))
    recipe = Recipe.model_validate(read_preset("recipes", "erase") | {"data": DATA})
    lost = loss_of(cast(Run, SimpleNamespace(recipe=recipe, records=records)))
    assert (lost is not None) is known
    if lost is not None:
        assert lost.amount == 100.0
