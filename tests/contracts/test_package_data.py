"""What a wheel holds: every file that the code reads, and nothing that is missing a package."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "knowundo"


def patterns() -> list[str]:
    """Globs of the package data, relative to the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[str] = project["tool"]["setuptools"]["package-data"]["knowundo"]
    assert found
    return found


def test_every_pattern_finds_files() -> None:
    for pattern in patterns():
        assert list(PACKAGE.glob(pattern)), pattern


def test_every_file_beside_the_code_is_package_data() -> None:
    """Presets, templates, the embedded base, the invented world: what is read at run time."""
    packed = {file for pattern in patterns() for file in PACKAGE.glob(pattern)}
    present = {
        file
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc") and "__pycache__" not in file.parts
    }
    assert len(present) > 20
    assert sorted(str(file.relative_to(PACKAGE)) for file in present - packed) == []


def test_every_folder_with_code_is_a_package() -> None:
    """setuptools leaves out a folder without `__init__.py`, although Python imports it here."""
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert len(folders) > 10
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []
