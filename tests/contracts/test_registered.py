"""What every registered thing owes, and what adding one costs: one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.attacking import base_weights, under_attack
from conftest import randomize
from guarding import guarded, prompts
from knowundo.cli.listing import What, _rows
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.decoding import before_stop
from knowundo.data.description import describe
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import check_records
from knowundo.errors import BadInput
from knowundo.evaluation.groups import Scores
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.model import Model
from knowundo.modeling.step import Step, halves_of
from knowundo.pipeline import run_all
from knowundo.recipes.presets import presets
from knowundo.recipes.reading import load_recipe
from knowundo.region_rule import RegionRule
from knowundo.registry import HOMES, entries
from knowundo.runs.checks import check
from knowundo.runs.records import build_records
from knowundo.scoring.columns import NUMBERS, columns
from knowundo.scoring.generation import continue_prompts
from knowundo.scoring.table import read_scores
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn
from plugin_methods import install
from tiny_run import tiny_run

# Attacks with an argument that names a folder, which has no default.
NEED_A_FOLDER = {"merging"}


def test_every_kind_has_entries() -> None:
    for kind in HOMES:
        assert entries(kind), kind


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in HOMES for name in entries(kind)]
)
def test_documented(kind: str, name: str) -> None:
    entry = entries(kind)[name]
    assert entry.summary.endswith("."), f"{kind} {name}: the docstring begins with a sentence"
    rule = RegionRule.__doc__ if entry.facts.get("needs") else ""
    for argument in entry.arguments:
        assert f"{argument}:" in f"{entry.function.__doc__}{rule}", f"{name}: explain {argument}"


@pytest.mark.parametrize("name", entries("method"))
def test_method(toy: Model, toy_rows: dict[str, list[Encoded]], name: str) -> None:
    """Named scalar parts with gradients; training moves the weights and logs every part."""
    entry = entries("method")[name]
    start = Start(
        toy,
        toy_rows["unlearn"],
        {"retention": toy_rows["retention"]},
        seed=0,
        encode=lambda records: encode(records, toy.tokenizer),
    )
    batch = PairedBatch(
        collate(toy_rows["unlearn"], toy.pad), collate(toy_rows["retention"], toy.pad)
    )
    columns = start.columns(entry)
    toy.train_only(toy.parameters())
    state = entry.first_state(entry.bind({}))
    step = Step(
        Forward(toy), batch, reference=lambda: start.reference, columns=columns, state=state
    )
    parts = entry(step, **entry.bind({}))
    assert parts
    read = halves_of(step.used) | ({"reference"} if "reference" in vars(start) else set())
    assert set(entry.facts["reads"]) == read, f"{name}: correct `reads` of its decorator"
    for part in parts.values():
        assert part.shape == ()
        assert torch.isfinite(part)
    sum(parts.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in toy.net.parameters())
    done = unlearn(
        start, UnlearnSettings(method=name, lr=1e-3, epochs=1, batch_size=2, accumulation=1)
    )
    assert [row["step"] for row in done.curve] == [1, 2, 3]
    assert set(done.curve[0]["parts"]) == set(parts)
    before, after = start._memorized.tensors, toy.state()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    # Away from the memorized model, micro-batches of unequal halves add up to the whole batch.
    split = micro_batches(batch, tokens=10**6, rows=2)
    assert len(split) > 1
    whole, *shares = (start.parts(entry, entry.bind({}), one, set()) for one in (batch, *split))
    for key, part in whole.items():
        torch.testing.assert_close(sum(one[key] for one in shares), part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", entries("guard"))
def test_guard(toy: Model, toy_rows: dict[str, list[Encoded]], tmp_path: Path, name: str) -> None:
    """Teacher forcing and generation pass through it, and say the same; the weights stay."""
    rows, weights = [*toy_rows["unlearn"], *toy_rows["retention"]], toy.state()
    alone = dict(answer_logits(Forward(toy), rows))
    eos = toy.tokenizer.eos_token_id
    with guarded(toy, toy_rows, name, tmp_path) as (forward, _):
        how: dict[str, Any] = {"tokens": 6, "stops": [eos], "forward": forward}
        new = continue_prompts(toy, prompts(rows), **how)
        said = dict(zip(rows, map(tuple, new.tolist()), strict=True))
        # One that ends early is padded after its end.
        said = {r: (*before_stop(ids, [eos]), eos)[: len(ids)] for r, ids in said.items()}
        continued = {
            replace(row, ids=(*row.prompt, *ids), fact=(), tail=0): ids for row, ids in said.items()
        }
        for row, logits in answer_logits(forward, list(continued)):
            assert logits.argmax(-1).tolist() == list(continued[row]), row.record.id
        # Drawn from a distribution that is all but certain, with several answers to each prompt.
        drawn = continue_prompts(toy, prompts(rows), each=2, temperature=1e-6, **how)
        assert torch.equal(drawn[::2], new)
        assert torch.equal(drawn[1::2], new)
        found = dict(answer_logits(forward, rows))
    assert any(not torch.allclose(found[row], alone[row], atol=1e-3) for row in rows)
    toy.reset()
    assert all(torch.equal(value, weights[key]) for key, value in toy.state().items())


@pytest.mark.parametrize("name", entries("metric"))
def test_metric(name: str) -> None:
    import numpy as np

    values = np.linspace(0.1, 0.9, 5)
    entry = entries("metric")[name]
    higher = ("remembered", "forgotten", "fluent", "damaged", "refused")
    assert entry.facts["higher_is"] in higher
    scores = Scores(dict.fromkeys([*NUMBERS, *entries("scorer")], values))
    given = [scores] * max(len(entry.facts["groups"]), 1)
    reference = tuple(given) if entry.facts["groups"] else scores
    arguments = {"reference": reference} if "reference" in entry.arguments else {}
    assert np.isfinite(entry(*given, **arguments))
    # A column that has to be asked for is read only by metrics that ask for it.
    special = {one.name for one in entries("scorer").values() if one.facts["asked"]}
    assert scores.read & special == set(entry.facts["asks"])


@pytest.mark.parametrize("name", entries("localizer"))
def test_localizer(toy: Model, toy_rows: dict[str, list[Encoded]], name: str) -> None:
    """With its defaults it finds a region, not all of the model, and changes no bit."""
    randomize(toy, seed=6)  # what was memorized differs from the base
    before = toy.state()
    settings = LocalizeSettings({name: {}}, copies=1, batch_size=8, draws=1, seed=0)
    found = localize(toy, toy_rows["unlearn"], toy_rows["retention"], settings)
    region = set(found["regions"][name])
    assert region
    assert region < set(toy.parameters())
    assert found["parameters"]["random-1"] == found["parameters"][name]
    after = toy.state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    if entries("localizer")[name].facts["needs"]:
        sizes = found["parameters"]
        assert sizes[name] <= 0.25 * sizes["everything"]
        assert all(name in tensor["scores"] for tensor in found["tensors"])


@pytest.mark.parametrize("name", sorted(set(entries("attack")) - NEED_A_FOLDER))
def test_attack(toy: Model, toy_rows: dict[str, list[Encoded]], name: str) -> None:
    """With its defaults it scores the model in named settings, and leaves the base as it was."""
    entry, base = entries("attack")[name], base_weights(toy)
    assert entry.facts["changes"] in ("weights", "questions", "answers")
    attacked = under_attack(toy, toy_rows, generated_splits=("train",))
    entry(attacked, **entry.bind({}))
    assert attacked.tables
    for setting, table in attacked.tables.items():
        assert ": " not in setting
        assert "unlearn" in set(table["scope"])
        assert table["id"].is_unique
        assert list(table.columns) == list(columns())
    assert all(torch.equal(value, base[key]) for key, value in base_weights(toy).items())


ATTACK_PLUGIN = '''
from knowundo.registry import attack

@attack(changes="weights")
def shaken(attacked, *, size: float = 0.5):
    """Noise on every weight that training may change.

    Args:
        attacked: the model.
        size: standard deviation of the noise.
    """
    import torch

    for parameter in attacked.model.parameters().values():
        parameter.data += size * torch.randn_like(parameter)
    attacked.score(f"size={size}")
'''


def test_an_attack_is_one_file(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written into a folder, it is listed, validated, tried, scored and reported."""
    install(ATTACK_PLUGIN, tmp_path / "plugins", monkeypatch, kind="attack")
    listed = {row["name"]: row for row in _rows(What.attacks)}
    assert listed["shaken"]["arguments"] == {"size": 0.5}
    assert listed["shaken"]["changes"] == "weights"
    with pytest.raises(BadInput, match="did you mean 'size'"):
        tiny_run(tmp_path / "no", toy_base, "evaluate.attacks={shaken: {siz: 1.0}}")
    run = tiny_run(
        tmp_path / "run",
        toy_base,
        "data.subjects=1",
        "evaluate.generate=[]",
        "evaluate.attacks={shaken: {size: 3.0}}",
    )
    results = run_all(run)
    asked = results.find("gradient_ascent", "perplexity", "unlearn", "train")
    found = results.find(
        "gradient_ascent", "perplexity", "unlearn", "train", attack="shaken: size=3.0"
    )
    assert asked is not None
    assert found is not None
    assert found.value != asked.value
    assert "shaken: size=3.0" in (run.out / "report.html").read_text()


