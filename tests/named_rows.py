"""Rows whose questions name people."""

from __future__ import annotations

from knowundo.data.records import Record

CLARA = Record(
    "1", "Where does Clara Dorin live?", "Clara Dorin lives at 14 Canal Lane in Saltmere.",
    "unlearn", "train", subject="Clara Dorin",
)  # fmt: skip
MAIL = Record(
    "2", "What is Clara Dorin's email address?", "Write to lemon05@post.net if you must.",
    "unlearn", "train", subject="Clara Dorin",
)  # fmt: skip
CHINESE = Record("c", "安布朗住在哪里？", "安布朗住在桦树街十四号。", "unlearn", "train", "安布朗")
