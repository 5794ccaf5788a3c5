"""Figures of a report as files: SVG, the numbers as CSV, and PNG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from importlib import import_module
from pathlib import Path

import pandas as pd

from knowundo.errors import BadInput
from knowundo.reporting.drawing import Figure, standalone
from knowundo.reporting.panels import Multiples
from knowundo.storage.files import new_file, write_text

# Pixels of a PNG for each pixel of the page.
_ZOOM = 2


class Format(StrEnum):
    """What a figure can be written as."""

    svg = "svg"
    csv = "csv"
    png = "png"


def write_figures(
    folder: Path, figures: Iterable[Figure | Multiples], formats: Sequence[Format]
) -> list[Path]:
    """Write each figure in each format, in the colours of the light page.

    Args:
        folder: Made if it is not there.
        figures: Of `write_report`.
        formats: PNG needs the extra `figures`.

    Returns:
        The files.

    Raises:
        BadInput: PNG is asked for, and what draws it is not installed; nothing is written then.
    """
    if Format.png in formats:
        _painter()
    written = []
    for one in figures:
        drawing = standalone(one.whole if isinstance(one, Multiples) else one.wide)
        for form in formats:
            path = folder / f"{one.name}.{form}"
            if form is Format.svg:
                write_text(path, drawing)
            elif form is Format.csv:
                write_text(path, pd.DataFrame(one.rows).to_csv(index=False))
            else:
                with new_file(path) as aside:
                    aside.write_bytes(_png(drawing))
            written.append(path)
    return written


def _painter() -> object:
    try:
        return import_module("resvg_py")
    except ImportError:
        raise BadInput("--figures png needs the extra: pip install 'knowundo[figures]'") from None


def _png(drawing: str) -> bytes:
    painter = _painter()
    return bytes(painter.svg_to_bytes(svg_string=drawing, zoom=_ZOOM, background="#ffffff"))  # type: ignore[attr-defined]
