"""Pages of everything that is registered, docs/registry/*.md, from what the files declare.

    python scripts/build_registry_pages.py

Run it after something was added or changed; a test compares the pages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from knowundo.declarations import Declared, Paper, read_own
from knowundo.recipes.presets import presets, read_preset

FOLDER = Path(__file__).parents[1] / "docs" / "registry"
NOTE = "<!-- Written by scripts/build_registry_pages.py from the files of the package. -->\n"
# Each page: its heading, the page that explains, and the kinds that it lists.
PAGES = {
    "methods": ("Methods and guards", "methods.md", ("method", "guard", "combination")),
    "localizers": ("Localizers", "localizers.md", ("localizer",)),
    "metrics": ("Metrics and scorers", "metrics.md", ("metric", "scorer")),
    "attacks": ("Attacks", "attacks.md", ("attack",)),
    "benchmarks": ("Benchmarks", "benchmarks.md", ("benchmark",)),
}


def page(name: str) -> str:
    """One page."""
    heading, explained, kinds = PAGES[name]
    lines = [NOTE, f"# {heading}\n", f"[What they mean, and how to choose](../{explained})\n"]
    for kind in kinds:
        if len(kinds) > 1:
            lines.append(f"## {kind.capitalize()}s\n")
        level = "###" if len(kinds) > 1 else "##"
        lines += [entry(one, level) for one in read_own(kind)]
    return "\n".join(lines).rstrip() + "\n"


def papers() -> str:
    """The index of papers, newest first: what of each ships, and the presets of its methods."""
    users: dict[str, list[str]] = {}
    for preset in presets("methods"):
        users.setdefault(read_preset("methods", preset)["method"], []).append(f"`{preset}`")
    found: dict[Paper, list[str]] = {}
    shown: dict[Paper, list[str]] = {}
    for _, explained, kinds in PAGES.values():
        for kind in kinds:
            for one in read_own(kind):
                for paper in one.papers:
                    found.setdefault(paper, []).append(f"{kind} [{one.name}](../{explained})")
                    shown.setdefault(paper, []).extend(users.get(one.name, []))
    lines = [NOTE, "# Index of papers\n", "[Recipes that run them](../papers.md)\n"]
    lines += ["| paper | what ships of it | presets |\n| --- | --- | --- |"]
    for paper in sorted(found, key=lambda one: one.arxiv, reverse=True):
        link = f"{paper.paper}, [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"
        presets_of = ", ".join(dict.fromkeys(shown[paper]))
        lines.append(f"| {link} | {', '.join(dict.fromkeys(found[paper]))} | {presets_of} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    return {f"{name}.md": page(name) for name in PAGES} | {"papers.md": papers()}


def entry(one: Declared, level: str) -> str:
    """One entry: what it does, its arguments, what it declares, and its papers."""
    parts = [f"{level} {one.name}\n", f"{escaped(one.summary)}\n"]
    if one.arguments:
        rows = (f"| `{name}` | `{shown(value)}` |" for name, value in one.arguments.items())
        parts += ["| argument | default |\n| --- | --- |", *rows, ""]
    facts = {name: value for name, value in one.facts.items() if value not in (None, (), [], "")}
    if facts:
        parts += [*(f"- {name}: {escaped(plain(value))}" for name, value in facts.items()), ""]
    for paper in one.papers:
        parts.append(f"{paper.paper}, [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})\n")
    return "\n".join(parts)


def shown(value: Any) -> str:
    """A value as a recipe writes it; `required` where there is no default."""
    if value == "required":
        return "required"
    return json.dumps(value, ensure_ascii=False).replace("|", "\\|")


def plain(value: Any) -> str:
    """A declared fact as a text."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    return str(value)


def escaped(text: str) -> str:
    """A text in which Markdown reads no HTML."""
    return text.replace("<", "&lt;")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
