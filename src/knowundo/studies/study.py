"""A study: the points of a grid as runs in one directory, resumed by the same call, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowundo.errors import BadInput
from knowundo.progress import Reporter
from knowundo.results import read_results
from knowundo.storage.files import read_json, write_json
from knowundo.storage.locks import exclusive
from knowundo.studies.grid import Point
from knowundo.studies.local import run_local
from knowundo.studies.on_ray import run_on_ray
from knowundo.studies.on_slurm import run_on_slurm
from knowundo.studies.summary import StudyResults, StudyRun, summarized, write_study
from knowundo.studies.tasks import Engine, Outcome, Resources, Task

PLAN, RUNS = "plan.json", "runs"
ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_on_ray, "slurm": run_on_slurm}


@dataclass(frozen=True)
class Study:
    """What is asked of a study.

    Attributes:
        config: A recipe file, made absolute, or a preset.
        sets: Assignments that all runs share.
        points: Of the grid.
        out: The directory.
        retries: How often a run that died is begun again.
    """

    config: str | None
    sets: Sequence[str]
    points: Sequence[Point]
    out: Path
    retries: int = 1

    def folder(self, point: Point) -> Path:
        """Directory of the run of a point."""
        return self.out.resolve() / RUNS / point.name

    def task(self, point: Point, threads: int) -> Task:
        """The run of a point as a command."""
        words = ["-m", "knowundo", "run", "--out", str(self.folder(point))]
        words += [] if self.config is None else ["--config", self.config]
        for text in (*self.sets, *point.sets):
            words += ["--set", text]
        return Task(point.name, self.folder(point), tuple(words), threads, self.retries)


def run_study(
    study: Study,
    engine: str = "local",
    resources: Resources = Resources(),
    reporter: Reporter | None = None,
) -> StudyResults:
    """Run what is missing of a study, and collect all that there is.

    A run that is finished is not begun again, and one that was killed resumes. A grid may grow: a
    study takes further points into its directory, under the same recipe.

    Args:
        study: What to run.
        engine: One of `ENGINES`.
        resources: What each run needs.
        reporter: Told of each run that ends. If `None`, nobody is told.

    Raises:
        BadInput: The directory holds a study of another recipe, or the engine is not there.
    """
    reporter = reporter or Reporter()
    with exclusive(study.out, reporter):
        _claim(study)
        missing = [p for p in study.points if not _done(study.folder(p))]
        reporter.say(
            f"{study.out}: {len(study.points)} runs, {len(study.points) - len(missing)} are there"
        )
        tasks = [study.task(point, resources.cpus) for point in missing]
        ended = dict[str, Outcome]()
        with reporter.task(f"study ({engine})") as progress:
            progress(0, len(tasks))
            for outcome in ENGINES[engine](tasks, resources, reporter.say) if tasks else ():
                ended[outcome.name] = outcome
                if not outcome.finished:
                    reporter.say(f"{outcome.name}: exit {outcome.code}, {outcome.said}")
                progress(len(ended), len(tasks))
        return collect(study, ended)


def collect(study: Study, ended: dict[str, Outcome] | None = None) -> StudyResults:
    """Read what all runs found, and write the study's tables.

    Args:
        study: Its points.
        ended: How runs of this call ended, by name.
    """
    runs, results = list[StudyRun](), {}
    for point in study.points:
        folder, outcome = study.folder(point), (ended or {}).get(point.name)
        if _done(folder):
            results[point.name] = read_results(folder / "results.json")
        state = "finished" if point.name in results else "failed" if outcome else "missing"
        said = "" if state == "finished" or outcome is None else outcome.said
        runs.append(StudyRun(name=point.name, values=point.values, state=state, said=said))
    found = summarized(study.points, runs, results)
    write_study(found, study.out)
    return found


def _done(folder: Path) -> bool:
    """True if a run got as far as its report, which is written last."""
    return (folder / "results.json").is_file() and (folder / "report.html").is_file()


def _claim(study: Study) -> None:
    """Write down what the study is of, or refuse a directory that holds another one."""
    file = study.out / PLAN
    plan: dict[str, Any] = {"config": study.config, "sets": list(study.sets)}
    held = read_json(file) if file.exists() else plan | {"points": {}}
    if not isinstance(held, dict) or {key: held.get(key) for key in plan} != plan:
        raise BadInput(
            f"{study.out}: holds a study of another recipe (see {file.name}); choose another --out"
        )
    points = held.get("points", {}) | {point.name: point.values for point in study.points}
    if held.get("points") != points:
        write_json(file, plan | {"points": points})
