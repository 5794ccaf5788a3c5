"""Passages of a long text: bounded, cut at the best place, and nothing lost but white space."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knowundo.data.passages import first_passage, passages
from strategies import QUICK


def test_best_places_first() -> None:
    assert passages("One two. Three.\n\nFour five six", 20) == ["One two. Three.", "Four five six"]
    assert passages("One two three. Four five", 18) == ["One two three.", "Four five"]
    assert passages("onetwothree four", 12) == ["onetwothree", "four"]
    assert passages("abcdefgh", 3) == ["abc", "def", "gh"]
    assert passages("  \n") == []


def test_first_passage_says_whether_more_follows() -> None:
    assert first_passage("One. Two three four.", 8) == ("One. Two", True)
    assert first_passage(" One. \n", 8) == ("One.", False)


@QUICK
@given(st.text(alphabet="ab. \n", max_size=40), st.integers(1, 20))
def test_nothing_is_lost(text: str, longest: int) -> None:
    parts = passages(text, longest)
    assert all(0 < len(part) <= longest and part == part.strip() for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    if parts:
        assert first_passage(text, longest)[0] == parts[0]
