"""What unlearning starts from and aims at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.neighbours import unknowable
from knowundo.errors import BadInput
from knowundo.recipes.schema import Stop
from knowundo.runs.run import Run
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.unlearning.early_stopping import StoppingRule, set_aside
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.start import Start


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
    trained, retained, *seen = set_aside(
        rows, retention, share=stop.share, both=stop.aside == "both", seed=run.recipe.seed
    )
    first, second = seen
    rule = StoppingRule(first, second, aim.accuracy, stop.floor, stop.evaluations, stop.patience)
    return trained, retained, rule


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
        strangers = unknowable([row.record for row in rows], run.records, run.recipe.seed)
        if not (encoded := fitting(strangers, run.encode)):
            raise BadInput(
                "unlearn.stop.target unknown: rows about invented people are longer than "
                "data.max_length; raise it, or give a token accuracy such as 0.5"
            )
        return Aim("rows that it cannot know", token_accuracy(run.model, encoded))
    never_saw = run.never_saw()
    run.model.use(never_saw)
    return Aim(f"the {never_saw.name} model", token_accuracy(run.model, rows))
