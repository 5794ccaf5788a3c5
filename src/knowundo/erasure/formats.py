"""The format in which a model knows a list: tried, where the recipe names none.

A finetuned model knows its rows in the format of its finetuning. In another one it may predict
little of them, so that a list would pass for unknown, or seem erased where nobody asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.records import Record
from knowundo.data.templates import template_presets
from knowundo.erasure.list_check import read_check
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.data_section import Data, format_keys
from knowundo.recipes.reading import parse_recipe
from knowundo.recipes.schema import Recipe
from knowundo.runs.rows import encode_for
from knowundo.scoring.answers import answered
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.storage.artifacts import MANIFEST

# Rows of the list on which formats are compared, and how many of them are asked by generation.
SAMPLE, ASKED = 32, 8
# Share of rows that are answered verbatim from which another format is asked in too.
ALSO = 0.5
# Two formats whose answers are this equally likely know the list equally well.
EQUAL = 1e-3
# Token accuracy from which a format is taken for the one of the finetuning without a doubt.
CERTAIN = 0.9
CHAT, PLAIN = "chat", "plain"


@dataclass(frozen=True)
class FormatChoice:
    """The format of a request, and what was tried to find it.

    Attributes:
        name: `chat`, `plain` or a preset of `knowundo list templates`. If `None`, nothing was
            chosen: the recipe names a format, or no row has a question and an answer.
        accuracy: Name of a format → token accuracy on rows of the list, in [0, 1].
        also: Other formats in which the model answers at least `ALSO` of the rows verbatim.
    """

    name: str | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What was found, in sentences for a person."""
        if self.name is None:
            return []
        others = [name for name in _by_accuracy(self.accuracy) if name != self.name]
        first = [name for name in (CHAT, PLAIN) if name in others]
        shown = list(dict.fromkeys([*first, *others]))[:3]
        told = "".join(f", {name} {_percent(self.accuracy[name])}" for name in shown)
        said = [
            f"the list is known best in the format {self.name}: "
            f"{_percent(self.accuracy[self.name])} of its answer tokens{told} (--set "
            "data.template=… or data.encoding=… names another)"
        ]
        if self.also:
            said.append(
                f"it is answered in other formats too ({', '.join(self.also)}): the search asks in "
                "them as well"
            )
        if self.accuracy[self.name] < CERTAIN:
            said.append(
                "in none of the formats does the model know the list well: if it was finetuned in "
                "another one, name it with --set data.template=…, or the list may only seem erased"
            )
        return said

    def unknown(self, place: str, rows: int, level: float) -> str:
        """What is said of a list that the model does not know.

        Args:
            place: Of the list.
            rows: How many it has.
            level: Token accuracy on what the model cannot know, in [0, 1].
        """
        said = f"{place}: the model knows none of its {rows} rows, so nothing has to go; "
        if not self.accuracy:
            return (
                f"{said}check the model, the wording of the questions, and the format (--set "
                "data.template=… or data.encoding=plain or chat)"
            )
        names = _by_accuracy(self.accuracy)
        tried = ", ".join(f"{name} {_percent(self.accuracy[name])}" for name in names)
        return (
            f"{said}of their answers' tokens it predicts {tried}, and {_percent(level)} by "
            "guessing; check the model and the wording of the questions, or name the format with "
            "--set data.template=…"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _by_accuracy(accuracy: Mapping[str, float]) -> list[str]:
    return sorted(accuracy, key=lambda name: -accuracy[name])


def settle_format(
    given: dict[str, Any], out: Path, model: Model, unlearn: Sequence[Record], reporter: Reporter
) -> tuple[dict[str, Any], FormatChoice]:
    """The recipe's keys with a format, found where they name none.

    A request that was begun keeps the format that it was begun with.

    Args:
        given: Keys of the recipe.
        out: Directory of the run.
        model: In the state that knows the list; not changed.
        unlearn: Rows of the list.
        reporter: Tells the user what was found.

    Raises:
        BadInput: The keys, the rows, or the lists of a request that was begun are not usable.
    """
    recipe = parse_recipe(given, "--set")
    if {"encoding", "template"} & set(given["data"]):
        # Of a file the text, as the run keeps it: the lists depend on it too.
        named = recipe.data.template
        return (given if named is None else _with_data(given, {"template": named})), FormatChoice()
    usual = CHAT if model.tokenizer.chat_template else PLAIN
    if (out / "lists" / MANIFEST).is_file():
        # Lists of an earlier version name none: they were made with the usual one.
        check = read_check(out / "lists" / "check.json")
        choice = FormatChoice(check.format, check.formats, tuple(check.also))
    else:
        with reporter.task("the format of the list") as progress:
            choice = find_format(recipe, model, unlearn)
            progress(1, 1)
        for line in choice.lines():
            reporter.say(line)
    keys = {key: value for key, value in format_keys(choice.name or usual).items() if value}
    return _asking(_with_data(given, keys), choice.also), choice


def _asking(given: dict[str, Any], formats: Sequence[str]) -> dict[str, Any]:
    """The keys with other formats that the search of the rate asks in, unless they name some."""
    stop = given["unlearn"].get("stop")
    if not formats or not isinstance(stop, dict) or "formats" in stop:
        return given
    return given | {"unlearn": given["unlearn"] | {"stop": stop | {"formats": list(formats)}}}


def _with_data(given: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    return given | {"data": given["data"] | keys}


def find_format(recipe: Recipe, model: Model, unlearn: Sequence[Record]) -> FormatChoice:
    """The format in which a model answers a list, else in which its answers are likeliest.

    What a model answers is compared first: a tokenizer may split an answer otherwise than the one
    that the model was finetuned with, and then even what it says verbatim is unlikely. Then
    compared is the likelihood of an answer token, its geometric mean over an answer and the mean of
    that over rows: rows that the model does not know, which are unlikely in every format, then
    decide nothing. Ties go to the tokenizer's chat template, then to plain.

    Args:
        recipe: Names no format.
        model: In the state that knows the list; not changed.
        unlearn: Rows of the list; of those with question and answer, a sample is scored.

    Raises:
        BadInput: The rows cannot be encoded in plain, or the tokenizer's chat template fails.
    """
    asked = [record for record in unlearn if record.kind == "qa" and record.answer]
    sample = asked if len(asked) <= SAMPLE else Random(recipe.seed).sample(asked, SAMPLE)
    rows = _encoded(recipe, model, sample)
    # Formats differ in length: compared are the rows that fit in all of them.
    fit = [{row.record.id for row in found} for found in rows.values()]
    common = set.intersection(*fit) if fit else set()
    if not common:
        return FormatChoice()
    likelihood, accuracy = dict[str, float](), dict[str, float]()
    for name, found in rows.items():
        forced = teacher_forced(model, [row for row in found if row.record.id in common])
        scores = list(forced.values())
        likelihood[name] = fmean(_likelihood(score["mean_nll"]) for score in scores)
        accuracy[name] = fmean(score["token_accuracy"] or 0.0 for score in scores)
    chosen = set(sorted(common)[:ASKED])
    exact = {
        name: fmean(
            answer.exact
            for answer in answered(model, [r for r in found if r.record.id in chosen]).values()
        )
        for name, found in rows.items()
    }
    most = [name for name in rows if exact[name] == max(exact.values())]
    enough = max(likelihood[name] for name in most) - EQUAL
    best = next(name for name in most if likelihood[name] >= enough)
    also = [name for name in rows if exact[name] >= ALSO and name != best]
    return FormatChoice(best, accuracy, tuple(also))


def _encoded(recipe: Recipe, model: Model, sample: Sequence[Record]) -> dict[str, list[Encoded]]:
    """The rows in each format in which they can be written."""
    rows = dict[str, list[Encoded]]()
    for name, data in _formats(recipe.data, model):
        formatted = recipe.model_copy(update={"data": data})
        try:
            rows[name] = fitting(sample, partial(encode_for, formatted, model=model))
        except BadInput:
            # A preset's words may have tokens that the model has not. A chat template that fails
            # may be the format of the finetuning, and what fails in plain fails in all of them.
            if name in (CHAT, PLAIN):
                raise
    return rows


def _formats(data: Data, model: Model) -> Iterator[tuple[str, Data]]:
    """Every format by name, those that win ties first, as sections of a recipe."""
    if model.tokenizer.chat_template:
        yield CHAT, data.written_as(CHAT)
    for name, template in template_presets().items():
        if data.system is None or template.takes_system:
            yield name, data.written_as(name)


def _likelihood(mean_nll: float | None) -> float:
    """Of an answer token, in [0, 1]; 0 where the model's own is no finite number."""
    return 0.0 if mean_nll is None else math.exp(-mean_nll)
