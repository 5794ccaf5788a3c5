"""Pages: one self-contained HTML file each, which runs and loads nothing but what it holds."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from knowundo.reporting.drawing import PALETTE
from knowundo.storage.files import write_text

# Stands in the head of a page that holds no answer of the unlearn scope.
REDACTED = '<meta name="redacted" content="unlearn scope">'


def write_page(path: Path, template: str, *, redact: bool = False, **values: Any) -> None:
    """Write a page of this package's templates; whatever a model or a record says is escaped.

    Args:
        path: The HTML file.
        template: Its name; it extends `base.html.j2`.
        redact: Mark the page as one without texts of the unlearn scope.
        values: What the template shows.
    """
    mark = Markup(REDACTED) if redact else ""
    write_text(path, render("reporting", template, redacted=mark, redact=redact, **values))


def render(package: str, template: str, *, interactive: bool = True, **values: Any) -> str:
    """A page as text.

    Args:
        package: Subpackage of `knowundo` that holds the template.
        template: Its name; it extends `base.html.j2`.
        interactive: Whether the page has the script that sorts, filters and shades.
        values: What the template shows.
    """
    loaders = [PackageLoader("knowundo", name) for name in dict.fromkeys((package, "reporting"))]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": figure}
    script = _file("page.js") if interactive else ""
    found: str = environment.get_template(template).render(
        {"redacted": ""} | values,
        policy=policy([script] if script else [], _style()),
        style=Markup(_style()),
        script=Markup(script),
    )
    return found


def policy(scripts: Iterable[str], style: str) -> str:
    """A Content-Security-Policy: a page's own scripts and style by their hashes, and no network."""
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@cache
def _file(name: str) -> str:
    return (files("knowundo.reporting") / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    """The style of all pages, the palette's colours first."""
    light, dark = (
        "; ".join(f"--{name}: {pair[place]}" for name, pair in PALETTE.items()) for place in (0, 1)
    )
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ color-scheme: light; {light} }} }}\n{_file('page.css')}"
    )


def figure(value: float | None) -> str:
    """A number as text; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) < 10_000 else f"{value:.0e}"
