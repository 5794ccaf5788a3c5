"""Records encoded in the way that a recipe says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import Any
import yaml
from knowundo.modeling import regions
from knowundo.storage.files import (file_hash, fingerprint, read_text, write_text)
from knowundo.storage.artifacts import (is_done, kept_name, read_manifest, verified)
from knowundo.data.hub_files import RESOLVED
from knowundo.data.general import general_rows
from knowundo.storage.checkpoints import Checkpoint
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import (encode, prefix_text)
from knowundo.data.chat_template import writes_date
from knowundo.errors import (BadInput, unknown)
from knowundo.evaluation.lm_eval_tasks import check_tasks
from knowundo.modeling.adapters import (Adaptation, adaptation_of)
from knowundo.modeling.model import Model
from knowundo.modeling.variant import Variant
from knowundo.modeling.base import (base_files, hub_commit, own_tokenizer, same_base)
from knowundo.unlearning.original.rows import (mask_end, naive_boundary)
from knowundo.modeling.dtype import choose
from knowundo.progress import Reporter
from knowundo.recipes.schema import (ROLES, Recipe)
from knowundo.recipes.reading import (amend, differing_keys, parse_recipe)
from knowundo.recipes.yaml import parse_yaml
from knowundo.recipes.schema import Variant as Planned
from knowundo.data.records import (Record, check_records, data_hash, select)
from knowundo.registry import get
from knowundo.scoring.table import VERSION as SCORES_VERSION
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.storage.integrity import (check_seal, seal)


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
        max_length=data.max_length,
        style=data.encoding,
        prefix=before,
        truncate=data.truncate,
        positions=model.positions,
        today=date.fromisoformat(data.date),
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
        model.note_once(
            f"some rows are longer than the {trained} tokens that the base was trained for "
            "(max_position_embeddings); what it says of them may be worse"
        )
