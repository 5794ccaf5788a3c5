"""Questions with every model's answer, and how probable each token of the true answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from knowundo.data.records import redacted
from knowundo.reporting.verdict import Verdict
from knowundo.scoring.token_probabilities import digits

# Answers on the page, all models together: what keeps the page of a run of 60 models small.
MOST_ANSWERS, FEWEST, MOST = 3000, 12, 150
_SCOPES = ("unlearn", "retention", "general")


@dataclass(frozen=True)
class Said:
    """A model's answer, and its probabilities of the true answer's tokens."""

    model: str
    text: str
    exact: bool
    shades: str  # a digit for each token: tenths of its probability; empty if not known


@dataclass(frozen=True)
class Asked:
    """A question as the page shows it."""

    scope: str
    split: str
    subject: str
    question: str
    answer: str
    ends: str  # where each token of the answer ends, in characters; empty if not known
    outcome: str
    said: list[Said]


def shown_answers(
    scores: Mapping[str, pd.DataFrame], verdict: Verdict, *, redact: bool
) -> list[Asked]:
    """Rows that were answered: of each scope as many, val rows first, with every model's answer.

    Args:
        scores: Model → its unaltered rows.
        verdict: Its winner, beside the memorized model, gives the outcome of a row.
        redact: Show hash and length in place of what is said of the unlearn scope.
    """
    if not scores:
        return []
    first = next(iter(scores.values()))
    answered = first[first["said"].notna()]
    answered = answered.sort_values("split", key=lambda s: s != verdict.split, kind="stable")
    most = min(MOST, max(FEWEST, MOST_ANSWERS // len(scores)))
    chosen = [answered[answered["scope"] == scope].head(most // 3) for scope in _SCOPES]
    by_id = {name: {_key(row): row for row in records(table)} for name, table in scores.items()}
    return [
        _asked(row, by_id, verdict, hide=redact and row["scope"] == "unlearn")
        for part in chosen
        for row in records(part)
    ]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table by column."""
    names = list(table.columns)
    return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None)]


def _asked(
    row: Mapping[str, Any],
    by_id: Mapping[str, Mapping[Any, Mapping[str, Any]]],
    verdict: Verdict,
    *,
    hide: bool,
) -> Asked:
    def shown(text: Any) -> str:
        if text is None or pd.isna(text):
            return ""
        return redacted(text) if hide else str(text)

    key = _key(row)
    own = {name: rows[key] for name, rows in by_id.items() if key in rows}
    said = [
        Said(name, shown(one["said"]), one.get("exact_match") == 1,
             "" if hide else digits(one.get("token_probabilities")))
        for name, one in own.items()
    ]  # fmt: skip
    return Asked(
        row["scope"], row["split"], shown(row.get("subject", "")), row["question"],
        shown(row["answer"]), "" if hide else _joined(row.get("token_ends")),
        _outcome(said, verdict), said,
    )  # fmt: skip


def _key(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row["scope"], row["id"]


def _joined(ends: Any) -> str:
    return (
        "" if ends is None or (isinstance(ends, float)) else " ".join(str(int(end)) for end in ends)
    )


def _outcome(said: Sequence[Said], verdict: Verdict) -> str:
    """What became of a question, from the memorized model to the best."""
    exact = {one.model: one.exact for one in said}
    after = exact.get(verdict.winner or "")
    before = exact.get("memorized")
    if after is None or before is None:
        return "answered" if (after or before) else "not answered"
    return {
        (True, False): "answered → gone",
        (True, True): "answered → answered",
        (False, False): "never answered",
        (False, True): "gone → answered",
    }[before, after]
