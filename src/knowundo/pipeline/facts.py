"""What stands in every manifest."""

from __future__ import annotations

from typing import Any

from knowundo.modeling.model import Model
from knowundo.runs.run import Run
from knowundo.storage.environment import surroundings


def common_facts(run: Run, model: Model) -> dict[str, Any]:
    """What stands in every manifest, and what happened on the way, which is told as well."""
    model.notes.tell(run.reporter.say)
    notes = model.notes.take()
    said = {"notes": notes} if notes else {}
    return {"seed": run.recipe.seed, **said, **surroundings()}
