"""Evidence and results to certify, made up."""

from __future__ import annotations

from typing import Any

from knowundo.certificate.evidence import Evidence
from knowundo.certificate.verdict import Scores, answer_questions, outcome
from knowundo.recipes.acceptance import Acceptance
from knowundo.results import Results, Row, VariantFacts


def row(variant: str, metric: str, value: float | None, **given: Any) -> Row:
    """A row of the unlearn val rows, if nothing else is said."""
    defaults: dict[str, Any] = {"scope": "unlearn", "split": "val", "records": 20, "subjects": 10}
    return Row(variant=variant, metric=metric, value=value, **defaults | given)


def results(*rows: Row, **given: Any) -> Results:
    objects = ("recipe_given", "recipe_effective", "revision", "packages", "hardware", "seeds")
    empty: dict[str, Any] = {name: {} for name in (*objects, "data_counts", "model")}
    names = list(dict.fromkeys([*(one.variant for one in rows), "m", "memorized"]))
    facts = [VariantFacts(name=name, role="unlearned") for name in names]
    whole = {"name": "x", "data_sha256": "", "variants": facts, "comparisons": []}
    return Results(**empty | whole | {"rows": list(rows)} | given)


def evidence(*rows: Row, acceptance: Acceptance | None = None, **given: Any) -> Evidence:
    """Evidence on the model `m`."""
    found = results(*rows)
    answers = answer_questions(Scores(found, "m"), acceptance)
    state, sentence = outcome(answers, [])
    entry = {"subject": "5" * 64, "row": "a" * 64}
    scope = {
        "rows": 1, "subjects": 1, "key_id": "1" * 64, "key_source": "run", "listed": "2" * 64,
        "entries": [entry],
    }  # fmt: skip
    model = dict.fromkeys(("method", "region", "parameters", "lr", "optimizer_steps"))
    own = [one.model_dump() for one in found.rows if one.variant == "m"]
    whole: dict[str, Any] = {
        "certified": "2026-01-02T03:04:05+00:00", "outcome": state, "sentence": sentence,
        "answers": answers, "findings": [], "scope": scope, "acceptance": None, "criteria": "none",
        "people": [{"subject": "5" * 64, "asked": 3, "answered": 1}],
        "model": model | {"name": "m", "role": "unlearned", "then": [], "adaptation": {}},
        "weights": [{"name": "adapter_model.safetensors", "sha256": "3" * 64}],
        "parents": [{"role": "base", "name": "toy", "files": []}],
        "data": {"benchmark": "embedded", "counts": {}, "hmac": "4" * 64, "commits": {}},
        "run": "x", "recipe_sha256": "6" * 64, "results_sha256": "7" * 64, "seeds": {},
        "revision": {}, "packages": {}, "hardware": {}, "rows": own, "limits": ["It ends."],
    }  # fmt: skip
    return Evidence(**whole | given)
