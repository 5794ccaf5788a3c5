"""Forgetting against keeping: every model as a point, beside the target and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from markupsafe import Markup

from knowundo.reporting.drawing import (
    Box,
    Figure,
    Labels,
    Scale,
    around,
    colour,
    element,
    picture,
    shortened,
    text,
)
from knowundo.reporting.scatter import axis_lines, star
from knowundo.reporting.verdict import Verdict
from knowundo.results import Results

# Above so many models, only the labelled ones have intervals: more would cover each other.
_MOST_INTERVALS = 16


@dataclass(frozen=True)
class Point:
    """A model: Unlearn and Retention Success with their intervals, in percent."""

    name: str
    kind: str  # target, base, known, best, front, control or other
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float


def points(results: Results, verdict: Verdict) -> list[Point]:
    """The models with both successes."""
    found = []
    for variant in results.variants:
        x = results.find(variant.name, "unlearn_success", "unlearn", verdict.split)
        y = results.find(variant.name, "retention_success", "retention", verdict.split)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        ends = (
            end if end is not None else row.value for row in (x, y) for end in (row.low, row.high)
        )
        x_low, x_high, y_low, y_high = (float(end or 0.0) for end in ends)
        kind = {"retain": "target", "base": "base", "memorized": "known"}.get(variant.role, "other")
        kind = "control" if variant.name in verdict.controls else kind
        kind = "best" if variant.name == verdict.winner else kind
        found.append(Point(variant.name, kind, x.value, x_low, x_high, y.value, y_low, y_high))
    front = {point.name for point in pareto_front(found)}
    return [_named(p, "front") if p.kind == "other" and p.name in front else p for p in found]


def _named(point: Point, kind: str) -> Point:
    return Point(**(asdict(point) | {"kind": kind}))


def pareto_front(found: Sequence[Point]) -> list[Point]:
    """Unlearned models that no other beats in both, from the least to the most forgotten.

    Forgetting beyond the target counts as the target: it is overshoot, not success.
    """
    limit = next((p.x for p in found if p.kind == "target"), 100.0)
    competing = [p for p in found if p.kind in ("best", "front", "control", "other")]
    front: list[Point] = []
    for point in sorted(competing, key=lambda p: (-min(p.x, limit), -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front[::-1]


def trade_off(results: Results, verdict: Verdict) -> Figure | None:
    """The plot for wide and narrow pages; `None` if no model has both successes."""
    found = points(results, verdict)
    if not found:
        return None
    return Figure(
        "trade-off",
        "Unlearn Success against Retention Success of every model",
        _drawn(found, 1080, 480, 13),
        _drawn(found, 340, 380, 11),
        [asdict(point) for point in found],
    )


def _drawn(found: Sequence[Point], width: int, height: int, size: int) -> Markup:
    area = Box(54, 14, width - 10, height - 44)
    x = Scale(*_limits([p.x for p in found]), area.left, area.right)
    y = Scale(*_limits([p.y for p in found]), area.bottom, area.top)
    labels = Labels(area, size)
    for point in found:
        labels.avoid(x(point.x), y(point.y), 6)
    few = len(found) <= _MOST_INTERVALS
    marked = [p for p in found if few or p.kind in ("best", "target")]
    order = ("best", "target", "known", "base", "front", "other", "control")
    named = [
        _label(labels, point, x, y, size, short=width < 500)
        for point in sorted(found, key=lambda p: order.index(p.kind))
    ]
    content = [
        *_target_lines(found, area, x, y, size),
        *_axes(area, x, y, size),
        *[_interval(point, x, y) for point in marked],
        *_front_line(found, x, y),
        *[_mark(point, x, y) for point in sorted(found, key=lambda p: -order.index(p.kind))],
        *[label for label in named if label is not None],
    ]
    listed = ", ".join(f"{p.name}: forgotten {p.x:.1f}, kept {p.y:.1f}" for p in found[:20])
    return picture(width, height, f"Trade-off of forgetting and keeping. {listed}", content)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = around(values, share=0.08, least=3.0)
    return max(low, -4.0), min(high, 104.0)


def _axes(area: Box, x: Scale, y: Scale, size: int) -> list[Markup]:
    across, up = "forgotten of what must go", "kept of what must stay, % →"
    if area.right > 500:
        across += ": Unlearn Success"
    return axis_lines(area, x, y, (f"{across}, % →", up), size)


def _line(x1: float, y1: float, x2: float, y2: float, ink: str, **more: object) -> Markup:
    return element(
        "path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", stroke=colour(ink), fill="none", **more
    )


def _target_lines(found: Sequence[Point], area: Box, x: Scale, y: Scale, size: int) -> list[Markup]:
    target = next((p for p in found if p.kind == "target"), None)
    if target is None:
        return []
    beyond = element("rect", x=x(target.x), y=area.top, width=area.right - x(target.x),
                     height=area.bottom - area.top, fill=colour("box"))  # fmt: skip
    dash = {"stroke_dasharray": "3 4", "stroke_width": 1.5}
    lines = [
        beyond,
        _line(x(target.x), area.top, x(target.x), area.bottom, "target", **dash),
        _line(area.left, y(target.y), area.right, y(target.y), "target", **dash),
    ]
    if area.right - x(target.x) > 90:
        lines.append(text(area.right - 4, area.bottom - 8, "overshoot", size=size,
                          fill=colour("soft"), text_anchor="end"))  # fmt: skip
    return lines


def _front_line(found: Sequence[Point], x: Scale, y: Scale) -> list[Markup]:
    """Stairs through the front: what is below and left of them is beaten by one of its models."""
    front = pareto_front(found)
    if len(front) < 2:
        return []
    path = f"M{x(front[0].x):.1f} {y(front[0].y):.1f}"
    for point in front[1:]:
        path += f"V{y(point.y):.1f}H{x(point.x):.1f}"
    return [element("path", d=path, stroke=colour("ink"), stroke_opacity=0.55, fill="none",
                    stroke_width=1.5)]  # fmt: skip


def _interval(point: Point, x: Scale, y: Scale) -> Markup:
    ink = {"best": "best", "target": "target", "known": "known"}.get(point.kind, "other")
    more = {"stroke_opacity": 0.45, "stroke_width": 1.5 if point.kind == "best" else 1}
    return _line(x(point.x_low), y(point.y), x(point.x_high), y(point.y), ink, **more) + _line(
        x(point.x), y(point.y_low), x(point.x), y(point.y_high), ink, **more
    )


def _mark(point: Point, x: Scale, y: Scale) -> Markup:
    """The mark of a model; each kind has a shape of its own beside its colour."""
    across, down = x(point.x), y(point.y)
    said = element(
        "title",
        f"{point.name}: forgotten {point.x:.1f} ({point.x_low:.1f} … {point.x_high:.1f}), "
        f"kept {point.y:.1f} ({point.y_low:.1f} … {point.y_high:.1f})",
    )
    if point.kind == "target":
        return element("path", said, d=star(across, down, 10), fill=colour("target"))
    if point.kind == "known":
        return element("rect", said, x=across - 5, y=down - 5, width=10, height=10,
                       fill=colour("known"))  # fmt: skip
    radius = {"best": 8.0, "front": 5.5}.get(point.kind, 4.5)
    hollow = point.kind in ("base", "control")
    ink = {"best": "best", "front": "ink"}.get(point.kind, "other")
    return element("circle", said, cx=across, cy=down, r=radius, stroke=colour(ink),
                   stroke_width=1.8, fill=colour("page" if hollow else ink),
                   stroke_dasharray="2 2" if point.kind == "control" else None)  # fmt: skip


def _label(
    labels: Labels, point: Point, x: Scale, y: Scale, size: int, *, short: bool
) -> Markup | None:
    words = {"target": f"target ({point.name})", "known": f"start ({point.name})"}.get(
        point.kind, point.name
    )
    ink = {"best": "best", "target": "target", "known": "known", "front": "ink"}.get(
        point.kind, "soft"
    )
    weight = "700" if point.kind in ("best", "target") else None
    return labels.place(
        x(point.x), y(point.y), shortened(words, 20 if short else 30),
        must=point.kind in ("best", "target", "known", "front"), fill=colour(ink),
        font_weight=weight,
    )  # fmt: skip
