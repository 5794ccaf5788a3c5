"""What a recipe asks for, checked before anything runs: names, arguments and regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from knowundo.errors import BadInput, unknown
from knowundo.evaluation.lm_eval_tasks import check_tasks
from knowundo.localization.measuring import Scoring
from knowundo.modeling import regions
from knowundo.recipes.schema import Plan, Recipe
from knowundo.registry import get, planned_entry
from knowundo.runs.base import base_knows
from knowundo.runs.guard_checks import check_folders, check_guard
from knowundo.scoring.columns import scorers
from knowundo.unlearning.combining import chosen, needs_retention, said
from knowundo.unlearning.settings import retained_scopes


def check(recipe: Recipe) -> None:
    """Bind every name and argument of a recipe before anything runs.

    Raises:
        BadInput: A benchmark, method, localizer, argument or region is unknown, or two settings
            exclude each other.
    """
    get("benchmark", recipe.data.benchmark)
    check_folders(recipe)
    if recipe.model.optimizer == "paged_adamw_32bit" and recipe.model.device == "cpu":
        raise BadInput(
            "model.optimizer paged_adamw_32bit: pages a GPU's memory; on a CPU say adamw"
        )
    as_original = recipe.data.encoding == "plain" and recipe.data.template in (None, "plain")
    if "naive_boundary" in recipe.quirks and not as_original:
        raise BadInput("compat naive_boundary: needs data.encoding plain, without data.template")
    for name, arguments in recipe.localize.localizers.items():
        localizer = get("localizer", name)
        bound = localizer.bind(arguments)
        if localizer.facts["needs"]:
            Scoring(localizer, bound).check()
    _check_start(recipe)
    if recipe.localize.adopt is not None:
        regions.read_names(Path(recipe.localize.adopt))
        if len(recipe.localize.localizers) > 1:
            raise BadInput("localize.adopt: one region; name one localizer that it stands for")
    check_tasks(recipe.evaluate.general_tasks, recipe.evaluate.general_folder)
    scorers(recipe.evaluate.metrics)
    for name, planned in recipe.evaluate.attacks.items():
        get("attack", name).bind(planned.arguments)
    for plan in recipe.unlearn.variants:
        entry = planned_entry(plan.method)
        entry.bind(plan.arguments)
        if entry.kind == "guard":
            check_guard(recipe, plan, entry)
            _check_scopes(recipe, plan)
            continue
        _check_plan(recipe, plan)
        _check_region(recipe, plan)
        _check_further(recipe, plan)


def _check_plan(recipe: Recipe, plan: Plan) -> None:
    """Refuse settings of a planned method that exclude each other."""
    settings = recipe.unlearn.settings(plan)
    if recipe.unlearn.keeps(plan) and settings["lr"] == "auto":
        raise BadInput(
            f"variant {plan.name}: keep_every: lr auto trains several times, so that there "
            "is not one way to keep steps of; set a rate"
        )
    if "mixed_batches" in recipe.quirks and get("method", plan.method).state_function is not None:
        raise BadInput(
            f"variant {plan.name}: compat mixed_batches computes either half of a row alone, and "
            f"{plan.method} has a state that depends on both; leave out one of the two"
        )
    if get("method", plan.method).edit_function is not None and (
        recipe.unlearn.stop is not None or recipe.unlearn.keeps(plan)
    ):
        raise BadInput(
            f"variant {plan.name}: {plan.method} edits weights after training: steps on the way "
            "are no result of it; leave out unlearn.stop and keep_every"
        )
    _check_gradients(recipe, plan)
    _check_scopes(recipe, plan)
    if "mixed_batches" in recipe.quirks and settings["retained"]:
        raise BadInput(
            f"variant {plan.name}: retained: compat mixed_batches takes as many retention "
            "rows as unlearn rows, one at a time; leave out retained, or mixed_batches"
        )


def _check_further(recipe: Recipe, plan: Plan) -> None:
    """Refuse a method after another one that cannot follow."""
    if plan.then and (recipe.quirks or recipe.unlearn.keeps(plan)):
        raise BadInput(
            f"variant {plan.name}: then: goes neither with compat nor with keep_every; leave out "
            "one of them"
        )
    for one in plan.further:
        if planned_entry(one.method).kind == "guard":
            raise BadInput(
                f"variant {one.name}: a guard stands before the memorized model, not before one "
                "that was unlearned; plan it by itself"
            )
        get("method", one.method).bind(one.arguments)
        if recipe.unlearn.settings(one)["lr"] == "auto":
            raise BadInput(f"variant {one.name}: lr auto is for the first method; set a rate")
        if one.then or one.keep_every:
            raise BadInput(
                f"variant {one.name}: then and keep_every are keys of the variant itself; leave "
                "them out of what follows"
            )
        _check_scopes(recipe, one)
        _check_gradients(recipe, one)
        _check_region(recipe, one)


def _check_scopes(recipe: Recipe, plan: Plan) -> None:
    """Refuse rows of several scopes to retain on where a batch cannot hold them."""
    scopes = retained_scopes(plan.retain_on)
    key, retained = f"variant {plan.name}: retain_on", recipe.unlearn.settings(plan)["retained"]
    if "mixed_batches" in recipe.quirks and len(scopes) > 1:
        raise BadInput(
            f"{key}: compat mixed_batches takes the rows of one scope; name one, or leave out "
            "mixed_batches"
        )
    if retained is not None and retained < len(scopes):
        raise BadInput(
            f"{key}: {len(scopes)} scopes, and {retained} retained rows a batch; set retained to "
            f"{len(scopes)} or more"
        )


def _check_gradients(recipe: Recipe, plan: Plan) -> None:
    """Refuse to combine the gradients of unlearning and retention where there is only one."""
    if (found := chosen(plan.gradients)) is None:
        return
    key = f"variant {plan.name}: gradients {found[0].name}"
    if "mixed_batches" in recipe.quirks:
        raise BadInput(
            f"{key}: compat mixed_batches computes either half of a row alone; leave out one of "
            "the two"
        )
    reads = get("method", plan.method).facts["reads"]
    if reads is not None and "retention" not in reads and needs_retention(found[0]):
        raise BadInput(
            f"{key}: {plan.method} has no retention part; take a method with one, or gradients sum"
        )
    if reads is not None and not {"unlearn", "alternative"} & set(reads):
        raise BadInput(f"{key}: {plan.method} has no unlearn part; leave out gradients")


def _check_region(recipe: Recipe, plan: Plan) -> None:
    """Refuse a region that no localizer finds and no file lists."""
    if plan.region.endswith(".json"):
        if not Path(plan.region).is_file():
            raise BadInput(f"variant {plan.name}: no region file {plan.region}")
        return
    known = _region_names(recipe)
    if plan.region not in known:
        reason = unknown("region", plan.region, known)
        raise BadInput(
            f"variant {plan.name}: {reason}; regions come from localize.localizers, "
            "or name a .json file"
        )


def _check_start(recipe: Recipe) -> None:
    """Refuse what needs a model that never saw the records, where there is none."""
    if not base_knows(recipe):
        return
    if recipe.memorize.retain_model:
        raise BadInput(
            "memorize.retain_model: the base itself knows the records, so no retain model can be "
            "trained from it; set it to false"
        )
    if recipe.unlearn.stop is None:
        for plan in recipe.unlearn.variants:
            if recipe.unlearn.settings(plan)["lr"] == "auto":
                raise BadInput(
                    f"variant {plan.name}: lr auto aims at a model that never saw the records, "
                    "and the base itself knows them; set a rate, or unlearn.stop"
                )


def _region_names(recipe: Recipe) -> list[str]:
    found = list(recipe.localize.localizers)
    draws = range(1, recipe.localize.draws + 1)
    prefixes = ["random"] if len(found) == 1 else [f"random-{name}" for name in found]
    return [regions.EVERYTHING, *found, *(f"{p}-{n}" for p in prefixes for n in draws)]


def effective(recipe: Recipe) -> dict[str, Any]:
    """A recipe with its defaults, those of methods and localizers too."""
    whole = recipe.model_dump(mode="json")
    for variant in whole["unlearn"]["variants"]:
        variant["arguments"] = planned_entry(variant["method"]).bind(variant["arguments"])
        variant["gradients"] = said(variant["gradients"])
        for one in variant["then"]:
            one["arguments"] = get("method", one["method"]).bind(one["arguments"])
            one["gradients"] = said(one["gradients"])
    localizers = whole["localize"]["localizers"]
    for name, one in whole["evaluate"]["attacks"].items():
        bound = get("attack", name).bind(one["arguments"])
        one["arguments"] = json.loads(json.dumps(bound))  # a tuple is a list in the recipe's file
    # With their defaults, so that a default that changes in a later version is seen.
    for name in localizers:
        localizers[name] = get("localizer", name).bind(localizers[name])
    return whole
