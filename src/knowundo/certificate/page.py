"""The certificate as one page of HTML: no script, no network, every text escaped."""

from __future__ import annotations

from typing import Any

from knowundo.certificate.evidence import Evidence
from knowundo.certificate.limits import points
from knowundo.reporting.page import render

STATES = {
    "passed": "yes",
    "failed": "no",
    "undecided": "undecided",
    "not_tested": "not tested",
    "no_criterion": "no criterion",
}
# Rows of the list that the page names; evidence.json has all.
MOST_ENTRIES = 20


def render_page(evidence: Evidence, key_id: str | None) -> str:
    """The page.

    Args:
        evidence: What it says.
        key_id: Id of the key that signs it. If `None`, it is not signed.
    """
    states = {answer.key: answer.state for answer in evidence.answers}
    return render(
        "certificate",
        "certificate.html.j2",
        interactive=False,
        number=_figure,
        evidence=evidence,
        states=STATES,
        state_of=states,
        points=points(),
        key_id=key_id,
        most=MOST_ENTRIES,
        answered=[one for one in evidence.people if one.answered],
        revealed=any(one.question is not None for one in evidence.scope.entries),
        rows=_shown_rows(evidence),
    )


def _shown_rows(evidence: Evidence) -> list[Any]:
    """Rows that were measured; those of unlearn first, then by attack."""
    measured = [row for row in evidence.rows if row.value is not None]
    order = {"unlearn": 0, "retention": 1, "general": 2}
    return sorted(measured, key=lambda row: (order.get(row.scope or "", 3), row.attack or ""))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.3g}"
