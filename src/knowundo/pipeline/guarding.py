"""A guard as an artifact of the stage unlearn: the memorized model's weights stay as they are."""

from __future__ import annotations

from typing import Any

from knowundo.entry import Entry, taken
from knowundo.errors import BadInput
from knowundo.modeling.guard_files import ASSISTANT, write_guard
from knowundo.modeling.weights import save_state
from knowundo.recipes.schema import Plan
from knowundo.registry import planned_entry
from knowundo.runs.artifact import ArtifactJob
from knowundo.runs.run import Run
from knowundo.storage.files import write_json
from knowundo.storage.job import Job
from knowundo.unlearning.guarding import prepare_guard
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn


def make_guard(run: Run, plan: Plan, job: ArtifactJob) -> None:
    """Make a planned guard; the run's model is the memorized one afterwards.

    Args:
        run: Memorized already.
        plan: Names a guard.
        job: Of the variant.

    Raises:
        BadInput: The rows do not suit the guard, or it needs a LoRA and all weights were trained.
    """
    entry = planned_entry(plan.method)
    retained = {scope: run.encoded(scope, "train") for scope in ("retention", "general")}
    rows = run.encoded("unlearn", "train")
    run.model.use(run.start)
    start = Start(run.model, rows, retained, seed=run.recipe.seed, encode=run.encode)
    guard = prepare_guard(start, entry, plan.arguments)
    done = Unlearned([], {"optimizer_steps": 0, "parameters": 0})
    if entry.trained is not None:
        done = _trained(run, start, plan, entry, job)
        (job.aside / ASSISTANT).mkdir()
        save_state(run.model, job.aside / ASSISTANT)
    measured = {name: float(value) for name, value in guard.measured.items()}
    about = {"method": plan.method, "arguments": dict(guard.bound), "guard": measured}
    job.facts |= done.facts | about
    write_guard(guard, job.aside)
    write_json(job.aside / "curve.json", done.curve)
    start.restore()


def _trained(run: Run, start: Start, plan: Plan, entry: Entry, job: ArtifactJob) -> Unlearned:
    """The assistant, which is trained from the memorized model as a method is."""
    if run.model.adaptation.kind != "lora":
        raise BadInput(
            f"variant {plan.name}: guard {plan.method} trains a second LoRA beside the memorized "
            "one, and this run trains all weights; set model.adaptation=lora"
        )
    settings: dict[str, Any] = run.recipe.unlearn.settings(plan)
    settings["arguments"] = taken(entry.loss_function, entry.bind(plan.arguments))
    settings |= {"retain_on": plan.retain_on, "optimizer": run.recipe.model.optimizer}
    with run.reporter.task(plan.name) as progress:
        training = UnlearnSettings(plan.method, **settings)
        done = unlearn(start, training, job=Job(progress, job.checkpoint))
    parameters = sum(parameter.numel() for parameter in run.model.parameters().values())
    return Unlearned(done.curve, done.facts | {"parameters": parameters})
