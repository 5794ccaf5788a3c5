"""Methods one after another, and methods that begin at other weights than the memorized ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import randomize
from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from knowundo.runs.checks import check, effective
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.job import Job
from knowundo.sweeps.setup import set_up_study
from knowundo.unlearning.sequence import unlearn_in_sequence
from knowundo.unlearning.settings import UnlearnSettings, copies_held
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn
from plugin_methods import STEEP, install

Rows = dict[str, list[Encoded]]


def settings(method: str, **more: Any) -> UnlearnSettings:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 5, "accumulation": 1, "lr": 1e-2}
    return UnlearnSettings(method, **options | more)


def in_sequence(start: Start, *methods: UnlearnSettings) -> Unlearned:
    first, *further = methods
    return unlearn_in_sequence(start, lambda job: unlearn(start, first, job=job), further)


def logits(model: Model, row: Encoded) -> torch.Tensor:
    with torch.no_grad():
        return model.net(input_ids=torch.tensor([row.ids])).logits[0][row.answer_from - 1 : -1]


def test_a_method_begins_where_the_one_before_ended(toy: Model, toy_rows: Rows) -> None:
    """It has the weights that were left as its reference, and its own damage as its beginning."""
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    memorized = toy.state()
    unlearn(start, settings("npo"))
    left = {row: logits(toy, row).log_softmax(-1) for row in toy_rows["retention"]}
    toy.overwrite({n: 0.4 * v for n, v in toy.state().items() if "lora_B" in n})
    shrunk = {row: logits(toy, row).log_softmax(-1) for row in toy_rows["retention"]}
    # KL(unlearned ‖ shrunk)
    losses = [(p.exp() * (p - shrunk[row])).sum(-1).mean() for row, p in left.items()]
    undo = settings("undo", arguments={"shrink": 0.6}, epochs=6)
    done = in_sequence(start, settings("npo"), undo)
    wanted = float(torch.stack(losses).mean())
    assert wanted > 0
    assert [row["step"] for row in done.curve] == list(range(1, 9))
    assert set(done.curve[1]["parts"]) == {"unlearn", "retention"}
    assert done.curve[2]["parts"]["retention"] == pytest.approx(wanted, rel=1e-5)
    assert done.curve[-1]["parts"]["retention"] < wanted / 2
    assert [facts["method"] for facts in done.facts["then"]] == ["undo"]
    assert done.facts["method"] == "npo"
    assert done.facts["optimizer_steps"] == 8
    start.restore()
    assert all(torch.equal(toy.state()[n], v) for n, v in memorized.items())


def test_regions_may_differ(toy_base: str, toy_rows: Rows) -> None:
    """All of them are the memorized model's again for the next variant."""
    model = Model(toy_base, Adaptation("full"))
    start = Start(model, toy_rows["unlearn"], toy_rows, seed=0)
    before = {name: value.detach().clone() for name, value in model.parameters().items()}
    regions = [[n for n in before if f"layers.{k}.mlp" in n] for k in (0, 1)]
    in_sequence(
        start,
        settings("gradient_ascent", region=regions[0], lr=1e-4),
        settings("ascent_plus_descent", region=regions[1], lr=1e-4),
    )
    moved = {n for n, v in model.parameters().items() if not torch.equal(v, before[n])}
    assert moved == {*regions[0], *regions[1]}
    start.restore()
    assert all(torch.equal(v, before[n]) for n, v in model.parameters().items())


