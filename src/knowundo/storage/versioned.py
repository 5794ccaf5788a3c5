"""JSON files that say which version of their schema they have."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from knowundo.errors import BadInput
from knowundo.storage.files import read_json


class Versioned(BaseModel):
    """A JSON file that says which version of its schema it has."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    schema_version: int
    """Version of the schema; files of another version are refused."""


File = TypeVar("File", bound=Versioned)


def read_versioned(path: Path, schema: type[File], version: int, fix: str) -> File:
    """Read and check a JSON file that says which version of its schema it has.

    Args:
        path: The file.
        schema: What it must be.
        version: The only version that is read.
        fix: What the user can do if it is not; ends the message.

    Raises:
        BadInput: Missing, malformed, or of another version; names the field.
    """
    try:
        found = schema.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {where}: {first['msg']}; {fix}") from None
    if found.schema_version != version:
        raise BadInput(
            f"{path}: schema {found.schema_version}, this version reads {version}; {fix}"
        )
    return found
