"""The KnowUnDo paper's table with our rows in it, and what the paper published.

best_gain("privacy/llama2-7b")  # 4.17: MemFlex's average success minus the best other method's
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import StringIO
from itertools import accumulate, groupby, pairwise
from pathlib import PurePath
from typing import Any, Literal

import yaml

from knowundo.errors import unknown
from knowundo.results import Results, Row

Format = Literal["markdown", "latex", "csv"]
ENDINGS: dict[Format, str] = {"markdown": "md", "latex": "tex", "csv": "csv"}
# Figures by name; text is a bound such as ">1e10", None is unknown.
Figures = dict[str, float | str | None]

_PUBLISHED = files("knowundo") / "presets" / "published" / "knowundo.yaml"
# The paper's bases, by the last part of a hub's name or of a local folder.
_BASES = {"llama2-7b": "Llama-2-7b-chat-hf", "qwen1.5-7b": "Qwen1.5-7B-Chat"}
_HUGE = 1e10  # beyond it the paper prints a bound


@dataclass(frozen=True)
class Column:
    """One column: its place in the table, and where ours and the paper's figures come from."""

    key: str
    group: str
    title: str
    metric: str | None = None  # of val rows; none: a task, the tasks' mean or the seconds
    scope: str | None = None
    published: str | None = None  # the published figure's name; none: the paper has no such


_TASKS = tuple(
    Column(key, "General", f"{title} ↑", published=key)
    for key, title in {
        "mmlu": "MMLU",
        "arc_challenge": "ARC-C",
        "truthfulqa_mc1": "TruthfulQA",
        "social_iqa": "SIQA",
        "race": "RACE",
    }.items()
)


def _scope_columns(scope: str, success: str, perplexity: str, rouge: str) -> tuple[Column, ...]:
    def column(name: str, title: str, metric: str, published: str | None) -> Column:
        key = f"{scope}_{published}" if published else None
        return Column(f"{scope}_{name}", scope.capitalize(), title, metric, scope, key)

    return (
        column("success", f"Success {success}", f"{scope}_success", "success"),
        column("perplexity", f"PPL {perplexity}", "perplexity", "perplexity"),
        column("forced_rouge_l", f"ROUGE-L forced {rouge}", "forced_rouge_l", "rouge_l"),
        column("rouge_l", f"ROUGE-L generated {rouge}", "rouge_l", None),
    )


_SUCCESS = (
    *_scope_columns("unlearn", "↑", "↑", "↓"),
    *_scope_columns("retention", "↑", "↓", "↑"),
    Column("average_success", "", "Average ↑", "average_success", None, "average_success"),
)
_MEAN = Column("general_mean", "General", "Mean ↑", published="general_mean")
_SECONDS = Column("seconds_per_step", "", "s/step ↓", published="seconds_per_step")


@dataclass(frozen=True)
class PaperRow:
    """One line of the table."""

    variant: str
    source: Literal["ours", "paper"]
    figures: Figures  # by the columns' keys


@cache
def _published() -> dict[str, Any]:
    return dict(yaml.safe_load(_PUBLISHED.read_text(encoding="utf-8")))


def published_columns() -> list[str]:
    """The paper's four settings, as domain/family."""
    return list(dict.fromkeys(block["column"] for block in _published()["blocks"]))


def _blocks(column: str) -> list[dict[str, Any]]:
    if column not in (known := published_columns()):
        raise unknown("setting of the paper", column, known)
    return [block for block in _published()["blocks"] if block["column"] == column]


def published(domain: str, family: str) -> dict[str, Figures]:
    """Everything published for one setting: figures by variant, named as our presets are.

    Raises:
        BadInput: the paper has no such domain or family.
    """
    found: dict[str, Figures] = {}
    for block in _blocks(f"{domain}/{family}"):
        for variant, values in block["rows"].items():
            found.setdefault(variant, {}).update(zip(block["figures"], values, strict=True))
    return found


def _average(figures: Figures) -> float:
    """The published average success; the mean of both successes where none is published."""
    if (average := figures.get("average_success")) is not None:
        return float(average)
    both = (figures[f"{scope}_success"] for scope in ("unlearn", "retention"))
    return sum(float(value) for value in both if value is not None) / 2


def best_gain(column: str) -> float:
    """MemFlex's published average success minus that of the best other method of the setting."""
    domain, _, family = column.partition("/")
    averages = {name: _average(row) for name, row in published(domain, family).items()}
    ours = averages.pop("memflex")
    del averages["memorized"]  # the start, not a method
    return ours - max(averages.values())


def mean_gain() -> float:
    """The paper's headline: the mean of `best_gain` over its four settings."""
    gains = [best_gain(column) for column in published_columns()]
    return sum(gains) / len(gains)


