"""Where the gradients are, layer by module, and how far regions overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from knowundo.modeling.regions import overlap
from knowundo.reporting.drawing import (
    Figure,
    colour,
    element,
    picture,
    shortened,
    text,
    width_of,
)

_CELL, _SIZE = 22, 11
_TITLES = {
    "cosine": "cosine of unlearn and retention gradients",
    "magnitude": "mean |unlearn gradient|",
}


def gradient_maps(tensors: Sequence[Mapping[str, Any]], located: set[str]) -> list[Figure]:
    """A map of the cosine and one of the magnitude; a dot marks the located region."""
    return [_map(tensors, located, key) for key in _TITLES if any(key in t for t in tensors)]


def _map(tensors: Sequence[Mapping[str, Any]], located: set[str], key: str) -> Figure:
    modules = list(dict.fromkeys(_module(t) for t in tensors))
    layers = sorted({_layer(t) for t in tensors})
    values = [abs(t[key]) for t in tensors if t.get(key) is not None]
    most = max(values, default=0.0) or 1.0
    left = 60
    top = 8 + max(width_of(shortened(name, 22), _SIZE) for name in modules) * 0.87
    content = [
        _column_name(name, left + (n + 0.5) * _CELL, top - 4) for n, name in enumerate(modules)
    ]
    content += [
        text(
            left - 6, top + n * _CELL + 15, name, size=_SIZE, text_anchor="end", fill=colour("soft")
        )
        for n, name in enumerate(layers)
    ]
    for tensor in tensors:
        x = left + modules.index(_module(tensor)) * _CELL
        y = top + layers.index(_layer(tensor)) * _CELL
        content.append(_cell(tensor, key, most, x, y, inside=tensor["name"] in located))
    # Room for the last column's slanted name.
    width = int(left + len(modules) * _CELL + top * 0.55)
    height = int(top + len(layers) * _CELL + 6)
    drawn = picture(width, height, f"{_TITLES[key]}, largest {most:.3g}", content)
    rows = [
        {"tensor": t["name"], "located": t["name"] in located, key: t.get(key)} for t in tensors
    ]
    return Figure(f"gradients-{key}", f"{_TITLES[key]} (darkest: {most:.3g})", drawn, drawn, rows)


def _module(tensor: Mapping[str, Any]) -> str:
    kind = {"lora_A": "A", "lora_B": "B"}.get(tensor["tensor"], "")
    return f"{tensor['module']} {kind}".strip()


def _layer(tensor: Mapping[str, Any]) -> str:
    return "outside" if tensor["layer"] is None else f"layer {tensor['layer']:02d}"


def _column_name(name: str, x: float, y: float) -> Markup:
    return text(0, 0, shortened(name, 22), size=_SIZE, fill=colour("soft"),
                transform=f"translate({x:.0f} {y:.0f}) rotate(-60)")  # fmt: skip


def _cell(
    tensor: Mapping[str, Any], key: str, most: float, x: float, y: float, *, inside: bool
) -> Markup:
    value = tensor.get(key)
    said = "not measured" if value is None else f"{value:.3g}"
    share = 0.0 if value is None else abs(value) / most
    # A negative cosine has the other colour: the two scopes pull in opposite directions.
    ink = "known" if value is not None and value < 0 else "best"
    parts = [
        element("rect", element("title", f"{tensor['name']}: {said}"),
                x=x + 1, y=y + 1, width=_CELL - 2, height=_CELL - 2, rx=2, fill=colour(ink),
                fill_opacity=f"{0.06 + 0.84 * share:.2f}", stroke=colour("line"))
    ]  # fmt: skip
    if inside:
        parts.append(element("circle", element("title", f"{tensor['name']}: {said}, located"),
                             cx=x + _CELL / 2, cy=y + _CELL / 2, r=4.5, fill=colour("page"),
                             stroke=colour("ink"), stroke_width=1.5))  # fmt: skip
    return Markup("").join(parts)


def overlap_map(regions: Mapping[str, Sequence[str]]) -> Figure | None:
    """Jaccard index of the tensors of every two regions; `None` if there are fewer than two."""
    names = list(regions)
    if len(names) < 2:
        return None
    cell, longest = 40, max(width_of(shortened(name, 22), _SIZE) for name in names)
    left, top = longest + 12, longest * 0.87 + 12
    content, rows = [], []
    for i, first in enumerate(names):
        content.append(text(left - 6, top + i * cell + 24, shortened(first, 22), size=_SIZE,
                            text_anchor="end"))  # fmt: skip
        content.append(_column_name(first, left + (i + 0.5) * cell, top - 6))
        for j, second in enumerate(names):
            share = overlap(regions[first], regions[second])["all"]["all"]
            rows.append({"first": first, "second": second, "jaccard": share})
            content += _share(share, left + j * cell, top + i * cell, cell)
    width = int(left + len(names) * cell + top * 0.55)
    height = int(top + len(names) * cell + 6)
    title = "Overlap of regions: share of tensors in both (Jaccard index)"
    drawn = picture(width, height, title, content)
    return Figure("region-overlap", title, drawn, drawn, rows)


def _share(share: float, x: float, y: float, cell: int) -> list[Markup]:
    # At most half of the colour, so that the number on it stays readable.
    return [
        element("rect", x=x + 1, y=y + 1, width=cell - 2, height=cell - 2, rx=2,
                fill=colour("best"), fill_opacity=f"{0.5 * share:.2f}", stroke=colour("line")),
        text(x + cell / 2, y + cell / 2 + 4, f"{share:.2f}", size=_SIZE, text_anchor="middle"),
    ]  # fmt: skip
