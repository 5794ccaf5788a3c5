"""The whole pipeline on the embedded base, small; and on ten authors of the real benchmark."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import yaml

from conftest import REAL, Call
from knowundo.data.knowundo_files import export_knowundo
from knowundo.errors import BadInput
from knowundo.modeling import loading
from knowundo.pipeline import scores
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.reporting import report
from knowundo.pipeline.unlearning import unlearn
from knowundo.pipeline.whole import run_all
from knowundo.recipes.reading import load_recipe
from knowundo.registry import get
from knowundo.results import Results, read_results
from knowundo.runs.run import Run
from knowundo.storage.files import file_hash

SMALL = (
    "data.subjects=6",
    "memorize.epochs=40",
    "localize.draws=1",
    "evaluate.generate=[train, val]",
    "evaluate.resamples=50",
    "unlearn.variants=[{preset: gradient_ascent}, {preset: ascent_plus_kl}, {preset: memflex}, "
    "{preset: memflex, region: random-1, name: control}]",
)


def small(out: Path, *sets: str) -> Run:
    recipe, given = load_recipe("demo", [*SMALL, *sets])
    return Run(recipe, out, given=given)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Results]:
    run = small(tmp_path_factory.mktemp("runs") / "small")
    return run, run_all(run)


def value(results: Results, variant: str, metric: str, scope: str | None, split: str) -> float:
    row = results.find(variant, metric, scope, split)
    assert row is not None
    assert row.value is not None
    return row.value


def test_knowledge_comes_and_goes(done: tuple[Run, Results]) -> None:
    _, results = done
    for scope in ("unlearn", "retention"):
        for split in ("train", "val"):
            assert value(results, "memorized", "token_accuracy", scope, split) >= 98
            assert value(results, "memorized", "exact_match", scope, split) >= 90
            assert value(results, "base", "exact_match", scope, split) == 0
    for name in ("gradient_ascent", "ascent_plus_kl", "memflex"):
        assert value(results, name, "exact_match", "unlearn", "train") <= 20
    assert value(results, "retain", "exact_match", "retention", "val") >= 90
    assert value(results, "retain", "exact_match", "unlearn", "val") == 0


def test_results_say_what_they_are(done: tuple[Run, Results]) -> None:
    run, results = done
    assert read_results(run.out / "results.json") == results
    frame = pd.DataFrame(json.loads((run.out / "results.json").read_text())["rows"])
    assert set(frame["variant"]) == {
        "base", "memorized", "retain", "gradient_ascent", "ascent_plus_kl", "memflex", "control",
    }  # fmt: skip
    assert (frame["low"].isna() == frame["value"].isna()).all()
    scored = frame.dropna(subset=["value"])
    assert (scored["low"] <= scored["high"]).all()
    assert results.packages["torch"]
    assert results.hardware["threads"] == int(run.recipe.model.threads)
    sizes = {variant.name: variant.parameters for variant in results.variants}
    assert sizes["memflex"] == sizes["control"]
    pairs = [(pair.variant, pair.against, pair.metric) for pair in results.comparisons]
    assert pairs == [
        ("memflex", "control", metric) for metric in ("average_success", "gap_to_target")
    ]


def test_rates_follow_the_stated_rule(done: tuple[Run, Results]) -> None:
    _, results = done
    target = value(results, "base", "token_accuracy", "unlearn", "train") / 100
    for variant in results.variants:
        if variant.role != "unlearned":
            continue
        off = {a["lr"]: abs(a["unlearn"] - target) for a in variant.attempts}
        assert off[variant.lr] == min(off.values())
        assert len(off) == len(variant.attempts) <= 5


def test_report_is_self_contained_and_complete(done: tuple[Run, Results]) -> None:
    run, results = done
    html = (run.out / "report.html").read_text()
    for variant in results.variants:
        assert variant.name in html
    for words in ("never saw the unlearn scope", "overshoot", "Jaccard", results.data_sha256):
        assert words in html
    assert not re.search(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=", html)


def test_second_call_does_nothing_again(done: tuple[Run, Results]) -> None:
    run, results = done
    before = {p: p.stat().st_mtime_ns for p in run.out.rglob("*.safetensors")}
    assert run_all(Run.existing(run.out)) == results
    assert {p: p.stat().st_mtime_ns for p in run.out.rglob("*.safetensors")} == before


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "other"):
        variants = "unlearn.variants=[{preset: memflex, lr: 1e-3}, {preset: npo_kl, lr: 1e-3}]"
        sets = ("data.subjects=2", "memorize.epochs=2", "unlearn.stop={}", variants)
        sets += ("evaluate.generate=[val]", "memorize.retain_model=false")
        runs.append(small(tmp_path / name, *sets))
        run_all(runs[-1])
    names = [p.relative_to(runs[0].out) for p in runs[0].out.rglob("*.safetensors")]
    assert len(names) == 3
    for file in [*names, Path("results.json"), Path("regions/memflex.json")]:
        assert file_hash(runs[0].out / file) == file_hash(runs[1].out / file), file


def test_edited_data_are_noticed(tmp_path: Path) -> None:
    """A region found on other rows is not taken for one of these."""
    source = tmp_path / "data" / "privacy"
    build = get("benchmark", "embedded")
    export_knowundo({source: build(domain="privacy", seed=1, subjects=2)})
    sets = ("data.benchmark=knowundo", f"data.source={source.parent}", "memorize.epochs=1")
    words = (*sets, "memorize.retain_model=false", "unlearn.lr=1e-3", "data.subjects=2")
    run = small(tmp_path / "run", *words)
    memorize(run)
    localize(run)
    file = source / "retention.json"
    file.write_text(file.read_text().replace("the", "that", 1))
    with pytest.raises(BadInput, match=r"memorized: made of other inputs .*knowundo memorize"):
        unlearn(small(tmp_path / "run", *words), ["memflex"])
    with pytest.raises(BadInput, match="memorized: made of other inputs"):
        evaluate(small(tmp_path / "run", *words))


def test_region_from_a_file_in_a_run_that_is_there(
    done: tuple[Run, Results], knowundo: Call, tmp_path: Path
) -> None:
    run, _ = done
    shutil.copytree(run.out, tmp_path / "run")
    region = tmp_path / "located_region_privacy.json"
    names = json.loads((run.regions / "random-1.json").read_text())
    region.write_text(json.dumps(names))
    words = ("--region", str(region), "--variant", "memflex", "--out", "run", "--json")
    asked = knowundo("unlearn", *words)
    assert asked.returncode == 0, asked.stderr
    held = Run.existing(tmp_path / "run")
    assert held.recipe.localize.adopt == str(region)
    assert held.region("memflex") == names
    moved = {
        name: file_hash(out / "unlearned" / "memflex" / "adapter_model.safetensors")
        for name, out in (("before", run.out), ("after", tmp_path / "run"))
    }
    assert moved["before"] != moved["after"]
    refused = knowundo("unlearn", "--set", "memorize.lr=1", "--out", "run")
    assert refused.returncode == 2
    assert "memorize.lr is 0.002, not 1" in refused.stderr


def test_missing_region_is_named(done: tuple[Run, Results], tmp_path: Path) -> None:
    run, _ = done
    copy = tmp_path / "copy"
    shutil.copytree(run.out, copy)
    (copy / "regions" / "memflex.json").unlink()
    with pytest.raises(BadInput, match=r"regions/memflex\.json: changed since"):
        unlearn(Run.existing(copy), ["memflex"])


def test_stages_by_themselves(tmp_path: Path) -> None:
    sets = ("data.subjects=2", "memorize.epochs=1", "unlearn.lr=1e-3", "unlearn.epochs=1")
    sets += ("evaluate.generate=[]",)
    run = small(tmp_path / "run", *sets)
    memorize(run)
    localize(run)
    assert unlearn(run, ["memflex"]) == []
    assert {row.variant for row in evaluate(run).rows} == {"base", "memorized", "retain", "memflex"}
    assert report(run).exists()


def test_adapter_is_pefts(done: tuple[Run, Results]) -> None:
    """Plain peft loads what we wrote, and says the same."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from knowundo.modeling.base import base_path
    from knowundo.modeling.variant import ModelVariant

    run, _ = done
    base = AutoModelForCausalLM.from_pretrained(base_path("embedded"), dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, run.memorized).eval()
    run.model.use(ModelVariant("memorized", "memorized", run.memorized))
    ids = torch.tensor([run.encoded("unlearn", "val")[0].ids])
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, run.model.net(input_ids=ids).logits
        )


