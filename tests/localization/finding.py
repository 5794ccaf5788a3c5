"""Localization of toy rows, by MemFlex."""

from __future__ import annotations

from knowundo.data.encoded import Encoded
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.modeling.model import Model

Rows = dict[str, list[Encoded]]


def find(model: Model, rows: Rows, **settings: object) -> dict[str, object]:
    options = {"copies": 1, "batch_size": 4, "draws": 2, "seed": 0} | settings
    return localize(
        model, rows["unlearn"], rows["retention"], LocalizeSettings({"memflex": {}}, **options)
    )
