"""Folders laid out as the hub's own cache."""

from __future__ import annotations

from pathlib import Path


def hub_cache(home: Path, repository: str, commit: str) -> Path:
    """A snapshot's folder in the hub's own cache, with `main` pointing at it."""
    root = home / "hub" / f"datasets--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder
