"""The artifact job: skipped, written, refused, and killed between any two of its steps."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.runs.artifact import ArtifactJob, shared_checkpoint
from knowundo.runs.directory import CHECKPOINTS, RunDirectory
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import PARTIAL
from knowundo.storage.integrity import read_seal

INPUTS = ["inputs"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def job(run: RunDirectory, *, inputs: list[str] = INPUTS) -> ArtifactJob:
    return ArtifactJob(run, run.regions, inputs, common_facts=lambda: {"seed": 7})


def make(run: RunDirectory, *, inputs: list[str] = INPUTS, text: str = "a") -> None:
    with job(run, inputs=inputs) as made:
        assert not made.done
        made.facts["parameters"] = 3
        (made.aside / "regions.txt").write_text(text)


def interrupt(begun: ArtifactJob) -> None:
    """Write a checkpoint and half of the files, then fail."""

    def fail() -> None:
        with begun:
            begun.checkpoint.write({"step": 1}, {"weights": torch.zeros(2)})
            (begun.aside / "regions.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def text(run: RunDirectory) -> str:
    return (run.regions / "regions.txt").read_text()


def partials(run: RunDirectory) -> list[Path]:
    return list(run.out.rglob(f"{PARTIAL}*"))


def test_what_a_clean_exit_leaves(run: RunDirectory) -> None:
    with job(run) as made:
        made.checkpoint.write({"step": 1}, {"weights": torch.zeros(2)})
        (made.aside / "regions.txt").write_text("a")
        assert not run.regions.exists()
    manifest = read_manifest(run.regions)
    assert (manifest["seed"], list(manifest["outputs"])) == (7, ["regions.txt"])
    assert manifest["seconds"] >= 0
    assert set(read_seal(run.out).files) == {"regions"}
    assert not (run.out / CHECKPOINTS).exists()
    assert not partials(run)


def test_finished_work_is_skipped_and_sealed(run: RunDirectory) -> None:
    make(run)
    (run.out / MANIFEST).unlink()  # as if killed before the seal
    with job(run) as again:
        assert again.done
    assert set(read_seal(run.out).files) == {"regions"}
    assert text(run) == "a"


def test_an_exception_leaves_nothing_half_written_and_the_checkpoint(run: RunDirectory) -> None:
    interrupt(job(run))
    assert not run.regions.exists()
    assert not partials(run)
    held = job(run).checkpoint.read()
    assert held is not None
    assert held.facts == {"step": 1}


def test_an_exception_leaves_the_older_artifact(run: RunDirectory) -> None:
    make(run)
    interrupt(job(run, inputs=["others"]))
    assert text(run) == "a"
    assert job(run).done


def test_other_inputs_replace_it(run: RunDirectory) -> None:
    make(run)
    make(run, inputs=["others"], text="b")
    assert text(run) == "b"
    assert job(run, inputs=["others"]).done
    assert not job(run).done


def test_a_changed_file_is_refused(run: RunDirectory) -> None:
    make(run)
    (run.regions / "regions.txt").write_text("changed")
    with pytest.raises(BadInput, match=r"regions\.txt: changed since it was written; remove"):
        job(run)


def test_an_exchanged_artifact_is_refused(run: RunDirectory) -> None:
    make(run)
    for name in ("a", "b"):
        with ArtifactJob(run, run.unlearned(name), INPUTS) as made:
            (made.aside / "weights").write_text(name)
    run.unlearned("a").rename(run.out / "moved")
    run.unlearned("b").rename(run.unlearned("a"))
    with pytest.raises(BadInput, match="swapped: it is the artifact that was made as unlearned/b"):
        ArtifactJob(run, run.unlearned("a"), INPUTS)


KILLED = """
import os, sys
from pathlib import Path
from knowundo.runs import artifact, directory
step = sys.argv[2]
def die(*_, **__): os._exit(9)
if step == "seal": directory.RunDirectory.seal = die
if step == "clear": directory.RunDirectory.clear = die
if step == "replace":
    from knowundo.storage import artifacts
    artifacts._take_place = die
import torch
run = directory.RunDirectory(Path(sys.argv[1]))
with artifact.ArtifactJob(run, run.regions, ["others"]) as job:
    job.checkpoint.write({"step": 1}, {"weights": torch.zeros(2)})
    (job.aside / "regions.txt").write_text("b")
"""


@pytest.mark.parametrize("step", ["replace", "seal", "clear"])
def test_a_kill_at_any_step_heals(run: RunDirectory, step: str) -> None:
    """Over an older, sealed artifact: that is where a stale seal could call the new one changed."""
    make(run)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run.out), step], check=False)
    assert killed.returncode == 9
    again = job(run, inputs=["others"])
    assert again.done is (step != "replace")
    if not again.done:
        held = again.checkpoint.read()
        assert held is not None  # resumed, not begun again
        with again:
            (again.aside / "regions.txt").write_text("b")
    assert text(run) == "b"
    assert job(run, inputs=["others"]).done


def test_a_block_that_writes_nothing_is_an_error(run: RunDirectory) -> None:
    with pytest.raises(RuntimeError, match="wrote no file"), job(run):
        pass
    assert not run.regions.exists()


def test_seconds_count_from_the_beginning_of_the_block(run: RunDirectory) -> None:
    """Not from when the job was made, as long as others of the same stage were in work."""
    first, second = (ArtifactJob(run, run.unlearned(name), INPUTS) for name in ("a", "b"))
    for made, seconds in ((first, 0.3), (second, 0.0)):
        with made:
            time.sleep(seconds)
            (made.aside / "weights").write_text("x")
    assert first.facts["seconds"] >= 0.3
    assert second.facts["seconds"] < 0.2


def test_the_way_decides_over_the_checkpoint_only(run: RunDirectory) -> None:
    interrupt(job(run))
    assert ArtifactJob(run, run.regions, INPUTS, way=["other"]).checkpoint.read() is None
    make(run)
    assert ArtifactJob(run, run.regions, INPUTS, way=["other"]).done


def test_a_shared_checkpoint_outlives_its_parts(run: RunDirectory) -> None:
    with shared_checkpoint(run, run.scores("a"), INPUTS) as checkpoint:
        checkpoint.write({}, {})
        for name in ("a", "b"):
            with ArtifactJob(run, run.scores(name), INPUTS, shared=checkpoint) as part:
                (part.aside / "rows").write_text(name)
            assert checkpoint.folder.exists()
    assert not (run.out / CHECKPOINTS).exists()


def test_a_shared_checkpoint_stays_after_an_exception(run: RunDirectory) -> None:
    shared = shared_checkpoint(run, run.scores("a"), INPUTS)
    shared.__enter__().write({}, {})
    assert not shared.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert run.checkpoint(run.scores("a"), INPUTS).read() is not None
