"""The report of a run: the verdict, and what it rests on, as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from knowundo.reporting.answers import Asked, shown_answers
from knowundo.reporting.attack_panels import attack_panels
from knowundo.reporting.attacks import attack_table
from knowundo.reporting.drawing import Figure, Scale, colour, element, picture
from knowundo.reporting.heat_map import gradient_maps, overlap_map
from knowundo.reporting.page import write_page
from knowundo.reporting.panels import Multiples, evaluation_steps, training_curves, tried_rates
from knowundo.reporting.sentences import findings
from knowundo.reporting.tables import (
    COLUMNS,
    ROLES,
    Cell,
    cell,
    main_columns,
    main_table,
    prefix_table,
    task_table,
)
from knowundo.reporting.trade_off import trade_off
from knowundo.reporting.verdict import Measure, Verdict, verdict
from knowundo.results import Results, VariantFacts

_ARROWS = {"higher": "↑", "lower": "↓", "target": "→"}


@dataclass(frozen=True)
class Material:
    """What a report is made of, beside results.json."""

    scores: dict[str, pd.DataFrame]  # variant → rows of `score_adapters`
    curves: dict[str, list[dict[str, Any]]]  # variant → training curve
    tensors: list[dict[str, Any]]  # of localize: name, place, cosine, magnitude
    region: str  # name of the located region
    located: set[str]  # its parameters
    seconds: dict[str, float]  # variant → wall clock of its last training
    regions: dict[str, list[str]] = field(default_factory=dict)  # region → its parameters
    command: str = ""  # that makes the same run


@dataclass(frozen=True)
class Figures:
    """The figures of a run; `None` where there is nothing to draw."""

    trade_off: Figure | None
    attacks: Multiples | None
    gradients: Sequence[Figure]
    overlap: Figure | None
    steps: Multiples | None
    rates: Multiples | None
    curves: Multiples | None

    def all(self) -> list[Figure | Multiples]:
        """Those that there are."""
        several = (self.trade_off, self.attacks, *self.gradients, self.overlap, self.steps,
                   self.rates, self.curves)  # fmt: skip
        return [one for one in several if one is not None]


@dataclass(frozen=True)
class ModelRow:
    """A row of the table of models."""

    name: str
    role: str
    notes: list[str]
    cells: list[Cell]


def figures_of(results: Results, material: Material, said: Verdict) -> Figures:
    """Draw all figures of a run."""
    return Figures(
        trade_off=trade_off(results, said),
        attacks=attack_panels(results, said),
        gradients=gradient_maps(material.tensors, material.located) if material.tensors else [],
        overlap=overlap_map(material.regions),
        steps=evaluation_steps(results),
        rates=tried_rates(results),
        curves=training_curves(material.curves),
    )


def write_report(
    path: Path, results: Results, material: Material, *, redact: bool = False
) -> Figures:
    """Write the report; whatever a model or a record says is escaped.

    Args:
        path: The HTML file.
        results: The numbers.
        material: Curves, gradients and answers.
        redact: Show hash and length in place of what is said of the unlearn scope.

    Returns:
        Its figures.
    """
    said = verdict(results, material.scores)
    figures = figures_of(results, material, said)
    answers = shown_answers(material.scores, said, redact=redact)
    tried = sorted({a["lr"] for v in results.variants for a in v.attempts})
    write_page(
        path,
        "run.html.j2",
        redact=redact,
        private=any(one.scope == "unlearn" for one in answers),
        results=results,
        data=results.recipe_effective["data"],
        aims=any(v.role == "retain" for v in results.variants),
        verdict=said,
        bars=[_bar(one) for one in said.measures],
        findings=findings(results),
        columns=main_columns(results, said.split),
        rows=_rows(results, said),
        arrows=_ARROWS,
        all_columns=COLUMNS,
        all_rows=main_table(results),
        rates={v.name: f"{v.lr:g}" for v in results.variants if v.lr is not None},
        seconds=material.seconds,
        auto=f"{tried[0]:g} and {tried[-1]:g}" if tried else "",
        figures=figures,
        prefixed=prefix_table(results),
        attacked=attack_table(results),
        tasks=task_table(results),
        region=material.region,
        located=len(material.located),
        tensors=len(material.tensors),
        answers=answers,
        choices=_choices(answers),
        command=material.command,
        recipe=yaml.safe_dump(results.recipe_effective, sort_keys=False),
    )
    return figures


def _choices(answers: Sequence[Asked]) -> Mapping[str, list[str]]:
    """What the answers can be filtered by."""
    return {
        name: list(dict.fromkeys(getattr(one, name) for one in answers))
        for name in ("scope", "subject", "outcome")
    }


def _rows(results: Results, said: Verdict) -> list[ModelRow]:
    """The models: those that show the way, then the unlearned ones, the best first."""
    places = {name: n for n, name in enumerate(said.ranked)}
    references = ("retain", "memorized", "base")

    def place(variant: VariantFacts) -> tuple[int, int]:
        if variant.role in references:
            return (0, references.index(variant.role))
        return (1, places.get(variant.name, len(places)))

    columns = main_columns(results, said.split)
    return [
        ModelRow(v.name, v.role, _notes(v, said), [
            cell(results.find(v.name, c.metric, c.scope, c.split, c.subset)) for c in columns
        ])
        for v in sorted(results.variants, key=place)
    ]  # fmt: skip


def _notes(variant: VariantFacts, said: Verdict) -> list[str]:
    """What must be known of a model beside its numbers."""
    notes = [f"{word}: {why}" for word, why in variant.ruin.items()]
    if variant.role in ROLES:
        notes.append(ROLES[variant.role])
    if variant.name in said.controls:
        notes.append(f"control: region {variant.region}")
    if variant.guard is not None:
        measured = "".join(f"; {word.replace('_', ' ')} {100 * value:.1f} %"
                           for word, value in variant.guard.items())  # fmt: skip
        notes.append(f"a guard: its weights still hold the unlearn scope{measured}")
    return notes


def _bar(one: Measure) -> Markup:
    """A bar of a measure from where it began, with a mark at the target."""
    x = Scale(0, 100, 1, 299)
    content = [
        element("rect", x=0, y=3, width=300, height=6, rx=3, fill=colour("line")),
        element("rect", x=0, y=3, width=x(one.value), height=6, rx=3, fill=colour("best")),
    ]
    if one.before is not None:
        content.append(element("rect", x=x(one.before) - 1.5, y=0, width=3, height=12,
                               fill=colour("known")))  # fmt: skip
    if one.target is not None:
        content.append(element("rect", x=x(one.target) - 1.5, y=0, width=3, height=12,
                               fill=colour("target")))  # fmt: skip
    drawn = picture(300, 12, f"{one.label}: {one.value:.1f} %", content)
    return Markup(str(drawn).replace("<svg ", '<svg preserveAspectRatio="none" ', 1))
