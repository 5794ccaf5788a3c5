"""A guard in a run: made, scored, reported, and refused where weights are asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from knowundo.errors import BadInput, KnowUndoError
from knowundo.pipeline import evaluate, run_all
from knowundo.pipeline.comparison import compare
from knowundo.pipeline.reporting import paper_report
from knowundo.pipeline.scores import scoring_groups
from knowundo.pipeline.unlearning import unlearn
from knowundo.recipes.reading import load_recipe
from knowundo.runs.checks import check
from knowundo.runs.purge import purge
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from knowundo.storage.artifacts import read_manifest
from knowundo.sweeps.setup import chosen_plan
from tiny_run import tiny_run

VARIANTS = (
    "unlearn.variants=[{preset: prompt_refusal, name: told}, {method: gradient_ascent}, "
    "{preset: icul, kept: 1}, {preset: eco}, {preset: uld, epochs: 1}]"
)
GUARDS = ("told", "icul", "eco", "uld")


@pytest.fixture(scope="module")
def done(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with every guard and one method, to its report."""
    sets = (VARIANTS, "data.subjects=1", "evaluate.generate=[probe]")
    run = tiny_run(tmp_path_factory.mktemp("guards") / "run", toy_base, *sets)
    run_all(run)
    return run


def scores(run: Run, name: str) -> pd.DataFrame:
    return read_scores(run.scores(name) / "rows.parquet")


def test_results_and_the_report_say_what_a_guard_is(done: Run) -> None:
    results = evaluate(done)
    facts = {one.name: one for one in results.variants}
    assert {name for name, one in facts.items() if one.guard is not None} == set(GUARDS)
    assert facts["told"].guard == {}
    assert set(facts["eco"].guard or {}) == {"classifier_accuracy", "classifier_accuracy_unseen"}
    assert facts["told"].optimizer_steps == 0
    assert (facts["uld"].optimizer_steps or 0) > 0
    assert facts["uld"].lr == 2e-3
    page = (done.out / "report.html").read_text()
    assert "told is a guard (prompt_refusal): its weights are those of the memorized model" in page
    assert "classifier accuracy 1" in page


def test_teacher_forcing_and_generation_pass_through_the_guard(done: Run) -> None:
    memorized = scores(done, "memorized")
    for name in GUARDS:
        guarded = scores(done, name)
        assert list(guarded["id"]) == list(memorized["id"])
        assert not (guarded["mean_nll"] == memorized["mean_nll"]).all(), name
        asked = guarded["said"].notna()
        assert asked.any()
        assert not (guarded["said"][asked] == memorized["said"][asked]).all(), name


def test_weights_stay_and_no_guard_shares_a_forward(done: Run) -> None:
    assert [[v.name for v in group] for group in scoring_groups(done) if len(group) == 1] == [
        ["told"], ["gradient_ascent"], ["icul"], ["eco"], ["uld"],
    ]  # fmt: skip
    before = {name: value.clone() for name, value in _memorized(done).items()}
    for variant in done.variants():
        if variant.guard is not None:
            assert variant.folder == done.memorized
            with pytest.raises(KnowUndoError, match="behind its guard only"):
                done.model.use(variant)
    evaluate(done)
    after = _memorized(done)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not list(done.unlearned("told").glob("*.safetensors"))
    assert (done.unlearned("uld") / "assistant" / "adapter_model.safetensors").is_file()


def _memorized(run: Run) -> dict[str, torch.Tensor]:
    run.model.use(run.start)
    return run.model.state()


def test_a_guard_is_made_again_only_if_its_inputs_changed(
    done: Run, toy_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = read_manifest(done.unlearned("eco"))["made"]
    monkeypatch.setattr("knowundo.pipeline.unlearning.make_guard", lambda *_: pytest.fail("again"))
    assert unlearn(done) == []
    assert read_manifest(done.unlearned("eco"))["made"] == made
    inputs = {v.name: done.score_inputs(v) for v in done.variants()}
    assert len({json.dumps(one, default=str) for one in inputs.values()}) == len(inputs)


def test_two_runs_with_a_guard_are_compared(done: Run) -> None:
    keys, found = compare(done.out, done.out)
    assert keys == []
    assert {one.variant for one in found} >= set(GUARDS)
    assert paper_report(done)


def test_a_purge_removes_what_guards_learned(done: Run, tmp_path: Path) -> None:
    out = shutil.copytree(done.out, tmp_path / "run")
    removed = purge(out)
    assert {f"unlearned/{name}" for name in GUARDS} < set(removed)
    assert [folder.name for folder in (out / "unlearned").iterdir()] == ["gradient_ascent"]


@pytest.mark.parametrize(
    ("variant", "more", "said"),
    [
        ("{preset: eco}", "unlearn.stop={}", "leaves the weights alone; leave out unlearn.stop"),
        ("{preset: uld}", "unlearn.keep_every=2", "leave out keep_every"),
        ("{preset: icul, region: memflex}", "", "leave out region memflex"),
        ("{preset: uld, gradients: project}", "", "leave out gradients"),
        ("{preset: eco, then: [{preset: npo}]}", "", "leave out then"),
        ("{preset: npo, then: [{preset: eco}]}", "", "not before one that was unlearned"),
        ("{preset: eco, lr: 1e-3}", "", "eco trains nothing; leave out lr"),
        ("{preset: prompt_refusal, epochs: 3}", "", "trains nothing; leave out epochs"),
        ("{preset: uld, lr: auto}", "", "trains an assistant; set a rate"),
        ("{preset: uld}", "model.adaptation=full", "which model.adaptation full does not allow"),
        ("{preset: uld}", "compat=original", "which compat does not allow"),
        ("{preset: eco}", "evaluate.general_tasks=[arc]", "evaluate.general_tasks ask the model"),
        ("{preset: eco, threshold: 2}", "", "guard eco: threshold"),
        ("{method: ecco}", "", "did you mean 'eco'"),
    ],
)  # fmt: skip
def test_what_a_guard_cannot_have_is_refused(
    variant: str, more: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowundo.runs.checks.check_tasks", lambda *_: None)
    sets = [f"unlearn.variants=[{variant}]", *([more] if more else [])]
    with pytest.raises(BadInput, match=said):
        check(load_recipe(None, sets)[0])


def test_a_sweep_of_a_guard_is_refused() -> None:
    recipe, _ = load_recipe(None, ["unlearn.variants=[{preset: uld}]"])
    with pytest.raises(BadInput, match="uld is a guard, and a sweep evaluates steps"):
        chosen_plan(recipe, None)


def test_all_weights_that_auto_chose_are_refused(toy_base: str, tmp_path: Path) -> None:
    sets: Any = ("unlearn.variants=[{preset: uld}]", "model.adaptation=auto", "data.subjects=1")
    run = tiny_run(tmp_path / "run", toy_base, *sets)
    with pytest.raises(BadInput, match="variant uld: guard uld trains a second LoRA"):
        run_all(run)
