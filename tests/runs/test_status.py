"""What another shell is told of a run that works, was interrupted, or is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from knowundo.cli.status import _lines
from knowundo.errors import BadInput
from knowundo.progress import NOTE, RichReporter
from knowundo.runs.status import status
from knowundo.storage.artifacts import MANIFEST
from knowundo.storage.files import write_json
from knowundo.storage.locks import HOLDER, exclusive

LOSSES = {"unlearn": -1.5, "retention": 0.25}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run of three variants, of which one is made and another has a checkpoint."""
    variants = [{"name": name} for name in "abc"]
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({"given": {}, "effective": {"unlearn": {"variants": variants}}})
    )
    for name in ("memorized", "unlearned/a", "unlearned/a.step-10"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / MANIFEST).write_text("{}")
    curve = [{"step": 1, "parts": {"unlearn": 0.0}}, {"step": 2, "parts": LOSSES}]
    held = {"facts": {"parts": [{}, {"curve": curve}]}}
    write_json(tmp_path / "checkpoints" / "unlearned" / "b" / "7.json", held)
    return tmp_path


def test_a_run_at_work(out: Path) -> None:
    reporter = RichReporter(out)
    with exclusive(out), reporter.task("b") as progress:
        progress(10, 40)
        found = status(out)
        assert found.state == "working"
        assert found.process["pid"] == os.getpid()
        assert (found.phase, found.done, found.total) == ("b", 10, 40)
        assert found.left is None  # ten were done before this process began
        assert found.losses == LOSSES
        assert found.memory > 1_000_000
        assert found.stages == {
            "memorize": "done", "localize": "not done", "unlearn": "1 of 3",
            "evaluate": "not done, 0 models scored", "report": "not done",
        }  # fmt: skip
        said = "\n".join(_lines(found))
        for words in (
            "phase: b, 10 of 40, 25 %",
            "unlearn -1.5, retention 0.25",
            "memory, at most",
        ):
            assert words in said
    assert not (out / NOTE).exists()


def test_the_time_left_follows_from_what_this_process_did(out: Path) -> None:
    with exclusive(out):
        note = {"pid": os.getpid(), "phase": "b", "done": 30, "total": 40, "first": 20}
        write_json(out / NOTE, note | {"began": __import__("time").time() - 100, "memory": 0})
        left = status(out).left
    assert left == pytest.approx(100, abs=5)  # ten more, at ten in 100 s


def test_scores_that_are_made_again_are_not_done(out: Path) -> None:
    for name in ("results.json", "report.html"):
        (out / name).write_text("{}")
    assert status(out).stages["evaluate"] == "done, 0 models scored"
    with exclusive(out), RichReporter(out).task("evaluate a, b") as progress:
        progress(1, 2)
        found = status(out)
    assert (found.stages["evaluate"], found.stages["report"]) == ("at work", "not done")


def test_a_killed_run_is_interrupted(out: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note = {"pid": gone.pid, "host": os.uname().nodename, "command": "run", "began": "then"}
    write_json(out / HOLDER, note)
    write_json(out / NOTE, {"phase": "b", "done": 1, "total": 2, "began": 0})
    found = status(out)
    assert (found.state, found.phase) == ("interrupted", None)
    assert "state: interrupted (process" in _lines(found)[0]


def test_a_finished_run_and_no_run(out: Path, tmp_path: Path) -> None:
    for file in sorted((out / "checkpoints").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (out / "checkpoints").rmdir()
    assert status(out).state == "unfinished"
    (out / "report.html").write_text("")
    assert status(out).state == "finished"
    (out / "recipe.yaml").unlink()
    with pytest.raises(BadInput, match="holds no run"):
        status(out)