def _setting(results: Results) -> tuple[str | None, str]:
    """The paper's setting that the run repeats; else None, and why none."""
    recipe = results.recipe_effective
    data, name = recipe.get("data", {}), recipe.get("name")
    presets = {f"knowundo-{column.replace('/', '-')}": column for column in published_columns()}
    if name not in presets:
        return None, f"the recipe is named {name}, which is none of {', '.join(presets)}"
    domain, family = presets[name].split("/")
    base = str(recipe.get("model", {}).get("base"))
    if PurePath(base).name != _BASES[family]:
        return None, f"the base is {base}, not the paper's {_BASES[family]}"
    if (data.get("benchmark"), data.get("domain")) != ("knowundo", domain):
        return None, f"the data are not the {domain} domain of knowundo"
    if data.get("subjects") is not None:
        return None, f"the data are cut to {data['subjects']} subjects"
    return presets[name], ""


def _is_task(row: Row) -> bool:
    return row.scope == "general" and row.split is None  # a benchmark's own rows have a split


def _run_tasks(results: Results) -> list[str]:
    """Names of the general tasks of the run, the paper's first; a group stands for its parts."""
    ran = dict.fromkeys(row.metric for row in results.rows if _is_task(row))
    asked = results.recipe_effective.get("evaluate", {}).get("general_tasks", ())
    shown = [name for name in asked if name in ran]
    if len(shown) < len(asked):  # a tag has no row of its own, only its tasks have
        parts = tuple(f"{name}_" for name in shown)
        shown += [name for name in ran if name not in shown and not name.startswith(parts)]
    paper = [column.key for column in _TASKS]
    first = [name for name in paper if name in shown]
    return first + [name for name in shown if name not in first]


def paper_columns(results: Results) -> tuple[Column, ...]:
    """The table's columns after the variant's name and the source."""
    paper = [column.key for column in _TASKS]
    others = [
        Column(name, "General", f"{name} ↑") for name in _run_tasks(results) if name not in paper
    ]
    return (*_SUCCESS, *_TASKS, *others, _MEAN, _SECONDS)


def _task_values(rows: Iterable[Row]) -> dict[str, float | None]:
    """A variant's value of every task: its accuracy, or its first metric where it has none."""
    found: dict[str, float | None] = {}
    for row in rows:
        if _is_task(row) and (row.metric not in found or row.subset == "acc"):
            found[row.metric] = row.value
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing, for a mean over other tasks compares with nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _our_figures(results: Results, variant: str, columns: Sequence[Column]) -> Figures:
    own = [row for row in results.rows if row.variant == variant and row.attack is None]
    found = {(row.metric, row.scope, row.split, row.subset): row.value for row in own}
    tasks = _task_values(own)
    return {
        **{c.key: found.get((c.metric, c.scope, "val", None)) for c in columns if c.metric},
        **tasks,
        _MEAN.key: _mean([tasks.get(name) for name in _run_tasks(results)]),
    }


def paper_rows(results: Results, seconds_per_step: dict[str, float | None]) -> list[PaperRow]:
    """Our lines, and below each the paper's, where the run repeats a setting of the paper.

    Args:
        results: val rows and general tasks are shown; what was scored after an attack is not.
        seconds_per_step: wall clock of an optimizer step by variant.
    """
    setting, _ = _setting(results)
    theirs = published(*setting.split("/")) if setting else {}
    columns = paper_columns(results)
    rows = []
    for name in (variant.name for variant in results.variants):
        figures = _our_figures(results, name, columns)
        figures[_SECONDS.key] = seconds_per_step.get(name)
        rows.append(PaperRow(name, "ours", figures))
        if printed := theirs.get(name):
            shown = {c.key: printed.get(c.published) for c in columns if c.published}
            rows.append(PaperRow(name, "paper", shown))
    return rows


def _text(value: float | str | None, missing: str) -> str:
    """Two decimals, as in the paper; fewer where a number is large."""
    if value is None or isinstance(value, str):
        return missing if value is None else value
    if value > _HUGE:
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
    tasks = ", ".join(_run_tasks(results)) or "none were run"
    notes = [
        "ours: all val rows, unlearned on by no model; their 95 % intervals are in results.json.",
        "ROUGE-L forced is of the likeliest token at each place of the true answer, generated of "
        "the model's own greedy answer. The paper does not say which is its own, most likely "
        "forced, so it stands there.",
        f"General mean: of the tasks of this run ({tasks}). s/step: wall clock of an optimizer "
        "step; the batch stands in the recipe, the hardware in the variant's manifest.json.",
    ]
    setting, why_none = _setting(results)
    if setting is None:
        return [*notes, f"The paper's figures are not shown: {why_none}."]
    blocks = _blocks(setting)
    keys = {column.published for column in paper_columns(results)}
    places = dict.fromkeys(b["place"] for b in blocks if keys & set(b["figures"]))
    return [
        *notes,
        f"paper: {_published()['source']}, {' and '.join(places)}, below the variant of the same "
        "name. memorized is its Vanilla; a dash is a figure that is not at hand; its general mean "
        "is of its five tasks, its s/step of one A100.",
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
