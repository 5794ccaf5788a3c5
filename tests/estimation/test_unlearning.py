"""Every variant can be estimated, also with losses and batches of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from estimation.recipes import tracer, write_base
from knowundo.errors import BadInput
from knowundo.estimation.unlearning import estimate_unlearning
from knowundo.modeling.fast.chunked_logits import PORTION
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.settings import UnlearnSettings


def test_a_reference_costs_no_second_model(tmp_path: Path) -> None:
    """KL beside descent on the same rows: hidden states of the reference, and its logits."""
    base = write_base(tmp_path / "base", weights=False, num_hidden_layers=4, vocab_size=8000)
    asked = tracer(base, variants=("ascent_plus_descent", "ascent_plus_kl_divergence"))
    descent, divergence = (estimate_unlearning(asked, v) for v in asked.run.recipe.unlearn.variants)
    assert divergence.peak is not None
    assert descent.peak is not None
    portion = 4 * PORTION  # bytes of the logits that are there at a time, or of their gradients
    assert 0 < divergence.peak - descent.peak < 12 * portion
    assert divergence.memory["weights"] == descent.memory["weights"]


def test_a_loss_that_reads_values_has_no_known_peak(
    toy_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowundo.registry import ENTRIES, method

    def looking(step: Any) -> Any:
        """A loss that branches on its value."""
        loss = step.unlearn.mean_nll.mean()
        return {"unlearn": -loss if float(loss.detach()) < 5 else loss}

    monkeypatch.setitem(ENTRIES, "method", dict(ENTRIES["method"]))
    method(looking)
    asked = tracer(toy_base, variants=("looking", "gradient_ascent"))
    unknown, ascent = (estimate_unlearning(asked, v) for v in asked.run.recipe.unlearn.variants)
    assert unknown.peak is None
    assert ascent.peak  # what follows a step that was given up is counted all the same


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_every_method_can_be_estimated(every: int, toy_base: str) -> None:
    """Half a minute for all of them: the fast tests take every sixth."""
    from knowundo.registry import entries

    names = tuple(n for n, e in entries("method").items() if _needs_nothing(e.arguments))[::every]
    assert len(names) >= 5
    asked = tracer(toy_base, variants=names)
    found = [estimate_unlearning(asked, v) for v in asked.run.recipe.unlearn.variants]
    assert [stage.name for stage in found] == list(names)
    assert [stage.name for stage in found if stage.peak is None] == []


def test_the_assistant_of_a_guard_is_estimated(toy_base: str) -> None:
    asked = tracer(toy_base, variants=("uld", "eco"))
    assistant, other = asked.run.recipe.unlearn.variants
    found = estimate_unlearning(asked, assistant)
    assert found.peak
    assert found.count > 0
    with pytest.raises(BadInput, match="guard eco trains nothing"):
        estimate_unlearning(asked, other)


def _needs_nothing(arguments: dict[str, Any]) -> bool:
    import inspect

    return inspect.Parameter.empty not in arguments.values()


def test_the_original_batches_can_be_estimated(toy_base: str) -> None:
    asked = tracer(toy_base, "compat=original")
    run, model = asked.run, Model(toy_base)
    rows = run.encoded("unlearn", "train", model=model, end=False)
    kept = {"retention": run.encoded("retention", "train", model=model, end=False)}
    start = OriginalStart(model, rows, kept, seed=0, quirks=run.recipe.quirks)
    ascent, _, divergence = run.recipe.unlearn.variants
    batches, accumulation = start.batches(
        get("method", ascent.method),
        {},
        UnlearnSettings("any", epochs=2, batch_size=8, accumulation=1),
    )
    assert estimate_unlearning(asked, ascent).count == -(-len(batches) // accumulation)
    assert estimate_unlearning(asked, divergence).peak


def test_copies_are_those_that_unlearning_holds(toy_base: str) -> None:
    """Initial and memorized; then the best step, the best rate, each kept step and the end."""
    cases = [
        (["unlearn.lr=1e-4"], 2),
        (["unlearn.lr=auto"], 3),
        (["unlearn.lr=1e-4", "unlearn.stop={}"], 3),
        (["unlearn.lr=auto", "unlearn.stop={}"], 4),
    ]
    for setting, copies in cases:
        asked = tracer(toy_base, *setting, variants=("gradient_ascent",))
        stage = estimate_unlearning(asked, asked.run.recipe.unlearn.variants[0])
        region = sum(parameter.nbytes for parameter in asked.model.parameters().values())
        assert stage.memory["copies"] == copies * region, setting
    kept = tracer(
        toy_base, "unlearn.lr=1e-4", "unlearn.keep_every=1", variants=("gradient_ascent",)
    )
    stage = estimate_unlearning(kept, kept.run.recipe.unlearn.variants[0])
    region = sum(parameter.nbytes for parameter in kept.model.parameters().values())
    assert stage.memory["copies"] == (2 + (stage.count - 1) + 1) * region


@pytest.mark.slow
def test_what_combinations_of_gradients_hold(toy_base: str) -> None:
    """Beside the gradient of a sum: that of retention, an average of it, or one for each row."""
    from knowundo.registry import entries

    named = {"sum": "sum"} | {name: name for name in entries("combination")}
    variants = ", ".join(
        f"{{method: ascent_plus_descent, gradients: {name}, name: {name}}}" for name in named
    )
    asked = tracer(toy_base, f"unlearn.variants=[{variants}]")
    found = {v.name: estimate_unlearning(asked, v) for v in asked.run.recipe.unlearn.variants}
    assert [name for name, stage in found.items() if stage.peak is None] == []
    region = sum(parameter.nbytes for parameter in asked.model.parameters().values())
    held = {name: stage.memory["gradients"] / region for name, stage in found.items()}
    assert held["project"] > held["sum"] + 0.9
    assert held["gru"] > held["project"] + 0.9
    assert held["sam"] > held["project"] + 0.9  # the weights that it goes back to
    rows = asked.run.recipe.unlearn.settings(asked.run.recipe.unlearn.variants[0])
    assert held["orthograd"] > rows["batch_size"] * rows["accumulation"]


def test_a_method_that_follows_is_estimated_with_its_start(toy_base: str) -> None:
    variants = "[{method: gradient_ascent, then: [{method: undo, lr: 1e-3}]}]"
    asked = tracer(toy_base, "unlearn.lr=1e-4", f"unlearn.variants={variants}")
    (one,) = asked.run.recipe.unlearn.variants[0].further
    stage = estimate_unlearning(asked, one, further=True)
    region = sum(parameter.nbytes for parameter in asked.model.parameters().values())
    assert stage.name == "gradient_ascent, then undo"
    assert stage.memory["copies"] == 3 * region
    assert stage.peak


def test_rows_that_the_model_makes_are_estimated(toy_base: str) -> None:
    """Their answers are those of a model that cannot speak, and as many as a real one's."""
    planned = "{preset: siblings, retain_on: [retention, siblings], retained: 4}"
    asked = tracer(toy_base, "data.subjects=2", f"unlearn.variants=[{planned}]")
    (plan,) = asked.run.recipe.unlearn.variants
    found = estimate_unlearning(asked, plan)
    assert found.peak
    assert found.memory["activations"] > 0
