"""A sweep of one variant: on a model that knows little, and with scripted trainings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml

from conftest import Call
from knowundo.errors import BadInput
from knowundo.localization.gradients import Measured
from knowundo.modeling import regions
from knowundo.modeling.weights import load_state
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.unlearning import unlearn
from knowundo.recipes.reading import load_recipe, parse_recipe
from knowundo.registry import get
from knowundo.runs.run import Run
from knowundo.sweeps import study as module
from knowundo.sweeps.results import pareto_front
from knowundo.sweeps.space import derive_space, nearest_size, read_ranges, region_of_size, weights
from knowundo.sweeps.sweep import sweep
from knowundo.unlearning.early_stopping import Look
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned

SMALL = (
    "data.subjects=2",
    "memorize.epochs=2",
    "memorize.retain_model=false",
    "localize.draws=1",
    "localize.copies=1",
    "unlearn.lr=2e-3",
    "unlearn.epochs=1",
    "unlearn.stop={looks: 3, target: 0.0, floor: 50}",
    "unlearn.variants=[{preset: memflex}, {preset: npo, beta: 0.5}, {preset: gradient_ascent}]",
)


def small(out: Path, *sets: str) -> Run:
    recipe, given = load_recipe("demo", [*SMALL, *sets])
    return Run(recipe, out, given=given)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is memorized and localized."""
    run = small(tmp_path_factory.mktemp("sweeps") / "run")
    memorize(run)
    localize(run)
    return run.out


@pytest.fixture
def out(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(prepared, tmp_path / "run"))


def seen(step: int, score: float, lost: float = 0.0) -> Look:
    return Look(
        step=step, unlearn=0.5, retention=0.9, forgotten=score, kept=1.0, lost=lost, score=score
    )


Score = Callable[[int, dict[str, Any]], float]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Score], list[dict[str, Any]]]:
    """Replaces training by three looks whose scores a function tells; collects the calls."""

    def replace(score: Score) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def train(start: Start, *, look: Callable[[Look], bool], **given: Any) -> Unlearned:
            calls.append(given)
            for step in range(1, 4):
                if look(seen(step, score(step, given))):
                    return Unlearned([], {"stopped": "pruned"})
            return Unlearned([], {"stopped": "end"})

        monkeypatch.setattr(module, "unlearn", train)
        return calls

    return replace


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
    given["unlearn"]["stop"] = {"looks": 3, "target": 0.0, "floor": 50}
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
    assert yaml.safe_load(found.recipe or "")["unlearn"]["stop"]["looks"] == 20
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


def test_hopeless_trials_are_pruned(out: Path, scripted: Any) -> None:
    turn = {"n": 0}

    def score(step: int, given: dict[str, Any]) -> float:
        turn["n"] += step == 1
        return 0.1 if turn["n"] > 4 else 0.1 * step

    scripted(score)
    found = sweep(small(out), "npo", trials=6)
    assert [t.state for t in found.trials] == ["complete"] * 4 + ["pruned"] * 2
    assert found.trials[5].reason == "below the median at look 2"
    assert found.trials[5].score == pytest.approx(0.1)
    assert found.front == [0, 1, 2, 3]


def test_divergence_and_empty_regions_are_pruned(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(start: Start, **given: Any) -> Unlearned:
        return Unlearned([], {"diverged": "step 1: the loss is no longer finite"})

    monkeypatch.setattr(module, "unlearn", diverge)
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


def test_front() -> None:
    assert pareto_front([]) == []
    points = [(0.5, 1.0), (0.9, 3.0), (0.9, 2.0), (0.4, 1.0), (0.5, 1.0), (1.0, 9.0), (0.2, -1.0)]
    assert pareto_front(points) == [5, 2, 0, 4, 6]


def test_derived_space() -> None:
    npo = get("method", "npo")
    assert weights(npo) == ["beta", "retention", "divergence"]
    assert weights(get("method", "dpo")) == ["beta", "retention", "divergence"]
    space = derive_space(npo, npo.bind({"beta": 0.2}), rate=1e-3)
    assert list(space) == ["lr", "beta", "retention"]
    assert (space["lr"].low, space["lr"].high) == pytest.approx((1e-4, 1e-2))
    assert (space["beta"].low, space["beta"].high, space["beta"].own) == (0.05, 0.8, 0.2)
    ranges = {"divergence": (0.1, 1.0), "lr": (1e-5, 1e-4)}
    given = derive_space(npo, npo.bind({}), rate=1e-3, size=0.4, ranges=ranges)
    assert list(given) == ["lr", "beta", "retention", "divergence", "region"]
    assert (given["divergence"].low, given["divergence"].high) == (0.1, 1.0)
    assert (given["lr"].low, given["lr"].high, given["lr"].own) == (1e-5, 1e-4, 1e-3)
    assert (given["region"].low, given["region"].high, given["region"].log) == (0.1, 0.9, False)


def test_regions_of_all_sizes_are_nested() -> None:
    names = [f"m.{n}.lora_{kind}.weight" for n in range(12) for kind in "AB"]
    measured = Measured(
        {name: (7 * n % 24) / 24 for n, name in enumerate(names)},
        {name: (5 * n % 24) / 24 for n, name in enumerate(names)},
    )
    memflex = get("localizer", "memflex")
    rest = {"localizer": memflex, "measured": measured, "known": names, "whole_modules": False}
    made = [
        set(region_of_size(size, arguments={"mu": -2.0, "sigma": 1.0}, **rest))
        for size in (0.3, 0.5, 0.7, 0.9)
    ]
    assert all(one < other for one, other in pairwise(made))
    assert made[1] == memflex(measured)
    whole = region_of_size(0.5, **(rest | {"arguments": {}, "whole_modules": True}))
    assert whole == regions.with_whole_modules(made[1], names)
    sizes = dict.fromkeys(names, 10)

    def region(size: float) -> list[str]:
        return region_of_size(size, arguments={}, **rest)

    assert nearest_size(region, sizes, 10 * len(made[1])) == 0.5
    assert set(region(nearest_size(region, sizes, 10 * len(made[2])))) == made[2]


def test_what_cannot_be_swept(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small(out)
    with pytest.raises(BadInput, match=r"unknown variant 'memflx'; did you mean 'memflex'\?"):
        sweep(run, "memflx")
    with pytest.raises(BadInput, match="--variant: memflex, npo, gradient_ascent"):
        sweep(run)
    for ranges, reason in (
        ({"beat": (1, 2)}, r"unknown range of variant npo 'beat'; did you mean 'beta'"),
        ({"region": (0.1, 0.2)}, "unknown range of variant npo 'region'"),
        ({"beta": (2, 1)}, "turn them round"),
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
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"sweep needs optuna; pip install 'knowundo\[sweep\]'"):
        sweep(run, "npo")


@pytest.mark.parametrize("text", ["[1]", "lr: 3", "lr: [1]", "lr: [1, 2, 3]", "lr: [a, 2]", "1: ["])
def test_ranges_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"space\.yaml"):
        read_ranges(file)


def test_ranges_are_read(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("{lr: [1e-5, 1e-3], beta: [1, 2]}")
    assert read_ranges(tmp_path / "space.yaml") == {"lr": (1e-5, 1e-3), "beta": (1.0, 2.0)}


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
