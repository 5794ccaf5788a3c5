"""What a sweep found: the Pareto front, its plot and the recipe of the best trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from knowundo.recipes.schema import Plan
from knowundo.recipes.stop_section import Stop
from knowundo.reporting.drawing import Figure
from knowundo.reporting.page import write_page
from knowundo.reporting.scatter import Dot, scatter
from knowundo.runs.run import Run
from knowundo.storage.files import write_json
from knowundo.sweeps.setup import StudySetup
from knowundo.sweeps.space import REGION, Range
from knowundo.sweeps.trials import Trial


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found so far."""

    variant: str
    study: str  # its name in the SQLite file
    target: float  # token accuracy on unlearn rows that is low enough, in [0, 1]
    space: dict[str, Range]
    trials: list[Trial]
    front: list[int]  # numbers of the trials on the Pareto front, most forgotten first
    best: int | None  # number of the complete trial of the highest score
    recipe: str | None  # YAML that trains with the best one's settings
    region: str | None  # JSON of the best one's region, where its size was searched

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        return next(trial for trial in self.trials if trial.number == number)


def trial_line(trial: Trial) -> str:
    """One trial in one line."""
    settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
    line = f"trial {trial.number}: {settings}"
    if trial.forgotten is not None:
        line += f": {trial.forgotten:.0%} forgotten, {trial.lost:.1f} lost, score {trial.score:.3f}"
    return f"{line} ({trial.reason})" if trial.reason else line


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points to which no other is preferable.

    Args:
        points: (forgotten, lost) each. Another is preferable if it forgot no less and lost no more,
            and is better in one of the two; equal points stand beside each other.

    Returns:
        Places in `points`, most forgotten first, then by place.
    """

    def beaten(forgotten: float, lost: float) -> bool:
        return any(
            more >= forgotten and less <= lost and (more, less) != (forgotten, lost)
            for more, less in points
        )

    front = [place for place, point in enumerate(points) if not beaten(*point)]
    return sorted(front, key=lambda place: (-points[place][0], place))


def read_result(
    run: Run, setup: StudySetup, study: str, target: float, trials: list[Trial]
) -> SweepResult:
    """Front and best of the complete trials: a pruned one might have come further."""
    complete = [trial for trial in trials if trial.state == "complete"]
    places = pareto_front([(trial.forgotten or 0.0, trial.lost or 0.0) for trial in complete])
    best = max(complete, key=lambda trial: trial.score or 0.0, default=None)
    file = None
    if best is not None and REGION in setup.space:
        file = str(run.out / "sweep" / f"{setup.plan.name}-region.json")
    return SweepResult(
        variant=setup.plan.name,
        study=study,
        target=target,
        space=setup.space,
        trials=trials,
        front=[complete[place].number for place in places],
        best=None if best is None else best.number,
        recipe=None if best is None else _recipe(run, setup.plan, best, file),
        region=file,
    )


def _recipe(run: Run, plan: Plan, best: Trial, region: str | None) -> str:
    """YAML of the variant with a trial's settings; with the stop too, if the recipe has none.

    What counted was the best evaluation step, and without a stop the last step would be kept
    instead.
    """
    taken = plan.model_dump(exclude={"guess"}, exclude_none=True)
    taken |= {"lr": best.lr, "arguments": best.arguments, "name": f"{plan.name}-swept"}
    if region is not None:
        taken["region"] = region
    section: dict[str, Any] = {"variants": [taken]}
    if run.recipe.unlearn.stop is None:
        section = {"stop": Stop().model_dump(), **section}
    return yaml.safe_dump({"unlearn": section}, sort_keys=False)


def write_results(run: Run, setup: StudySetup, result: SweepResult) -> None:
    """Write the result as JSON and as a page, and the best region if its size was searched.

    Args:
        run: gets the files, in `sweep`.
        setup: what all trials have in common.
        result: what was found so far.
    """
    folder, name = run.out / "sweep", result.variant
    if result.best is not None and result.region is not None:
        size = result.trial(result.best).params[REGION]
        write_json(Path(result.region), setup.region(size))
    write_json(folder / f"{name}.json", asdict(result))
    write_page(
        folder / f"{name}.html", "figure.html.j2", title=f"Sweep of {name}", figure=_figure(result)
    )


def _figure(result: SweepResult) -> Figure:
    """Forgotten against lost: every trial that was looked at, and the front."""
    seen = [trial for trial in result.trials if trial.forgotten is not None]
    dots = [_dot(trial, "x" if trial.state == "pruned" else "dot") for trial in seen]
    if result.best is not None:
        dots.append(_dot(result.trial(result.best), "star"))
    return scatter(
        "sweep",
        f"Sweep of {result.variant}: best evaluation step of each trial, train rows. Star: highest "
        "score; crosses: pruned trials; line: the front",
        dots,
        [_dot(result.trial(number), "dot") for number in result.front],
        axes=("forgotten: percent of the way to not knowing", "lost: points of retention accuracy"),
    )


def _dot(trial: Trial, shape: str) -> Dot:
    return Dot(trial_line(trial), 100 * (trial.forgotten or 0.0), trial.lost or 0.0, shape)
