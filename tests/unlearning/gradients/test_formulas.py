"""Each combination of two gradients against its formula over one flat vector, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from knowundo.registry import entries, get
from knowundo.training.separate_gradients import Gradients, StepGradients

SHAPES = [(4, 3), (5,), (2, 2)]


def flat(gradients: Any) -> torch.Tensor:
    return torch.cat([one.flatten() for one in gradients])


def drawn(seed: int, sign: float = -1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Two gradients of three tensors, whose inner product has a sign."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> list[torch.Tensor]:
        return [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]

    unlearn, retention = draw(), draw()
    if flat(unlearn) @ flat(retention) * sign < 0:
        retention = [-one for one in retention]
    return unlearn, retention


def copied(gradients: Sequence[torch.Tensor | None]) -> Gradients:
    return [None if one is None else one.clone() for one in gradients]


def step_of(unlearn: Any, *retentions: Any, held: Any = None, there: Any = None) -> StepGradients:
    """Of copies: the gradients themselves stay as they are."""

    def unlearn_at(shift: Gradients) -> Gradients:
        found: Gradients = there(shift)
        return found

    return StepGradients(copied(unlearn), [copied(r) for r in retentions], held or {}, unlearn_at)


def combined(name: str, unlearn: Any, /, *retentions: Any, **arguments: Any) -> Any:
    entry = get("combination", name)
    return entry(step_of(unlearn, *retentions), **entry.bind(arguments))


def same(found: Any, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(flat(found), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_project_removes_what_conflicts_with_retention(seed: int) -> None:
    unlearn, retention = drawn(seed)
    u, r = flat(unlearn), flat(retention)
    found = flat(combined("project", unlearn, retention))
    assert torch.dot(found - r, r).abs() < 1e-12 * torch.dot(r, r)  # orthogonal to retention
    same([found], u - (u @ r) / (r @ r) * r + r)


@pytest.mark.parametrize("seed", range(3))
def test_conflict_free_works_against_neither(seed: int) -> None:
    unlearn, retention = drawn(seed)
    u, r = flat(unlearn), flat(retention)
    found = flat(combined("conflict_free", unlearn, retention))
    same([found], u - (u @ r) / (r @ r) * r + r - (u @ r) / (u @ u) * u)
    assert found @ u >= 0
    assert found @ r >= 0


@pytest.mark.parametrize("name", ["project", "conflict_free", "gru"])
def test_gradients_that_agree_are_added(name: str) -> None:
    unlearn, retention = drawn(0, 1.0)
    found = combined(name, unlearn, retention)
    assert torch.equal(flat(found), flat(unlearn) + flat(retention))


def test_gru_projects_against_a_moving_average() -> None:
    """Of three steps; the average is updated with the newest gradient before it is used."""
    entry, held, average = get("combination", "gru"), dict[str, Gradients](), torch.zeros(0)
    conflicts = []
    for seed in range(3):
        unlearn, retention = drawn(seed)
        u, r = flat(unlearn), flat(retention)
        average = r if seed == 0 else 0.7 * r + 0.3 * average
        step = step_of(unlearn, retention, held=held)
        found = entry(step, weight=0.7)
        product = (u @ average).item()
        conflicts.append(product < 0)
        same(found, u - min(product, 0.0) / (average @ average) * average + r)
        held = dict(step.kept)
        same(held["average"], average)
    assert any(conflicts[1:])


@pytest.mark.parametrize("rows", [1, 3])
def test_orthograd_moves_along_no_row_of_retention(rows: int) -> None:
    unlearn, _ = drawn(5)
    each = [drawn(seed)[0] for seed in range(rows)]
    found = flat(combined("orthograd", unlearn, *each))
    matrix = torch.stack([flat(one) for one in each])
    basis, _ = torch.linalg.qr(matrix.T)
    u = flat(unlearn)
    same([found], u - basis @ (basis.T @ u) + matrix.sum(0))
    moved = found - matrix.sum(0)
    assert (matrix @ moved).abs().max() < 1e-12 * matrix.norm() * u.norm()


def test_orthograd_takes_rows_that_depend_on_each_other() -> None:
    """Twice the same row, and a row of zeros, span what one row spans."""
    unlearn, row = drawn(1)
    u, r = flat(unlearn), flat(row)
    double, zero = [2 * one for one in row], [torch.zeros_like(one) for one in row]
    found = combined("orthograd", unlearn, row, double, zero)
    same(found, u - (u @ r) / (r @ r) * r + 3 * r)
    nearly = [one.float() for one in row], [one.float() * (1 + 1e-7) for one in row]
    kept = flat(combined("orthograd", [one.float() for one in unlearn], *nearly))
    wanted = (u - (u @ r) / (r @ r) * r + 2 * r).float()
    torch.testing.assert_close(kept, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_blur_descends_on_the_lower_level_first(sign: float, gamma: float) -> None:
    unlearn, retention = drawn(2, sign)
    u, r = flat(unlearn), flat(retention)
    found = flat(combined("blur", unlearn, retention, gamma=gamma))
    same([found], r + (gamma - (r @ u) / (u @ u)) * u)
    torch.testing.assert_close(found @ u, gamma * u @ u)  # as if there were no retention
    other = flat(combined("blur", unlearn, retention, gamma=gamma, first="retention"))
    same([other], u + (gamma - (r @ u) / (r @ r)) * r)


def test_sam_takes_the_gradient_at_the_worst_weights_nearby() -> None:
    """Of a loss that is known: ½·θᵀ·H·θ, whose gradient is H·θ."""
    unlearn, retention = drawn(3)
    u, r = flat(unlearn), flat(retention)
    half = torch.randn(len(u), len(u), generator=torch.Generator().manual_seed(0)).double()
    hessian = half @ half.T
    theta = torch.linalg.solve(hessian, u)

    def there(shift: Gradients) -> Gradients:
        gradient = hessian @ (theta + flat(shift))
        sizes = [one.numel() for one in unlearn]
        pieces = gradient.split(sizes)
        return [p.reshape(one.shape) for p, one in zip(pieces, unlearn, strict=True)]

    step = step_of(unlearn, retention, there=there)
    found = get("combination", "sam")(step, rho=0.3)
    same(found, hessian @ (theta + 0.3 * u / u.norm()) + r)


def test_balance_makes_both_of_one_length() -> None:
    unlearn, retention = drawn(4)
    u, r = flat(unlearn), flat(retention)
    found = combined("balance", unlearn, retention, unlearn=0.33)
    same(found, 0.33 * r.norm() / u.norm() * u + r)


# All that need no second look at the loss.
PURE = [name for name in entries("combination") if name != "sam"]


@pytest.mark.parametrize("name", PURE)
def test_parameters_that_only_one_loss_reaches(name: str) -> None:
    """They count as zeros; what no loss reaches has no gradient."""
    (u, v, _), (r, _, w) = drawn(1)
    zeros = [torch.zeros_like(one) for one in (u, v, w)]
    found = combined(name, [u, v, None, None], [r, None, w, None])
    wanted = combined(name, [u, v, zeros[2]], [r, zeros[1], w])
    assert found[3] is None
    for one, other in zip(found[:3], wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", PURE)
def test_a_gradient_of_zero_is_no_conflict(name: str) -> None:
    zero, other = [torch.zeros(3)], [torch.ones(3)]
    for pair in ([zero, other], [other, zero]):
        found = flat(combined(name, *pair))
        assert found.isfinite().all()
        if name != "balance":  # a length of zero
            assert torch.equal(found, torch.ones(3))


def test_sam_of_a_gradient_of_zero_stays_where_it_is() -> None:
    zero, shifts = [torch.zeros(3)], list[torch.Tensor]()

    def there(shift: Gradients) -> Gradients:
        shifts.append(flat(shift))
        return list(zero)

    get("combination", "sam")(step_of(zero, zero, there=there), rho=0.1)
    assert torch.equal(shifts[0], torch.zeros(3))


@pytest.mark.parametrize(("share", "neurons"), [(0.1, 1), (0.5, 6), (1.0, 11)])
def test_sure_changes_the_neurons_that_unlearning_concerns_most(share: float, neurons: int) -> None:
    """Rows of matrices and numbers of vectors, of all tensors together."""
    unlearn, retention = drawn(6)
    rows = [row for one in unlearn for row in one.reshape(len(one), -1)]
    longest = sorted((row.norm().item() for row in rows), reverse=True)[:neurons]
    found = combined("sure", unlearn, retention, share=share)
    changed = []
    for one, u, r in zip(found, unlearn, retention, strict=True):
        for new, of_u, of_r in zip(one, u, r, strict=True):
            kept = of_u.norm().item() in longest
            changed.append(kept)
            wanted = of_u + of_r if kept else torch.zeros_like(of_u)
            torch.testing.assert_close(new, wanted, rtol=1e-12, atol=1e-12)
    assert sum(changed) == neurons
