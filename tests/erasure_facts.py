"""Results and scores of an erasure, small and made by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd

from knowundo.erasure_results import Change, ErasureResults, ErasureSettings
from knowundo.results import Results, VariantFacts

# Text of a model or a record that tries to be markup.
HOSTILE = '<script>alert(1)</script><img src="https://example.org/x.png">\u202e`|'
SECRET = "Her number is 555-0199."


def score_row(name: str, scope: str, split: str, **given: Any) -> dict[str, Any]:
    """A row of `scoring.table`, known and answered."""
    row = {
        "id": name, "scope": scope, "split": split, "subset": None, "subject": "Ada",
        "question": f"What of {name}?", "answer": f"Answer {name}.", "said": f"Answer {name}.",
        "token_accuracy": 1.0, "exact_match": 1.0, "mean_nll": 0.0, "attack": "",
    }  # fmt: skip
    return row | given


def score_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores before and after: of four listed rows one is still answered."""
    before = [
        score_row("u0", "unlearn", "train", answer=SECRET, said=SECRET),
        score_row("u1", "unlearn", "train", question=HOSTILE),
        score_row("u2", "unlearn", "train", subject="Bob"),
        score_row("d0", "unlearn", "train", question="", said=None, exact_match=None),
        score_row("v0", "unlearn", "val", exact_match=0.0, said="No."),
        score_row("p0", "unlearn", "probe", subset="request-1", exact_match=0.0, said="No."),
        score_row("r0", "retention", "train"),
        score_row("r1", "retention", "train", subset="mine"),
        score_row("r0/reworded", "retention", "val", subset="reworded"),
        score_row("g0", "retention", "train", subset="generated: other subject"),
        score_row("g1", "retention", "val", subset="generated: other subject"),
        score_row("g2", "retention", "train", subset="generated: own text", exact_match=None),
        score_row("t0", "general", "val", subset="text", exact_match=None, mean_nll=1.0),
        score_row("f0", "general", "val", subset="facts", mean_nll=9.0),
    ]
    after = {
        "u0": {"said": "I never.", "exact_match": 0.0, "token_accuracy": 0.5},
        "u2": {"said": HOSTILE, "exact_match": 0.0, "token_accuracy": 0.75},
        "d0": {"token_accuracy": 0.25},
        "r1": {"said": "Gone.", "exact_match": 0.0},
        "g1": {"said": "Gone.", "exact_match": 0.0},
        "t0": {"mean_nll": 2.0},
    }
    return pd.DataFrame(before), pd.DataFrame([row | after.get(row["id"], {}) for row in before])


def change(before: float | None, after: float | None, records: int) -> Change:
    return Change(before=before, after=after, records=records)


def erasure_results(**given: Any) -> ErasureResults:
    """The facts of `score_tables`."""
    nothing = change(None, None, 0)
    settings = ErasureSettings(
        method="npo", arguments={"beta": 0.1}, region="everything", parameters=1200,
        adaptation="lora", lr=0.004, lr_chosen=True, encoding="chat", dtype="float32", seed=0,
    )  # fmt: skip
    facts = ErasureResults(
        variant="erased", state="not_erased", sentence="NOT ERASED: 33.3 % is still answered",
        rows=4, subjects=2, not_known=1, exact=change(100.0, 33.333, 3),
        reworded=change(0.0, 0.0, 1), predicted=change(100.0, 62.5, 4),
        retention_listed=change(100.0, 50.0, 2), retention_reworded=change(100.0, 100.0, 1),
        retention_unlisted=change(100.0, 50.0, 2), retention_held_out=nothing,
        general_perplexity=change(2.718, 7.389, 1), seconds={"unlearn": 3.0, "evaluate": 1.5},
        optimizer_steps=20, attempts=2, settings=settings, list_sha256="ab" * 32,
        command="knowundo erase --model m --unlearn 'my rows.jsonl' --out out",
        packages={"torch": "2"},
    )  # fmt: skip
    return facts.model_copy(update=given)


def results_with(facts: ErasureResults | None) -> Results:
    """Results that hold the section and what the page shows beside it."""
    curve = [
        {"step": 0, "unlearn": 1.0, "retention": 1.0},
        {"step": 10, "unlearn": 0.5, "retention": 0.75},
    ]
    variants = [
        VariantFacts(name="memorized", role="memorized"),
        VariantFacts(name="erased", role="unlearned", trajectory=curve, kept_step=10),
    ]
    return Results(
        name="erase", recipe_given={}, recipe_effective={},
        revision={"commit": None, "dirty": None},
        packages={"torch": "2"}, hardware={"machine": "x", "cpus": 2, "threads": 2, "gpu": None},
        seeds={}, data_sha256="", data_counts={}, variants=variants, rows=[], comparisons=[],
        model={"base": HOSTILE, "commit": None, "parameters": 5000}, erasure=facts,
    )  # fmt: skip
