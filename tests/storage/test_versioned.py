"""Files that say which version of their schema they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.storage.files import write_json
from knowundo.storage.versioned import Versioned, read_versioned


class Counted(Versioned):
    """A file with one number."""

    count: int
    """The number."""


def test_a_file_of_this_version_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "counted.json", {"schema_version": 2, "count": 5})
    assert read_versioned(tmp_path / "counted.json", Counted, 2, "count again").count == 5


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"schema_version": 1, "count": 5}, "schema 1, this version reads 2; count again"),
        ({"schema_version": 2, "count": "five"}, "count: Input should be a valid integer"),
        ({"schema_version": 2, "count": 5, "sum": 7}, "sum: Extra inputs are not permitted"),
        ({"count": 5}, "schema_version: Field required"),
    ],
)
def test_another_file_is_refused_by_its_field(
    held: dict[str, object], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "counted.json"
    write_json(file, held)
    with pytest.raises(BadInput, match=r"counted\.json") as error:
        read_versioned(file, Counted, 2, "count again")
    assert said in str(error.value)
    assert str(error.value).endswith("; count again")
