"""A job: progress and checkpoints, where somebody wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.storage import checkpoints
from knowundo.storage.checkpoints import Checkpoint, State
from knowundo.storage.job import Job


def test_without_anything_it_does_nothing() -> None:
    job = Job()
    job.report(1, 2)
    job.write(State({"step": 1}))
    assert job.resumed() is None
    assert not job.due()
    assert job.part("one").checkpoint is None


def test_progress_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    Job(progress=lambda done, total: seen.append((done, total))).report(3, 7)
    assert seen == [(3, 7)]


def test_a_state_is_written_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    job = Job(checkpoint=Checkpoint(tmp_path / "c", ["inputs"]))
    assert job.due()
    job.write(State({"step": 4}))
    state = Job(checkpoint=Checkpoint(tmp_path / "c", ["inputs"])).resumed()
    assert state is not None
    assert state.facts == {"step": 4}


def test_a_part_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    whole = Job(checkpoint=Checkpoint(tmp_path / "c", ["inputs"]))
    part = whole.part("lr-0.1", 0.1)
    part.write(State({"step": 1}))
    assert whole.resumed() is None
    assert whole.part("lr-0.1", 0.1).resumed() is not None
    assert whole.part("lr-0.1", 0.2).resumed() is None  # of other inputs
