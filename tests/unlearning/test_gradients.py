"""Gradients of unlearning and retention that become one: formulas, micro-batches, resuming."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from knowundo.registry import get
from knowundo.runs.checks import check
from knowundo.training import loop
from knowundo.unlearning.gradients import Projection, combination
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]
Vectors = tuple[torch.Tensor, torch.Tensor]


def flat(gradients: Any) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradients])


def combined(mode: Any, *gradients: Any) -> Any:
    """Of copies: the gradients themselves stay as they are."""
    copies = [[None if g is None else g.clone() for g in one] for one in gradients]
    return Projection(mode, "npo").combine(copies)


def drawn(seed: int, sign: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Two gradients of three tensors, whose inner product has a sign."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> list[torch.Tensor]:
        shapes = [(4, 3), (5,), (2, 2)]
        return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]

    unlearn, retention = draw(), draw()
    if flat(unlearn) @ flat(retention) * sign < 0:
        retention = [-one for one in retention]
    return unlearn, retention


@pytest.mark.parametrize("seed", range(3))
def test_what_conflicts_with_retention_is_removed(seed: int) -> None:
    unlearn, retention = drawn(seed, -1.0)
    u, r = flat(unlearn), flat(retention)
    found = flat(combined("project", unlearn, retention))
    assert torch.dot(found - r, r).abs() < 1e-12 * torch.dot(r, r)  # orthogonal to retention
    torch.testing.assert_close(found, u - (u @ r) / (r @ r) * r + r, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_neither_gradient_is_worked_against(seed: int) -> None:
    unlearn, retention = drawn(seed, -1.0)
    u, r = flat(unlearn), flat(retention)
    found = flat(combined("conflict-free", unlearn, retention))
    wanted = u - (u @ r) / (r @ r) * r + r - (u @ r) / (u @ u) * u
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert found @ u >= 0
    assert found @ r >= 0


@pytest.mark.parametrize("mode", ["project", "conflict-free"])
def test_gradients_that_agree_are_added(mode: Any) -> None:
    unlearn, retention = drawn(0, 1.0)
    found = combined(mode, unlearn, retention)
    assert torch.equal(flat(found), flat(unlearn) + flat(retention))


@pytest.mark.parametrize("mode", ["project", "conflict-free"])
def test_parameters_that_only_one_loss_reaches(mode: Any) -> None:
    """They count as zeros; what no loss reaches has no gradient."""
    (u, v, _), (r, _, w) = drawn(1, 1.0)
    r = -r if torch.sum(u * r) > 0 else r
    zeros = [torch.zeros_like(u), torch.zeros_like(v), torch.zeros_like(w)]
    given = [[u, v, None, None], [r, None, w, None]]
    full = [[u, v, zeros[2]], [r, zeros[1], w]]
    found = combined(mode, *given)
    wanted = combined(mode, *full)
    assert found[3] is None
    for one, other in zip(found[:3], wanted, strict=True):
        torch.testing.assert_close(one, other)
    apart = combined(mode, [u, None], [None, w])
    assert torch.equal(apart[0], u)
    assert torch.equal(apart[1], w)


def test_a_gradient_of_zero_is_no_conflict() -> None:
    zero, other = [torch.zeros(3)], [torch.ones(3)]
    for mode in ("project", "conflict-free"):
        for pair in ([zero, other], [other, zero]):
            found = combined(mode, *pair)
            assert torch.equal(flat(found), torch.ones(3))


def settings_of(mode: str, **more: Any) -> UnlearnSettings:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "accumulation": 1, "lr": 1e-2}
    return UnlearnSettings("ascent_plus_descent", gradients=mode, **options | more)


def begin(base: str, rows: Rows, **options: Any) -> Start:
    model = Model(
        base, Adaptation("lora", 2, 4), options=LoadingOptions(dtype="float64", **options)
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters().values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.3 * noise)
    return Start(model, rows["unlearn"][:4], {"retention": rows["retention"][:4]}, seed=0)


@pytest.fixture
def clipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[torch.Tensor]]]:
    """Gradients as the Trainer is about to clip them, by optimizer step."""
    seen: list[list[torch.Tensor]] = []
    clip = loop._PartsTrainer._clip_grad_norm

    def noting(own: Any, model: Any) -> Any:
        seen.append([p.grad.clone() for p in model.net.parameters() if p.grad is not None])
        return clip(own, model)

    monkeypatch.setattr(loop._PartsTrainer, "_clip_grad_norm", noting)
    yield seen
    assert seen


@pytest.mark.parametrize("mode", ["project", "conflict-free"])
@pytest.mark.parametrize("cut", ["whole", "micro-batches", "accumulation", "checkpointing"])
def test_a_step_applies_the_combined_gradient_of_its_batch(
    toy_base: str,
    toy_rows: Rows,
    clipped: list[list[torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    cut: str,
) -> None:
    """However the batch is divided: the projection is of whole gradients, not of pieces."""
    start = begin(toy_base, toy_rows, gradient_checkpointing=cut == "checkpointing")
    model, entry = start.model, get("method", "ascent_plus_descent")
    chosen = model.train_only(model.parameters())
    batch = PairedBatch(
        collate(start.unlearn_rows, model.pad),
        collate(start.retention_rows["retention"], model.pad),
    )
    parts = start.parts(entry, entry.bind({}), batch, set())
    apart = [
        list(torch.autograd.grad(parts[name], chosen, retain_graph=True))
        for name in ("unlearn", "retention")
    ]
    assert flat(apart[0]) @ flat(apart[1]) < 0  # or nothing would be projected
    wanted = combined(mode, *apart)
    model.train_only([])
    if cut == "micro-batches":
        monkeypatch.setattr(Model, "tokens", 1)
    size = {"batch_size": 1, "accumulation": 4} if cut == "accumulation" else {}
    unlearn(start, settings_of(mode, epochs=1, **size))
    (found,) = clipped
    torch.testing.assert_close(flat(found), flat(wanted), rtol=1e-4, atol=1e-7)
    assert not torch.allclose(flat(found), flat(apart[0]) + flat(apart[1]), rtol=1e-2)


def test_a_sum_is_what_it_was(
    toy_base: str, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One backward pass of the added parts, to the bit, and none of the code that keeps apart."""
    ends = []
    for plain in (False, True):
        start = begin(toy_base, toy_rows)
        if plain:
            monkeypatch.setattr(
                loop._PartsTrainer,
                "compute_loss",
                lambda own, model, inputs, *_, **__: torch.stack(
                    list(own.loss(inputs["batch"]).values())
                ).sum(),
            )
        unlearn(start, settings_of("sum"))
        ends.append(start.model.state())
    assert combination("sum", "npo") is None
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_retention_is_lost_less(toy_base: str, toy_rows: Rows) -> None:
    lost = {}
    for mode in ("sum", "project"):
        start = begin(toy_base, toy_rows)
        done = unlearn(start, settings_of(mode, epochs=8, arguments={"descent": 0.1}))
        curve = [row["parts"] for row in done.curve]
        assert curve[-1]["unlearn"] < curve[0]["unlearn"]
        assert done.facts["gradients"] == mode
        lost[mode] = curve[-1]["retention"] - curve[0]["retention"]
    assert lost["project"] < lost["sum"]


