"""What holds for every input that hypothesis can think of."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record, redacted
from knowundo.errors import BadInput, KnowUndoError, plain
from knowundo.recipes.reading import amend, parse_recipe
from knowundo.storage.checkpoints import Checkpoint, State, packed, unpacked

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    ["question", "answer", "prompt", "completion", "messages", "text", "labels", "id", "split",
     "subject", "facts", "turns", "role", "content", "x"]
)  # fmt: skip


def outcome(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """What was read, or what was said; any other exception is the test's failure."""
    try:
        return read(), None
    except BadInput as error:
        return None, str(error)


@QUICK
@given(st.text())
def test_what_a_terminal_is_told_is_one_line(text: str) -> None:
    assert "\n" not in plain(text)
    assert plain(plain(text)) == plain(text)
    plain(text).encode("utf-8")  # even halves of characters can be printed
    assert len(str(KnowUndoError(text * 50))) < 2000


@QUICK
@given(st.text())
def test_redacted_says_length_and_nothing_else(text: str) -> None:
    shown = redacted(text)
    assert shown.endswith(f"({len(text)} characters)")
    assert redacted(text) == shown
    assert len(shown) < 60


@QUICK
@given(st.lists(st.dictionaries(keys, values, max_size=5), max_size=5))
def test_rows_of_any_shape_are_records_or_one_line(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        found, said = outcome(lambda: read_list(file, scope="unlearn", split="train"))
    if said is not None:
        assert "rows.jsonl" in said
        assert "\n" not in said
    else:
        assert len(found) == len(rows)
        assert all(isinstance(record, Record) and record.answer for record in found)


@QUICK
@given(st.dictionaries(st.sampled_from(["seed", "data", "model", "unlearn", "name"]), values))
def test_recipes_of_any_shape_are_taken_or_one_line(tree: dict[str, Any]) -> None:
    recipe, said = outcome(lambda: parse_recipe(amend(tree, []), "r.yaml"))
    assert recipe is not None or str(said).startswith("r.yaml")


@QUICK
@given(values, st.lists(st.floats(width=32, allow_nan=False), max_size=9))
def test_a_checkpoint_gives_back_what_was_written(facts: Any, numbers: list[float]) -> None:
    state = State({"any": facts}, {"numbers": torch.tensor(numbers)})
    with tempfile.TemporaryDirectory() as folder:
        whole = packed([state, State({"step": 1})])
        Checkpoint(Path(folder) / "c", [1]).write(whole.facts, whole.tensors)
        held = Checkpoint(Path(folder) / "c", [1]).read()
    assert held is not None
    first, second = unpacked(held)
    assert first.facts == state.facts
    assert torch.equal(first.tensors["numbers"], state.tensors["numbers"])
    assert second.facts == {"step": 1}
