"""What travels names no folders."""

from __future__ import annotations

import pytest

from knowundo.exports.short_paths import command_without_folders


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            "knowundo erase --model '/a b/m' --unlearn rows.jsonl --set model.base=/x/y --out r",
            "knowundo erase --model '…/m' --unlearn rows.jsonl --set 'model.base=…/y' --out r",
        ),
        (
            """erase(model, tokenizer, val="/a b/it's", out='/x/r', sets=['a=/x/y', 'b=1'])""",
            """erase(model, tokenizer, val="…/it's", out='…/r', sets=['a=…/y', 'b=1'])""",
        ),
    ],
)
def test_a_command_is_shown_without_folders(command: str, shown: str) -> None:
    assert command_without_folders(command) == shown
