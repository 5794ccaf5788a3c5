"""The records of a recipe: those of its benchmark, with general rows from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from knowundo.data.general import read_general
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.records import Record, select
from knowundo.errors import BadInput
from knowundo.recipes.schema import Recipe
from knowundo.registry import get
from knowundo.unlearning.settings import SIBLINGS, retained_scopes


def build_records(recipe: Recipe) -> ResolvedRecords:
    """All records of a recipe, and the hub's commits that they were read from.

    Raises:
        BadInput: The benchmark refuses an argument, or a file of its is missing or malformed.
    """
    data, entry = recipe.data, get("benchmark", recipe.data.benchmark)
    arguments = {"domain": data.domain, "seed": recipe.data_seed}
    for name in ("source", "subjects", "revision"):
        if (value := getattr(data, name)) is not None:
            arguments[name] = value
    built: list[Record] = entry(**entry.bind(arguments))
    commits = dict(built.commits) if isinstance(built, ResolvedRecords) else {}
    if data.general is not None:
        general = read_general(data.general, revision=data.general_revision)
        rest = [record for record in built if record.scope != "general"]
        return ResolvedRecords([*rest, *general], commits | general.commits)
    # General facts that one base knows measure nothing beside another, which never knew them.
    if entry.facts.get("facts_of_base") not in (None, recipe.model.base):
        built = [r for r in built if (r.scope, r.subset) != ("general", "facts")]
    return ResolvedRecords(built, commits)


def check_retention_scopes(recipe: Recipe, records: Sequence[Record]) -> None:
    """Refuse a planned method whose retention half would be empty.

    Raises:
        BadInput: There are no train rows of the scope that it retains on.
    """
    for plan in (one for first in recipe.unlearn.variants for one in (first, *first.further)):
        scopes = {SIBLINGS: "retention"}  # siblings are made of retention rows
        for scope in (scopes.get(one, one) for one in retained_scopes(plan.retain_on)):
            if not select(records, scope=scope, split="train"):
                raise BadInput(
                    f"variant {plan.name}: there are no {scope}/train rows to "
                    "retain on; name general ones with data.general"
                )
