"""What a terminal is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knowundo.errors import KnowUndoError, plain
from strategies import QUICK


@QUICK
@given(st.text())
def test_what_a_terminal_is_told_is_one_line(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)
    plain(text).encode("utf-8")  # even halves of characters can be printed
    assert len(str(KnowUndoError(text * 50))) < 2000
