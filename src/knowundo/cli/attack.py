"""`knowundo attack`: one more attack on the models of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from knowundo.cli.options import AsJson, quiet


def _planned(out: Path, attack: str, sets: list[str], variants: list[str]) -> dict[str, Any]:
    """All attacks of a run as its recipe will have them; what is not given stays as it is."""
    from knowundo.errors import BadInput
    from knowundo.recipes.reading import amend
    from knowundo.registry import get
    from knowundo.runs.recipe_file import RECIPE, read_recipe_file

    get("attack", attack)  # suggests the nearest, where there is none of that name
    file = out / RECIPE
    if not file.is_file():
        raise BadInput(f"{out}: holds no run (no recipe.yaml); name a run's directory")
    held = read_recipe_file(file)["effective"].get("evaluate", {}).get("attacks", {})
    return {**held, attack: {"variants": variants or None} | amend({}, sets)}


def attack(
    run: Annotated[Path, typer.Argument(help="Directory of a run whose models are there.")],
    name: Annotated[
        str, typer.Option("--attack", help="Name of the attack (see `knowundo list attacks`).")
    ],
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            help="Model to attack. It can be repeated. If omitted, the unlearned variants and the "
            "retain model.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Argument of the attack, such as steps=[0,20]. It can be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack the models of a run, and score what it brings back into results.json.

    knowundo attack runs/demo --attack relearning --variant memflex --set steps=[0,20]
    """
    quiet()
    planned = _planned(run, name, sets or [], variant or [])

    from knowundo.pipeline.evaluation import evaluate
    from knowundo.progress import RichReporter
    from knowundo.reporting.attacks import attack_lines
    from knowundo.runs.run import Run

    opened = Run.existing(run, RichReporter(run), [f"evaluate.attacks={json.dumps(planned)}"])
    rows = [row for row in evaluate(opened).rows if (row.attack or "").startswith(f"{name}: ")]
    if as_json:
        print(json.dumps([row.model_dump(mode="json") for row in rows], indent=1))
        return
    print("\n".join(attack_lines(rows)))
    opened.reporter.say(f"`knowundo report --out {run}` writes the page with it")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(name="attack")(attack)
