"""Recipes and commands with absolute paths cut: a model card travels, folders do not."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any


def without_folders(value: Any) -> Any:
    """A recipe with absolute paths cut to their last names: a card travels, they do not."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return f"…/{Path(value).name}"
    return value


class _ShortPaths(ast.NodeTransformer):
    """Cuts the absolute paths among the texts of a Python expression."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """Cut one text."""
        return ast.Constant(_short(node.value)) if isinstance(node.value, str) else node


def _short(word: str) -> str:
    """A word with an absolute path cut to its last name, also behind `key=`."""
    key, equals, value = word.partition("=")
    short = without_folders(value if equals else word)
    return f"{key}={short}" if equals else str(short)


def command_without_folders(command: str) -> str:
    """A shell command, or the Python call that a request on loaded objects has instead.

    Absolute paths are cut to their last names.
    """
    if command.startswith("knowundo "):
        return shlex.join(map(_short, shlex.split(command)))
    return ast.unparse(_ShortPaths().visit(ast.parse(command, mode="eval")))
