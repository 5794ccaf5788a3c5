"""The KnowUnDo paper's table with our rows in it, and what the paper published.

best_gain("privacy/llama2-7b")  # 4.17: MemFlex's average success minus the best other method's
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from io import StringIO
from itertools import accumulate, groupby, pairwise
from typing import Literal

from knowundo.errors import unknown
from knowundo.reporting.paper.figures import (
    HUGE,
    Column,
    PaperRow,
    published_blocks,
    published_file,
    setting_of,
)
from knowundo.reporting.paper.rows import paper_columns, paper_rows, run_tasks
from knowundo.results import Results

Format = Literal["markdown", "latex", "csv"]
ENDINGS: dict[Format, str] = {"markdown": "md", "latex": "tex", "csv": "csv"}


def _text(value: float | str | None, missing: str) -> str:
    """Two decimals, as in the paper; fewer where a number is large."""
    if value is None or isinstance(value, str):
        return missing if value is None else value
    if value > HUGE:
        return ">1e10"
    if abs(value) < 999.995:
        return f"{value:.2f}"
    if abs(value) < 9999.5:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _cells(row: PaperRow, columns: Sequence[Column], missing: str) -> list[str]:
    figures = (row.figures.get(column.key) for column in columns)
    return [row.variant, row.source, *(_text(value, missing) for value in figures)]


def _notes(results: Results) -> list[str]:
    """How to read the table, and whose figures stand in it."""
    tasks = ", ".join(run_tasks(results)) or "none were run"
    notes = [
        "ours: all val rows, unlearned on by no model; their 95 % intervals are in results.json.",
        "ROUGE-L forced is of the likeliest token at each place of the true answer, generated of "
        "the model's own greedy answer. The paper does not say which is its own, most likely "
        "forced, so it stands there.",
        f"General mean: of the tasks of this run ({tasks}). s/step: wall clock of an optimizer "
        "step; the batch stands in the recipe, the hardware in the variant's manifest.json.",
    ]
    setting, why_none = setting_of(results)
    if setting is None:
        return [*notes, f"The paper's figures are not shown: {why_none}."]
    blocks = published_blocks(setting)
    keys = {column.published for column in paper_columns(results)}
    places = dict.fromkeys(b["place"] for b in blocks if keys & set(b["figures"]))
    return [
        *notes,
        f"paper: {published_file()['source']}, {' and '.join(places)}, below the variant of the "
        "same name. memorized is its Vanilla; a dash is a figure that is not at hand; its general "
        "mean is of its five tasks, its s/step of one A100.",
        *(block["remark"] for block in blocks if "remark" in block),
    ]


def _markdown_text(text: str) -> str:
    """Plain text in a cell: no markup, no HTML, and no bar that would open another cell.

    An underscore inside a word is no markup, and stays readable.
    """
    text = re.sub(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        "−": "$-$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        # Behind the end of a line these two would be read as its options.
        "[": "{[}",
        "*": "{*}",
        **{character: f"\\{character}" for character in "_&%$#{}"},
    }
)


def _latex_text(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)


def _provenance(results: Results) -> str:
    seeds = results.seeds
    return f"seed {seeds.get('recipe')}, data {results.data_sha256[:12]}"


def _markdown(
    results: Results, rows: Sequence[PaperRow], columns: Sequence[Column], notes: Sequence[str]
) -> str:
    titles = ["Variant", "Source", *(f"{c.group} {c.title}".strip() for c in columns)]
    lines = [map(_markdown_text, titles), ["---", "---", *["---:"] * len(columns)]]
    lines += [map(_markdown_text, _cells(row, columns, "–")) for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    head = f"Run {_markdown_text(results.name)}: {_provenance(results)}"
    below = "\n".join(f"- {_markdown_text(note)}" for note in notes)
    return f"{head}\n\n{table}\n\n{below}\n"


def _latex(
    results: Results, rows: Sequence[PaperRow], columns: Sequence[Column], notes: Sequence[str]
) -> str:
    """A table* that needs the package booktabs."""
    spans = [(group, len(list(same))) for group, same in groupby(columns, lambda c: c.group)]
    groups = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{group}}}" for group, n in spans)
    ends = list(accumulate((n for _, n in spans), initial=2))
    rules = " ".join(
        rf"\cmidrule(lr){{{start + 1}-{end}}}"
        for (group, _), (start, end) in zip(spans, pairwise(ends), strict=True)
        if group
    )
    titles = ["Variant", "Source", *(column.title for column in columns)]
    lines = [titles, *(_cells(row, columns, "–") for row in rows)]
    head, *body = (" & ".join(map(_latex_text, line)) + r" \\" for line in lines)
    caption = _latex_text(f"{results.name}: {_provenance(results)}. {' '.join(notes)}")
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
            r"\toprule",
            rf" & & {groups} \\ {rules}",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table*}",
            "",
        ]
    )


def _csv(
    results: Results, rows: Sequence[PaperRow], columns: Sequence[Column], notes: Sequence[str]
) -> str:
    """For programs: keys for titles, and nothing where there is nothing."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["variant", "source", *(column.key for column in columns)])
    writer.writerows(_cells(row, columns, "") for row in rows)
    return stream.getvalue()


_Render = Callable[[Results, Sequence[PaperRow], Sequence[Column], Sequence[str]], str]
_RENDER: dict[str, _Render] = {
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
}


def paper_table(
    results: Results,
    seconds_per_step: dict[str, float | None],
    *,
    format: Format = "markdown",
    changed: Sequence[str] = (),
) -> str:
    """The paper's table: our rows, and the paper's own where the run repeats its setting.

    Args:
        results: of one run.
        seconds_per_step: wall clock of an optimizer step by variant; the others get a dash.
        format: markdown (notes stand below), latex (in the caption), or csv (none).
        changed: keys in which the run differs from the preset that repeats the paper's setting.

    Raises:
        BadInput: another format.
    """
    if format not in _RENDER:
        raise unknown("format", format, _RENDER)
    rows = paper_rows(results, seconds_per_step)
    notes = _notes(results)
    if changed:
        notes.append(f"ours differs from the paper's preset in: {', '.join(changed)}.")
    return _RENDER[format](results, rows, paper_columns(results), notes)
