"""Is a model that still computes ruined? Gradient ascent does that by design, so it is named."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

# A model has collapsed if more than this share of its answers repeat one word, or if the text that
# any model should predict has become so many times less likely per token.
REPEATED, RUINED = 0.5, 10.0
# Words that an answer must have to be judged.
JUDGED = 6
_KEPT = ("retention", "general")


def repeats_itself(text: str) -> bool:
    """True if one word is more than half of an answer; of a text without spaces, one character."""
    words = text.split()
    parts = words if len(words) > 1 else list(text.strip())
    return len(parts) >= JUDGED and Counter(parts).most_common(1)[0][1] > len(parts) / 2


def _perplexity(table: pd.DataFrame) -> float | None:
    """Of general val rows, plain text where there is some; of retention where there are none."""
    kept = table[table["split"] == "val"]
    for rows in (
        kept[(kept["scope"] == "general") & (kept["subset"] == "text")],
        kept[kept["scope"] == "general"],
        kept[kept["scope"] == "retention"],
    ):
        if len(rows):
            return float(np.exp(min(rows["mean_nll"].mean(), 700.0)))
    return None


def collapsed(table: pd.DataFrame, before: pd.DataFrame | None) -> str | None:
    """Why a model is to be called collapsed, in plain words; None if it is not.

    What it says of the unlearn scope does not count: there it shall not make sense.

    Args:
        table: rows of `score_adapters`.
        before: the same of the model that it was made from. If `None`, its text is not compared.
    """
    said = table[table["scope"].isin(_KEPT)]["said"].dropna()
    share = float(said.map(repeats_itself).mean()) if len(said) else 0.0
    if share > REPEATED:
        return f"{share:.0%} of its answers outside the unlearn scope repeat one word"
    lost = float(table[table["scope"].isin(_KEPT)]["mean_nll"].isna().mean())
    if lost > 0:
        return f"it gives {lost:.0%} of what should stay no finite probability"
    first = None if before is None else _perplexity(before)
    now = _perplexity(table)
    if first is not None and now is not None and now > RUINED * first:
        return f"the perplexity of what should stay went from {first:.3g} to {now:.3g}"
    return None
