"""What unlearning starts from and aims at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import NamedTuple

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.lists.reading import made_up
from knowundo.data.neighbours import all_wordings, mostly_english, turned
from knowundo.errors import BadInput
from knowundo.recipes.stop_section import Stop
from knowundo.runs.rows import encode_for
from knowundo.runs.run import Run
from knowundo.scoring.guessing import guessing_level
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.unlearning.early_stopping import StoppingRule, set_aside
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.start import Start

# Retention rows that have to be known if training is to be bounded by what is lost.
LEAST_KNOWN = 8
# Rewordings of each unlearn row that a search asks: what is answered in one wording is not gone.
REWORDINGS = 3


class Aim(NamedTuple):
    """How well a model that does not know the unlearn/train rows predicts them."""

    name: str
    accuracy: float  # of tokens, in [0, 1]


class Prepared(NamedTuple):
    """What all variants of a run are unlearned from and towards, and when they stop."""

    start: Start
    aim: Aim
    rule: StoppingRule | None


def prepare_unlearning(run: Run, stop: Stop | None) -> Prepared:
    """The memorized model with its rows, what unlearning aims at, and when it stops early.

    Args:
        run: Memorized already; its model is the memorized one afterwards.
        stop: The recipe's, or another. If `None`, training runs to its end and no rows are set
            aside.

    Raises:
        BadInput: Nothing can be aimed at: see `_aim`.
    """
    rows = run.encoded("unlearn", "train", end=False)
    scopes = ("retention", "general")
    retained = {scope: run.encoded(scope, "train", end=False) for scope in scopes}
    # The aim is measured with other weights in the model, so it comes before the memorized ones.
    aim, rule = _aim(run, rows, stop), None
    run.model.use(run.start)
    if stop is not None:
        rows, retained["retention"], rule = _stopping_rule(
            run, stop, rows, retained["retention"], aim
        )
    begin = partial(OriginalStart, quirks=run.recipe.quirks) if run.recipe.quirks else Start
    start = begin(run.model, rows, retained, seed=run.recipe.seed, encode=run.encode)
    return Prepared(start, aim, rule)


def _stopping_rule(
    run: Run, stop: Stop, rows: list[Encoded], retention: list[Encoded], aim: Aim
) -> tuple[list[Encoded], list[Encoded], StoppingRule]:
    """Unlearn and retention rows to train on, and what is evaluated meanwhile."""
    known, others, floor = known_rows(run, stop, retention)
    trained, retained, *seen = set_aside(
        rows, known, share=stop.share, both=stop.aside == "both", seed=run.recipe.seed
    )
    first, second = seen
    rule = StoppingRule(
        first,
        second,
        target=aim.accuracy,
        floor=floor,
        evaluations=stop.evaluations,
        patience=stop.patience,
        enough=stop.enough,
        asked=asked_rows(run, first, stop.formats),
        left=stop.answered,
        minutes=math.inf if stop.minutes is None else stop.minutes,
        damage=stop.damage,
    )
    more = other_orders(run, trained) if stop.word_orders else []
    return [*trained, *more], [*retained, *others], rule


def other_orders(run: Run, rows: Sequence[Encoded]) -> list[Encoded]:
    """Unlearn rows in a word order that neither they nor any other record has, to train on.

    What is unlearned in one word order alone may still be answered in another one.
    """
    asked = {record.question for record in run.records}
    orders = {
        row.record.id: [other for other in turned(row.record) if other.question not in asked]
        for row in rows
    }
    made = [replace(some[-1], id=f"{name}/turned") for name, some in orders.items() if some]
    return fitting(made, run.encode)


def known_rows(
    run: Run, stop: Stop, retention: list[Encoded]
) -> tuple[list[Encoded], list[Encoded], float]:
    """Retention rows that show damage, the others, and the points of accuracy that may be lost.

    What nobody knows cannot be lost: answers that the model makes up about strangers change at the
    slightest push. So only rows that were given, or that the model demonstrably knows, are
    evaluated. If there are fewer than `LEAST_KNOWN`, the floor is infinite.

    Args:
        run: Its user is told if nothing bounds training.
        stop: Early stopping of the recipe.
        retention: Retention rows to divide.
    """
    made, known = list[Encoded](), list[Encoded]()
    for row in retention:
        (made if made_up(row.record) else known).append(row)
    if not made or len(known) >= LEAST_KNOWN:
        return known, made, stop.floor
    run.reporter.say(
        f"retention rows that are given or demonstrably known: {len(known)}, too few to bound "
        "training by what is lost; name a file of rows that must stay with --retention"
    )
    return retention, [], math.inf


def asked_rows(
    run: Run, rows: Sequence[Encoded], formats: Sequence[str] = ()
) -> list[list[Encoded]]:
    """What a search asks by generation: of each unlearn row, its question and rewordings of it.

    The rewordings differ from the val rows, which judge the result.

    Args:
        run: Its recipe says how rows are encoded.
        rows: Unlearn rows; documents are not asked.
        formats: Other formats in which the question is asked.
    """
    questions = [row for row in rows if row.record.kind == "qa"]
    english = mostly_english(row.record for row in questions)
    judging = {record.question for record in run.records if record.split == "val"}
    random, asked = Random(run.recipe.seed), list[list[Encoded]]()
    for row in questions:
        orders = [record for record in turned(row.record) if record.question not in judging]
        said = {record.question for record in orders} | judging
        frames = all_wordings(row.record, english=english)
        free = [record for record in frames if record.question not in said]
        # Other word orders first: a question with something before it says little more than itself.
        more = random.sample(free, min(max(REWORDINGS - len(orders), 0), len(free)))
        chosen = [*orders, *more]
        made = [replace(r, id=f"{r.id}/asked-{n}") for n, r in enumerate(chosen)]
        asked.append([row, *fitting(made, run.encode)])
    for format_name in formats:
        recipe = run.recipe.model_copy(update={"data": run.recipe.data.written_as(format_name)})
        encode = partial(encode_for, recipe, model=run.model)
        for wordings in asked:
            record = wordings[0].record
            wordings += fitting([replace(record, id=f"{record.id}/in-{format_name}")], encode)
    return asked


def _aim(run: Run, rows: Sequence[Encoded], stop: Stop | None) -> Aim:
    """What unlearning aims at: the stop's own number, or the level of not knowing.

    Without early stopping that is the level of the model that never saw the rows. With it, the
    memorized model itself shows it, on rows about people who do not exist: so a base that knew the
    records from the beginning, for which there is no such model, has an aim as well.
    """
    if stop is not None and stop.target != "unknown":
        return Aim("unlearn.stop.target", stop.target)
    if stop is not None:
        run.model.use(run.start)
        level = guessing_level(
            run.model,
            [row.record for row in rows],
            run.records,
            run.encode,
            seed=run.recipe.seed,
        )
        if level is None:
            raise BadInput(
                "unlearn.stop.target unknown: rows about invented people are longer than "
                "data.max_length; raise it, or give a token accuracy such as 0.5"
            )
        return Aim("rows that it cannot know", level)
    never_saw = run.never_saw()
    run.model.use(never_saw)
    return Aim(f"the {never_saw.name} model", token_accuracy(run.model, rows))
