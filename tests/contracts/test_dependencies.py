"""What the package imports is what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normalized(requirement: str) -> str:
    """The name of a distribution as PEP 503 writes it, without its version or extras."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def imported(*, top: bool = False) -> dict[str, set[str]]:
    """Third-party packages, each with the files that import it: anywhere, or at the top only."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body if top else ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.split(".")[0] for name in names}:
                if name != "knowundo" and name not in sys.stdlib_module_names:
                    found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


def test_every_import_is_of_a_declared_dependency() -> None:
    extras = [line for group in PROJECT["optional-dependencies"].values() for line in group]
    declared = {normalized(line) for line in [*PROJECT["dependencies"], *extras]}
    distributions, found = packages_distributions(), imported()
    assert len(found) > 15
    missing = {
        name: sorted(files)
        for name, files in found.items()
        if not declared & {normalized(one) for one in distributions.get(name, [name])}
    }
    assert missing == {}


def test_a_plain_install_imports_without_extras() -> None:
    """What is imported at the top of a module is needed by everybody."""
    needed = {normalized(line) for line in PROJECT["dependencies"]}
    distributions, found = packages_distributions(), imported(top=True)
    assert len(found) > 10
    extra = {
        name: sorted(files)
        for name, files in found.items()
        if not needed & {normalized(one) for one in distributions.get(name, [name])}
    }
    assert extra == {}
