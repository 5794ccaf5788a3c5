"""Notes are told once, and taken for the manifest once."""

from __future__ import annotations

from knowundo.modeling.notes import Notes


def test_notes_are_told_once_and_taken_once() -> None:
    notes, said = Notes(), list[str]()
    notes.add("a")
    notes.tell(said.append)
    notes.add_once("b")
    notes.add_once("b")
    notes.tell(said.append)
    assert said == ["a", "b"]
    assert notes.take() == ["a", "b"]
    notes.add_once("b")  # was noted already
    assert notes.texts == ()
    notes.add("c")
    notes.tell(said.append)
    assert said == ["a", "b", "c"]
