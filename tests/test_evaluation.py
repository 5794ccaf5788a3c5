"""Metrics, intervals and the words that are made of them, on cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import naive_log_probs
from knowundo.data.encoded import Encoded
from knowundo.evaluation.evaluation import Evaluation
from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.evaluation.intervals import Resampling, interval
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.scoring.answers import generate
from knowundo.scoring.table import COLUMNS, score
from knowundo.scoring.teacher_forcing import teacher_forced


def table(**scopes: list[tuple[str, float]]) -> pd.DataFrame:
    """Val rows (subject, token accuracy) a scope; everything else is empty."""
    rows = [
        {
            "id": f"{scope}/{n}", "scope": scope, "split": "val", "subject": subject,
            "token_accuracy": accuracy, "mean_nll": 1.0,
        }
        for scope, values in scopes.items()
        for n, (subject, accuracy) in enumerate(values)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["tokens", "token_accuracy", "fact_accuracy", "mean_nll", "exact_match", "rouge_l"]
    return frame.astype(dict.fromkeys(numbers, float))


def test_metrics_by_hand() -> None:
    columns = {
        "token_accuracy": np.array([1.0, 0.5]),
        "fact_accuracy": np.array([np.nan, 0.25]),
        "exact_match": np.array([1.0, 0.0]),
        "rouge_l": np.array([1.0, 0.5]),
        "mean_nll": np.array([0.0, math.log(4)]),
    }
    values = {
        "token_accuracy": 75.0,
        "fact_accuracy": 25.0,
        "exact_match": 50.0,
        "rouge_l": 75.0,
        "probability": 100 * (1 + 1 / 4) / 2,
        "perplexity": 2.0,
    }
    for name, value in values.items():
        assert get("metric", name)(Scores(columns)) == pytest.approx(value)
    scores = Scores(columns)
    get("metric", "fact_accuracy")(scores)
    assert scores.unmeasured() == 1


def test_nothing_to_measure_is_no_number() -> None:
    with pytest.raises(Unmeasured):
        get("metric", "exact_match")(Scores({"exact_match": np.array([np.nan])}))


def test_interval_resamples_subjects() -> None:
    """Two subjects, A with rows 1, 1, 1 and B with one row 0.

    Drawn are AA (mean 1), AB or BA (mean 3/4) and BB (mean 0), with 1/4, 1/2 and 1/4. Resampling
    rows instead would almost never give 0.
    """
    resampling = Resampling(["A", "B"], draws=4000, seed=0)
    values = np.array([1.0, 1.0, 1.0, 0.0])
    means = [values[rows].mean() for rows in resampling.places(["A", "A", "A", "B"])]
    shares = {v: means.count(v) / len(means) for v in set(means)}
    assert set(shares) == {0.0, 0.75, 1.0}
    assert shares[0.0] == pytest.approx(0.25, abs=0.03)
    assert shares[0.75] == pytest.approx(0.5, abs=0.03)
    assert interval(means) == (0.0, 1.0)


def test_one_subject_has_no_interval() -> None:
    assert Resampling(["A", "A"], draws=100, seed=0).places(["A", "A"]) == []


def test_interval_is_the_middle_95_percent() -> None:
    low, high = interval([float(n) for n in range(1001)]) or (0, 0)
    assert (low, high) == (25.0, 975.0)
    assert interval([]) is None


def test_success_rows_and_target() -> None:
    memorized = table(unlearn=[("A", 1.0), ("B", 0.8)], retention=[("A", 1.0), ("B", 0.6)])
    retain = table(unlearn=[("A", 0.5), ("B", 0.3)], retention=[("A", 1.0), ("B", 1.0)])
    evaluation = Evaluation(
        {"memorized": memorized, "retain": retain}, target="retain", draws=50, seed=0
    )
    rows = {(r.variant, r.metric, r.scope): r for r in evaluation.rows()}
    assert rows["memorized", "unlearn_success", "unlearn"].value == pytest.approx(10)
    assert rows["memorized", "unlearn_success", "unlearn"].reference == pytest.approx(60)
    assert rows["memorized", "retention_success", "retention"].value == pytest.approx(80)
    average = rows["memorized", "average_success", None]
    assert (average.value, average.records, average.subjects) == (pytest.approx(45), 4, 2)
    empty = rows["memorized", "exact_match", "unlearn"]
    assert (empty.value, empty.low, empty.unscored) == (None, None, 2)


def test_comparison_is_paired() -> None:
    """One is better than the other by 10 on every subject: the interval has no width.

    Unpaired, the spread between subjects (0 to 1) would drown it.
    """
    accuracies = [("A", 0.0), ("B", 0.4), ("C", 0.9)]
    worse = [(name, value + 0.1) for name, value in accuracies]
    tables = {
        "one": table(unlearn=accuracies, retention=accuracies),
        "two": table(unlearn=worse, retention=accuracies),
    }
    found = Evaluation(tables, target=None, draws=100, seed=0).compare("one", "two")
    assert [(row.metric, row.value) for row in found] == [("average_success", pytest.approx(5))]
    assert (found[0].low, found[0].high) == (pytest.approx(5), pytest.approx(5))


def test_gap_counts_overshoot_as_distance() -> None:
    """Target 60/100. One overshoots by 20, the other falls short by 20: the same gap, (20+0)/2."""
    stay = [("A", 1.0)]
    tables = {
        "retain": table(unlearn=[("A", 0.4)], retention=stay),
        "over": table(unlearn=[("A", 0.2)], retention=stay),
        "short": table(unlearn=[("A", 0.6)], retention=stay),
    }
    evaluation = Evaluation(tables, target="retain", draws=20, seed=0)
    rows = {r.variant: r.value for r in evaluation.rows() if r.metric == "gap_to_target"}
    assert rows == {"over": pytest.approx(10), "short": pytest.approx(10)}
    metrics = {row.metric: row.value for row in evaluation.compare("over", "short")}
    assert metrics == {"average_success": pytest.approx(20), "gap_to_target": pytest.approx(0)}


def test_teacher_forced_equals_a_loop(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    for row, scored in zip(
        toy_rows["unlearn"],
        (teacher_forced(toy, toy_rows["unlearn"])[r.record.id] for r in toy_rows["unlearn"]),
        strict=True,
    ):
        log_probs = naive_log_probs(toy, row)
        truth = torch.tensor(row.ids[row.answer_from :])
        right = log_probs.argmax(-1) == truth
        assert scored["token_accuracy"] == pytest.approx(float(right[:-1].double().mean()))
        nll = -log_probs[torch.arange(len(truth)), truth].mean()
        assert scored["mean_nll"] == pytest.approx(nll.item(), rel=1e-6)


def test_generation_is_greedy_and_does_not_depend_on_the_batch(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    rows = toy_rows["unlearn"]
    together = generate(toy, rows)
    for row in rows:
        ids = list(row.prompt)
        for _ in range(row.answer_length):
            logits = toy.net(input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
            if ids[-1] == toy.tokenizer.eos_token_id:
                break
        alone = toy.tokenizer.decode(ids[len(row.prompt) :], skip_special_tokens=True)
        assert together[row.record.id] == alone


def test_rows_not_asked_are_missing_not_zero(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    rows = score(toy, toy_rows["unlearn"], generated_splits=["val"])
    assert list(rows.columns) == list(COLUMNS)
    assert rows["exact_match"].isna().all()
    assert rows["said"].isna().all()
    assert rows["token_accuracy"].notna().all()
