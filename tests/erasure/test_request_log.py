"""The log of requests names the rows of earlier ones, wherever their runs were moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from knowundo.erasure.request_log import (
    LOG_FILE,
    LoggedRequest,
    RequestLog,
    earlier_rows,
    read_log,
    weight_hashes,
    write_log,
)
from knowundo.errors import BadInput
from knowundo.storage.files import file_hash


def logged(number: int, run: Path, rows: list[dict[str, str]]) -> LoggedRequest:
    """A request whose run holds its rows."""
    (run / "lists").mkdir(parents=True)
    file = run / "lists" / "unlearn.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return LoggedRequest(
        number=number, date="2026-01-02T03:04:05+00:00", list_sha256=file_hash(file), rows=1,
        run=str(run), model="m", weights_sha256={}, exact_before=100.0, exact_after=0.0,
        reworded_after=0.0, predicted_after=20.0,
    )  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> RequestLog:
    """Two requests of one trained row each; the second has a val row, too."""
    rows = [
        {"id": "a", "question": "Who is Ada?", "answer": "A poet.", "split": "train"},
        {"id": "b", "question": "Is Ada a poet?", "answer": "Yes, she is.", "split": "val"},
    ]
    first = logged(1, tmp_path / "one", rows[:1])
    return RequestLog(requests=[first, logged(2, tmp_path / "two", rows)])


def test_a_log_is_read_as_it_was_written(log: RequestLog, tmp_path: Path) -> None:
    assert read_log(tmp_path / "nowhere") == RequestLog()
    write_log(log, tmp_path)
    assert read_log(tmp_path) == log
    (tmp_path / LOG_FILE).write_text("{}{}")
    with pytest.raises(BadInput, match="malformed JSON"):
        read_log(tmp_path)


def test_trained_rows_of_all_requests_are_asked_again(log: RequestLog) -> None:
    found, missing = earlier_rows(log, [])
    assert [(r.id, r.split, r.subset) for r in found] == [
        ("request-1/a", "probe", "request-1"),
        ("request-2/a", "probe", "request-2"),
    ]
    assert missing == []


def test_a_moved_run_is_found_and_a_changed_one_is_named(log: RequestLog, tmp_path: Path) -> None:
    shutil.move(tmp_path / "one", tmp_path / "moved")
    found, missing = earlier_rows(log, [])
    assert [r.subset for r in found] == ["request-2"]
    assert missing == [
        "request 1 of 2026-01-02 cannot be checked again: its rows are not in "
        f"{tmp_path / 'one'}; name its directory with --earlier"
    ]
    assert len(earlier_rows(log, [tmp_path / "moved"])[0]) == 2
    with (tmp_path / "moved" / "lists" / "unlearn.jsonl").open("a") as file:
        file.write("\n")
    assert len(earlier_rows(log, [tmp_path / "moved"])[1]) == 1


def test_hashes_are_of_weights_only(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "config.json"):
        (tmp_path / name).write_text(name)
    assert list(weight_hashes(tmp_path)) == ["a.safetensors", "b.safetensors"]
