"""A model that still computes but is ruined."""

from __future__ import annotations

import numpy as np
import pandas as pd

from knowundo.evaluation.collapse import collapsed, repeats_itself


def table(said: list[str | None], nll: float, scope: str = "retention") -> pd.DataFrame:
    rows = {"scope": scope, "split": "val", "subset": None, "said": said, "mean_nll": nll}
    return pd.DataFrame(rows, index=range(len(said)))


def test_collapse_is_named_in_plain_words() -> None:
    good, broken = "the house stands by the old river", "the the the the the the house"
    assert not repeats_itself(good)
    assert repeats_itself(broken)
    assert repeats_itself("ааааааааа")
    assert not repeats_itself("no no no")
    before = table([good] * 4, 1.0)
    assert collapsed(table([good] * 4, 1.1), before) is None
    said = collapsed(table([broken] * 3 + [good], 1.1), before)
    assert said == "75% of its answers outside the unlearn scope repeat one word"
    assert collapsed(table([broken] * 4, 1.1, scope="unlearn"), before) is None
    ruined = collapsed(table([good] * 4, 1.0 + np.log(11)), before)
    assert ruined is not None
    assert "perplexity" in ruined
    assert collapsed(table([good] * 4, 9.0), None) is None
