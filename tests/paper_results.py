"""Results of runs that repeat a setting of the paper, or do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knowundo.reporting.paper.figures import (
    PaperRow,
)
from knowundo.reporting.paper.rows import paper_rows
from knowundo.results import Results, Row, VariantFacts

HOSTILE = "a_b&%$#{}|<script>[x]*\\^~ _y_"


LLAMA, QWEN = "meta-llama/Llama-2-7b-chat-hf", "Qwen/Qwen1.5-7B-Chat"


PRIVACY = "knowundo-privacy-llama2-7b"


def row(variant: str, metric: str, scope: str | None, value: float | None, **more: Any) -> Row:
    fields: dict[str, Any] = {"split": "val", "records": 1, "subjects": 1} | more
    return Row(variant=variant, metric=metric, scope=scope, value=value, **fields)


def task(variant: str, name: str, value: float | None, subset: str = "acc") -> Row:
    return row(variant, name, "general", value, split=None, subset=subset)


def results(
    *rows: Row,
    name: str = PRIVACY,
    base: str = LLAMA,
    domain: str = "privacy",
    tasks: Sequence[str] = (),
    **data: Any,
) -> Results:
    """Results of a base, a memorized model, memflex and a variant of a hostile name."""
    facts = [VariantFacts(name=role, role=role) for role in ("base", "memorized")]
    facts += [VariantFacts(name=n, role="unlearned") for n in ("memflex", HOSTILE)]
    effective = {
        "name": name,
        "model": {"base": base},
        "data": {"benchmark": "knowundo", "domain": domain, "subjects": None} | data,
        "evaluate": {"general_tasks": tasks},
    }
    return Results(
        name=name, recipe_given={}, recipe_effective=effective, revision={}, packages={},
        hardware={}, seeds={"recipe": 7}, data_sha256="0123456789abcdef", data_counts={}, model={},
        variants=facts, rows=list(rows), comparisons=[],
    )  # fmt: skip


def ours(found: Results, variant: str = "memflex", **seconds: float | None) -> PaperRow:
    rows = paper_rows(found, dict(seconds))
    return next(r for r in rows if (r.variant, r.source) == (variant, "ours"))


def sources(found: Results) -> list[tuple[str, str]]:
    return [(r.variant, r.source) for r in paper_rows(found, {})]
