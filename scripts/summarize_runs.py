"""Several runs of one recipe over seeds as one Markdown table: mean, and the range in brackets.

python scripts/summarize_runs.py runs/privacy-*
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from knowundo.reporting.sentences import matched
from knowundo.reporting.tables import COLUMNS
from knowundo.results import Results, read_results


def spread(values: Iterable[float | None]) -> str:
    """Mean and range; a dash where nothing was scored."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = min(known), max(known)
    shown = f"{mean(known):.1f}"
    return shown if f"{low:.1f}" == f"{high:.1f}" else f"{shown} ({low:.1f}–{high:.1f})"


def table(runs: list[Results]) -> str:
    """One row a model."""
    lines = [
        "| model | " + " | ".join(column.title for column in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for variant in runs[0].variants:
        cells = []
        for c in COLUMNS:
            found = [run.find(variant.name, c.metric, c.scope, c.split, c.subset) for run in runs]
            cells.append(spread(row.value if row else None for row in found))
        name = "**retain** (target)" if variant.role == "retain" else variant.name
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def at_first_rate(runs: list[Results]) -> str:
    """The first attempt of every variant, which has the same learning rate for all."""
    lines = [
        "| variant | lr | unlearned (unlearn/train) | retained (retention/train) |",
        "|---|--:|--:|--:|",
    ]
    for variant in runs[0].variants:
        firsts = [
            v.attempts[0]
            for run in runs
            for v in run.variants
            if v.name == variant.name and v.attempts
        ]
        if firsts:
            gone = spread(100 * (1 - a["unlearn"]) for a in firsts if a["unlearn"] is not None)
            kept = spread(100 * a["retention"] for a in firsts if a["retention"] is not None)
            lines.append(f"| {variant.name} | {firsts[0]['lr']:g} | {gone} | {kept} |")
    return "\n".join(lines)


def controls(runs: list[Results]) -> str:
    """Differences of the located region and its controls, run by run."""
    lines = [
        "| seed | control | average success | gap to target | matched |",
        "|--:|---|--:|--:|---|",
    ]
    for run in runs:
        for against in dict.fromkeys(pair.against for pair in run.comparisons):
            pairs = {p.metric: p for p in run.comparisons if p.against == against}
            cells = [
                f"{p.value:+.1f} ({p.low:+.1f} … {p.high:+.1f})"
                if (p := pairs.get(metric)) and p.low is not None and p.high is not None
                else "–"
                for metric in ("average_success", "gap_to_target")
            ]
            fair = "yes" if matched(run, next(iter(pairs.values()))) else "no"
            lines.append(
                f"| {run.seeds['recipe']} | {against} | {cells[0]} | {cells[1]} | {fair} |"
            )
    return "\n".join(lines)


def known(runs: list[Results]) -> str:
    """Before and after memorizing, on both train and val."""
    lines = [
        "| model | scope | split | token accuracy | exact match |",
        "|---|---|---|--:|--:|",
    ]
    for name in ("base", "memorized", "retain"):
        for scope in ("unlearn", "retention"):
            for split in ("train", "val", "probe"):
                cells = [
                    spread(row.value if row else None for row in
                           (run.find(name, metric, scope, split) for run in runs))
                    for metric in ("token_accuracy", "exact_match")
                ]  # fmt: skip
                lines.append(f"| {name} | {scope} | {split} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories of one recipe")
    runs = [read_results(folder / "results.json") for folder in parser.parse_args().runs]
    for part in (table, known, at_first_rate, controls):
        print(part(runs), end="\n\n")


if __name__ == "__main__":
    main()