def test_memory_that_runs_out_begins_the_step_again(
    toy_base: str, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of the attempt that failed are not added to those of the next."""
    ends = []
    for fails in (False, True):
        start = begin(toy_base, toy_rows)
        monkeypatch.setattr(Model, "tokens", 1)
        calls, parts = iter(range(10**6)), Start.parts

        def failing(own: Start, *given: Any, parts: Any = parts, calls: Any = calls) -> Any:
            if next(calls) == 2:
                raise torch.OutOfMemoryError("out of memory")
            return parts(own, *given)

        if fails:
            monkeypatch.setattr(Start, "parts", failing)
        monkeypatch.setattr("knowundo.training.trainer.halved", lambda *_: None)
        unlearn(start, settings_of("project"))
        ends.append(start.model.state())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=0, atol=1e-9)


def test_a_loss_of_one_part_is_refused(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    settings = UnlearnSettings("gradient_ascent", 1, 5, 1, lr=1e-3, gradients="project")
    with pytest.raises(BadInput, match=r"gradient_ascent has the parts: unlearn; it takes"):
        unlearn(start, settings)
    with pytest.raises(BadInput, match="did you mean 'project'"):
        combination("projekt", "npo")


@pytest.mark.parametrize(
    ("variant", "more", "message"),
    [
        ("{method: gradient_ascent, gradients: project}", [], "no retention part"),
        ("{preset: npo, gradients: conflict-free}", ["compat=[mixed_batches]"], "mixed_batches"),
        ("{preset: npo, gradients: projected}", [], "'sum', 'project' or 'conflict-free'"),
    ],
)
def test_a_recipe_that_cannot_be_combined_is_refused(
    variant: str, more: list[str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        check(load_recipe(None, [f"unlearn.variants=[{variant}]", *more])[0])


def test_a_recipe_with_a_retention_part_is_sound() -> None:
    recipe, _ = load_recipe(None, ["unlearn.variants=[{preset: npo, gradients: project}]"])
    check(recipe)
    assert recipe.unlearn.variants[0].gradients == "project"
    assert load_recipe(None, [])[0].unlearn.variants[0].gradients == "sum"
