"""LLMU against its formula."""

from __future__ import annotations

import pytest

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize(("ascent", "mismatch", "divergence"), [(0.5, 1.0, 1.0), (1.0, 0.3, 2.0)])
def test_loss_is_its_formula(
    moved: Moved, ascent: float, mismatch: float, divergence: float
) -> None:
    found = moved.parts("llmu", ascent=ascent, mismatch=mismatch, divergence=divergence)
    expected = {
        "unlearn": -ascent * moved.mean(moved.cross_entropy),
        "mismatch": mismatch * moved.mean(lambda row: moved.cross_entropy(moved.other(row))),
        "retention": divergence * moved.mean(moved.kl, "retention"),
    }
    moved.same(found, expected)
