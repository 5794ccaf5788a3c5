"""What a localizer sees of a tensor."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from knowundo.errors import KnowUndoError
from knowundo.localization.tensors import TensorView
from knowundo.region_rule import Granularity


def test_what_was_not_declared_is_not_there() -> None:
    view = TensorView("w", now=torch.ones(2))
    assert view.weights.dtype == torch.float64
    for read in (
        lambda: view.unlearn.gradient,
        lambda: view.retention.squares,
        lambda: view.change,
    ):
        with pytest.raises(KnowUndoError, match="declare it"):
            read()


def test_values_are_pooled_over_what_is_chosen_as_a_whole() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    found = {g: TensorView("w", g).pool(values).tolist() for g in get_args(Granularity)}
    assert found == {
        "tensor": [[3.0]],
        "module": [[3.0]],
        "row": [[1.5], [4.5]],
        "column": [[2.0, 4.0]],
        "weight": values.tolist(),
    }
    bias = torch.tensor([1.0, 3.0])
    assert TensorView("b", "row").pool(bias).tolist() == [1.0, 3.0]
    assert TensorView("b").pool(bias).tolist() == [2.0]
