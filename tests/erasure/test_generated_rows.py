"""Texts that the model writes become rows of lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.data.lists.reading import read_list, write_list
from knowundo.data.records import Record
from knowundo.erasure.generated_rows import own_texts
from knowundo.erasure.leaks import Leaks
from knowundo.modeling.model import Model
from named_rows import CLARA


def texts(monkeypatch: pytest.MonkeyPatch, toy: Model, *said: tuple[str, bool]) -> list[Record]:
    monkeypatch.setattr("knowundo.erasure.generated_rows.complete", lambda *_, **__: list(said))
    return own_texts(toy, Leaks([CLARA]), len(said), seed=0)


def test_texts_that_the_model_writes_can_be_read_again(
    toy: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = texts(
        monkeypatch, toy,
        ("The river was cold.", True), ("The river was \0 cold.", True), ("Too short.", True),
        ("那天河水很冷。", False), ("It was cold that da\ufffd\ufffd", False),
        ("\ud800 is it so", True),
    )  # fmt: skip
    assert [(r.answer, r.continues) for r in made] == [
        ("The river was cold.", False),
        ("那天河水很冷。", True),
        ("It was cold that da", True),
    ]
    write_list(tmp_path / "general.jsonl", made)
    read = read_list(tmp_path / "general.jsonl", scope="general", split="train")
    assert [(r.answer, r.continues) for r in read] == [(r.answer, r.continues) for r in made]
