"""Checkpoints give back what was written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from knowundo.storage.checkpoints import Checkpoint, State, packed, unpacked
from strategies import QUICK, values


@QUICK
@given(values, st.lists(st.floats(width=32, allow_nan=False), max_size=9))
def test_a_checkpoint_gives_back_what_was_written(facts: Any, numbers: list[float]) -> None:
    state = State({"any": facts}, {"numbers": torch.tensor(numbers)})
    with tempfile.TemporaryDirectory() as folder:
        whole = packed([state, State({"step": 1})])
        Checkpoint(Path(folder) / "c", [1]).write(whole.facts, whole.tensors)
        held = Checkpoint(Path(folder) / "c", [1]).read()
    assert held is not None
    first, second = unpacked(held)
    assert first.facts == state.facts
    assert torch.equal(first.tensors["numbers"], state.tensors["numbers"])
    assert second.facts == {"step": 1}
