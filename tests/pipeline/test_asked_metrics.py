"""Metrics that a recipe asks for, over TOFU's files, from the records to results.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from knowundo.errors import BadInput
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.memorization import memorize
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from tiny_run import tiny_run

ASKED = ("truth_ratio", "forget_quality", "model_utility")


def write_tofu(folder: Path) -> Path:
    """One author in either scope, and a fact of each general kind, in TOFU's layout."""

    def rows(author: str) -> list[dict[str, str]]:
        return [{"question": f"Fact {n} of {author}?", "answer": f"It is {n}."} for n in range(20)]

    def perturbed(row: dict[str, str]) -> dict[str, object]:
        wrong = [f"{row['answer']} No.", "It is none."]
        other = {"paraphrased_answer": f"Yes, {row['answer']}", "perturbed_answer": wrong}
        return row | other | {"paraphrased_question": f"Say: {row['question']}"}

    forget, retain = rows("Ada Brun"), rows("Bo Lind")
    fact = {"question": "Capital of Norway?", "answer": "Oslo", "perturbed_answer": ["Bern"]}
    tables: dict[str, list[object]] = {
        "forget01": [*forget],
        "forget01_perturbed": [*map(perturbed, forget)],
        "retain99": [*retain],
        "retain_perturbed": [*map(perturbed, retain[:10])],
        "real_authors_perturbed": [fact | {"question": "Who wrote Faust?"}],
        "world_facts_perturbed": [fact],
    }
    folder.mkdir(parents=True)
    for name, table in tables.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


def run_of(tmp_path: Path, base: str, *sets: str) -> Run:
    folder = write_tofu(tmp_path / "tofu")
    data = ("data.benchmark=tofu", "data.domain=forget01", f"data.source={folder}")
    sets = (*data, "data.subjects=null", "evaluate.generate=[train,val]", *sets)
    return tiny_run(tmp_path / "run", base, *sets)


def test_tofus_metrics_are_measured_where_they_are_asked_for(toy_base: str, tmp_path: Path) -> None:
    asked = f"evaluate.metrics=[{','.join(ASKED)}]"
    run = run_of(tmp_path, toy_base, asked, "memorize.retain_model=true")
    memorize(run)
    results = evaluate(run)
    rows = read_scores(run.scores("retain") / "rows.parquet")
    evaluated = rows["subset"].isin(["evaluated", "real_authors", "world_facts"])
    assert rows["wrong_over_true"].notna().tolist() == evaluated.tolist()
    ratio = rows[(rows["scope"] == "unlearn") & (rows["split"] == "train")]["wrong_over_true"]
    row = results.find("retain", "truth_ratio", "unlearn", "train")
    assert row is not None
    assert row.value == pytest.approx(np.minimum(ratio, 1 / ratio).mean())
    quality = results.find("retain", "forget_quality", "unlearn", "train")
    assert quality is not None
    assert quality.value == 1  # against itself
    utility = results.find("base", "model_utility", None, None)
    assert utility is not None
    assert utility.value is not None
    assert (utility.records, 0 <= utility.value <= 1) == (12, True)


def test_nothing_is_measured_that_is_not_asked_for(toy_base: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, toy_base)
    memorize(run)
    results = evaluate(run)
    assert not [row for row in results.rows if row.metric in ASKED]
    assert "wrong_over_true" not in read_scores(run.scores("base") / "rows.parquet")
    with pytest.raises(BadInput, match="did you mean 'truth_ratio'"):
        run_of(tmp_path / "other", toy_base, "evaluate.metrics=[thruth_ratio]")
