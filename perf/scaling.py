"""How time grows with rows, with adapters and with length: our way and the original way.

    python perf/scaling.py --repeats 3 --out runs/speed/scaling.csv        # make bench-scaling

rows        ×1 to ×8, of each scope: an epoch of ascent+descent, effective batch 8, or all rows if
            they are fewer.
adapters    1 to 16 of them scored on the rows of `speed.SCORED`.
length      32 to 256 tokens, all 16 rows alike: an epoch of memorizing. The original way pads to
            256 always, so it does not grow.

Each measurement is a process of its own, as in `speed.py`, ours and the original way's in turns.
Beside the CSV it writes a plot, and a JSON file with every measurement, the distance of the two
results and the machine. It prints each curve's exponent, fitted by least squares on the logarithms
of x and seconds: 1 is linear growth, 0 is constant time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product
from math import log
from pathlib import Path
from statistics import linear_regression, median
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from rich.console import Console
from rich.table import Table
from speed import BATCH, SCORED, Sizes, apart, matmul_rate, measure

from knowundo.storage.environment import surroundings
from knowundo.storage.files import write_json, write_text

WAYS = "ours", "original"
ROWS = {"embedded": 16, "llama": 4}  # of a scope, at ×1
COLUMNS = [
    "curve", "model", "x", "way", "seconds", "seconds_min", "seconds_max", "peak_mib",
    "beyond_libraries_mib",
]  # fmt: skip


class Curve(NamedTuple):
    """What grows, and what is measured meanwhile."""

    name: str
    title: str
    axis: str
    first: int  # x at ×1
    factors: Sequence[int]
    job: Callable[[int], str]
    sizes: Callable[[int], Sizes]


def curves(model: str) -> list[Curve]:
    return [
        Curve(
            "rows", "An epoch of ascent+descent", "rows of each scope", ROWS[model], (1, 2, 4, 8),
            lambda x: "unlearn: ascent+descent", lambda x: Sizes(rows=x, passes=1),
        ),
        Curve(
            "adapters", f"Scoring {SCORED[model]} rows", "adapters", 1, (1, 2, 4, 8, 16),
            lambda x: f"evaluate {x} adapters", lambda x: Sizes(variants=x),
        ),
        Curve(
            "length", f"An epoch of memorizing {BATCH} rows", "length of every row, tokens", 32,
            (1, 2, 4, 8), lambda x: "memorize", lambda x: Sizes(rows=BATCH, length=x),
        ),
    ]  # fmt: skip


def points_at(
    folder: Path, model: str, curve: Curve, x: int, ways: Sequence[str], repeats: int
) -> list[dict[str, Any]]:
    """One x, each way; in turns, so that other load on the machine affects both."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _, way in product(range(repeats), ways):
        found[way].append(measure(folder, model, curve.job(x), way, sizes=curve.sizes(x)))
    points = []
    for way, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        points.append(
            {
                "curve": curve.name, "model": model, "x": x, "way": way,
                "seconds": median(seconds), "seconds_min": min(seconds),
                "seconds_max": max(seconds),
                "peak_mib": median(run["peak_mib"] for run in runs),
                "beyond_libraries_mib": median(r["peak_mib"] - r["before_mib"] for r in runs),
                "apart": apart(folder) if len(ways) > 1 else None, "runs": runs,
            }
        )  # fmt: skip
    return points


def of(points: Sequence[dict[str, Any]], model: str, curve: str, way: str) -> list[dict[str, Any]]:
    """One line's points, in order of x."""
    asked = {"model": model, "curve": curve, "way": way}
    return [point for point in points if asked.items() <= point.items()]


def exponent(line: Sequence[dict[str, Any]]) -> float | None:
    """Growth of seconds with x, by least squares on the logarithms; `None` for a single point."""
    if len(line) < 2:
        return None
    power, _ = linear_regression([log(p["x"]) for p in line], [log(p["seconds"]) for p in line])
    return float(power)


