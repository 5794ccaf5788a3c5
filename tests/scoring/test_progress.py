"""What scoring has done so far is resumed from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from knowundo.scoring.progress import Said, ScoringState
from knowundo.storage.checkpoints import Checkpoint


def test_nothing_is_known_of_any_adapter_at_first() -> None:
    state = ScoringState(2)
    assert (state.forced, state.said) == ([{}, {}], [{}, {}])
    state.keep(over=True)  # without a checkpoint there is nowhere to write it


def test_what_was_kept_is_resumed(tmp_path: Path) -> None:
    state = ScoringState(2, Checkpoint(tmp_path / "job", ["inputs"]))
    state.forced[1]["row"] = {"mean_nll": 0.5, "likeliest": [3, 4]}
    state.said[0]["row"] = Said("Pilot.", True)
    state.keep(over=True)
    resumed = ScoringState(2, Checkpoint(tmp_path / "job", ["inputs"]))
    assert resumed.forced == state.forced
    assert resumed.said == state.said
    assert resumed.said[0]["row"].exact is True
    # Rows of other inputs are no part of this work.
    other = ScoringState(2, Checkpoint(tmp_path / "job", ["others"]))
    assert other.said == [{}, {}]
