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
from knowundo.runs.checks import check, effective
from knowundo.training import loop
from knowundo.unlearning.combining import combination
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


# A combination as a recipe says it, and how each makes one gradient of two over all parameters.
ASKED: dict[str, Any] = {
    "project": "project",
    "conflict-free": "conflict-free",
    "gru": {"name": "gru", "weight": 0.6},
    "orthograd": "orthograd",
    "blur": {"name": "blur", "gamma": 0.7},
    "sam": {"name": "sam", "rho": 0.4},
    "balance": "balance",
    "sure": {"name": "sure", "share": 0.2},
}


def flat(gradients: Any) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradients])


def less(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """One vector without its component along another one."""
    return one - (one @ other) / (other @ other) * other


def settings_of(mode: Any, **more: Any) -> UnlearnSettings:
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


class Plain:
    """Gradients of both parts of a loss by plain autograd, of all rows of a start at once."""

    def __init__(self, start: Start) -> None:
        self.start, self.entry = start, get("method", "ascent_plus_descent")
        pad, retention = start.model.pad, start.retention_rows["retention"]
        self.batch = PairedBatch(collate(start.unlearn_rows, pad), collate(retention, pad))
        self.chosen = start.model.train_only(start.model.parameters())

    def part(self, name: str, batch: PairedBatch | None = None) -> torch.Tensor:
        parts = self.start.parts(self.entry, self.entry.bind({}), batch or self.batch, set())
        return flat(torch.autograd.grad(parts[name], self.chosen))

    def unlearn_at(self, shift: torch.Tensor) -> torch.Tensor:
        before = [one.detach().clone() for one in self.chosen]
        with torch.no_grad():
            pieces = shift.split([one.numel() for one in self.chosen])
            for one, piece in zip(self.chosen, pieces, strict=True):
                one += piece.reshape(one.shape)
        found = self.part("unlearn")
        with torch.no_grad():
            for one, old in zip(self.chosen, before, strict=True):
                one.copy_(old)
        return found

    def retention_rows(self) -> torch.Tensor:
        """The gradient of each retention row's share of the mean, [rows, parameters]."""
        rows, pad = self.batch.retention.encoded, self.start.model.pad
        halves = [(self.batch.unlearn, collate([row], pad, whole=rows)) for row in rows]
        return torch.stack([self.part("retention", PairedBatch(*both)) for both in halves])

    def wanted(self, mode: str) -> torch.Tensor:
        """What the first optimizer step applies."""
        u, r = self.part("unlearn"), self.part("retention")
        assert u @ r < 0  # or nothing would be projected
        if mode == "sam":
            return self.unlearn_at(0.4 * u / u.norm()) + r
        if mode == "orthograd":
            basis, _ = torch.linalg.qr(self.retention_rows().T)
            return u - basis @ (basis.T @ u) + r
        if mode == "sure":  # all weights of a row have the length of that row's unlearn gradient
            lengths = [len(one) * [one.shape[1]] for one in self.chosen]
            rows = u.split([width for many in lengths for width in many])
            norms = torch.cat([row.norm().expand(len(row)) for row in rows])
            least = sorted((row.norm() for row in rows), reverse=True)[round(0.2 * len(rows)) - 1]
            return torch.where(norms >= least, u + r, 0.0)
        return {
            "project": less(u, r) + r,
            "gru": less(u, r) + r,
            "conflict-free": less(u, r) + less(r, u),
            "blur": less(r, u) + 0.7 * u,
            "balance": r.norm() / u.norm() * u + r,
        }[mode]


CASES = [(mode, "micro-batches") for mode in ASKED]
CASES += [("project", "whole"), ("project", "checkpointing"), ("orthograd", "accumulation")]
CASES += [("sam", "whole"), ("sam", "accumulation"), ("sam", "checkpointing")]


@pytest.mark.parametrize(("mode", "cut"), CASES)
def test_a_step_applies_the_combined_gradient_of_its_batch(
    toy_base: str,
    toy_rows: Rows,
    clipped: list[list[torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    cut: str,
) -> None:
    """However the batch is divided: the projection is of whole gradients, not of pieces."""
    start = begin(toy_base, toy_rows, gradient_checkpointing=cut == "checkpointing")
    plain = Plain(start)
    wanted, total = plain.wanted(mode), plain.part("unlearn") + plain.part("retention")
    start.model.train_only([])
    if cut == "micro-batches":
        monkeypatch.setattr(Model, "tokens", 1)
    size = {"batch_size": 1, "accumulation": 4} if cut == "accumulation" else {}
    unlearn(start, settings_of(ASKED[mode], epochs=1, **size))
    (found,) = clipped
    torch.testing.assert_close(flat(found), wanted, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(flat(found), total, rtol=1e-2)


@pytest.mark.parametrize("mode", ["project", "sam", "balance"])
def test_weights_outside_of_masks_count_in_no_product(
    toy_base: str, toy_rows: Rows, clipped: list[list[torch.Tensor]], mode: str
) -> None:
    """The gradients of both parts are zero there, before they become one."""
    start = begin(toy_base, toy_rows)
    plain, drawn = Plain(start), torch.Generator().manual_seed(1)
    names = list(start.model.parameters())
    masks = {
        name: torch.rand(one.shape, generator=drawn) < 0.5
        for name, one in zip(names, plain.chosen, strict=True)
    }
    inside = flat(masks.values())
    u, r = plain.part("unlearn") * inside, plain.part("retention") * inside
    assert u @ r < 0
    wanted = {
        "project": lambda: less(u, r) + r,
        "sam": lambda: plain.unlearn_at(0.4 * u / u.norm()) * inside + r,
        "balance": lambda: r.norm() / u.norm() * u + r,
    }[mode]()
    start.model.train_only([])
    unlearn(start, settings_of(ASKED[mode], epochs=1, masks=masks))
    (found,) = clipped
    torch.testing.assert_close(flat(found), wanted, rtol=1e-4, atol=1e-7)


def test_a_moving_average_goes_from_step_to_step(
    toy_base: str, toy_rows: Rows, clipped: list[list[torch.Tensor]]
) -> None:
    """At a rate of nearly 0 every step has the gradients of the first one, of other rows."""
    start = begin(toy_base, toy_rows)
    plain = Plain(start)
    pad, average, wanted = start.model.pad, torch.zeros(0), []
    settings = settings_of(ASKED["gru"], epochs=1, batch_size=2, lr=1e-30)
    batches, _ = start.batches(plain.entry, plain.entry.bind({}), settings)
    for batch in batches:
        one = PairedBatch(
            collate(batch.unlearn.encoded, pad), collate(batch.retention.encoded, pad)
        )
        u, r = plain.part("unlearn", one), plain.part("retention", one)
        average = 0.6 * r + 0.4 * average if len(average) else r
        wanted.append((less(u, average) if u @ average < 0 else u) + r)
    start.model.train_only([])
    unlearn(start, settings)
    assert len(clipped) == 2
    for found, one_step in zip(clipped, wanted, strict=True):
        torch.testing.assert_close(flat(found), one_step, rtol=1e-4, atol=1e-7)


def test_sam_leaves_the_weights_as_they_were(
    toy_base: str, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit before the update, also where memory runs out at the other weights."""
    start, seen, fails = begin(toy_base, toy_rows), list[Any](), iter([False, True, *[False] * 99])
    before, parts = start.model.state(), Start.parts

    def watching(own: Start, *given: Any) -> Any:
        at_start = all(torch.equal(own.model.state()[n], v) for n, v in before.items())
        seen.append(at_start)
        if next(fails):
            raise torch.OutOfMemoryError("out of memory")
        return parts(own, *given)

    monkeypatch.setattr(Start, "parts", watching)
    monkeypatch.setattr("knowundo.training.trainer.halved", lambda *_: None)
    unlearn(start, settings_of(ASKED["sam"], epochs=1, lr=1e-30))
    # At the weights, elsewhere (where memory runs out), and both again.
    assert seen == [True, False, True, False]
    assert all(torch.equal(start.model.state()[n], v) for n, v in before.items())


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


def test_a_loss_of_one_part_can_be_sharpness_aware(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    settings = UnlearnSettings("gradient_ascent", 1, 5, 1, lr=1e-3, gradients=ASKED["sam"])
    done = unlearn(start, settings)
    assert done.facts["gradients"] == {"name": "sam", "rho": 0.4}
    assert set(done.curve[0]["parts"]) == {"unlearn"}


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
        ("{preset: npo, gradients: projected}", [], "did you mean 'project'"),
        (
            "{preset: npo, gradients: {name: sam, rho: -1}}",
            [],
            "combination sam: rho: Input should",
        ),
        ("{preset: npo, gradients: {name: sam, tau: 1}}", [], "argument of combination sam 'tau'"),
        ("{preset: npo, gradients: {rho: 1}}", [], "say a name, or a mapping with one"),
        ("{preset: npo, gradients: {name: sum, rho: 1}}", [], "it has no argument 'rho'"),
    ],
)
def test_a_recipe_that_cannot_be_combined_is_refused(
    variant: str, more: list[str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        check(load_recipe(None, [f"unlearn.variants=[{variant}]", *more])[0])


def test_a_recipe_with_a_retention_part_is_sound() -> None:
    recipe, _ = load_recipe(None, ["unlearn.variants=[{preset: npo, gradients: gru}]"])
    check(recipe)
    assert recipe.unlearn.variants[0].gradients == "gru"
    bound = {"name": "gru", "weight": 0.8}
    assert effective(recipe)["unlearn"]["variants"][0]["gradients"] == bound
    check(load_recipe(None, ["unlearn.variants=[{method: gradient_ascent, gradients: sam}]"])[0])
    assert load_recipe(None, [])[0].unlearn.variants[0].gradients == "sum"
