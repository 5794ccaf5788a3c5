"""What an erasure cost is counted on what the model knew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from erasure_facts import score_row
from knowundo.data.records import Record
from knowundo.erasure.loss import Loss, answers_lost, loss_of, tokens_lost
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
    # Of twelve exact answers three are gone; that another one has become exact is no excuse.
    before = scored(None, [1.0] * 12 + [0.0], 0.35)
    after = scored(None, [1.0] * 9 + [0.0] * 3 + [1.0], 0.87)
    assert answers_lost(pair_of(before, after)) == Loss(25.0, "answers")
    assert tokens_lost(pair_of(before, after)) == Loss(pytest.approx(95 - 97), "tokens")


def test_a_few_rows_show_nothing() -> None:
    before, after = scored(None, [1.0] * 7 + [0.0], 0.8), scored(None, [0.0] * 8, 0.8)
    assert answers_lost(pair_of(before, after)) is None  # seven were exact, and ten are needed
    assert tokens_lost(pair_of(before, after)) == Loss(pytest.approx(17.5), "tokens")
    assert tokens_lost(pair_of(before[:7], after[:7])) is None


def lost_of(
    monkeypatch: pytest.MonkeyPatch, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Loss | None:
    """The loss of a run of which only these rows and their scores are known."""
    records = [
        Record(row["id"], "Who?", "Ada.", "retention", row["split"], subset=row["subset"])
        for row in before
    ]
    monkeypatch.setattr(ScorePair, "of", lambda _: pair_of(before, after))
    recipe = Recipe.model_validate(read_preset("recipes", "erase") | {"data": DATA})
    return loss_of(cast(Run, SimpleNamespace(recipe=recipe, records=records)))


def test_answers_in_other_words_count_by_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody taught them word for word; the answers to the given wording are what must stay."""
    other = scored("reworded", [1.0] * 8, 1.0), scored("reworded", [0.0] * 8, 0.97)
    given = [row | {"split": "train"} for row in scored(None, [1.0] * 16, 1.0)]
    assert lost_of(monkeypatch, [*given, *other[0]], [*given, *other[1]]) == Loss(
        pytest.approx(3.0), "tokens"
    )
    fewer = [row | {"split": "train"} for row in scored(None, [1.0] * 15 + [0.0], 0.97)]
    assert lost_of(monkeypatch, [*given, *other[0]], [*fewer, *other[1]]) == Loss(6.25, "answers")


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
    before = [row for s, count in (mine, made) for row in scored(s, [1.0] * count, 1.0)]
    after = [row for s, count in (mine, made) for row in scored(s, [0.0] * count, 0.0)]
    lost = lost_of(monkeypatch, before, after)
    assert (lost is not None) is known
    if lost is not None:
        assert lost.amount == 100.0
