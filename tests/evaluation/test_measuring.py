"""Metrics of one group and over several, with the retain model as reference and intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from score_tables import table

from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.evaluation.measuring import measured_metrics
from knowundo.evaluation.result_rows import Evaluation
from knowundo.registry import ENTRIES, entries, metric, scorer
from knowundo.results import Row


def told(*nll: float, others: tuple[float, ...], ratio: float = 1.0) -> pd.DataFrame:
    """Unlearn train rows of A, B, … and holdout rows of Z, Y, … with these likelihoods."""
    scope = {"unlearn": [(name, 1.0) for name in "ABCDEFGH"[: len(nll)]]}
    members = table(**scope).assign(split="train", mean_nll=nll)
    rest = table(unlearn=[(name, 1.0) for name in "ZYXW"[: len(others)]])
    rows = pd.concat([members, rest.assign(split="holdout", mean_nll=others)], ignore_index=True)
    return rows.assign(id=[str(n) for n in range(len(rows))], wrong_over_true=ratio)


def found(tables: dict[str, pd.DataFrame], *asked: str) -> dict[tuple[str, str], Row]:
    evaluation = Evaluation(tables, target="retain", draws=40, seed=0, asked=asked)
    return {(row.variant, row.metric): row for row in evaluation.rows() if row.split is None}


def test_members_are_compared_with_holdout_rows() -> None:
    rows = found(
        {
            "memorized": told(0.1, 0.2, 0.3, others=(2.0, 3.0)),
            "retain": told(2.0, 3.0, 1.0, others=(2.0, 3.0)),
        }
    )
    row = rows["memorized", "loss_auc"]
    assert (row.value, row.low, row.high, row.records, row.subjects) == (100, 100, 100, 5, 5)
    assert (row.scope, row.split, row.subset) == ("unlearn", None, None)
    # Of 6 pairs of the retain model: 0.5 + 1, 0 + 0.5, 1 + 1.
    assert row.reference == pytest.approx(100 * 4 / 6)
    spread = rows["retain", "loss_auc"]
    assert spread.low is not None
    assert spread.high is not None
    assert spread.low < 100 * 4 / 6 < spread.high
    # Likelier than to the retain model by 1.9, 2.8 and 0.7; the others not at all.
    assert rows["memorized", "reference_auc"].value == 100
    assert rows["memorized", "privleak"].value is None  # the column is empty here
    assert rows["memorized", "privleak"].unscored == 5


def test_without_holdout_rows_there_is_no_row() -> None:
    rows = found({"retain": told(0.1, 0.2, others=())})
    assert not {name for _, name in rows if name.endswith("auc")}


def test_a_metric_is_asked_for_and_compared_with_the_retain_model() -> None:
    tables = {
        "memorized": told(*[1.0] * 8, others=(1.0,), ratio=0.1),
        "retain": told(*[1.0] * 8, others=(1.0,), ratio=0.9),
    }

    def quality(*asked: str) -> dict[str, Row]:
        evaluation = Evaluation(tables, target="retain", draws=40, seed=0, asked=asked)
        return {row.variant: row for row in evaluation.rows() if row.metric == "forget_quality"}

    assert not quality()
    rows = quality("forget_quality")
    assert rows["retain"].value == 1
    assert rows["memorized"].value == pytest.approx(2 / 12870)  # 2 of the ways to choose 8 of 16
    assert (rows["memorized"].low, rows["memorized"].reference) == (None, 1)
    assert (rows["memorized"].scope, rows["memorized"].split) == ("unlearn", "train")
    alone = Evaluation(tables, target=None, draws=40, seed=0, asked=["forget_quality"])
    assert {r.value for r in alone.rows() if r.metric == "forget_quality"} == {None}


def test_the_mean_of_a_scorer_has_the_interval_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("metric", "scorer"):
        entries(kind)
        monkeypatch.setitem(ENTRIES, kind, dict(ENTRIES[kind]))

    def share(tokens: object) -> float:
        """A share."""
        return 0.5

    metric(higher_is="remembered")(scorer(needs="tokens")(share))

    @metric(higher_is="remembered")
    def by_hand(scores: Scores) -> float:
        """The same, resampled in a loop."""
        return 100 * float(scores["share"].mean())

    rows = table(unlearn=[("A", 1.0), ("A", 0.0), ("B", 0.5), ("C", 0.0)])
    rows["share"] = [1.0, 0.25, np.nan, 0.5]
    both = {
        row.metric: row
        for row in Evaluation({"one": rows}, target=None, draws=100, seed=0).rows()
        if row.metric in ("share", "by_hand")
    }
    mean, loop = both["share"], both["by_hand"]
    assert mean.value == loop.value == pytest.approx(175 / 3)
    assert (mean.low, mean.high) == (pytest.approx(loop.low), pytest.approx(loop.high))
    assert mean.unscored == loop.unscored == 1


def test_paired_columns_leave_out_what_either_lacks() -> None:
    one = Scores({"x": np.array([1.0, np.nan, 3.0])})
    other = Scores({"x": np.array([5.0, 6.0, np.nan])})
    assert [part.tolist() for part in one.paired("x", other)] == [[1.0], [5.0]]
    assert one.take(np.array([0, 0])).paired("x", other.take(np.array([0, 0])))[0].tolist() == [
        1,
        1,
    ]
    with pytest.raises(Unmeasured):
        one.take(np.array([1])).paired("x", other.take(np.array([1])))


def test_each_metric_is_of_one_kind() -> None:
    every = [entry.name for entry in entries("metric").values() if not entry.facts["asks"]]
    kinds = [measured_metrics((), over_groups=over) for over in (False, True)]
    assert sorted(entry.name for kind in kinds for entry in kind) == every


def test_every_metric_is_on_the_page_of_metrics() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in entries("metric"):
        shown = name.removesuffix("_tpr") + "_auc" if name.endswith("_tpr") else name
        assert f"`{shown}`" in page, name
