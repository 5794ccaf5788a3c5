"""What the files of the package declare, read without importing them or torch."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from knowundo.entry import keyword_defaults
from knowundo.region_rule import RULE_DEFAULTS
from knowundo.registry import (
    DECORATORS,
    ENTRIES,
    HOMES,
    entries,
    own_files,
    plugin_folders,
)


@dataclass(frozen=True)
class Paper:
    """A paper that a docstring cites.

    Attributes:
        paper: Authors and year, as "Zhang et al. 2024".
        arxiv: Its arXiv id.
    """

    paper: str
    arxiv: str


# "Zhang et al. 2024, arXiv:2404.05868"; a name may follow the year in brackets.
CITATION = re.compile(
    r"([A-Z][\w’-]+(?: et al\.| and [A-Z][\w’-]+)? \d{4})(?: \([^)]*\))?, arXiv:(\d{4}\.\d{4,5})"
)


def cited(documentation: str | None) -> tuple[Paper, ...]:
    """Papers of a docstring, in its order: "Zhang et al. 2024, arXiv:2404.05868"."""
    found = CITATION.findall(" ".join((documentation or "").split()))
    return tuple(dict.fromkeys(Paper(*one) for one in found))


@dataclass(frozen=True)
class Declared:
    """What the author of an entry declared, without the function itself."""

    name: str
    arguments: dict[str, Any]
    """Hyper-parameters and their defaults; "required" where there is none."""
    summary: str
    facts: dict[str, Any]
    papers: tuple[Paper, ...] = ()
    """Papers that the docstring cites."""


def declared(kind: str) -> list[Declared]:
    """What is declared of every entry of a kind, sorted by name; torch is not imported for it."""
    if not _others(kind):
        try:
            return read_own(kind)
        except ValueError:
            pass  # A value that only running its file tells.
    return [
        Declared(
            entry.name,
            shown_defaults(entry.arguments),
            entry.summary,
            entry.facts,
            cited(entry.function.__doc__),
        )
        for entry in entries(kind).values()
    ]


def _others(kind: str) -> bool:
    """Whether there may be entries that are not the package's own.

    Those can be made in any way that Python knows, in a loop or by a library, and can replace the
    package's own of the same name: only importing tells. The package's own files are read, and
    tests hold what is read to what importing gives.
    """
    home = f"{HOMES[kind]}."
    return (
        bool(plugin_folders(os.environ.get("KNOWUNDO_PLUGINS", "")))
        or any(not e.function.__module__.startswith(home) for e in ENTRIES[kind].values())
        or bool(entry_points(group=f"knowundo.{kind}"))
    )


def read_own(kind: str) -> list[Declared]:
    """What the package's own files declare, without running them.

    Raises:
        ValueError: a value is neither a literal nor the name of one in the same file.
    """
    found = {}
    for file in own_files(kind):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            for decorator in function.decorator_list:
                call = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
                if isinstance(call.func, ast.Name) and call.func.id == kind:
                    found[function.name] = _read_one(kind, function, call.keywords, constants)
    return [found[name] for name in sorted(found)]


def _read_one(
    kind: str,
    function: ast.FunctionDef,
    keywords: list[ast.keyword],
    constants: Mapping[str, ast.expr],
) -> Declared:
    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            node = constants.get(node.id, node)
        return ast.literal_eval(node)

    facts = keyword_defaults(DECORATORS[kind])
    for keyword in keywords:
        if keyword.arg is None:
            raise ValueError("facts under ** have names that are not written here")
        facts[keyword.arg] = value(keyword.value)
    arguments = {
        argument.arg: inspect.Parameter.empty if default is None else value(default)
        for argument, default in zip(
            function.args.kwonlyargs, function.args.kw_defaults, strict=True
        )
    }
    arguments |= RULE_DEFAULTS if facts.get("needs") else {}
    documentation = ast.get_docstring(function) or ""
    summary = documentation.split("\n")[0]
    return Declared(function.name, shown_defaults(arguments), summary, facts, cited(documentation))


def shown_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of arguments; "required" for one that has none."""
    return {
        name: "required" if default is inspect.Parameter.empty else default
        for name, default in arguments.items()
    }
