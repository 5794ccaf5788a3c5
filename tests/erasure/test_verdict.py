"""The verdict follows from what is still answered and predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.request import ERASED, ErasureRequest
from knowundo.erasure.request_log import LoggedRequest, RequestLog
from knowundo.erasure.verdict import Verdict, judge
from knowundo.results import Results, Row, VariantFacts
from knowundo.runs.run import Run

REQUEST = ErasureRequest("model", Path("rows.jsonl"), Path("out"))
NO_RUN = cast(Run, None)  # it is read only for taught answers


def row(metric: str, split: str, value: float | None, subset: str | None = None) -> Row:
    return Row(
        variant=ERASED, metric=metric, scope="unlearn", split=split, subset=subset, value=value,
        records=4, subjects=1,
    )  # fmt: skip


def results(rows: list[Row], **facts: Any) -> Results:
    """Results that hold only what a verdict reads."""
    erased = VariantFacts(name=ERASED, role="unlearned", **facts)
    return Results.model_construct(rows=rows, variants=[erased])


def verdict(*rows: Row, level: float = 0.2, log: RequestLog | None = None, **facts: Any) -> Verdict:
    found = results(list(rows), **facts)
    return judge(REQUEST, NO_RUN, found, ListCheck(level=level), log or RequestLog())


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
