"""The table of methods in docs/methods.md, from what their files declare.

    python scripts/build_methods_page.py

Run it after a method or a preset of one was added or changed; a test compares the page.
"""

from __future__ import annotations

from pathlib import Path

from knowundo.declarations import Declared, read_own
from knowundo.recipes.presets import presets, read_preset

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BEGIN, END = "<!-- begin of the table{} -->", "<!-- end of the table{} -->"
HEADS = {
    "method": "| method | loss on unlearn rows | paper | reads | presets |\n",
    "guard": "| guard | what it does | paper | changes | presets |\n",
}
RULE = "| --- | --- | --- | --- | --- |\n"


def table(kind: str) -> str:
    """One row a method or guard."""
    users: dict[str, list[str]] = {}
    for preset in presets("methods"):
        users.setdefault(read_preset("methods", preset)["method"], []).append(preset)
    rows = (row(one, users.get(one.name, [])) for one in read_own(kind))
    return HEADS[kind] + RULE + "".join(rows)


def row(method: Declared, used_by: list[str]) -> str:
    """A row of the table."""
    papers = "; ".join(
        f"{one.paper}, [{one.arxiv}](https://arxiv.org/abs/{one.arxiv})" for one in method.papers
    )
    reads = method.facts.get("changes") or ", ".join(method.facts["reads"] or ())
    names = ", ".join(f"`{name}`" for name in used_by)
    cells = (f"`{method.name}`", method.summary.replace("|", "\\|"), papers, reads, names)
    return f"| {' | '.join(cells)} |\n"


def page(text: str) -> str:
    """The page with its tables as they should be."""
    for kind, name in (("method", ""), ("guard", " of guards")):
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table(kind)}{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
