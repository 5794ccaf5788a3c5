"""The stage memorize: trained once, or taken over from a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.pipeline.memorization import memorize
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from tiny_run import Said, tiny_run

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def done(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("runs") / "run", toy_base, "memorize.retain_model=true")
    memorize(run)
    return run


def test_two_models_are_made_and_not_again(done: Run) -> None:
    before = [(folder / WEIGHTS).stat().st_mtime_ns for folder in (done.memorized, done.retain)]
    said = Said()
    memorize(Run.existing(done.out, said))
    assert said.lines == ["memorized: already there, skipped", "retain: already there, skipped"]
    after = [(folder / WEIGHTS).stat().st_mtime_ns for folder in (done.memorized, done.retain)]
    assert after == before
    manifest = read_manifest(done.memorized)
    assert {"seed", "seconds", "packages", "hardware", "model", "known_share"} <= set(manifest)


def test_changed_artifact_is_refused(done: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done.out, copy)
    file = copy / "memorized" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadInput, match="changed since it was written"):
        memorize(Run.existing(copy))


def test_an_adapter_is_taken_over_as_it_is(done: Run, toy_base: str, tmp_path: Path) -> None:
    said = Said()
    run = tiny_run(tmp_path, toy_base, f"memorize.adopt={done.memorized}", reporter=said)
    memorize(run)
    assert (run.memorized / WEIGHTS).read_bytes() == (done.memorized / WEIGHTS).read_bytes()
    manifest = read_manifest(run.memorized)
    assert (manifest["adopted"], manifest["optimizer_steps"]) == (str(done.memorized), 0)
    assert any("is taken as it is; it knows" in line for line in said.lines)


def test_a_base_that_knows_the_records_is_not_copied(toy_base: str, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, toy_base, f"memorize.adopt={toy_base}")
    memorize(run)
    assert run.start.folder is None
    assert sorted(file.name for file in run.memorized.iterdir()) == ["curve.json", "manifest.json"]
