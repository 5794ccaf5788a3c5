"""What a user should know of the work that was done with a model."""

from __future__ import annotations

from collections.abc import Callable


class Notes:
    """Sentences for the user: told when they are new, and written into the manifest of the work."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._once: set[str] = set()
        self._told = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The notes that were not taken yet, oldest first."""
        return tuple(self._texts)

    def add(self, text: str) -> None:
        """Add a note."""
        self._texts.append(text)

    def add_once(self, text: str) -> None:
        """Add what would be noted again with every use of an adapter or a row."""
        if text not in self._once:
            self._once.add(text)
            self.add(text)

    def tell(self, say: Callable[[str], None]) -> None:
        """Say the notes that were not said yet; they stay until they are taken.

        Args:
            say: Shows a line to the user.
        """
        for text in self._texts[self._told :]:
            say(text)
        self._told = len(self._texts)

    def take(self) -> list[str]:
        """Return the notes so far, which are then no longer held."""
        texts, self._texts, self._told = self._texts, [], 0
        return texts
