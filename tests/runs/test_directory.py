"""Paths of a run, and what is said of artifacts that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.runs.directory import RunDirectory
from knowundo.storage.artifacts import new_folder


def test_every_artifact_has_a_place_of_its_own(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    places = [run.memorized, run.retain, run.regions, run.unlearned("a"), run.scores("a")]
    assert len(set(places)) == 5
    assert all(tmp_path in place.parents for place in places)


def test_what_is_missing_is_named_with_its_stage(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(BadInput, match=r"regions: not there; run `knowundo localize --out .*` fir"):
        run.made(run.regions, "localize")
    with new_folder(run.regions, []) as aside:
        (aside / "a.json").write_text("[]")
    assert list(run.made(run.regions, "localize")) == ["a.json"]


def test_clearing_removes_what_is_empty_then(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    first, second = (run.checkpoint(run.unlearned(name), []) for name in ("a", "b"))
    for checkpoint in (first, second):
        checkpoint.write({}, {})
    run.clear(first)
    assert second.folder.exists()
    run.clear(second)
    assert list(tmp_path.iterdir()) == []
