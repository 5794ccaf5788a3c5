"""All stages in order, a stage begun again, scores made again, and two runs compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.pipeline.comparison import compare
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.whole import restart, run_all
from knowundo.runs.directory import CHECKPOINTS
from knowundo.runs.run import Run
from knowundo.storage.integrity import read_seal, verify
from tiny_run import Said, tiny_run

MADE = {"memorized", "regions", "unlearned", "scores", "results.json", "report.html"}


@pytest.fixture(scope="module")
def done(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("runs") / "run", toy_base)
    run_all(run)
    return run


@pytest.fixture
def copy(done: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done.out, tmp_path / "copy"))


def test_every_artifact_is_sealed_and_no_checkpoint_left(done: Run) -> None:
    assert {file.name for file in done.out.iterdir()} >= MADE
    assert not (done.out / CHECKPOINTS).exists()
    sealed = set(read_seal(done.out).files)
    assert {"memorized", "regions", "unlearned/gradient_ascent", "scores/base"} <= sealed
    assert not [finding for finding in verify(done.out) if finding.bad]


def test_a_second_call_makes_nothing_again(copy: Path) -> None:
    files = [*copy.rglob("*.safetensors"), *copy.rglob("*.parquet")]
    assert len(files) == 5
    before = [file.stat().st_mtime_ns for file in files]
    said = Said()
    run_all(Run.existing(copy, said))
    assert [file.stat().st_mtime_ns for file in files] == before
    names = ("memorized", "regions", "gradient_ascent")
    assert said.lines == [f"{name}: already there, skipped" for name in names]


def test_a_stage_is_begun_again_with_all_later_ones(copy: Path) -> None:
    run = Run.existing(copy)
    assert set(restart(run, "unlearn")) == {"unlearned", "scores", "results.json", "report.html"}
    assert {file.name for file in copy.iterdir()} & MADE == {"memorized", "regions"}
    assert set(read_seal(copy).files) == {"memorized", "regions", "recipe.yaml"}
    with pytest.raises(BadInput, match="did you mean 'unlearn'"):
        restart(run, "unlern")


def test_only_scores_that_are_missing_are_made(copy: Path) -> None:
    tables = {file.parent.name: file for file in (copy / "scores").glob("*/rows.parquet")}
    assert set(tables) == {"base", "memorized", "gradient_ascent"}
    before = {name: (file.stat().st_mtime_ns, file.read_bytes()) for name, file in tables.items()}
    shutil.rmtree(copy / "scores" / "memorized")
    evaluate(Run.existing(copy))
    for name, (made, _) in before.items():
        assert (tables[name].stat().st_mtime_ns == made) is (name != "memorized"), name


def test_a_run_is_compared_with_its_copy(done: Run, copy: Path) -> None:
    keys, differences = compare(done.out, copy)
    assert keys == []
    assert differences
    (copy / "results.json").write_text("{}")
    with pytest.raises(BadInput, match=r"results\.json: changed since it was written"):
        compare(done.out, copy)
