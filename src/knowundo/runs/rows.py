"""Records encoded in the way that a recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import RowFormat, encode, prefix_text
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.recipes.schema import Recipe
from knowundo.unlearning.original.rows import naive_boundary


def encode_for(
    recipe: Recipe, records: Sequence[Record], model: Model, *, prefix: str | None = None
) -> list[Encoded]:
    """Encode records in the way that a recipe says.

    Args:
        recipe: its `data` and `compat`.
        records: of any origin.
        model: whose tokenizer.
        prefix: name of what stands before the questions; none: the recipe's.
    """
    data, tokenizer = recipe.data, model.tokenizer
    before = prefix_text(prefix or data.prefix, data.domain)
    rows = encode(
        records,
        tokenizer,
        RowFormat(data.encoding, before, date.fromisoformat(data.date)),
        max_length=data.max_length,
        truncate=data.truncate,
        positions=model.positions,
    )
    _check_ids(rows, model)
    return naive_boundary(rows, tokenizer, before) if "naive_boundary" in recipe.quirks else rows


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
    trained = getattr(model.config, "max_position_embeddings", None)
    longest = max((len(row.ids) for row in rows), default=0)
    if model.positions is None and isinstance(trained, int) and longest > trained:
        model.notes.add_once(
            f"some rows are longer than the {trained} tokens that the base was trained for "
            "(max_position_embeddings); what it says of them may be worse"
        )