def test_adapters_are_scored_by_a_command(
    done: tuple[Run, Results],
    knowundo: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adapters of one base in one batched forward have the scores of the run that made them."""
    run, results = done
    loads: list[Any] = []
    load = loading.AutoModelForCausalLM.from_pretrained

    def counted(*words: Any, **options: Any) -> Any:
        loads.append(words)
        return load(*words, **options)

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", counted)
    monkeypatch.setattr(scores, "fill_a_batch", lambda *_: 4)
    names = ("memflex", "gradient_ascent", "control")
    folders = [str(run.unlearned(name)) for name in names]
    asked = knowundo(
        "evaluate", "--base", "embedded", "--adapters", *folders, "--set", "data.subjects=6",
        "--set", "evaluate.generate=[]", "--set", "evaluate.resamples=20", "--out", "scored",
        "--json",
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert len(loads) == 1
    assert "evaluate base, memflex, gradient_ascent, control" in asked.stderr
    found = Results.model_validate_json(asked.stdout)
    roles = {variant.name: variant.role for variant in found.variants}
    assert roles == {"base": "base"} | dict.fromkeys(names, "given")
    for name in names:
        for metric, scope in (("unlearn_success", "unlearn"), ("perplexity", "retention")):
            assert value(found, name, metric, scope, "val") == pytest.approx(
                value(results, name, metric, scope, "val"), abs=1e-6
            )
    # Killed when one of them was written: resumed with those that are left.
    kept = read_results(Path("scored/results.json"))
    shutil.rmtree("scored/scores/control")
    Path("scored/results.json").unlink()
    again = knowundo("evaluate", "--out", "scored", "--json")
    assert again.returncode == 0, again.stderr
    assert "evaluate control" in again.stderr
    assert "evaluate base" not in again.stderr
    for row in Results.model_validate_json(again.stdout).rows:
        before = kept.find(row.variant, row.metric, row.scope, row.split, row.subset)
        assert before is not None
        assert row.value == (before.value and pytest.approx(before.value, rel=1e-6))
    shown = knowundo("report", "--out", "scored")
    assert shown.returncode == 0, shown.stderr
    assert "memflex" in (tmp_path / "scored" / "report.html").read_text()


def test_overlap_of_regions_is_printed(done: tuple[Run, Results], knowundo: Call) -> None:
    run, _ = done
    one, other = (run.regions / f"{name}.json" for name in ("memflex", "everything"))
    found = json.loads(knowundo("localize", "--compare", str(one), str(other), "--json").stdout)
    sizes = [len(json.loads(file.read_text())) for file in (one, other)]
    assert found["all"]["all"] == pytest.approx(sizes[0] / sizes[1])
    assert set(found["layer"]) == {str(n) for n in range(len(found["layer"]))}
    plain = knowundo("localize", "--compare", str(one), str(one)).stdout
    assert "all: 1.000" in plain
    assert "module q_proj: 1.000" in plain or "module v_proj: 1.000" in plain


def test_two_runs_are_compared(done: tuple[Run, Results], knowundo: Call, tmp_path: Path) -> None:
    run, _ = done
    sets = ("compat=[end_masked]", f"memorize.adopt={run.memorized}", "unlearn.lr=1e-3")
    sets += ("memorize.retain_model=false", "evaluate.generate=[]")
    sets += ("unlearn.variants=[{preset: memflex}]",)
    other = small(tmp_path / "other", *sets)
    run_all(other)
    said = json.loads(knowundo("compare", str(run.out), str(other.out), "--json").stdout)
    assert ["compat", [], ["end_masked"]] in said["keys"]
    rows = {(row["variant"], row["heading"]): row for row in said["differences"]}
    # The adopted model is the same; without the end, its answers' perplexity is another.
    assert rows["memorized", "Unlearn Success"]["change"] == 0
    assert rows["memorized", "Unlearn PPL"]["change"] != 0
    assert rows["memflex", "Average"]["low"] <= rows["memflex", "Average"]["high"]
    assert "memflex" in knowundo("compare", str(run.out), str(other.out)).stdout


@pytest.mark.slow
def test_general_tasks_stand_in_results_and_report(
    done: tuple[Run, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = done
    fixtures = Path(__file__).parents[1] / "fixtures" / "lm_eval_tasks"
    (tmp_path / "tasks").mkdir()
    text = (fixtures / "mini_towns.yaml").read_text().replace("FIXTURES", str(fixtures))
    (tmp_path / "tasks" / "towns.yaml").write_text(text)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    task = yaml.safe_load(text)["task"]
    again = small(
        tmp_path / "run",
        "data.subjects=2",
        f"memorize.adopt={run.memorized}",
        "memorize.retain_model=false",
        "unlearn.variants=[{preset: memflex, lr: 1e-3}]",
        "evaluate.generate=[]",
        f"evaluate.general_tasks=[{task}]",
        f"evaluate.general_folder={tmp_path / 'tasks'}",
    )
    results = run_all(again)
    rows = [row for row in results.rows if row.metric == task]
    assert {row.variant for row in rows} == {"base", "memorized", "memflex"}
    assert all(row.stderr is not None and row.task_version is not None for row in rows)
    assert "General tasks" in (again.out / "report.html").read_text()


REAL_RUN = ("data.benchmark=knowundo", f"data.source={REAL}", "localize.draws=1")


def real(out: Path, *sets: str) -> Results:
    recipe, given = load_recipe("demo", [*REAL_RUN, *sets])
    return run_all(Run(recipe, out, given=given))


def knows(results: Results) -> dict[str, Any]:
    return {
        f"{scope}/{split}": value(results, "memorized", "exact_match", scope, split)
        for scope in ("unlearn", "retention")
        for split in ("train", "val")
    }


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"no real KnowUnDo data at {REAL}")
def test_some_real_authors(tmp_path: Path) -> None:
    results = real(
        tmp_path / "run",
        "data.subjects=3",
        "model.adaptation=full",
        "memorize.retain_model=false",
        "evaluate.resamples=50",
        "evaluate.generate=[val]",
        "unlearn.variants=[{preset: memflex, lr: 4e-3, epochs: 6}]",
    )
    assert results.model["adaptation"]["kind"] == "full"
    assert value(results, "memorized", "token_accuracy", "unlearn", "train") >= 98
    assert value(results, "memorized", "exact_match", "unlearn", "val") >= 90
    assert value(results, "memflex", "token_accuracy", "unlearn", "train") < 90


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"no real KnowUnDo data at {REAL}")
def test_all_real_authors(tmp_path: Path) -> None:
    results = real(
        tmp_path / "run",
        "evaluate.resamples=100",
        "evaluate.generate=[train, val]",
        "unlearn.variants=[{preset: ascent_plus_descent}, {preset: memflex}]",
    )
    assert all(share >= 90 for share in knows(results).values()), knows(results)
