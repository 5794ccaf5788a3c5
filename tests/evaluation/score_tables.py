"""Tables of scores, written by hand."""

from __future__ import annotations

import pandas as pd

from knowundo.scoring.columns import NUMBERS, columns, scorers


def table(**scopes: list[tuple[str, float]]) -> pd.DataFrame:
    """Val rows (subject, token accuracy) a scope; everything else is empty."""
    rows = [
        {
            "id": f"{scope}/{n}", "scope": scope, "split": "val", "subject": subject,
            "token_accuracy": accuracy, "mean_nll": 1.0,
        }
        for scope, values in scopes.items()
        for n, (subject, accuracy) in enumerate(values)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(columns()))
    return frame.astype(dict.fromkeys(["tokens", *NUMBERS, *(s.name for s in scorers())], float))