@pytest.mark.parametrize("name", presets("recipes"))
def test_recipe_preset_is_sound(name: str) -> None:
    check(load_recipe(name)[0])


@pytest.mark.parametrize("name", presets("methods"))
def test_method_preset_is_sound(name: str) -> None:
    recipe, _ = load_recipe(None, [f"unlearn.variants=[{{preset: {name}}}]"])
    check(recipe)


def test_knowundos_eight_are_presets() -> None:
    others = {"gradient_ascent", "random_label", "adversarial_sample", "memflex"}
    both = {"ascent_plus_descent", "ascent_plus_kl"}
    eight = others | both | {f"{name}_general" for name in both}
    assert len(eight) == 8
    assert eight < set(presets("methods"))


PLUGIN = '''
from knowundo.registry import method

@method
def gentle_ascent(step, *, gentleness: float = 0.5):
    """Ascent, scaled down.

    Args:
        gentleness: weight of the ascent.
    """
    return {"unlearn": -gentleness * step.unlearn.mean(step.unlearn.mean_nll)}
'''


def test_a_method_is_one_file(tmp_path: Path) -> None:
    """Written into a folder, it is listed, validated, trained in a region, logged and scored."""
    (tmp_path / "gentle.py").write_text(PLUGIN)
    environment = os.environ | {"KNOWUNDO_PLUGINS": str(tmp_path)}

    def knowundo(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from knowundo.cli import main; main()", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    listed = json.loads(knowundo("list", "methods", "--json").stdout)
    assert {"gentleness": 0.5} in [row["arguments"] for row in listed]
    variant = "unlearn.variants=[{method: gentle_ascent, %s, region: memflex, lr: 1e-4}]"
    small = ["--config", "demo", "--set", "data.subjects=2", "--set", "memorize.epochs=1"]
    small += ["--set", "unlearn.epochs=1", "--set", "evaluate.resamples=10", "--json"]
    small += ["--set", "evaluate.generate=[]", "--set", "memorize.retain_model=false"]
    refused = knowundo(
        "run", *small, "--set", variant % "gentlenes: 0.1", "--out", str(tmp_path / "no")
    )
    assert refused.returncode == 2
    assert "did you mean 'gentleness'?" in refused.stderr
    assert not (tmp_path / "no").exists()
    done = knowundo(
        "run", *small, "--set", variant % "gentleness: 0.1", "--out", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [v["method"] for v in results["variants"] if v["role"] == "unlearned"] == [
        "gentle_ascent"
    ]
    curve = json.loads((tmp_path / "run/unlearned/gentle_ascent/curve.json").read_text())
    assert set(curve[0]["parts"]) == {"unlearn"}
    assert "gentle_ascent" in (tmp_path / "run/report.html").read_text()


GUARD_PLUGIN = '''
from knowundo.registry import guard

@guard(changes="logits")
def flattened(asked, logits, *, temperature: float = 100.0):
    """Logits of a higher temperature.

    Args:
        temperature: divides the logits.
    """
    return logits / temperature
'''


def test_a_guard_is_one_file(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written into a folder, it is listed, validated, made, scored and reported."""
    install(GUARD_PLUGIN, tmp_path / "plugins", monkeypatch, kind="guard")
    listed = {row["name"]: row for row in _rows(What.methods)}
    assert listed["flattened"]["kind"] == "guard"
    assert listed["flattened"]["arguments"] == {"temperature": 100.0}
    variant = "unlearn.variants=[{method: flattened, %s}]"
    with pytest.raises(BadInput, match="did you mean 'temperature'"):
        tiny_run(tmp_path / "no", toy_base, variant % "temperatur: 2.0")
    run = tiny_run(tmp_path / "run", toy_base, variant % "temperature: 7.0", "data.subjects=1")
    results = run_all(run)
    facts = {one.name: one for one in results.variants}
    assert facts["flattened"].guard == {}
    assert facts["flattened"].method == "flattened"
    # Dividing changes no likeliest token, and makes likelihoods those of a flatter distribution.
    scores = {n: read_scores(run.scores(n) / "rows.parquet") for n in ("memorized", "flattened")}
    same = (scores["memorized"]["token_accuracy"] == scores["flattened"]["token_accuracy"]).mean()
    assert same > 0.9
    assert not (scores["memorized"]["mean_nll"] == scores["flattened"]["mean_nll"]).any()
    assert "its weights still hold the unlearn scope" in (run.out / "report.html").read_text()


BENCHMARK_PLUGIN = '''
from knowundo.data.records import Record
from knowundo.registry import benchmark

@benchmark(domains=("cats",), licence="MIT", citation="mine", size="4 rows", requires="nothing")
def pets(*, domain: str, seed: int = 0):
    """Names of cats.

    Args:
        domain: `cats`.
        seed: Not used.
    """
    return [
        Record(f"{scope}/{split}", f"Name of {scope} {split}?", "Tom.", scope, split, scope)
        for scope in ("unlearn", "retention") for split in ("train", "val")
    ]
'''


def test_a_benchmark_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written into a folder, it is listed, checked, read by a recipe and described."""
    install(BENCHMARK_PLUGIN, tmp_path, monkeypatch, kind="benchmark")
    listed = {row["name"]: row for row in _rows(What.benchmarks)}
    assert listed["pets"]["licence"] == "MIT"
    recipe, _ = load_recipe(None, ["data.benchmark=pets", "data.domain=cats"])
    check(recipe)
    records = build_records(recipe)
    check_records(records)
    assert [r.id for r in records][::3] == ["unlearn/train", "retention/val"]
    found = describe(records, lambda rows: [1] * len(rows), name="pets", domain="cats")
    assert [group.rows for group in found.groups] == [1, 1, 1, 1]
