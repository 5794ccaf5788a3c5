"""SVG by hand: elements, scales and labels that do not cover each other.

Colours are CSS variables of the page, so a drawing follows its light or dark scheme; `standalone`
replaces them for a file of its own. Every text is escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

# Light and dark. Hues of Okabe and Ito, which readers with any colour vision tell apart, shifted
# until text in them has a contrast of 4.5 on its page. Shapes and labels say the same.
PALETTE = {
    "page": ("#ffffff", "#14181e"),
    "ink": ("#1c2430", "#e6eaf0"),
    "soft": ("#566273", "#a9b4c1"),
    "line": ("#d5dbe3", "#3a434f"),
    "box": ("#f3f5f8", "#1f252d"),
    "best": ("#0067a3", "#62b8ee"),
    "target": ("#00735a", "#3fcf9f"),
    "known": ("#b54400", "#ff9a5c"),
    "other": ("#6b7684", "#97a3b0"),
}
_VARIABLE = re.compile(r"var\(--([a-z]+)\)")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
# Width of a character as a share of the font size: a little more than the mean, so that boxes hold.
_CHARACTER = 0.6


def colour(name: str) -> str:
    """A colour of the palette as the page knows it."""
    return f"var(--{name})"


def element(name: str, *content: Any, **attributes: Any) -> Markup:
    """An element of SVG; attributes that are `None` are left out, `_` becomes `-`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_shown(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(content)
    return Markup(f"<{name}{given}>{inner}</{name}>" if content else f"<{name}{given}/>")


def _shown(value: Any) -> Any:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def text(x: float, y: float, words: str, *, size: int = 12, **attributes: Any) -> Markup:
    """A line of text."""
    attributes.setdefault("fill", colour("ink"))
    return element("text", words, x=x, y=y, font_size=size, **attributes)


def picture(width: int, height: int, label: str, content: Iterable[Markup]) -> Markup:
    """A drawing of a size in CSS pixels, which scales down to its place."""
    return element(
        "svg", *content, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
        aria_label=label,
    )  # fmt: skip


def standalone(svg: Markup) -> str:
    """A drawing as an SVG file, in the colours of the light page."""
    body = _VARIABLE.sub(lambda found: PALETTE[found[1]][0], str(svg))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="{_FONT}" '
    return body.replace("<svg ", head, 1) + "\n"


@dataclass(frozen=True)
class Figure:
    """A drawing for wide and for narrow pages, and the numbers that it shows."""

    name: str
    title: str
    wide: Markup
    narrow: Markup
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Scale:
    """Values of an interval on pixels of another."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside are drawn at the nearer end."""
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers in an interval, at most so many of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def around(
    values: Iterable[float], *, share: float = 0.06, least: float = 4.0
) -> tuple[float, float]:
    """An interval that holds all values, with some room around them."""
    found = [value for value in values if math.isfinite(value)] or [0.0]
    room = max((max(found) - min(found)) * share, least)
    return min(found) - room, max(found) + room


@dataclass(frozen=True)
class Box:
    """A rectangle that a label or a mark takes."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they share a point."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: Box) -> bool:
        """Whether all of it is inside the other."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


def width_of(words: str, size: int) -> float:
    """Width of a text, as far as it is known without the font."""
    return len(words) * size * _CHARACTER


def shortened(words: str, most: int) -> str:
    """A text of at most so many characters."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


@dataclass
class Labels:
    """Places labels beside points, so that none covers a point or another label."""

    area: Box
    size: int = 12
    taken: list[Box] = field(default_factory=list)

    def avoid(self, x: float, y: float, radius: float) -> None:
        """Keep labels off a mark."""
        self.taken.append(Box(x - radius, y - radius, x + radius, y + radius))

    def place(
        self, x: float, y: float, words: str, *, must: bool, **attributes: Any
    ) -> Markup | None:
        """The label of a point.

        Args:
            x: Of the point.
            y: Of the point.
            words: Of the label.
            must: Go further away for a free place, with a line to the point.
            attributes: Of the text.

        Returns:
            `None` if there is no free place.
        """
        width, height = width_of(words, self.size), self.size * 1.15
        for distance in (11, 20, 34, 50, 70, 95) if must else (11, 16):
            for across, down in _DIRECTIONS:
                left = (
                    x
                    + across * distance
                    - (width if across < 0 else 0 if across > 0 else width / 2)
                )
                top = y + down * distance - height / 2
                box = Box(left, top, left + width, top + height)
                if not box.within(self.area) or any(box.meets(other) for other in self.taken):
                    continue
                self.taken.append(box)
                # A rim in the page's colour, so that lines below do not cross the letters.
                rim = {"paint_order": "stroke", "stroke": colour("page"), "stroke_width": 3}
                label = text(left, top + self.size, words, size=self.size, **rim, **attributes)
                return label if distance < 20 else _leader(x, y, box) + label
        return None


# Right, left, above, below, and the corners; a label is wider than high.
_DIRECTIONS: Sequence[tuple[float, float]] = (
    (1, 0), (-1, 0), (0, -1.3), (0, 1.3), (0.7, -0.9), (0.7, 0.9), (-0.7, -0.9), (-0.7, 0.9),
)  # fmt: skip


def _leader(x: float, y: float, box: Box) -> Markup:
    """A line from a point to the nearest place of its label's box."""
    to = min(max(x, box.left), box.right), min(max(y, box.top + 3), box.bottom)
    return element("path", d=f"M{x:.1f} {y:.1f}L{to[0]:.1f} {to[1]:.1f}", stroke=colour("other"),
                   stroke_width=1, fill="none")  # fmt: skip
