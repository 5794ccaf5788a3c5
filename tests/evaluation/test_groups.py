"""The scores of one group of records."""

from __future__ import annotations

import numpy as np
import pytest

from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.registry import get


def test_nothing_to_measure_is_no_number() -> None:
    with pytest.raises(Unmeasured):
        get("metric", "exact_match")(Scores({"exact_match": np.array([np.nan])}))
