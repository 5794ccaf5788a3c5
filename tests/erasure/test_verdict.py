"""The verdict follows from what is still answered and predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from knowundo.erasure import verdict as module
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.loss import Loss
from knowundo.erasure.request import ERASED, ErasureRequest
from knowundo.erasure.request_log import LoggedRequest, RequestLog
from knowundo.erasure.verdict import Verdict, judge
from knowundo.recipes.presets import read_preset
from knowundo.recipes.schema import Recipe
from knowundo.results import Results, Row, VariantFacts
from knowundo.runs.run import Run

DATA = {"benchmark": "lists", "domain": "lists"}
REQUEST = ErasureRequest("model", Path("rows.jsonl"), Path("out"))


def run_of() -> Run:
    """What a verdict reads of a run: its recipe."""
    recipe = Recipe.model_validate(read_preset("recipes", "erase") | {"data": DATA})
    return cast(Run, SimpleNamespace(recipe=recipe))


@pytest.fixture(autouse=True)
def _nothing_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "loss_of", lambda _: None)


def row(
    metric: str,
    split: str,
    value: float | None,
    subset: str | None = None,
    *,
    scope: str = "unlearn",
    variant: str = ERASED,
) -> Row:
    return Row(
        variant=variant, metric=metric, scope=scope, split=split, subset=subset, value=value,
        records=4, subjects=1,
    )  # fmt: skip


def results(rows: list[Row], **facts: Any) -> Results:
    """Results that hold only what a verdict reads."""
    erased = VariantFacts(name=ERASED, role="unlearned", **facts)
    return Results.model_construct(rows=rows, variants=[erased])


def verdict(
    *rows: Row,
    level: float = 0.2,
    log: RequestLog | None = None,
    request: ErasureRequest = REQUEST,
    **facts: Any,
) -> Verdict:
    found = results(list(rows), **facts)
    return judge(request, run_of(), found, ListCheck(level=level), log or RequestLog())


@pytest.mark.parametrize(
    ("exact", "reworded", "predicted", "gone"),
    [
        (0.0, 0.0, 30.0, True),
        (5.0, 5.0, 60.0, True),  # half of the way from guessing to all: not known
        (5.1, 0.0, 30.0, False),
        (0.0, 5.1, 30.0, False),
        (0.0, 0.0, 60.1, False),
        (None, None, 30.0, True),  # documents: nobody asks for them
        (None, None, 90.0, False),
    ],
)
def test_a_list_is_gone_by_what_is_answered_and_predicted(
    exact: float | None, reworded: float | None, predicted: float, gone: bool
) -> None:
    found = verdict(
        row("exact_match", "train", exact),
        row("exact_match", "val", reworded),
        row("token_accuracy", "train", predicted),
    )
    assert found.gone is found.passed is gone
    assert str(found).startswith("erased: " if gone else "NOT ERASED: ")
    assert ("no model is exported" in str(found)) is not gone


GONE = row("exact_match", "train", 0.0), row("token_accuracy", "train", 10.0)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (Loss(10.0, "answers"), None),  # as much as the preset allows
        (Loss(10.2, "answers"), "10.2 % of the answers that must stay were lost"),
        (Loss(10.1, "tokens"), "10.1 points of token accuracy on what must stay were lost"),
        (None, None),
    ],
)
def test_what_lost_too_much_is_not_exported(
    monkeypatch: pytest.MonkeyPatch, lost: Loss | None, said: str | None
) -> None:
    monkeypatch.setattr(module, "loss_of", lambda _: lost)
    found = verdict(*GONE)
    assert found.state == ("erased" if said is None else "erased_with_damage")
    assert found.passed is (said is None)
    if said is None:
        return
    assert str(found).startswith("erased WITH DAMAGE: ")
    assert f"{said}; no model is exported (unlearn.stop.floor allows 10; " in str(found)
    assert verdict(*GONE, request=replace(REQUEST, accept_damage=True)).passed


def attempt(lr: float, forgotten: float, *, unlearned: bool) -> dict[str, Any]:
    return {"lr": lr, "forgotten": forgotten, "lost": 1.0, "unlearned": unlearned}


def test_what_is_not_erased_names_the_best_attempt_and_one_setting() -> None:
    known = row("exact_match", "train", 100.0)
    weak = [attempt(1e-3, 0.2, unlearned=False), attempt(3e-3, 0.5, unlearned=False)]
    found = verdict(known, attempts=weak)
    assert found.state == "not_erased"
    assert (
        "the best of 2 rates, 0.003, went 50% of the way and lost 1.0 points; try "
        "--set unlearn.lr=0.009" in str(found)
    )
    # A higher rate did too much, so that the gap has to be closed by more steps.
    both = [attempt(1e-3, 0.5, unlearned=False), attempt(3e-3, 0.9, unlearned=True)]
    assert "try --set unlearn.epochs=4" in str(verdict(known, attempts=both))


def test_a_collapsed_or_diverged_model_is_named() -> None:
    rows = row("exact_match", "train", 0.0), row("token_accuracy", "train", 10.0)
    collapsed = verdict(*rows, collapsed="it repeats itself")
    assert collapsed.gone
    assert not collapsed.passed
    assert "COLLAPSED (it repeats itself); no model is exported" in str(collapsed)
    diverged = verdict(*rows, diverged="step 3: the loss is not finite", kept_step=2)
    assert diverged.passed
    assert "DIVERGED (step 3: the loss is not finite), step 2 was kept" in str(diverged)


@pytest.mark.parametrize(
    ("metric", "value", "relapsed"),
    [
        ("exact_match", 0.0, False),
        ("exact_match", 50.0, True),
        ("token_accuracy", 29.0, False),  # a document: up to ten points above what it was
        ("token_accuracy", 31.0, True),
    ],
)
def test_an_earlier_request_that_is_known_again_is_named(
    metric: str, value: float, relapsed: bool
) -> None:
    earlier = LoggedRequest(
        number=1, date="2026-01-02", list_sha256="", rows=4, run="", model="", weights_sha256={},
        exact_before=None, exact_after=None, reworded_after=None, predicted_after=20.0,
    )  # fmt: skip
    found = verdict(
        row("exact_match", "train", 0.0),
        row(metric, "probe", value, "request-1"),
        log=RequestLog(requests=[earlier]),
    )
    assert found.relapsed == ([1] if relapsed else [])
    assert ("RELAPSED: earlier request 1 is known again" in str(found)) is relapsed
    assert found.rechecked == {1: value if metric == "exact_match" else None}
