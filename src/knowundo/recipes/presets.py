"""Presets: named recipes and methods that lie in the package."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from knowundo.errors import unknown
from knowundo.recipes.yaml import parse_yaml

_PRESETS = files("knowundo") / "presets"


def _folder(kind: str) -> Traversable:
    return _PRESETS / kind


def presets(kind: str) -> dict[str, str]:
    """Names of the presets of a kind (`recipes` or `methods`) and what their first lines say."""
    found = {}
    for file in sorted(_folder(kind).iterdir(), key=lambda item: item.name):
        if file.name.endswith(".yaml"):
            lines = file.read_text(encoding="utf-8").splitlines()
            comment = [line.lstrip("# ") for line in lines if line.startswith("#")]
            found[file.name.removesuffix(".yaml")] = " ".join(comment)
    return found


def read_preset(kind: str, name: str) -> dict[str, Any]:
    """A preset's keys.

    Raises:
        BadInput: there is none of that name; suggests the nearest.
    """
    if name not in (known := presets(kind)):
        raise unknown(f"preset ({kind})", name, known)
    text = (_folder(kind) / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(parse_yaml(text, name))
