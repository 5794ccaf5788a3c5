"""The report of an erasure: the verdict, and what it rests on, as one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from knowundo.data.records import redacted
from knowundo.erasure_results import Change, ErasureResults
from knowundo.reporting.page import figure, write_page
from knowundo.reporting.panels import evaluation_steps
from knowundo.reporting.tables import task_table
from knowundo.results import Results

# The most rows of the list, and of those that were lost, that the page shows, and the most
# characters of a text.
MOST_LISTED, MOST_LOST, MOST_CHARACTERS = 300, 20, 400


@dataclass(frozen=True)
class Asked:
    """One row as the report shows it."""

    question: str
    answer: str
    before: str
    after: str
    subject: str
    outcome: str
    predicted: str  # percent of its tokens, before → after
    reworded: bool


@dataclass(frozen=True)
class Answers:
    """Rows of a table, and how many more there are."""

    rows: list[Asked]
    left_out: int

    @property
    def choices(self) -> dict[str, list[str]]:
        """What the rows can be filtered by."""
        return {
            name: list(dict.fromkeys(getattr(row, name) for row in self.rows))
            for name in ("subject", "outcome")
        }


def arrow(change: Change, unit: str = "") -> str:
    """A change as text, such as `100.0 → 0.0 %`."""
    return f"{figure(change.before)} → {figure(change.after)}{unit}"


def forgotten_lines(facts: ErasureResults) -> list[tuple[str, Change]]:
    """What had to go: each measure in words, in percent."""
    earlier = [
        (f"request {one.number}, answered exactly" + " (RELAPSED)" * one.relapsed, one.exact)
        for one in facts.earlier
    ]
    return [
        ("the list's questions answered exactly", facts.exact),
        ("the same in other words", facts.reworded),
        ("tokens of the answers predicted", facts.predicted),
        *earlier,
    ]


def kept_lines(facts: ErasureResults) -> list[tuple[str, Change]]:
    """What had to stay: each measure in words, in percent answered exactly; those with rows."""
    lines = [
        ("listed: the rows that were given", facts.retention_listed),
        ("listed, in other words", facts.retention_reworded),
        ("unlisted: rows that were generated", facts.retention_unlisted),
        ("unlisted, not trained on", facts.retention_held_out),
    ]
    lines += [(f"unlisted: {kind}", one) for kind, one in facts.retention_by_kind.items()]
    return [(words, one) for words, one in lines if one.records]


def _tiles(facts: ErasureResults) -> list[tuple[str, Change]]:
    """The three measures that the verdict rests on."""
    listed, unlisted = facts.retention_listed, facts.retention_unlisted
    return [
        ("The list", facts.exact),
        ("The same in other words", facts.reworded),
        ("Rows that must stay", listed if listed.records else unlisted),
    ]


def loss_line(facts: ErasureResults) -> str:
    """What was lost of what must stay, against its bound, in a sentence."""
    if facts.lost is None:
        return "Too few val rows that must stay are known, so no loss was measured."
    bound = "" if facts.bound is None else f", and {facts.bound:g} may be lost"
    lost = f"{max(facts.lost, 0.0):.1f}"
    if facts.lost_in == "answers":
        return f"Exact answers that must stay, in the known wording: {lost} % were lost{bound}."
    return (
        "Token accuracy on val rows that must stay, which nothing was trained on: "
        f"{lost} points were lost{bound}."
    )


def summary(facts: ErasureResults) -> list[str]:
    """The facts in at most five lines, for a terminal."""
    subjects = f"{facts.subjects} subject" + "s" * (facts.subjects != 1)
    measures = (
        (facts.exact, "answered exactly"),
        (facts.reworded, "in other words"),
        (facts.predicted, "of the tokens predicted"),
    )
    gone = ", ".join(f"{arrow(one, ' %')} {words}" for one, words in measures if one.records)
    said = [f"what had to go ({facts.rows} rows, {subjects}): {gone}"]
    said += [
        f"what had to stay, {name}: {arrow(one, ' %')} answered exactly ({one.records} rows)"
        for name, one in (
            ("listed", facts.retention_listed),
            ("unlisted", facts.retention_unlisted),
        )
        if one.records
    ]
    text = facts.general_perplexity
    if text.records:
        said.append(f"general text: perplexity {arrow(text)} ({text.records} texts)")
    total = sum(facts.seconds.values())
    stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in facts.seconds.items())
    said.append(
        f"cost: {total:.0f} s ({stages}), {facts.optimizer_steps} optimizer steps, trainings: "
        f"{facts.attempts}"
    )
    return said


def write_erasure_report(
    path: Path,
    results: Results,
    scores: dict[str, pd.DataFrame],
    *,
    redact: bool = False,
) -> None:
    """Write the report of an erasure; whatever a model or a record says is escaped.

    Args:
        path: The HTML file.
        results: With the section `erasure`.
        scores: Model → its rows of `scoring.table.score_adapters`, unaltered.
        redact: Show hash and length in place of the list's answers and of generated answers.

    Raises:
        ValueError: The results have no section `erasure`.
    """
    facts = results.erasure
    if facts is None:
        raise ValueError("results without the section erasure")
    before, after = scores["memorized"], scores[facts.variant]
    listed = _rows(before, after, "unlearn", ("train", "val"))
    lost = [one for one in _rows(before, after, "retention", None) if _was_lost(one)]
    write_page(
        path,
        "erasure.html.j2",
        redact=redact,
        results=results,
        facts=facts,
        relapsed=any(one.relapsed for one in facts.earlier),
        tiles=_tiles(facts),
        forgotten=forgotten_lines(facts),
        kept=kept_lines(facts),
        loss=loss_line(facts),
        listed=_answers(listed, MOST_LISTED, redact=redact),
        lost=_answers(lost, MOST_LOST, redact=redact),
        tasks=task_table(results),
        training=evaluation_steps(results),
        total=sum(facts.seconds.values()),
    )


def _rows(
    before: pd.DataFrame, after: pd.DataFrame, scope: str, splits: tuple[str, ...] | None
) -> list[dict[str, Any]]:
    """Rows of a scope with what both models say; those still answered first, then by tokens."""
    chosen = before[before["scope"] == scope]
    if splits is not None:
        chosen = chosen[chosen["split"].isin(splits)]
    columns = ["id", "said", "exact_match", "token_accuracy"]
    both = chosen.merge(after[columns], on="id", how="left", suffixes=("_before", "_after"))
    order = ["exact_match_after", "token_accuracy_after"]
    both = both.sort_values(order, ascending=False, kind="stable", na_position="last")
    names = list(both.columns)
    return [dict(zip(names, row, strict=True)) for row in both.itertuples(index=False, name=None)]


def _was_lost(row: dict[str, Any]) -> bool:
    return row["exact_match_before"] == 1 and row["exact_match_after"] == 0


def _answers(rows: list[dict[str, Any]], most: int, *, redact: bool) -> Answers:
    shown = [_asked(row, redact=redact) for row in rows[:most]]
    return Answers(shown, max(0, len(rows) - most))


def _asked(row: dict[str, Any], *, redact: bool) -> Asked:
    def shown(text: Any) -> str:
        if text is None or pd.isna(text):
            return ""
        return redacted(text) if redact else _cut(text)

    return Asked(
        question=_cut(row["question"]),
        answer=shown(row["answer"]),
        before=shown(row["said_before"]),
        after=shown(row["said_after"]),
        subject=shown(row["subject"]),
        outcome=_outcome(row["exact_match_before"], row["exact_match_after"]),
        predicted=" → ".join(
            "–" if pd.isna(share) else f"{share:.0%}"
            for share in (row["token_accuracy_before"], row["token_accuracy_after"])
        ),
        reworded=row["split"] == "val",
    )


def _outcome(before: Any, after: Any) -> str:
    """What became of a row; one that nobody was asked has only tokens."""
    if pd.isna(before) or pd.isna(after):
        return "not asked"
    if after == 1:
        return "still answered"
    return "gone" if before == 1 else "never answered"


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"
