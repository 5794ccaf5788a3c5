"""The files of a public benchmark, from the hub's cache or a folder in its authors' layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowundo.data.hub_files import Found, from_hub, read_parquet_table, read_rows
from knowundo.data.lists.row import kind_of, string_of
from knowundo.errors import BadInput


@dataclass(frozen=True)
class TableRow:
    """A row of a table, and its place there for messages: file and number, counted from 1."""

    place: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A text that must be there.

        Raises:
            BadInput: It is missing, empty, no text, or one that no record may contain.
        """
        said = string_of(self.values.get(key), f"'{key}'", self.place)
        if not said.strip():
            raise BadInput(f"{self.place}: '{key}' is missing or empty; fill it in")
        return said

    def maybe(self, key: str) -> str | None:
        """A text, or `None` where it is missing or empty.

        Raises:
            BadInput: It is no text, or one that no record may contain.
        """
        said = string_of(self.values.get(key), f"'{key}'", self.place)
        return said if said.strip() else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts that must be there.

        Raises:
            BadInput: It is missing, no list, or one of them is empty or no text.
        """
        values = self.values.get(key)
        if not isinstance(values, list) or not values:
            raise BadInput(f'{self.place}: \'{key}\' is not a list of texts; write ["…", "…"]')
        told = tuple(string_of(value, f"a text of '{key}'", self.place) for value in values)
        if not all(one.strip() for one in told):
            raise BadInput(f"{self.place}: a text of '{key}' is empty; fill it in")
        return told

    def choices(self) -> tuple[tuple[str, ...], int]:
        """Options and the index of the right one, as MMLU and WMDP have them.

        Raises:
            BadInput: There are no options, or the answer is not the number of one of them.
        """
        options, right = self.texts("choices"), self.values.get("answer")
        if type(right) is not int or not 0 <= right < len(options):
            raise BadInput(
                f"{self.place}: 'answer' is not a number from 0 to {len(options) - 1}; it counts "
                "the 'choices' from 0"
            )
        return options, right


@dataclass(frozen=True)
class BenchmarkFiles:
    """A folder of tables.

    Attributes:
        folder: Where the tables are.
        commits: The hub's commit by repository, if the folder is from there.
    """

    folder: Path
    commits: dict[str, str] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        source: str | None,
        repository: str,
        *,
        revision: str | None,
        patterns: Sequence[str],
        inner: Sequence[str] = (),
    ) -> BenchmarkFiles:
        """The folder that was named, or the hub's cache.

        Args:
            source: A folder. If `None`, the hub.
            repository: Name on the hub.
            revision: Commit on the hub. If `None`, the newest.
            patterns: Files that are needed from the hub.
            inner: Folders that may hold the tables below the one that was named.

        Raises:
            BadInput: There is no such folder, or the hub gives none.
        """
        if source is None:
            return cls(*from_hub(repository, revision=revision, patterns=patterns))
        if not Path(source).is_dir():
            raise BadInput(f"data.source '{source}': no such folder; check the path")
        folders = (Path(source) / name for name in inner)
        return cls(next((one for one in folders if one.is_dir()), Path(source)))

    def rows(self, *stems: str, text: str | None = None) -> list[TableRow]:
        """Rows of the first of these tables that is there.

        Args:
            stems: Names without ending; they may have folders.
            text: The key that a row that is only a text gets. If `None`, there may be none such.

        Raises:
            BadInput: None of them is there, or it is malformed or empty.
        """
        if (found := self._found(stems)) is None:
            names = " or ".join(stems)
            raise BadInput(
                f"{self.folder}: has no table {names} (.json, .jsonl, .parquet, or a folder that "
                "save_to_disk wrote); check data.source, or download it again"
            )
        rows = _table_rows(found, text)
        if not rows:
            raise BadInput(f"{found.place}: no rows; download it again")
        return rows

    def maybe(self, *stems: str, text: str | None = None) -> list[TableRow]:
        """As `rows`, but no row where there is no such table."""
        return [] if self._found(stems) is None else self.rows(*stems, text=text)

    @staticmethod
    def check_subjects(subjects: int | None) -> None:
        """Refuse a number of subjects that is less than 1.

        Raises:
            BadInput: It is.
        """
        if subjects is not None and subjects < 1:
            raise BadInput(f"data.subjects: {subjects} is less than 1; choose a larger number")

    def _found(self, stems: Sequence[str]) -> Found | None:
        # A repository may still hold JSON of an earlier version beside the Parquet that its card
        # names, as MUSE-News does.
        for stem in (self.folder / one for one in stems):
            found = read_parquet_table(stem) if self.commits else None
            if (found := found or read_rows(stem, lines=True)) is not None:
                return found
        return None


def _table_rows(found: Found, text: str | None) -> list[TableRow]:
    rows = []
    for number, values in enumerate(found.rows, start=1):
        place = f"{found.place}, row {number}"
        if text is not None and isinstance(values, str):
            values = {text: values}
        if not isinstance(values, dict):
            raise BadInput(f"{place}: {kind_of(values)}, not an object; download the file again")
        rows.append(TableRow(place, values))
    return rows
