"""Runs compared, as a page: the verdict, and every difference with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from knowundo.evaluation.result_rows import AVERAGE
from knowundo.reporting.comparison import Difference
from knowundo.reporting.drawing import (
    Figure,
    Scale,
    around,
    colour,
    element,
    picture,
    shortened,
    text,
)
from knowundo.reporting.page import write_page

# Level of the paired test.
LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """One run against the first.

    Attributes:
        name: Of the run's directory.
        keys: Keys of the recipe that differ, with both values.
        found: Differences of the scores, the other run minus the first.
    """

    name: str
    keys: Sequence[tuple[str, Any, Any]]
    found: Sequence[Difference]


def changed(difference: Difference) -> bool:
    """True if neither the interval nor the test leaves the difference to chance."""
    low, high = difference.low, difference.high
    if low is None or high is None or low <= 0 <= high:
        return False
    return difference.p is None or difference.p < LEVEL


def sentence(first: str, one: Compared) -> str:
    """What a comparison says, in a sentence about the averages of both successes."""
    if not one.found:
        return f"{one.name} and {first} share no model that is scored on one split."
    averages = [row for row in one.found if row.metric == AVERAGE]
    tested = [row for row in averages if row.low is not None]
    if not tested:
        return (
            f"{one.name} and {first} differ in their data, or have no scored rows of both scopes, "
            "so no difference was tested."
        )
    better = [row.variant for row in tested if changed(row) and row.change > 0]
    worse = [row.variant for row in tested if changed(row) and row.change < 0]
    if not better and not worse:
        return (
            f"No model of {one.name} differs from that of {first} by more than chance explains "
            f"({len(tested)} compared)."
        )
    said = [f"{word}: {', '.join(names)}" for word, names in (("better", better), ("worse", worse))
            if names]  # fmt: skip
    rest = len(tested) - len(better) - len(worse)
    return f"{one.name} against {first}: {'; '.join(said)}; no clear difference: {rest}."


def write_comparison(path: Path, first: str, compared: Sequence[Compared]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        first: Name of the run that the others are measured against.
        compared: The others.
    """
    write_page(
        path,
        "comparison.html.j2",
        first=first,
        sections=[
            (one, sentence(first, one), forest(one.found), [changed(row) for row in one.found])
            for one in compared
        ],
    )


def forest(found: Sequence[Difference]) -> Figure | None:
    """The differences of the averages with their intervals, beside 0; `None` if there are none."""
    rows = [row for row in found if row.metric == AVERAGE]
    if not rows:
        return None
    return Figure(
        "differences",
        "Difference of the average of both successes",
        _drawn(rows, 760, 210),
        _drawn(rows, 336, 118),
        [asdict(row) | {"change": row.change} for row in rows],
    )


def _drawn(rows: Sequence[Difference], width: int, left: int) -> Markup:
    ends = [end for row in rows for end in (row.low, row.high, row.change) if end is not None]
    x = Scale(*around([0.0, *ends], least=1.0), left, width - 54)
    step, most = 26, 28 if width > 500 else 16
    height = 30 + step * len(rows)
    content = [element("path", d=f"M{x(0):.1f} 8V{height - 18}", stroke=colour("ink"),
                       stroke_dasharray="3 4")]  # fmt: skip
    for n, row in enumerate(rows):
        content += _line(row, x, 20.0 + step * n, most)
        content.append(text(width - 4, 24.0 + step * n, f"{row.change:+.1f}", text_anchor="end",
                            fill=colour(_ink(row))))  # fmt: skip
    content.append(text(x(0), height - 4, "0: no difference", size=11, text_anchor="middle",
                        fill=colour("soft")))  # fmt: skip
    return picture(width, height, "Difference of the average of both successes", content)


def _ink(row: Difference) -> str:
    if not changed(row):
        return "other"
    return "best" if row.change > 0 else "known"


def _line(row: Difference, x: Scale, y: float, most: int) -> list[Markup]:
    """Name, interval and value of a model."""
    drawn = [text(x.start - 10, y + 4, shortened(row.variant, most), text_anchor="end")]
    if row.low is not None and row.high is not None:
        drawn.append(element("path", d=f"M{x(row.low):.1f} {y}H{x(row.high):.1f}",
                             stroke=colour(_ink(row)), stroke_width=2))  # fmt: skip
    said = element("title", f"{row.variant}: {row.change:+.2f}")
    return [*drawn, element("circle", said, cx=x(row.change), cy=y, r=5, fill=colour(_ink(row)))]
