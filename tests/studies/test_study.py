"""Studies on each engine: the same runs, resumed, with one table."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from conftest import Call
from knowundo.errors import BadInput
from knowundo.progress import Reporter
from knowundo.results import read_results
from knowundo.studies import on_slurm, study
from knowundo.studies.grid import points_of
from knowundo.studies.study import Study, run_study
from knowundo.studies.tasks import Resources, Task, run_task
from tiny_run import SETS, Said


def asked(out: Path, base: str, *grid: str) -> Study:
    sets = [*SETS, f"model.base={base}", "evaluate.generate=[]"]
    return Study("demo", sets, points_of("demo", sets, grid), out)


def values(out: Path) -> dict[str, list[Any]]:
    """All scores of the runs of a study."""
    return {
        file.parent.name: [row.value for row in read_results(file).rows]
        for file in sorted((out / "runs").glob("*/results.json"))
    }


def test_a_study_is_resumed_and_summed_up(toy_base: str, tmp_path: Path) -> None:
    first = asked(tmp_path / "study", toy_base, "seed=[0]")
    found = run_study(first, "local", Resources(cpus=1))
    assert [run.state for run in found.runs] == ["finished"]
    (folder,) = (tmp_path / "study" / "runs").glob("*/results.json")
    before = folder.stat().st_mtime_ns
    # The grid may grow; what is there stays.
    more, said = asked(tmp_path / "study", toy_base, "seed=[0, 1]"), Said()
    found = run_study(more, "local", Resources(jobs=2, cpus=1), said)
    assert [run.state for run in found.runs] == ["finished"] * 2
    assert folder.stat().st_mtime_ns == before
    assert any("2 runs, 1 are there" in line for line in said.lines)
    row = next(row for row in found.rows if row.metric == "unlearn_success")
    assert len(row.values) == 2
    assert row.low is not None
    assert row.mean == pytest.approx(sum(row.values) / 2)
    held = json.loads((tmp_path / "study" / "study.json").read_text())
    assert held == found.model_dump(mode="json")
    assert "± " in (tmp_path / "study" / "study.md").read_text()
    other = asked(tmp_path / "study", toy_base, "seed=[0]")
    with pytest.raises(BadInput, match="holds a study of another recipe"):
        run_study(Study("demo", [*other.sets, "memorize.epochs=2"], other.points, other.out))


def test_a_run_that_cannot_be_is_not_tried_again(toy_base: str, tmp_path: Path) -> None:
    one = asked(tmp_path / "study", toy_base, "seed=[0]")
    task = one.task(one.points[0], 1)
    wrong = Task(task.name, task.folder, (*task.command, "--set", "sed=1"), 1, retries=3)
    outcome = run_task(wrong)
    assert outcome.code == 2
    assert outcome.said.startswith("error: ")
    assert "sed" in outcome.said
    log = task.folder.parent / f"{task.folder.name}.study.log"
    assert log.read_text().count("error: ") == 1


def test_the_command_says_what_failed(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knowundo: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "ENGINES", {"local": lambda tasks, *_: iter(())})
    words = ["study", "demo", "--grid", "seed=[0, 1]", "--set", f"model.base={toy_base}"]
    done = knowundo(*words, "--out", "s")
    assert done.returncode == 1
    assert "2 of 2 runs have no results, first seed=0-" in done.stderr
    assert knowundo(*words, "--engine", "rai").returncode == 2
    assert knowundo(*words, "--engine", "ray", "--jobs", "2").returncode == 2


@pytest.mark.slow
def test_jobs_of_submitit_are_the_same_runs(toy_base: str, tmp_path: Path) -> None:
    """submitit's local executor: processes here, through its files."""
    pytest.importorskip("submitit")
    one = asked(tmp_path / "study", toy_base, "seed=[0]")
    tasks = [one.task(point, 1) for point in one.points]
    (outcome,) = on_slurm.run_on_slurm(tasks, Resources(cpus=1), Reporter().say, cluster="local")
    assert outcome.finished, outcome.said
    assert len(values(tmp_path / "study")) == 1


def test_the_batch_script_asks_for_what_a_run_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from submitit.slurm import slurm

    monkeypatch.setattr(slurm.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    needs = Resources(cpus=6, gpus=2, hours=1.5, partition="long")
    made = on_slurm.executor(str(tmp_path), needs)
    text = made._executor._make_submission_file_text("python -m work", "id")
    for line in ("--cpus-per-task=6", "--gpus-per-node=2", "--time=90", "--partition=long"):
        assert f"#SBATCH {line}" in text
    assert "#SBATCH --job-name=knowundo" in text


def test_without_slurm_the_engine_says_so(toy_base: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(BadInput, match=r"--engine slurm: .*; run it where `sbatch` is"):
        run_study(asked(tmp_path / "study", toy_base, "seed=[0]"), "slurm")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="runs end with their node by prctl")
def test_a_node_of_ray_dies_and_nothing_is_lost(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two node processes with object stores of their own; one is killed in the middle."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    grid = ("seed=[0, 1, 2, 3, 4, 5]", "data.domain=[privacy, copyright]")
    args = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args=args | {"include_dashboard": False}
    )
    second = cluster.add_node(**args)
    cluster.wait_for_nodes()
    out, deaths = tmp_path / "ray", list[int]()

    def kill() -> None:
        end = time.monotonic() + 300
        while len(values(out)) < 3 and time.monotonic() < end:
            time.sleep(0.1)
        deaths.append(len(values(out)))
        cluster.remove_node(second, allow_graceful=False)

    killer = Thread(target=kill)
    killer.start()
    try:
        needs = Resources(cpus=1, address=cluster.address)
        found = run_study(asked(out, toy_base, *grid), "ray", needs)
    finally:
        killer.join()
        cluster.shutdown()
    assert [run.state for run in found.runs] == ["finished"] * 12
    assert 3 <= deaths[0] < 12
    local = asked(tmp_path / "local", toy_base, *grid)
    run_study(local, "local", Resources(jobs=2, cpus=1))
    assert values(tmp_path / "ray") == values(tmp_path / "local")
