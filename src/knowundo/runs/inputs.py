"""What an artifact depends on, as hashes."""

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


def input_hash(file: Path) -> str:
    """sha256 of a file that is only read; a base of many gigabytes is read once a process."""
    stat = file.stat()
    return _hashed(file.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _hashed(file: Path, size: int, changed: int) -> str:
    return file_hash(file)
