"""The rule of `lr: auto`, and what happens when training blows up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import Call, randomize
from knowundo.data.encoded import Encoded
from knowundo.errors import MethodsFailed
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.pipeline import unlearning as pipeline
from knowundo.pipeline.whole import run_all
from knowundo.recipes.reading import load_recipe
from knowundo.registry import ENTRIES, entries
from knowundo.results import read_results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from knowundo.storage.job import Job
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.rates import NEAR, choose_rate, unlearn_at_chosen_rate
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn


def falling(half: float, steepness: float = 3.0) -> tuple[list[float], object]:
    """Accuracy falls from 1 to 0 around the rate `half`; remembers what was tried."""
    tried: list[float] = []

    def attempt(rate: float) -> float:
        tried.append(rate)
        return 1 / (1 + (rate / half) ** steepness)

    return tried, attempt


@pytest.mark.parametrize("half", [5e-4, 1e-3, 3e-3, 1.5e-2])
def test_rate_comes_near_the_target(half: float) -> None:
    tried, attempt = falling(half)
    rate = choose_rate(attempt, 0.6)  # type: ignore[arg-type]
    assert len(tried) <= 5
    assert len(set(tried)) == len(tried)
    off = [abs(1 / (1 + (r / half) ** 3.0) - 0.6) for r in tried]
    assert off[tried.index(rate)] == min(off) <= NEAR


def test_good_guess_saves_attempts() -> None:
    tried, attempt = falling(8e-3)
    assert choose_rate(attempt, 0.5, guess=8e-3) == 8e-3  # type: ignore[arg-type]
    assert tried == [2e-3, 8e-3]


def test_divergence_moves_the_search_down() -> None:
    tried: list[float] = []

    def attempt(rate: float) -> float:
        tried.append(rate)
        return math.inf if rate > 1e-3 else 0.6

    assert choose_rate(attempt, 0.6) < 1e-3
    assert tried[0] > 1e-3


BLOWS_UP = '''
from knowundo.registry import method

@method
def blows_up(step):
    """A loss that is not finite from its second step on."""
    nll = step.unlearn.mean_nll.mean()
    blows_up.calls = getattr(blows_up, "calls", 0) + 1
    return {"unlearn": nll / 0.0 if blows_up.calls > 1 else nll}
'''


@pytest.fixture
def blows_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "blows_up.py").write_text(BLOWS_UP)
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(folder))


@pytest.mark.usefixtures("blows_up")
def test_diverged_at_every_rate(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 2, "accumulation": 1}
    done = unlearn_at_chosen_rate(start, 0.5, UnlearnSettings(method="blows_up", **settings))
    assert "the loss is no longer finite" in done.facts["diverged"]
    assert all(attempt["unlearn"] is None for attempt in done.facts["attempts"])
    assert not toy.net.training


STEEP = '''
from knowundo.registry import method

@method
def steep(step, *, below: float = 0.0):
    """A loss that is finite everywhere, with a gradient that is not where it is below a number."""
    nll = step.unlearn.mean_nll.mean()
    return {"unlearn": nll + (0.0 if nll > below else (nll - nll).abs().sqrt())}
'''


@pytest.fixture
def steep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "steep.py").write_text(STEEP)
    monkeypatch.setitem(ENTRIES, "method", entries("method"))  # no plugin for tests that follow
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(tmp_path))


Weights = dict[str, torch.Tensor]


def descend(
    start: Start, below: float = 0.0, **changed: Any
) -> tuple[Unlearned, dict[int, Weights]]:
    """Six steps of the steep method, and the weights after each of the first training."""
    settings: dict[str, Any] = {"lr": 1e-2, "epochs": 6, "batch_size": 5, "accumulation": 1}
    rule, states = changed.pop("rule", None), dict[int, Weights]()

    def note(step: int, _: int) -> None:
        states.setdefault(step, start.model.state())

    done = unlearn(
        start,
        UnlearnSettings("steep", arguments={"below": below}, **settings | changed),
        rule=rule,
        job=Job(progress=note),
    )
    return done, states


def between(done: Unlearned, step: int) -> float:
    """A number that the loss first falls below in a step."""
    losses = [row["parts"]["unlearn"] for row in done.curve]
    assert losses == sorted(losses, reverse=True)
    return (losses[step - 2] + losses[step - 1]) / 2


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.usefixtures("steep")
@pytest.mark.parametrize("kind", ["lora", "full", "dropout"])
def test_the_last_good_weights_stay(
    toy_base: str, toy_rows: dict[str, list[Encoded]], kind: str
) -> None:
    """Of a training that diverges the last step stays whose loss and gradients were finite."""
    lora = Adaptation("lora", 4, 8, dropout=0.2 if kind == "dropout" else 0.0)
    model = Model(toy_base, Adaptation("full") if kind == "full" else lora)
    if kind != "full":
        randomize(model)
    start = Start(model, toy_rows["unlearn"], toy_rows, seed=0)
    whole, states = descend(start)
    assert "diverged" not in whole.facts
    losses = [row["parts"]["unlearn"] for row in whole.curve]
    first, second = sorted(losses)[:2]
    lowest = losses.index(first) + 1
    assert lowest > 2
    done, _ = descend(start, below=(first + second) / 2)
    assert done.facts["diverged"] == f"step {lowest}: a gradient is no longer finite"
    # Weights are good if the step after them was finite: those before the bad step are not.
    assert done.facts["kept_step"] == lowest - 2
    assert done.curve == whole.curve[: lowest - 1]
    assert same(model.state(), states[lowest - 2])
    assert not same(states[lowest - 2], states[lowest - 1])
    assert model.notes.texts == ()


@pytest.mark.usefixtures("steep")
def test_training_copies_no_weights(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    """Going back to good weights costs no copy at any step, whether training diverges or not."""
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    before = toy.snapshots.taken
    whole, _ = descend(start)
    done, _ = descend(start, below=between(whole, 4))
    assert done.facts["kept_step"] == 2
    assert toy.snapshots.taken == before
    assert set(toy.snapshots.nbytes()) == {"initial", "memorized"}


@pytest.mark.usefixtures("steep")
def test_of_a_training_that_diverges_the_best_evaluation_step_stays(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    rule = StoppingRule(toy_rows["unlearn"], toy_rows["retention"], -1.0, 50.0, 6, 99)
    whole, states = descend(start)
    done, _ = descend(start, below=between(whole, 5), rule=rule)
    assert "diverged" in done.facts
    assert [one["step"] for one in done.facts["trajectory"]] == [0, 1, 2, 3, 4]
    best = done.facts["best"]["step"]
    assert done.facts["kept_step"] == best
    assert same(toy.state(), states[best])


FICKLE = '''
from knowundo.registry import method

@method
def fickle(step):
    """A loss with a state of its own, which is not finite from its fourth call on."""
    fickle.calls = getattr(fickle, "calls", 0) + 1
    nll = step.unlearn.mean_nll.mean()
    return {"unlearn": nll / 0.0 if fickle.calls > 3 else nll}
'''


def test_a_training_that_cannot_be_repeated_says_so(
    toy: Model, toy_rows: dict[str, list[Encoded]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fickle.py").write_text(FICKLE)
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(tmp_path))
    memorized = toy.state()
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    done = unlearn(start, UnlearnSettings("fickle", 6, 5, 1, lr=1e-2))
    assert "step 4" in done.facts["diverged"]
    assert done.facts["kept_step"] == 0
    assert same(toy.state(), memorized)
    assert toy.notes.texts == ("training: repeated, it diverged earlier than before",)


@pytest.mark.usefixtures("blows_up")
def test_other_variants_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_steps_on_the_way_are_kept(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    """What is kept after step 2 is what training was after it, to the bit."""
    settings: dict[str, Any] = {"method": "gradient_ascent", "lr": 1e-3, "accumulation": 1}
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    states = dict[int, dict[str, torch.Tensor]]()

    def note(step: int, _: int) -> None:
        states[step] = toy.state()

    done = unlearn(
        start,
        UnlearnSettings(epochs=2, batch_size=2, keep_every=2, **settings),
        job=Job(progress=note),
    )
    assert sorted(states) == [1, 2, 3, 4, 5, 6]
    assert [one.step for one in done.kept] == [2, 4]  # the sixth is the end itself
    for one in done.kept:
        assert all(torch.equal(value, states[one.step][n]) for n, value in one.state.items())
        assert set(one.state) == set(states[one.step])
    end = toy.state()
    assert all(torch.equal(value, states[6][name]) for name, value in end.items())
    assert unlearn(start, UnlearnSettings(epochs=2, batch_size=2, **settings)).kept == []
    assert all(torch.equal(value, toy.state()[name]) for name, value in end.items())


@pytest.mark.usefixtures("steep")
def test_after_divergence_only_good_steps_are_kept(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    whole, _ = descend(start)
    done, _ = descend(start, below=between(whole, 4), keep_every=1)
    assert done.facts["kept_step"] == 2
    assert [one.step for one in done.kept] == [1, 2]


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


def test_only_a_variants_own_steps_are_replaced(tmp_path: Path) -> None:
    """A variant may be called like the steps of another one."""
    run: Any = SimpleNamespace(out=tmp_path)
    for name in ("ga.step-size-low", "ga.step-20", "ga.step-020"):
        (tmp_path / "unlearned" / name).mkdir(parents=True)
    pipeline._remove_kept(run, "ga")
    left = sorted(path.name for path in (tmp_path / "unlearned").iterdir())
    assert left == ["ga.step-020", "ga.step-size-low"]
