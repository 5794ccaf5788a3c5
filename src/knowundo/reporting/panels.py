"""Small multiples: one little plot for each model, all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from markupsafe import Markup

from knowundo.reporting.drawing import (
    Box,
    Labels,
    Scale,
    around,
    colour,
    element,
    picture,
    shortened,
    text,
    ticks,
)
from knowundo.results import Results

WIDTH, HEIGHT = 230, 160
# Points of a curve beyond which it is thinned: more are not seen at this size.
_MOST_POINTS = 80
_SIZE = 11
_LINES = {"unlearn": ("known", None), "retention": ("best", "5 3"), "general": ("target", "2 2")}


@dataclass(frozen=True)
class Line:
    """A line of a panel, labelled at its end."""

    name: str
    points: Sequence[tuple[float, float]]
    ink: str = "other"
    dash: str | None = None
    marks: bool = False


@dataclass(frozen=True)
class Panel:
    """One little plot."""

    title: str
    lines: Sequence[Line]
    across: str  # what the x axis shows
    at: float | None = None  # a vertical line
    target: float | None = None  # a horizontal line in the target's colour
    y_limits: tuple[float, float] | None = None
    chosen: tuple[float, float] | None = None  # a point with a ring
    names: Sequence[str] = ()  # of x = 0, 1, …; if empty, x is a number


@dataclass(frozen=True)
class Multiples:
    """Panels that belong together, and the numbers that they show."""

    name: str
    title: str
    panels: list[Markup]
    rows: list[dict[str, Any]]

    @property
    def whole(self) -> Markup:
        """All panels in one drawing, for a file."""
        columns = min(4, len(self.panels))
        placed = [
            element("svg", panel, x=(n % columns) * WIDTH, y=(n // columns) * HEIGHT, width=WIDTH,
                    height=HEIGHT)
            for n, panel in enumerate(self.panels)
        ]  # fmt: skip
        rows = -(-len(self.panels) // columns)
        return picture(columns * WIDTH, rows * HEIGHT, self.title, placed)


def multiples(name: str, title: str, panels: Sequence[Panel]) -> Multiples | None:
    """Draw panels; `None` if there are none."""
    if not panels:
        return None
    rows = [
        {"panel": panel.title, "line": line.name, "x": _x_name(panel, x), "y": y}
        for panel in panels
        for line in panel.lines
        for x, y in line.points
    ]
    return Multiples(name, title, [draw(panel) for panel in panels], rows)


def _x_name(panel: Panel, x: float) -> Any:
    return panel.names[int(x)] if panel.names else x


def draw(panel: Panel) -> Markup:
    """A panel as a drawing."""
    area = Box(36, 24, WIDTH - 8, HEIGHT - 32)
    points = [p for line in panel.lines for p in line.points if isfinite(p[1])]
    across = [x for x, _ in points] or [0.0, 1.0]
    x = Scale(min(across), max(across) if max(across) > min(across) else min(across) + 1,
              area.left + 4, area.right - 4)  # fmt: skip
    heights = [y for _, y in points] + ([panel.target] if panel.target is not None else [])
    y = Scale(*(panel.y_limits or around(heights, least=1e-3)), area.bottom, area.top)
    content = [text(0, 13, shortened(panel.title, 34), size=12, font_weight="600")]
    content += _frame(panel, area, x, y)
    labels = Labels(area, _SIZE)
    for line in panel.lines:
        content += _line(line, x, y)
    content += [label for line in panel.lines if (label := _end(labels, line, x, y)) is not None]
    if panel.chosen is not None:
        place = x(panel.chosen[0]), y(panel.chosen[1])
        content.append(element("circle", cx=place[0], cy=place[1], r=6, fill="none",
                               stroke=colour("ink"), stroke_width=1.5))  # fmt: skip
    return picture(WIDTH, HEIGHT, f"{panel.title}: {_described(panel)}", content)


def _described(panel: Panel) -> str:
    ends = (f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
            for line in panel.lines[:4] if line.points)  # fmt: skip
    return "; ".join(ends)


def _frame(panel: Panel, area: Box, x: Scale, y: Scale) -> list[Markup]:
    found = []
    for value in ticks(y.low, y.high, 3):
        found.append(_path(f"M{area.left:.0f} {y(value):.1f}H{area.right:.0f}", "line"))
        found.append(text(area.left - 4, y(value) + 4, f"{value:g}", size=_SIZE, text_anchor="end",
                          fill=colour("soft")))  # fmt: skip
    ends = {float(n): panel.names[n] for n in (0, len(panel.names) - 1)} if panel.names else {}
    shown = ends or {value: f"{value:g}" for value in ticks(x.low, x.high, 3)}
    for value, words in shown.items():
        anchor = (
            "start"
            if x(value) < area.left + 20
            else "end"
            if x(value) > area.right - 12
            else "middle"
        )
        found.append(text(x(value), area.bottom + 13, shortened(str(words), 16), size=_SIZE,
                          fill=colour("soft"), text_anchor=anchor))  # fmt: skip
    found.append(text(area.right, area.bottom + 27, panel.across, size=_SIZE, text_anchor="end",
                      fill=colour("soft")))  # fmt: skip
    if panel.target is not None:
        found.append(_path(f"M{area.left:.0f} {y(panel.target):.1f}H{area.right:.0f}", "target",
                           stroke_dasharray="3 4", stroke_width=1.5))  # fmt: skip
    if panel.at is not None:
        found.append(_path(f"M{x(panel.at):.1f} {area.top:.0f}V{area.bottom:.0f}", "ink",
                           stroke_dasharray="2 3"))  # fmt: skip
    return found


def _path(d: str, ink: str, **more: Any) -> Markup:
    return element("path", d=d, fill="none", stroke=colour(ink), **more)


def _line(line: Line, x: Scale, y: Scale) -> list[Markup]:
    kept = [p for p in _thinned(line.points) if isfinite(p[1])]
    if not kept:
        return []
    d = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in kept)
    said = element("title", line.name)
    drawn = [element("path", said, d=d, fill="none", stroke=colour(line.ink), stroke_width=2,
                     stroke_dasharray=line.dash, stroke_linejoin="round")]  # fmt: skip
    if line.marks or len(kept) == 1:
        drawn += [
            element("circle", cx=x(a), cy=y(b), r=2.5, fill=colour(line.ink)) for a, b in kept
        ]
    return drawn


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = -(-len(points) // _MOST_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def _end(labels: Labels, line: Line, x: Scale, y: Scale) -> Markup | None:
    """The label at the end of a line."""
    finite = [p for p in line.points if isfinite(p[1])]
    if not finite or line.ink == "other":
        return None
    return labels.place(x(finite[-1][0]), y(finite[-1][1]), shortened(line.name, 18), must=False,
                        fill=colour(line.ink))  # fmt: skip


def evaluation_steps(results: Results) -> Multiples | None:
    """Token accuracy at every evaluation step of each model, and the step that was kept."""
    panels = []
    for variant in results.variants:
        lines = [
            Line(scope, [(one["step"], 100 * one[scope]) for one in variant.trajectory],
                 *_LINES[scope], marks=True)
            for scope in ("unlearn", "retention")
        ]  # fmt: skip
        if variant.trajectory:
            panels.append(Panel(variant.name, lines, "optimizer step", at=variant.kept_step,
                                y_limits=(0.0, 104.0)))  # fmt: skip
    return multiples("evaluation-steps", "Token accuracy at every evaluation step", panels)


def tried_rates(results: Results) -> Multiples | None:
    """Forgetting and keeping at every learning rate that was tried, on train rows."""
    target = results.find("retain", "unlearn_success", "unlearn", "train")
    aim = None if target is None else target.value
    panels = []
    for variant in results.variants:
        tried = [a for a in variant.attempts if a["unlearn"] is not None]
        tried.sort(key=lambda attempt: attempt["lr"])
        if not tried:
            continue
        gone = [(float(n), 100 * (1 - one["unlearn"])) for n, one in enumerate(tried)]
        kept = [(float(n), 100 * one["retention"]) for n, one in enumerate(tried)]
        lines = [Line("forgotten", gone, *_LINES["unlearn"], marks=True),
                 Line("kept", kept, *_LINES["retention"], marks=True)]  # fmt: skip
        taken = next(
            (p for p, one in zip(gone, tried, strict=True) if one["lr"] == variant.lr), None
        )
        panels.append(Panel(variant.name, lines, "learning rate", target=aim, chosen=taken,
                            y_limits=(-2.0, 104.0),
                            names=[f"{a['lr']:.1e}" for a in tried]))  # fmt: skip
    return multiples("learning-rates", "Forgotten and kept at every learning rate tried", panels)


def training_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Multiples | None:
    """Every part of every loss over the optimizer steps."""
    panels = []
    for name, curve in curves.items():
        parts = dict.fromkeys(part for row in curve for part in row["parts"])
        lines = [
            Line(part, [(row["step"], row["parts"][part]) for row in curve if part in row["parts"]],
                 *_LINES.get(part, ("ink", None)))
            for part in parts
        ]  # fmt: skip
        panels.append(Panel(name, lines, "optimizer step"))
    return multiples("training", "Parts of the loss over the optimizer steps", panels)
