"""A plain scatter plot with a line through some of its points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import cos, pi, sin

from markupsafe import Markup

from knowundo.reporting.drawing import (
    Box,
    Figure,
    Scale,
    around,
    colour,
    element,
    picture,
    text,
    ticks,
)


@dataclass(frozen=True)
class Dot:
    """A point; `shape` is dot, x or star."""

    name: str
    x: float
    y: float
    shape: str = "dot"


def scatter(
    name: str,
    title: str,
    dots: Sequence[Dot],
    line: Sequence[Dot],
    *,
    axes: tuple[str, str],
) -> Figure:
    """Points, each with its name where the pointer is, and a line.

    Args:
        name: Of the figure.
        title: What it shows.
        dots: The points.
        line: Points that a line joins, in this order.
        axes: What the x axis and the y axis show.
    """
    wide, narrow = (_drawn(title, dots, line, axes, size) for size in ((860, 460), (340, 320)))
    return Figure(name, title, wide, narrow, [asdict(dot) for dot in dots])


def _drawn(
    title: str,
    dots: Sequence[Dot],
    line: Sequence[Dot],
    axes: tuple[str, str],
    size: tuple[int, int],
) -> Markup:
    area = Box(58, 12, size[0] - 10, size[1] - 42)
    x = Scale(*around([dot.x for dot in dots]), area.left, area.right)
    y = Scale(*around([dot.y for dot in dots], least=0.5), area.bottom, area.top)
    content = axis_lines(area, x, y, axes)
    if len(line) > 1:
        path = "M" + "L".join(f"{x(dot.x):.1f} {y(dot.y):.1f}" for dot in line)
        content.append(element("path", d=path, fill="none", stroke=colour("target")))
    content += [_mark(dot, x(dot.x), y(dot.y)) for dot in dots]
    return picture(*size, title, content)


def axis_lines(
    area: Box, x: Scale, y: Scale, axes: tuple[str, str], size: int = 11
) -> list[Markup]:
    """Grid lines with their numbers, and what the axes show."""
    found = []
    for value in ticks(x.low, x.high, 5):
        found.append(element("path", d=f"M{x(value):.1f} {area.top:.1f}V{area.bottom:.1f}",
                             stroke=colour("line")))  # fmt: skip
        found.append(text(x(value), area.bottom + 15, f"{value:g}", size=size, fill=colour("soft"),
                          text_anchor="middle"))  # fmt: skip
    for value in ticks(y.low, y.high):
        found.append(element("path", d=f"M{area.left:.1f} {y(value):.1f}H{area.right:.1f}",
                             stroke=colour("line")))  # fmt: skip
        found.append(text(area.left - 6, y(value) + 4, f"{value:g}", size=size, fill=colour("soft"),
                          text_anchor="end"))  # fmt: skip
    found.append(text(area.right, area.bottom + 34, axes[0], size=size, text_anchor="end"))
    found.append(text(0, 0, axes[1], size=size, text_anchor="end",
                      transform=f"translate(11 {area.top:.0f}) rotate(-90)"))  # fmt: skip
    return found


def _mark(dot: Dot, x: float, y: float) -> Markup:
    said = element("title", dot.name)
    if dot.shape == "star":
        return element("path", said, d=star(x, y, 10), fill=colour("target"))
    if dot.shape == "x":
        d = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
        return element("path", said, d=d, stroke=colour("other"), stroke_width=1.5, fill="none")
    return element("circle", said, cx=x, cy=y, r=4.5, fill=colour("best"))


def star(x: float, y: float, radius: float) -> str:
    """The path of a star of five points."""
    corners = []
    for n in range(10):
        long = radius if n % 2 == 0 else radius * 0.45
        corners.append(f"{x + long * sin(n * pi / 5):.1f} {y - long * cos(n * pi / 5):.1f}")
    return "M" + "L".join(corners) + "Z"
