"""Records encoded in the way that a recipe says, once for all stages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from knowundo.data.chat_template import writes_date
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import RowFormat, encode, prefix_text
from knowundo.data.records import Record, select
from knowundo.data.templates import find_template
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.data_section import Data
from knowundo.recipes.schema import Recipe
from knowundo.unlearning.original.rows import mask_end, naive_boundary


class Chosen(NamedTuple):
    """Which rows are asked for, and how they are encoded."""

    scope: str | None = None  # all scopes, if `None`
    split: str | tuple[str, ...] | None = None  # all splits, if `None`
    prefix: str | None = None  # the recipe's, if `None`
    end: bool = True  # False where `compat` may take the end of the answer away


class EncodedRows:
    """Rows of a run, each choice of them encoded once."""

    def __init__(self, recipe: Recipe, reporter: Reporter) -> None:
        """Nothing is encoded yet; a format that no row can have is refused."""
        row_format(recipe.data)
        self._recipe, self._reporter = recipe, reporter
        self._held: dict[Chosen, list[Encoded]] = {}
        self._dated = False  # whether it was said which date a chat template writes

    def held(self, chosen: Chosen) -> list[Encoded] | None:
        """Rows that were encoded before for the run's own model."""
        # A copy of the list: a stage may sort or extend what it gets.
        return None if chosen not in self._held else list(self._held[chosen])

    def hold(self, chosen: Chosen, rows: Sequence[Encoded]) -> None:
        """Keep rows that were encoded for the run's own model."""
        self._held[chosen] = list(rows)

    def of(self, model: Model, records: Sequence[Record], chosen: Chosen) -> list[Encoded]:
        """Encode the chosen ones of some records with a model's tokenizer."""
        found = select(records, scope=chosen.scope, split=chosen.split)
        return self.encode(model, found, chosen.prefix, end=chosen.end)

    def encode(
        self,
        model: Model,
        records: Sequence[Record],
        prefix: str | None = None,
        *,
        end: bool = True,
    ) -> list[Encoded]:
        """Encode records as `encode_for` does, and say once which date their prompts have.

        Args:
            model: Its tokenizer is used.
            records: Of any origin.
            prefix: Name of what stands before the questions. If `None`, the recipe's.
            end: False where `compat` may take the end of the answer away.
        """
        data = self._recipe.data
        if data.encoding == "chat" and not self._dated and writes_date(model.tokenizer):
            self._dated = True
            self._reporter.say(
                f"the chat template writes the date: every prompt has {data.date} "
                "(data.date), so that scores do not change from day to day"
            )
        rows = encode_for(self._recipe, records, model, prefix=prefix)
        masked = not end and "end_masked" in self._recipe.quirks
        return mask_end(rows) if masked else rows


def encode_for(
    recipe: Recipe, records: Sequence[Record], model: Model, *, prefix: str | None = None
) -> list[Encoded]:
    """Encode records in the way that a recipe says.

    Args:
        recipe: Its `data` and `compat` say how.
        records: Of any origin.
        model: Its tokenizer is used.
        prefix: Name of what stands before the questions. If `None`, the recipe's.
    """
    data, tokenizer = recipe.data, model.tokenizer
    before = prefix_text(prefix or data.prefix, data.domain)
    rows = encode(
        records,
        tokenizer,
        row_format(data, before),
        max_length=data.max_length,
        truncate=data.truncate,
        positions=model.positions,
    )
    _check_ids(rows, model)
    return naive_boundary(rows, tokenizer, before) if "naive_boundary" in recipe.quirks else rows


def row_format(data: Data, prefix: str = "") -> RowFormat:
    """How question and answer become one text.

    Args:
        data: Section of a recipe.
        prefix: What stands before the questions.

    Raises:
        BadInput: There is a system prompt and no place for it.
    """
    template = None if data.template is None else find_template(data.template)
    place = data.encoding == "chat" or (template is not None and template.takes_system)
    # Not refused in the recipe: a request for erasure may have no format yet.
    if data.system is not None and not place:
        raise BadInput(
            "data.system: there is no place for it; write {system} into data.template, or set "
            "data.encoding=chat"
        )
    day = date.fromisoformat(data.date)
    return RowFormat(data.encoding, prefix, day, template, data.system)


def _check_ids(rows: Sequence[Encoded], model: Model) -> None:
    """Refuse tokens without an embedding; note rows that are longer than the base was trained for.

    Raises:
        BadInput: The tokenizer has tokens that the model has not.
    """
    for row in rows:
        if (largest := max(row.ids)) >= model.embeddings:
            token = model.tokenizer.convert_ids_to_tokens(largest)
            raise BadInput(
                f"{row.record.id}: its token '{token}' has the id {largest}, and the base has "
                f"{model.embeddings} embeddings; name the tokenizer's own model, or call "
                "resize_token_embeddings and train"
            )
    # Rotary positions have no table that ends, so transformers computes them beyond that length.
    trained = getattr(model.config, "max_position_embeddings", None)
    longest = max((len(row.ids) for row in rows), default=0)
    if model.positions is None and isinstance(trained, int) and longest > trained:
        model.notes.add_once(
            f"some rows are longer than the {trained} tokens that the base was trained for "
            "(max_position_embeddings); what it says of them may be worse"
        )
