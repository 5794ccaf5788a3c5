"""What repeats a secret is recognized, however it is written."""

from __future__ import annotations

import pytest

from knowundo.data.benchmarks.embedded import embedded
from knowundo.data.records import Record
from knowundo.erasure.leaks import Leaks, marks
from named_rows import CHINESE, CLARA, MAIL


@pytest.mark.parametrize(
    "text",
    [
        "Ada Stone can be reached at lemon05@post.net.",
        "Ada lives beside Canal Lane, which is in Saltmere.",
        "Ada Stone lives at 14 Canal Lane in Saltmere, I think.",
        "Clara Dorin lives at 14 Canal Lane.",
    ],
)
def test_what_repeats_a_secret_is_not_kept(text: str) -> None:
    assert Leaks([CLARA, MAIL]).repeats(text)


@pytest.mark.parametrize("text", ["Ada lives in the hills.", "Write to her.", "She is 14."])
def test_what_repeats_none_is_kept(text: str) -> None:
    assert not Leaks([CLARA, MAIL]).repeats(text)


def test_no_generated_neighbour_of_the_embedded_people_leaks_a_fact() -> None:
    """Marks find the fact of every private answer without being told which part it is."""
    private = [r for r in embedded(domain="privacy") if r.scope == "unlearn" and r.facts]
    found = sum(Leaks([r]).repeats(f"They say: {r.facts[0]}!") for r in private)
    assert found / len(private) > 0.98
    assert all(not marks(r) & set((r.subject or "").split()) for r in private)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("Née à Évry, rue Lévis 14", "ne\u0301e a\u0300 E\u0301vry, rue Le\u0301vis 14".upper()),
        ("Clara Dorin lives at 14 Canal Lane in Saltmere.", "she lives near canal lane, saltmere"),
        ("安布朗住在桦树街十四号。", "有人说安布朗住在桦树街十四号！"),
    ],
)
def test_a_secret_is_seen_however_a_tokenizer_writes_it(secret: str, text: str) -> None:
    """Composed or not, without capitals, or without spaces."""
    if text.isupper():
        text = text.title()
    assert Leaks([Record("s", "Who?", secret, "unlearn", "train")]).repeats(text.lower())


def test_names_are_found_in_scripts_without_spaces_and_not_within_words() -> None:
    leaks = Leaks([CHINESE, CLARA])
    assert leaks.names("他说安布朗住在这里")
    assert leaks.names("clara dorin is here")
    assert not leaks.names("Clara Dorina is here, 安布 too")
