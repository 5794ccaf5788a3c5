"""The recipe that an output directory holds."""

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


def read_recipe_file(file: Path) -> dict[str, Any]:
    """The recipe that a run's directory holds."""
    held = parse_yaml(read_text(file), str(file))
    if not isinstance(held, dict) or not {"given", "effective"} <= set(held):
        raise BadInput(f"{file}: not a run's recipe; choose another directory with --out")
    return held


def amended_recipe(held: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A held recipe with the keys that may change later: a given region, and further models.

    What is made of them is known by its inputs, so nothing old is taken for it.
    """
    amended = dict(held)
    for section, key in (("localize", "adopt"), ("evaluate", "models")):
        if isinstance(held.get(section), dict):
            amended[section] = held[section] | {key: wanted[section][key]}
    return amended
