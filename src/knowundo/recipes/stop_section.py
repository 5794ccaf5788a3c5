"""The section `unlearn.stop` of a recipe: when unlearning ends, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from knowundo.recipes.data_section import Section


class Stop(Section):
    """Early stopping by evaluations on train rows; the best evaluation step's weights are kept."""

    target: Annotated[float, Field(ge=0, le=1)] | Literal["unknown"] = "unknown"
    """Token accuracy on unlearn rows that is low enough; unknown: that on rows alike which the
    model cannot know, such as the same questions about invented people."""
    floor: float = Field(5.0, gt=0, le=100)
    """How much of retention may be lost, in points."""
    damage: Literal["tokens", "answers"] = "tokens"
    """What the floor counts. tokens: points of token accuracy. answers: percent of the rows whose
    answers were right and sure at the start and no longer are right; token accuracy where there are
    fewer than ten."""
    enough: float = Field(0.6, ge=0, le=1)
    """Share of the way to the target from which a step counts as unlearned, and a search of the
    rate ends."""
    answered: float = Field(5.0, ge=0, le=100)
    """Percent of unlearn rows that may still be answered verbatim if a search of the rate is to
    end."""
    formats: list[str] = Field(default_factory=list)
    """Other formats in which a search asks unlearn rows, by name: chat, plain or a template of
    `knowundo list templates`. An erasure names those in which the model answers the list."""
    word_orders: bool = False
    """Unlearn a question of a known form ("Where does A live?") also in a word order that nothing
    in the data has: what is unlearned in one order alone may still be answered in another."""
    minutes: float | None = Field(None, gt=0)
    """A search of the rate begins no further attempt after so many minutes, so that its result may
    depend on the machine's speed. If null, only the number of attempts ends it."""
    patience: int = Field(5, ge=1)
    """Evaluations below the floor that end training; where retention recovers they do not
    count."""
    evaluations: int = Field(20, ge=1)
    """How many evaluation steps there are, spread evenly over training."""
    share: float = Field(0.1, gt=0, lt=1)
    """Share of the retention train rows that is set aside for evaluation; nothing is trained on
    them."""
    aside: Literal["retention", "both"] = "retention"
    """both: as many unlearn rows too, which are then not unlearned on, so that unlearning is
    measured on rows that training did not touch. Else the evaluated rows are trained on."""