def exponents(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each line's x, seconds and exponent."""
    names = dict.fromkeys((p["model"], p["curve"], p["way"]) for p in points)
    found = []
    for model, curve, way in names:
        line = of(points, model, curve, way)
        found.append(
            {
                "model": model, "curve": curve, "way": way, "x": [p["x"] for p in line],
                "seconds": [p["seconds"] for p in line], "exponent": exponent(line),
            }
        )  # fmt: skip
    return found


def draw(points: Sequence[dict[str, Any]], file: Path) -> None:
    """A row of panels for each model; bars are the range over the repeats."""
    models = list(dict.fromkeys(point["model"] for point in points))
    figure = Figure(figsize=(13, 4.2 * len(models)), layout="constrained")  # without pyplot: Agg
    panels = figure.subplots(len(models), 3, squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for panel, curve in zip(row, curves(model), strict=True):
            for way, style in zip(WAYS, ("o-", "s--"), strict=True):
                if not (line := of(points, model, curve.name, way)):
                    continue
                power = exponent(line)
                label = way if power is None else f"{way}, exponent {power:.2f}"
                below = [p["seconds"] - p["seconds_min"] for p in line]
                above = [p["seconds_max"] - p["seconds"] for p in line]
                panel.errorbar(
                    [p["x"] for p in line], [p["seconds"] for p in line], yerr=[below, above],
                    fmt=style, capsize=3, label=label,
                )  # fmt: skip
            panel.set(xscale="log", yscale="log", title=f"{curve.title}: {model}")
            ticks = [curve.first * factor for factor in curve.factors]
            panel.set_xticks(ticks, labels=[str(tick) for tick in ticks])
            panel.xaxis.set_minor_locator(NullLocator())
            # Between powers of ten too: a panel often has less than two of these.
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_locator(NullLocator())
            panel.set_xlabel(curve.axis)
            panel.set_ylabel("time, s")
            panel.grid(alpha=0.3)
            if panel.has_data():
                panel.legend()
    figure.savefig(file, dpi=150)


def write(points: Sequence[dict[str, Any]], out: Path, repeats: int) -> None:
    """The CSV, and beside it the plot and the facts."""
    table = pd.DataFrame(points)[COLUMNS]
    write_text(out, table.to_csv(index=False, float_format="%.4f"))
    facts = {"repeats": repeats, "gflops_float32": matmul_rate(), **surroundings()}
    write_json(out.with_suffix(".json"), facts | {"exponents": exponents(points), "points": points})
    draw(points, out.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/speed/scaling.csv"))
    parser.add_argument("--model", nargs="+", default=["embedded"], choices=list(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--curves", nargs="+", choices=[c.name for c in curves("embedded")], help="only these"
    )
    parser.add_argument("--until", type=int, help="the largest factor (default: all)")
    parser.add_argument(
        "--original-until", type=int, help="the largest factor of the original way (default: all)"
    )
    asked = parser.parse_args()
    folder = asked.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    points: list[dict[str, Any]] = []
    for model in asked.model:
        for curve in [c for c in curves(model) if asked.curves is None or c.name in asked.curves]:
            for factor in [f for f in curve.factors if asked.until is None or f <= asked.until]:
                both = asked.original_until is None or factor <= asked.original_until
                x, ways = curve.first * factor, WAYS if both else WAYS[:1]
                fresh = points_at(folder, model, curve, x, ways, asked.repeats)
                points += fresh
                for point in fresh:
                    print(_line(point), file=sys.stderr, flush=True)
                # After each point, because the rest may take an hour.
                write(points, asked.out, asked.repeats)
    table = Table(title=f"{asked.repeats} repeats, in turns; a matmul: {matmul_rate():.0f} GFLOP/s")
    for column in ("model", "curve", "way", "x", "s", "exponent"):
        table.add_column(column, justify="right" if column in ("x", "s", "exponent") else "left")
    for line in exponents(points):
        table.add_row(*_cells(line))
    Console(width=120).print(table)


def _cells(line: dict[str, Any]) -> list[str]:
    xs, seconds, power = line["x"], line["seconds"], line["exponent"]
    return [
        line["model"], line["curve"], line["way"], f"{xs[0]}–{xs[-1]}",
        f"{seconds[0]:.2f}–{seconds[-1]:.2f}", "–" if power is None else f"{power:.2f}",
    ]  # fmt: skip


def _line(point: dict[str, Any]) -> str:
    off = "" if point["apart"] is None else f" · apart {point['apart']:.1e}"
    return (
        f"{point['model']} · {point['curve']} {point['x']} · {point['way']} · "
        f"{point['seconds']:.2f} s ({point['seconds_min']:.2f}–{point['seconds_max']:.2f}) · "
        f"{point['peak_mib']:.0f} MiB, {point['beyond_libraries_mib']:.0f} beyond libraries{off}"
    )


if __name__ == "__main__":
    main()