def test_a_sequence_resumes_where_another_variant_was_trained(
    toy_base: str, toy_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other variant's region is not part of what the checkpoint holds."""
    model = Model(toy_base, Adaptation("full"))
    other, own = ([n for n in model.parameters() if f"layers.{k}.mlp" in n] for k in (0, 1))
    first = settings("gradient_ascent", region=own, lr=1e-4)
    further = [settings("ascent_plus_descent", region=own, lr=1e-4)]
    memorized = model.state()

    def sequence(start: Start) -> dict[str, torch.Tensor]:
        job = Job(checkpoint=Checkpoint(tmp_path / "c", []))
        unlearn_in_sequence(start, lambda job: unlearn(start, first, job=job), further, job)
        return model.state()

    def begin() -> Start:
        model.overwrite(memorized)
        return Start(model, toy_rows["unlearn"], toy_rows, seed=0)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("knowundo.unlearning.sequence.unlearn", killed)
        with pytest.raises(KeyboardInterrupt):
            sequence(begin())
    start = begin()
    unlearn(start, settings("gradient_ascent", region=other, lr=1e-4))
    resumed = sequence(start)
    assert all(torch.equal(resumed[name], memorized[name]) for name in other)
    assert not any(torch.equal(resumed[name], memorized[name]) for name in own)


def test_as_many_copies_are_held_as_are_said(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    region = sum(value.nbytes for value in toy.parameters().values())
    toy.snapshots.peak = 0
    second = settings("undo")
    in_sequence(start, settings("gradient_ascent"), second)
    said = copies_held(second, 1, stopping=False, searching=False, further=True)
    assert toy.snapshots.peak == sum(said.values()) * region


def test_a_method_that_diverges_ends_the_sequence(
    toy: Model, toy_rows: Rows, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(STEEP, tmp_path, monkeypatch)
    randomize(toy, seed=2)
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    bad = settings("steep", arguments={"below": 1e6})
    done = in_sequence(start, bad, settings("undo"))
    assert "diverged" in done.facts
    assert done.facts["then"] == []
    done = in_sequence(start, settings("npo"), bad, settings("undo"))
    assert done.facts["diverged"].startswith("steep: step 1: a gradient")
    assert done.facts["kept_step"] == 2  # all of the first method, nothing of the second
    assert [facts["method"] for facts in done.facts["then"]] == ["steep"]


@pytest.mark.parametrize(
    ("variant", "more", "message"),
    [
        ("{preset: npo, then: [{method: undu}]}", [], "did you mean 'undo'"),
        (
            "{preset: icul, then: [{method: undo}]}",
            [],
            "is a guard and leaves the weights alone; leave out then",
        ),
        ("{preset: npo, then: [{method: undo, shrink: 2}]}", [], "method undo: shrink: "),
        ("{preset: npo, then: [{method: undo, region: nowhere}]}", [], "unknown region 'nowhere'"),
        ("{preset: npo, then: [{method: undo, lr: auto}]}", [], "npo, then undo: lr auto"),
        ("{preset: npo, then: [{method: undo}], keep_every: 2}", [], "nor with keep_every"),
        ("{preset: npo, then: [{method: undo}]}", ["compat=original"], "neither with compat"),
        ("{preset: npo, then: [{method: undo, then: [{method: npo}]}]}", [], "keys of the variant"),
        (
            "{preset: npo, then: [{method: gradient_ascent, gradients: gru}]}",
            [],
            "npo, then gradient_ascent: gradients gru: gradient_ascent has no retention part",
        ),
    ],
)
def test_a_sequence_that_cannot_be_is_refused(variant: str, more: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(load_recipe(None, [f"unlearn.variants=[{variant}]", *more])[0])


def test_what_follows_has_the_region_of_the_first_unless_it_names_one() -> None:
    then = "[{preset: undo, lr: 1e-3}, {method: npo, region: everything}]"
    recipe, _ = load_recipe(None, [f"unlearn.variants=[{{preset: memflex, then: {then}}}]"])
    check(recipe)
    one, two = recipe.unlearn.variants[0].further
    assert (one.region, two.region) == ("memflex", "everything")
    assert (one.name, two.name) == ("memflex, then undo", "memflex, then npo")
    bound = effective(recipe)["unlearn"]["variants"][0]["then"]
    assert bound[0]["arguments"] == {"shrink": 0.25, "noise": 0.0}
    assert load_recipe(None, [])[0].unlearn.variants[0].further == ()


def test_rows_are_those_of_the_first(toy: Model, toy_rows: Rows) -> None:
    """What the second method forgets is what the first one was given."""
    rows = toy_rows["unlearn"][:3]
    start = Start(toy, rows, toy_rows, seed=0)
    ascent = partial(settings, "gradient_ascent", batch_size=3, epochs=1)
    done = in_sequence(start, ascent(), ascent())
    batch = collate(rows, toy.pad)
    assert done.curve[1]["parts"]["unlearn"] < done.curve[0]["parts"]["unlearn"]
    assert len(batch) == 3


def test_a_beginning_stays_inside_the_masks(toy: Model, toy_rows: Rows) -> None:
    randomize(toy, seed=3)
    before = toy.state()
    name = next(name for name in before if "lora_B" in name)
    mask = torch.zeros_like(before[name], dtype=torch.bool)
    mask[0] = True
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    within = settings("undo", lr=1e-30, region=[name], masks={name: mask})
    unlearn(start, within)
    after = toy.state()
    assert torch.equal(after[name][1:], before[name][1:])
    torch.testing.assert_close(after[name][0], 0.75 * before[name][0])
    assert all(torch.equal(after[other], before[other]) for other in before if other != name)


def test_a_sweep_of_a_sequence_is_refused() -> None:
    variants = "[{preset: npo, lr: 1e-3, then: [{preset: undo, lr: 1e-3}]}]"
    recipe, _ = load_recipe(None, [f"unlearn.variants={variants}"])
    run: Any = SimpleNamespace(recipe=recipe)
    with pytest.raises(BadInput, match="variant npo: a sweep trains one method"):
        set_up_study(run, recipe.unlearn.variants[0], {})
