"""Sweeps find, resume and report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml

from conftest import Call
from knowundo.errors import BadInput
from knowundo.modeling.region_masks import write_masks
from knowundo.modeling.weights import load_state
from knowundo.pipeline.unlearning import unlearn
from knowundo.recipes.reading import load_recipe, parse_recipe
from knowundo.runs.run import Run
from knowundo.storage.files import fingerprint
from knowundo.sweeps import study, trials
from knowundo.sweeps.setup import set_up_study, sweep_inputs
from knowundo.sweeps.sweep import sweep
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned
from sweeps.runs import SMALL, small


def test_trials_files_and_weights(out: Path) -> None:
    run = small(out)
    found = sweep(run, "memflex", trials=4)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert list(found.space) == ["lr", "ascent", "descent", "region"]
    first = found.trials[0]
    assert first.state == "complete"
    assert first.params == {"lr": 2e-3, "ascent": 0.4, "descent": 2.0, "region": 0.5}
    own = run.region("memflex")
    sizes = {name: p.numel() for name, p in run.model.parameters().items()}
    assert first.parameters == sum(sizes[name] for name in own)
    assert found.best in found.front
    best = found.trial(found.best)
    assert best.score == max(t.score or 0 for t in found.trials if t.state == "complete")
    region = json.loads((out / "sweep" / "memflex-region.json").read_text())
    assert best.parameters == sum(sizes[name] for name in region)
    written = json.loads((out / "sweep" / "memflex.json").read_text())
    assert written == asdict(found)
    html = (out / "sweep" / "memflex.html").read_text()
    assert not re.search(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=", html)
    assert "forgotten" in html
    memorized = load_state(run.model, run.memorized)
    assert all(torch.equal(value, memorized[name]) for name, value in run.model.state().items())


def test_recipe_lines_train_what_was_found(prepared: Path, out: Path, tmp_path: Path) -> None:
    found = sweep(small(out), "memflex", trials=2, ranges={"region": (0.3, 0.8)})
    assert found.recipe is not None
    assert found.best is not None
    given = yaml.safe_load(found.recipe)
    given["unlearn"]["stop"] = {"evaluations": 3, "target": 0.0, "floor": 50}
    given["unlearn"] |= {"epochs": 1, "batch_size": 8}
    variant = parse_recipe(given, "sweep").unlearn.variants[0]
    assert variant.name == "memflex-swept"
    assert variant.region == str(out / "sweep" / "memflex-region.json")
    again, _ = load_recipe("demo", [*SMALL, f"unlearn={json.dumps(given['unlearn'])}"])
    shutil.copytree(prepared, tmp_path / "again")
    (tmp_path / "again" / "recipe.yaml").unlink()  # what it holds is another's too
    run = Run(again, tmp_path / "again")
    assert unlearn(run) == []
    manifest = json.loads((run.unlearned("memflex-swept") / "manifest.json").read_text())
    best = found.trial(found.best)
    assert manifest["best"]["score"] == best.score
    assert manifest["parameters"] == best.parameters


def test_without_a_stop_the_lines_bring_one(out: Path, scripted: Any) -> None:
    scripted(lambda step, given: step / 10)
    recipe, given = load_recipe("demo", [s for s in SMALL if "unlearn.stop" not in s])
    (out / "recipe.yaml").unlink()
    found = sweep(Run(recipe, out, given=given), "gradient_ascent", trials=1)
    assert yaml.safe_load(found.recipe or "")["unlearn"]["stop"]["evaluations"] == 20
    assert found.region is None
    assert list(found.space) == ["lr"]


def test_more_trials_later_are_those_of_one_sweep(
    prepared: Path, out: Path, scripted: Any, tmp_path: Path
) -> None:
    """Same seed, same settings suggested; a second call adds trials and keeps the old ones."""
    calls = scripted(lambda step, given: min(1.0, given["lr"] * 100))
    whole = sweep(small(out), "memflex", trials=12)
    other = Path(shutil.copytree(prepared, tmp_path / "other"))
    part = sweep(small(other), "memflex", trials=3)
    rest = sweep(small(other), "memflex", trials=12)
    assert rest.trials[:3] == part.trials
    assert [t.params for t in rest.trials] == [t.params for t in whole.trials]
    assert len({t.params["lr"] for t in whole.trials}) == 12
    before = len(calls)
    assert sweep(small(other), "memflex", trials=5).trials == rest.trials
    assert len(calls) == before


def test_killed_trial_is_no_obstacle(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, reported = optuna.trial.Trial.report, []

    def kill(self: optuna.trial.Trial, value: float, step: int) -> None:
        reported.append(self.number)
        if self.number == 1:
            raise KeyboardInterrupt
        report(self, value, step)

    monkeypatch.setattr(optuna.trial.Trial, "report", kill)
    run = small(out)
    with pytest.raises(KeyboardInterrupt):
        sweep(run, "npo", trials=3)
    memorized = load_state(run.model, run.memorized)
    assert all(torch.equal(value, memorized[name]) for name, value in run.model.state().items())
    monkeypatch.setattr(optuna.trial.Trial, "report", report)
    found = sweep(small(out), "npo", trials=3)
    assert [t.state for t in found.trials if t.state == "failed"] == ["failed"]
    assert [t.number for t in found.trials] == [0, 1, 2, 3]
    assert found.trials[1].state == "failed"
    assert found.trials[2].params == found.trials[1].params
    assert 1 not in found.front


def test_other_inputs_are_another_study(out: Path, scripted: Any) -> None:
    scripted(lambda step, given: 0.5)
    first = sweep(small(out), "npo", trials=2)
    ranged = sweep(small(out), "npo", trials=1, ranges={"beta": (1.0, 2.0)})
    assert len(ranged.trials) == 1
    assert ranged.study != first.study
    assert 1 <= ranged.trials[0].params["beta"] <= 2
    assert len(sweep(small(out), "npo", trials=2).trials) == 2
    names = optuna.study.get_all_study_names(f"sqlite:///{out}/sweep/npo.db")
    assert set(names) == {first.study, ranged.study}


def test_other_masks_are_another_study(out: Path) -> None:
    """A region of parts of tensors may have the same names and other weights."""
    run, file = small(out), out.parent / "own.json"
    name, value = next(iter(run.model.parameters().items()))
    file.write_text(json.dumps([name]))
    plan = run.recipe.unlearn.variants[1].model_copy(update={"region": str(file)})
    stop, found = run.recipe.unlearn.stop, list[str]()
    assert stop is not None
    for share in (None, 0.0, 1.0):
        if share is not None:
            write_masks(file, {name: torch.full(value.shape, bool(share))})
        setup = set_up_study(run, plan, {})
        assert setup.region(0.0) == [name]
        found.append(fingerprint(sweep_inputs(run, setup, stop)))
    assert len(set(found)) == 3


def test_hopeless_trials_are_pruned(out: Path, scripted: Any) -> None:
    turn = {"n": 0}

    def score(step: int, given: dict[str, Any]) -> float:
        turn["n"] += step == 1
        return 0.1 if turn["n"] > 4 else 0.1 * step

    scripted(score)
    found = sweep(small(out), "npo", trials=6)
    assert [t.state for t in found.trials] == ["complete"] * 4 + ["pruned"] * 2
    assert found.trials[5].reason == "below the median at evaluation 2"
    assert found.trials[5].score == pytest.approx(0.1)
    assert found.front == [0, 1, 2, 3]


def test_divergence_and_empty_regions_are_pruned(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(start: Start, settings: UnlearnSettings, **given: Any) -> Unlearned:
        return Unlearned([], {"diverged": "step 1: the loss is no longer finite"})

    monkeypatch.setattr(trials, "unlearn", diverge)
    found = sweep(small(out), "gradient_ascent", trials=1)
    assert found.trials[0].state == "pruned"
    assert found.trials[0].reason == "diverged: step 1: the loss is no longer finite"
    assert found.trials[0].score is None
    assert found.best is found.recipe is None
    assert found.front == []
    empty = sweep(small(out), "memflex", trials=1, ranges={"region": (0.0, 0.0)})
    assert "no tensor passes" in (empty.trials[0].reason or "")


def test_time_is_up(out: Path, scripted: Any) -> None:
    calls = scripted(lambda step, given: 0.5)
    assert sweep(small(out), "npo", trials=3, timeout=0).trials == []
    assert calls == []


def test_what_cannot_be_swept(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small(out)
    with pytest.raises(BadInput, match=r"unknown variant 'memflx'; did you mean 'memflex'\?"):
        sweep(run, "memflx")
    with pytest.raises(BadInput, match="--variant: memflex, npo, gradient_ascent"):
        sweep(run)
    for ranges, reason in (
        ({"beat": (1, 2)}, r"unknown range of variant npo 'beat'; did you mean 'beta'"),
        ({"region": (0.1, 0.2)}, "unknown range of variant npo 'region'"),
        ({"beta": (2, 1)}, "swap them"),
        ({"retention": (0, 1)}, "above 0"),
        ({"lr": (-1, 1)}, "above 0"),
    ):
        with pytest.raises(BadInput, match=reason):
            sweep(run, "npo", ranges=ranges)
    with pytest.raises(BadInput, match="between 0 and 1"):
        sweep(run, "memflex", ranges={"region": (0.5, 2)})
    assert not (out / "sweep").exists()
    (out / "sweep").mkdir()
    (out / "sweep" / "npo.db").write_text("no database " * 200)
    with pytest.raises(BadInput, match=r"npo\.db: holds no sweep"):
        sweep(run, "npo", trials=1)
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"sweep needs optuna; pip install 'knowundo\[sweep\]'"):
        sweep(run, "npo")


def test_command(out: Path, knowundo: Call, scripted: Any, tmp_path: Path) -> None:
    scripted(lambda step, given: min(1.0, given["lr"] * 100))
    (tmp_path / "space.yaml").write_text("{lr: [1e-3, 4e-3]}")
    words = ("sweep", "--out", str(out), "--variant", "memflex", "--space", "space.yaml")
    asked = knowundo(*words, "--trials", "3", "--json")
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert found["space"]["lr"]["high"] == 4e-3
    assert len(found["trials"]) == 3
    assert "sweep memflex: lr 0.001 … 0.004, ascent 0.1 … 1.6" in asked.stderr
    assert "trial 2: lr" in asked.stderr
    shown = knowundo(*words, "--trials", "3")
    assert shown.returncode == 0, shown.stderr
    assert "trials: 3 complete" in shown.stdout
    assert "name: memflex-swept" in shown.stdout
    refused = knowundo("sweep", "--out", str(out), "--variant", "memflx")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: unknown variant 'memflx'")
