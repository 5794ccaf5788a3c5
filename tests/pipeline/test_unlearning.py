"""The stage unlearn: divergence, regions from elsewhere, kept steps."""

from __future__ import annotations

import gc
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Call
from knowundo.errors import MethodsFailed
from knowundo.pipeline import unlearning as pipeline
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.whole import run_all
from knowundo.recipes.reading import load_recipe
from knowundo.reporting.panels import training_curves
from knowundo.results import read_results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from knowundo.unlearning.settings import UnlearnSettings, copies_held
from knowundo.unlearning.training import Unlearned
from plugin_methods import BLOWS_UP, install
from tiny_run import tiny_run


@pytest.fixture
def blows_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(BLOWS_UP, tmp_path / "plugins", monkeypatch)


@pytest.mark.usefixtures("blows_up")
def test_other_variants_are_trained_after_one_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "canary-0123456789"
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, secret)
    sets = [
        "data.subjects=2",
        "memorize.epochs=1",
        "memorize.retain_model=false",
        "evaluate.resamples=10",
        "unlearn.variants=[{method: blows_up, lr: 1e-3}, {preset: gradient_ascent, lr: 1e-4}]",
    ]
    recipe, given = load_recipe("demo", sets)
    with pytest.raises(MethodsFailed, match="blows_up"):
        run_all(Run(recipe, tmp_path / "run", given=given))
    results = read_results(tmp_path / "run" / "results.json")
    names = [variant.name for variant in results.variants]
    assert names == ["base", "memorized", "blows_up", "gradient_ascent"]
    facts = {variant.name: variant for variant in results.variants}
    assert "no longer finite" in str(facts["blows_up"].diverged)
    assert facts["blows_up"].kept_step == 0
    assert facts["gradient_ascent"].diverged is None
    written = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(written) > 20
    assert not any(secret.encode() in file.read_bytes() for file in written)
    with pytest.raises(MethodsFailed, match="blows_up"):  # finished, and still to be told
        run_all(Run(recipe, tmp_path / "run", given=given))
    assert (tmp_path / "run" / "report.html").exists()
    assert all(row.reference is None for row in results.rows)


def brief(base: str, *variants: str, more: tuple[str, ...] = ()) -> list[str]:
    """Words of the command line for a run over one subject whose records the base itself knows."""
    listed = f"unlearn.variants=[{', '.join(variants)}]"
    sets = [
        "data.subjects=1", "memorize.retain_model=false", f"memorize.adopt={base}",
        f"model.base={base}", "localize.draws=1", "unlearn.lr=1e-4", listed, *more,
    ]  # fmt: skip
    return ["--config", "demo", "--out", "run", *(word for one in sets for word in ("--set", one))]


def test_a_region_from_elsewhere_for_one_variant_of_a_finished_run(
    knowundo: Call, toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"method": "ascent_plus_descent", "lr": 1e-4, "optimizer_steps": 0, "seconds": 0.0}
    monkeypatch.setattr(pipeline, "train_method", lambda *_, **__: Unlearned([], dict(facts)))
    control = "{preset: memflex, region: random-1, name: control}"
    words = brief(toy_base, "{preset: memflex}", control)
    for stage in ("memorize", "localize", "unlearn"):
        assert (done := knowundo(stage, *words)).returncode == 0, done.stderr
    region = json.loads((tmp_path / "run/regions/memflex.json").read_text())[:2]
    (tmp_path / "mine.json").write_text(json.dumps(region))
    mine = ("--region", "mine.json", "--out", "run", "--json")
    done = knowundo("unlearn", *mine, "--variant", "memflex")
    assert done.returncode == 0, done.stderr
    # The old control is another region's now: that is said, and it is not listed.
    assert json.loads(done.stdout)["artifacts"] == ["run/unlearned/memflex"]
    assert "control: made of other inputs" in done.stderr
    refused = knowundo("evaluate", "--out", "run")
    assert refused.returncode == 2
    assert "run/unlearned/control: made of other inputs" in refused.stderr
    done = knowundo("unlearn", "--out", "run", "--json")
    assert json.loads(done.stdout)["artifacts"] == [
        "run/unlearned/memflex",
        "run/unlearned/control",
    ]
    assert "made of other inputs" not in done.stderr


