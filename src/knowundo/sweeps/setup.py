"""What all trials of a sweep have in common, settled before the first one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from knowundo.errors import BadInput, unknown
from knowundo.localization.gradients import Measured
from knowundo.modeling import regions
from knowundo.pipeline.unlearning import region_of
from knowundo.recipes.schema import Plan, Recipe
from knowundo.recipes.stop_section import Stop
from knowundo.registry import get, planned_entry
from knowundo.runs.inputs import mask_hash
from knowundo.runs.run import Run
from knowundo.storage.files import read_json
from knowundo.unlearning.rates import first_rate
from knowundo.unlearning.settings import UnlearnSettings

if TYPE_CHECKING:
    pass
from knowundo.sweeps.space import (
    LR,
    REGION,
    Range,
    derive_space,
    is_sized,
    nearest_size,
    region_of_size,
)


@dataclass(frozen=True)
class StudySetup:
    """What all trials of a sweep have in common.

    Attributes:
        plan: the variant whose settings are searched.
        arguments: all arguments of its method.
        space: where each number is searched.
        region: size → parameter names. If the region is not searched, the same for every size.
        settings: of unlearning; those that are searched are replaced in each trial.
    """

    plan: Plan
    arguments: dict[str, Any]
    space: dict[str, Range]
    region: Callable[[float], list[str]]
    settings: UnlearnSettings

    def training(self, params: Mapping[str, float]) -> dict[str, Any]:
        """Learning rate, arguments and region of a trial.

        Args:
            params: what was suggested, by name.

        Raises:
            BadInput: no tensor is in a region of that size.
        """
        searched = {name: value for name, value in params.items() if name in self.arguments}
        return {
            "lr": params[LR],
            "arguments": self.arguments | searched,
            "region": self.region(params.get(REGION, 0.0)),
        }


def chosen_plan(recipe: Recipe, name: str | None) -> Plan:
    """The variant of that name, or the only one of the recipe.

    Raises:
        BadInput: there is no such variant, there are several and none is named, or it is a guard.
    """
    plans = {plan.name: plan for plan in recipe.unlearn.variants}
    if name is None and len(plans) > 1:
        raise BadInput(f"sweep: one variant at a time; name it with --variant: {', '.join(plans)}")
    if name is not None and name not in plans:
        raise unknown("variant", name, plans)
    plan = next(iter(plans.values())) if name is None else plans[name]
    if planned_entry(plan.method).kind == "guard":
        raise BadInput(
            f"variant {plan.name}: {plan.method} is a guard, and a sweep evaluates steps of a "
            "training; sweep a method"
        )
    return plan


def set_up_study(run: Run, plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> StudySetup:
    """Settle what all trials have in common.

    Args:
        run: localized, with the memorized model in memory.
        plan: the variant whose settings are searched.
        ranges: low and high ends that replace the derived ones, by name.
    """
    planned = run.recipe.unlearn.settings(plan)
    rate = planned.pop("lr")
    if rate == "auto":
        rate = plan.guess or first_rate(run.model)
    method = get("method", plan.method)
    arguments = method.bind(plan.arguments)
    if method.edit_function is not None:
        raise BadInput(
            f"variant {plan.name}: a sweep evaluates steps on the way, and {plan.method} edits "
            "weights after training; sweep another method"
        )
    if plan.then:
        raise BadInput(f"variant {plan.name}: a sweep trains one method; leave out then")
    own, size = region_of(run, plan.region), None

    def fixed(_: float) -> list[str]:
        return own.names

    region: Callable[[float], list[str]] = fixed
    if is_sized(run.recipe, plan):
        region = partial(region_of_size, **_measured(run, plan.region))
        sizes = {name: parameter.numel() for name, parameter in run.model.parameters().items()}
        size = nearest_size(region, sizes, sum(sizes[name] for name in own.names))
    space = derive_space(method, arguments, rate=rate, size=size, ranges=ranges)
    settings = UnlearnSettings(
        **planned,
        method=plan.method,
        masks=own.masks,
        retain_on=plan.retain_on,
        gradients=plan.gradients,
        optimizer=run.recipe.model.optimizer,
    )
    return StudySetup(plan, arguments, space, region, settings)


def _measured(run: Run, localizer: str) -> dict[str, Any]:
    """What `region_of_size` needs, from what localize wrote."""
    tensors = read_json(run.regions / "tensors.json")
    return {
        "localizer": get("localizer", localizer),
        "arguments": run.recipe.localize.localizers[localizer],
        "measured": Measured(
            {tensor["name"]: tensor["cosine"] for tensor in tensors},
            {tensor["name"]: tensor["magnitude"] for tensor in tensors},
        ),
        "known": list(run.model.parameters()),
        "whole_modules": run.model.is_fresh,
    }


def sweep_inputs(run: Run, setup: StudySetup, stop: Stop) -> list[Any]:
    """What trials depend on beside what is searched; their hash names the study.

    Trials of other inputs are another study: their scores cannot be compared.

    Args:
        run: of the sweep.
        setup: what all trials have in common.
        stop: when and on what a trial is evaluated.
    """
    lows = {name: where.low for name, where in setup.space.items() if name in setup.arguments}
    settled = {
        "lr": 1.0,
        "guess": None,
        "arguments": setup.arguments | lows,
        "region": regions.EVERYTHING,
    }
    made = run.unlearn_inputs(setup.plan.model_copy(update=settled))
    if REGION in setup.space:
        name = setup.plan.region
        region: Any = [run.made(run.regions, "localize"), get("localizer", name).source]
    else:
        masks = mask_hash(run.region_file(setup.plan.region))
        # Only if there are any: studies made before them go on.
        region = [setup.region(0.0), *masks] if masks else setup.region(0.0)
    space = {name: asdict(where) for name, where in setup.space.items()}
    return ["sweep", made, stop.model_dump(), region, space]
