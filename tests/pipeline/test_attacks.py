"""Attacks in a run: which models, which rows, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import Call
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.pipeline import run_all
from knowundo.pipeline.attacks import score_attacks
from knowundo.pipeline.whole import run_to_scores
from knowundo.results import Row, read_results
from knowundo.runs.purge import holdings
from knowundo.runs.run import Run
from knowundo.storage.integrity import verify
from tiny_run import tiny_run

RELEARNING = "evaluate.attacks={relearning: {steps: [0, 2], lr: 1e-2, limit: 2}}"


VARIANTS = "unlearn.variants=[{method: gradient_ascent}, {preset: prompt_refusal}]"
SMALL = ("data.subjects=1", "memorize.retain_model=true", VARIANTS)


class Attacked(NamedTuple):
    run: Run
    before: list[Row]

    @property
    def out(self) -> Path:
        return self.run.out


@pytest.fixture(scope="module")
def attacked(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    """A run that was finished, and to which an attack was added then."""
    out = tmp_path_factory.mktemp("attacked") / "run"
    before = run_to_scores(tiny_run(out, toy_base, *SMALL))[0].rows
    run = tiny_run(out, toy_base, *SMALL, RELEARNING)
    run_all(run)
    return Attacked(run, before)


def test_unlearned_variants_and_the_control_are_scored_in_each_setting(attacked: Attacked) -> None:
    results = read_results(attacked.out / "results.json")
    rows = [row for row in results.rows if row.attack]
    # A guard leaves the weights as they are: an attack on weights is not tried on it.
    assert {row.variant for row in rows} == {"gradient_ascent", "retain"}
    assert {row.attack for row in rows} == {"relearning: 0 steps", "relearning: 2 steps"}
    assert {row.split for row in rows} <= {"train", "val", "probe"}
    found = {(r.variant, r.attack): r for r in rows if r.metric == "unlearn_success"}
    row = found["gradient_ascent", "relearning: 2 steps"]
    assert row.reference == found["retain", "relearning: 2 steps"].value
    assert all(row.value is not None for row in rows)


def test_the_rows_without_an_attack_stay_as_they_were(attacked: Attacked) -> None:
    rows = read_results(attacked.out / "results.json").rows
    assert [row for row in rows if row.attack is None] == attacked.before


def test_the_page_shows_each_setting_beside_the_target(attacked: Attacked) -> None:
    page = (attacked.out / "report.html").read_text()
    assert "<h2>Attacks</h2>" in page
    assert page.count("relearning: 2 steps") == 2
    assert "as asked" in page
    assert "target" in page


def test_the_scores_are_sealed_and_a_purge_finds_them(attacked: Attacked) -> None:
    assert {finding.state for finding in verify(attacked.out)} == {"ok"}
    assert "scores/gradient_ascent@relearning" in holdings(attacked.out)


def test_a_finished_attack_is_not_tried_again(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model is used")

    monkeypatch.setattr(Model, "use", refuse)
    found = score_attacks(attacked.run)
    assert set(found["relearning: 2 steps"]) == {"gradient_ascent", "retain"}


def test_the_command_adds_an_attack(attacked: Attacked, knowundo: Call) -> None:
    file = attacked.run.unlearned("gradient_ascent") / "adapter_model.safetensors"
    weights = file.read_bytes()
    words = ["attack", str(attacked.out), "--attack", "relearning", "--json"]
    done = knowundo(*words, "--variant", "gradient_ascent", "--set", "steps=[1]")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["variant"], row["attack"]) for row in rows} == {
        ("gradient_ascent", "relearning: 1 step")
    }
    assert file.read_bytes() == weights
    kept = read_results(attacked.out / "results.json").recipe_effective
    assert kept["evaluate"]["attacks"]["relearning"]["arguments"]["lr"] == 1e-2


def test_as_many_rows_as_the_limit_says_are_scored(attacked: Attacked) -> None:
    rows = read_results(attacked.out / "results.json").rows
    counts = {r.records for r in rows if r.attack and r.split == "train" and r.scope}
    assert counts <= {1, 2}  # rows that relearning was told are left out
    assert all(r.records > 2 for r in rows if not r.attack and r.split == "train" and r.scope)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[relerning]", "did you mean 'relearning'"),
        ("[relearning, relearning]", "different names"),
        ("{relearning: {stepps: [2]}}", "did you mean 'steps'"),
        ("{relearning: {steps: [-1]}}", "greater than or equal to 0"),
        ("{relearning: {rows: all}}", "'unlearn', 'retention' or 'general'"),
        ("{relearning: 5}", "mapping of its arguments"),
        ("{relearning: {limit: 0}}", "limit"),
        ("{relearning: {splits: [trian]}}", "splits"),
    ],
)
def test_bad_names_and_arguments_are_refused(
    toy_base: str, tmp_path: Path, given: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        tiny_run(tmp_path / "no", toy_base, f"evaluate.attacks={given}")
    assert not (tmp_path / "no").exists()


def test_a_variant_that_is_not_there_is_refused(attacked: Attacked, knowundo: Call) -> None:
    files = [attacked.out / name for name in ("results.json", "recipe.yaml")]
    before = [file.read_bytes() for file in files]
    words = ["attack", str(attacked.out), "--attack", "relearning"]
    done = knowundo(*words, "--variant", "gradient_descent")
    assert done.returncode == 2
    assert "did you mean 'gradient_ascent'" in done.stderr
    assert [file.read_bytes() for file in files] == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path, knowundo: Call) -> None:
    done = knowundo("attack", str(tmp_path / "nothing"), "--attack", "relearning")
    assert done.returncode == 2
    assert "holds no run" in done.stderr