def test_kept_steps_are_models_of_the_run(knowundo: Call, toy_base: str, tmp_path: Path) -> None:
    preset = "{preset: gradient_ascent, name: ascent, keep_every: 1}"
    words = brief(toy_base, preset, "{preset: npo}", more=("evaluate.generate=[]",))
    for stage in ("memorize", "localize", "unlearn"):
        assert (done := knowundo(stage, *words)).returncode == 0, done.stderr
    folder = tmp_path / "run" / "unlearned"
    steps = read_manifest(folder / "ascent")["kept_steps"]
    assert steps == list(range(1, read_manifest(folder / "ascent")["optimizer_steps"]))
    names = [f"ascent.step-{step}" for step in steps]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["ascent", *names, "npo"])
    first = read_manifest(folder / names[0])
    assert (first["optimizer_steps"], first["kept_step"], first["lr"]) == (1, 1, 1e-4)
    curves = [json.loads((folder / n / "curve.json").read_text()) for n in ("ascent", names[0])]
    assert curves[1] == curves[0][:1]
    run = Run.existing(tmp_path / "run")
    assert [v.name for v in run.made_variants()[0]] == [*names, "ascent", "npo"]
    done = knowundo("evaluate", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["variants"]}
    assert list(found) == ["memorized", *names, "ascent", "npo"]
    assert found[names[0]]["kept_step"] == 1
    assert found[names[0]]["method"] == "gradient_ascent"
    assert knowundo("verify", "run").returncode == 0
    assert "ascent: already there, skipped" in knowundo("unlearn", *words).stderr
    removed = knowundo("purge", "run", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["ascent", "npo"]
    assert knowundo("verify", "run").returncode == 0


def test_one_method_after_another_is_one_variant(
    knowundo: Call, toy_base: str, tmp_path: Path
) -> None:
    def words(then: str) -> list[str]:
        return brief(toy_base, f"{{preset: npo, then: [{then}]}}", more=("unlearn.epochs=1",))

    undo = words("{preset: undo, lr: 1e-3, shrink: 0.5}")
    for stage in ("memorize", "localize", "unlearn"):
        assert (done := knowundo(stage, *undo)).returncode == 0, done.stderr
    folder = tmp_path / "run" / "unlearned" / "npo"
    manifest, curve = read_manifest(folder), json.loads((folder / "curve.json").read_text())
    (second,) = manifest["then"]
    assert (manifest["method"], second["method"]) == ("npo", "undo")
    assert (manifest["lr"], second["lr"]) == (1e-4, 1e-3)
    assert second["arguments"]["shrink"] == 0.5
    assert manifest["optimizer_steps"] == len(curve) == 2 * second["optimizer_steps"]
    assert not (tmp_path / "run" / "checkpoints" / "unlearned" / "npo").exists()
    drawn = training_curves({"npo": curve})
    assert drawn is not None
    lines = Counter(row["line"] for row in drawn.rows)
    assert lines == {"unlearn": len(curve) // 2, "retention": len(curve)}
    assert "npo: already there, skipped" in knowundo("unlearn", "--out", "run").stderr
    done = knowundo("evaluate", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["variants"]}
    assert (found["npo"]["method"], found["npo"]["then"]) == ("npo", ["undo"])


def test_only_a_variants_own_steps_are_replaced(tmp_path: Path) -> None:
    """A variant may be called like the steps of another one."""
    run: Any = SimpleNamespace(out=tmp_path)
    for name in ("ga.step-size-low", "ga.step-20", "ga.step-020"):
        (tmp_path / "unlearned" / name).mkdir(parents=True)
    pipeline._remove_kept(run, "ga")
    left = sorted(path.name for path in (tmp_path / "unlearned").iterdir())
    assert left == ["ga.step-020", "ga.step-size-low"]


def test_the_stage_holds_the_copies_that_are_said(toy_base: str, tmp_path: Path) -> None:
    """Those of training, and the end beside them while the kept steps are written."""
    run = tiny_run(tmp_path / "run", toy_base, "unlearn.keep_every=1", "unlearn.epochs=3")
    memorize(run)
    localize(run)
    pipeline.unlearn(run)
    steps = read_manifest(run.unlearned("gradient_ascent"))["optimizer_steps"]
    assert steps > 2
    settings = UnlearnSettings("gradient_ascent", 3, 8, 1, keep_every=1)
    said = copies_held(settings, steps, stopping=False, searching=False)
    assert said["end"] == 1
    region = sum(parameter.nbytes for parameter in run.model.parameters().values())
    assert run.model.snapshots.peak == sum(said.values()) * region
    gc.collect()  # the trainer's objects refer to each other
    assert set(run.model.snapshots.nbytes()) == {"initial"}
