"""Fake models have the sizes of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.estimation.fake_model import FakeModel, local_base
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions


def test_7_billion_parameters_are_counted_without_them(seven_billion: str) -> None:
    model = FakeModel(
        seven_billion, Adaptation("lora", 8, 16), options=LoadingOptions(dtype="bfloat16")
    )
    assert model.total == 6_738_415_616
    assert sum(p.numel() for p in model.parameters().values()) == 19_988_480
    assert {p.dtype for p in model.parameters().values()} == {torch.float32}
    weights = sum(p.nbytes for p in model.net.parameters())
    assert weights == 2 * 6_738_415_616 + 4 * 19_988_480


def test_4_bits_are_as_small_as_bitsandbytes_makes_them() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weight = torch.randn(768, 2048)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=True
    )
    held = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert held / weight.numel() == pytest.approx(0.516, rel=0.002)


def test_a_base_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="hf download nobody/nothing"):
        local_base("nobody/nothing")
    with pytest.raises(BadInput, match=r"no config\.json"):
        local_base(str(tmp_path))
