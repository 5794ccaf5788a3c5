"""The table of benchmarks in docs/benchmarks.md, from what their files declare.

    python scripts/build_benchmarks_page.py

Run it after a benchmark was added or changed; a test compares the page.
"""

from __future__ import annotations

from pathlib import Path

from knowundo.declarations import CITATION, Declared, read_own

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"
HEAD = (
    "| benchmark | what it is | domains | size | licence | needs | source |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)


def row(one: Declared) -> str:
    """A row of the table."""
    facts = one.facts
    source = CITATION.sub(r"\1, [\2](https://arxiv.org/abs/\2)", facts["citation"])
    domains = ", ".join(f"`{name}`" for name in facts["domains"])
    told = (one.summary, domains, facts["size"], facts["licence"], facts["requires"], source)
    cells = (f"`{one.name}`", *(cell.replace("|", "\\|") for cell in told))
    return f"| {' | '.join(cells)} |\n"


def page(text: str) -> str:
    """The page with its table as it should be."""
    before, rest = text.split(BEGIN)
    table = HEAD + "".join(map(row, read_own("benchmark")))
    return f"{before}{BEGIN}\n{table}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
