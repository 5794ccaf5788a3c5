"""The figures that the KnowUnDo paper published, as rows of its tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any, Literal

import yaml

from knowundo.errors import unknown
from knowundo.results import Results

# Figures by name; text is a bound such as ">1e10", None is unknown.
Figures = dict[str, float | str | None]

_PUBLISHED = files("knowundo") / "presets" / "published" / "knowundo.yaml"
# The paper's bases, by the last part of a hub's name or of a local folder.
_BASES = {"llama2-7b": "Llama-2-7b-chat-hf", "qwen1.5-7b": "Qwen1.5-7B-Chat"}
HUGE = 1e10  # beyond it the paper prints a bound


@dataclass(frozen=True)
class Column:
    """One column: its place in the table, and where ours and the paper's figures come from."""

    key: str
    group: str
    title: str
    metric: str | None = None  # of val rows; `None` for a task, the tasks' mean and seconds
    scope: str | None = None
    published: str | None = None  # the published figure's name; `None` if there is none


TASKS = tuple(
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


SUCCESS = (
    *_scope_columns("unlearn", "↑", "↑", "↓"),
    *_scope_columns("retention", "↑", "↓", "↑"),
    Column("average_success", "", "Average ↑", "average_success", None, "average_success"),
)
MEAN = Column("general_mean", "General", "Mean ↑", published="general_mean")
SECONDS = Column("seconds_per_step", "", "s/step ↓", published="seconds_per_step")


@dataclass(frozen=True)
class PaperRow:
    """One line of the table."""

    variant: str
    source: Literal["ours", "paper"]
    figures: Figures  # by the columns' keys


@cache
def published_file() -> dict[str, Any]:
    """The file of everything that the paper published, with its source and remarks."""
    return dict(yaml.safe_load(_PUBLISHED.read_text(encoding="utf-8")))


def published_columns() -> list[str]:
    """The paper's four settings, as domain/family."""
    return list(dict.fromkeys(block["column"] for block in published_file()["blocks"]))


def published_blocks(column: str) -> list[dict[str, Any]]:
    """The parts of the paper's tables that belong to one of its settings.

    Raises:
        BadInput: The paper has no such setting.
    """
    if column not in (known := published_columns()):
        raise unknown("setting of the paper", column, known)
    return [block for block in published_file()["blocks"] if block["column"] == column]


def published(domain: str, family: str) -> dict[str, Figures]:
    """Everything published for one setting: figures by variant, named as our presets are.

    Raises:
        BadInput: the paper has no such domain or family.
    """
    found: dict[str, Figures] = {}
    for block in published_blocks(f"{domain}/{family}"):
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


def setting_of(results: Results) -> tuple[str | None, str]:
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
