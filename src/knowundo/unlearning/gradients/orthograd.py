"""OrthoGrad: the unlearn gradient without all directions of single retention rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added


@combination(by_row=True)
def orthograd(step: StepGradients) -> Gradients:
    """The unlearn gradient, orthogonal to that of every retention row; plus the retention gradient.

    Shamsian et al. 2025, arXiv:2503.02312. The paper weights both by a and 1 − a; here the loss
    weights its parts. A row's gradient is held for each unlearn row of an optimizer step, so small
    batches and a LoRA suit it; with several retention rows to an unlearn row it is that of their
    sum.

    Args:
        step: Both gradients, that of retention by row.
    """
    lost = projection(step.unlearn, step.retentions)
    return added(added(step.unlearn, lost, of_other=-1.0), step.retention)


def projection(vector: Gradients, rows: Sequence[Gradients]) -> Gradients:
    """The component of a vector in the span of some rows, which may be dependent.

    It is Rᵀ·(R·Rᵀ)⁺·R·v. Only the matrix of inner products, [rows, rows], is inverted.
    """
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    products = torch.zeros(len(rows), dtype=torch.float64)
    dtype = torch.float64
    for number, one in enumerate(vector):
        matrix = _matrix([row[number] for row in rows])
        if matrix is None:
            continue
        dtype = matrix.dtype
        gram += (matrix @ matrix.T).cpu()
        if one is not None:
            products += (matrix @ _flat(one)).cpu()
    # A direction that is shorter than what rounding makes of inner products is none.
    inverse = torch.linalg.pinv(gram, rtol=len(rows) * torch.finfo(dtype).eps, hermitian=True)
    shares = (inverse @ products).to(dtype)
    total: Gradients = [None] * len(vector)
    for share, row in zip(shares.unbind(), rows, strict=True):
        total = added(total, row, of_other=share)
    return total


def _flat(values: torch.Tensor) -> torch.Tensor:
    # Not every device has float64; where it has, inner products are nearly exact.
    dtype = torch.float32 if values.device.type == "mps" else torch.float64
    return values.flatten().to(dtype)


def _matrix(of_one: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Gradients of one parameter as rows of a matrix; `None` where no row reaches it."""
    shape = next((values for values in of_one if values is not None), None)
    if shape is None:
        return None
    zero = torch.zeros_like(shape)
    return torch.stack([_flat(zero if values is None else values) for values in of_one])
