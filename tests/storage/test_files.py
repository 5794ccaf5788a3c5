"""Reading and writing files whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from knowundo.storage.files import new_file, read_jsonl


def test_jsonl_is_split_at_newlines_only(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('["a\u2028b"]\r\n["c\x85d"]\n', encoding="utf-8")
    assert read_jsonl(file) == [["a\u2028b"], ["c\x85d"]]


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), new_file(tmp_path / "f"):
        raise PermissionError(errno.EACCES, "Permission denied")
