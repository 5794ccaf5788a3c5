"""Which rows may share a batch where a model scales positions by the longest row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from knowundo.modeling.positions import reset, scaled_embeddings, scaling, together, unscaled


class Rotary(torch.nn.Module):
    """The attributes that transformers' rotary embeddings have."""

    def __init__(self, kind: str, limit: int) -> None:
        super().__init__()
        self.rope_type, self.original_max_seq_len = kind, limit
        settings = {"original_max_position_embeddings": limit}
        self.config = SimpleNamespace(rope_parameters=settings)
        self.register_buffer("inv_freq", torch.full((2,), 0.5), persistent=False)
        self.original_inv_freq = torch.ones(2)
        self.max_seq_len_cached = 99


def model(*rotary: Rotary) -> Any:
    found = scaled_embeddings(torch.nn.ModuleList(rotary))
    return SimpleNamespace(capabilities=SimpleNamespace(scaled_positions=found))


def test_ordinary_positions_scale_nothing() -> None:
    plain = model(Rotary("default", 10), Rotary("linear", 10))
    assert unscaled(plain) == float("inf")
    assert together(plain, [3, 500, 4]) == [[0, 1, 2]]


def test_long_rows_of_longrope_are_scaled_alike() -> None:
    long = model(Rotary("longrope", 10))
    assert unscaled(long) == 10
    assert together(long, [3, 11, 10, 500]) == [[0, 2], [1, 3]]


def test_rows_beyond_a_dynamic_limit_share_a_batch_by_length() -> None:
    dynamic = model(Rotary("dynamic", 10), Rotary("longrope", 20))
    assert unscaled(dynamic) == 10
    assert together(dynamic, [3, 11, 10, 12, 11]) == [[0, 2], [1, 4], [3]]
    assert scaling(dynamic, 25) != scaling(dynamic, 15)


def test_equal_lengths_where_a_model_takes_no_padding() -> None:
    assert together(model(), [3, 5, 3], equal=True) == [[0, 2], [1]]


def test_the_longest_row_so_far_is_forgotten() -> None:
    dynamic, long = Rotary("dynamic", 10), Rotary("longrope", 10)
    reset(model(dynamic, long))
    assert torch.equal(dynamic.inv_freq, torch.ones(2))
    assert dynamic.max_seq_len_cached == 10
    assert long.max_seq_len_cached == 99  # it remembers no length
