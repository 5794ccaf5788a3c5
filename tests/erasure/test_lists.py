"""Lists are made of rows that fit and that the verdict can judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode, fitting
from knowundo.data.neighbours import unknowable
from knowundo.data.records import Record
from knowundo.erasure.checks import STRANGERS, guessed
from knowundo.erasure.generated_rows import make_retention
from knowundo.erasure.given import GivenLists
from knowundo.erasure.lists import ListMaker
from knowundo.errors import BadInput, TooLong
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.reading import load_recipe
from named_rows import CLARA, MAIL


def test_made_rows_that_are_too_long_are_left_out(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some names have more tokens than the bound leaves, and other wordings more than any name."""
    row = replace(CLARA, question="Does Clara Dorin sing?", answer="Yes")
    made = unknowable([row] * 30, [row], 0)
    lengths = [len(one.ids) for one in encode(made, toy.tokenizer)]
    longest = (min(lengths) + max(lengths)) // 2

    def tight(records: Sequence[Record]) -> list[Encoded]:
        return encode(records, toy.tokenizer, max_length=longest)

    with pytest.raises(TooLong, match="more than max_length"):
        tight(made)
    fit = fitting(made, tight)
    wanted = [r for r, length in zip(made, lengths, strict=True) if length <= longest]
    assert [r.record for r in fit] == wanted
    assert 0 < len(fit) < len(made)
    rows = make_retention(toy, [row], [row], tight, seed=0)
    assert [r.record for r in tight(rows)] == rows
    asked: list[int] = []

    def forced(model: Model, encoded: list[Encoded]) -> dict[str, dict[str, float]]:
        asked.append(len(encoded))
        return {r.record.id: {"token_accuracy": 1.0} for r in encoded}

    monkeypatch.setattr("knowundo.erasure.checks.teacher_forced", forced)
    assert guessed(toy, [row], tight, seed=0) == ["1"]
    assert 0 < asked[0] < STRANGERS
    assert guessed(toy, [row], lambda rows: encode(rows, toy.tokenizer, max_length=8), seed=0) == []
    assert len(asked) == 1
    length = len(encode([row], toy.tokenizer)[0].ids)
    maker = ListMaker(load_recipe("demo", [f"data.max_length={length}"])[0], toy, Reporter(), [])
    with pytest.raises(BadInput, match="--val: no row of the list can be asked in other words"):
        maker._reworded([row], ())


def test_the_file_of_other_questions_is_guarded_too(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Val rows that can be guessed could never pass the verdict either."""
    maker = ListMaker(load_recipe("demo", [])[0], toy, Reporter(), [])
    stay = replace(
        CLARA, id="s", question="Who is Ivo Lund?", answer="A baker.", subject="Ivo Lund"
    )
    val = [replace(MAIL, id="v", question="Does Clara Dorin sing?", answer="Yes")]
    general = [replace(stay, id=f"g{n}", scope="general", kind="text") for n in range(2)]
    given = GivenLists([CLARA], val, [replace(stay, scope="retention")], general)
    monkeypatch.setattr(ListMaker, "encode", lambda _, rows: encode(rows, toy.tokenizer))
    monkeypatch.setattr(ListMaker, "_level", lambda *_: 0.0)
    monkeypatch.setattr(
        "knowundo.erasure.lists.ask_model", lambda check, *_: check.verbatim.append("1")
    )
    monkeypatch.setattr(
        "knowundo.erasure.lists.guessed",
        lambda _, rows, *__, **___: [r.id for r in rows if r in val],
    )
    with pytest.raises(BadInput, match=r"^other\.csv: the answers of v can be guessed"):
        maker.lists(given, "list.csv", "other.csv")


def test_a_model_that_writes_no_texts_is_said_and_taken(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the perplexity of ordinary text is not measured; everything else is."""
    monkeypatch.setattr(
        "knowundo.erasure.generated_rows.complete", lambda *_, **__: [("", True)] * 3
    )
    said: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "say", said.append)
    maker = ListMaker(load_recipe("demo", [])[0], toy, reporter, [])
    assert maker._texts([CLARA]) == []
    assert [line.endswith("--general names a file of texts") for line in said] == [True]
