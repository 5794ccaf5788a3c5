"""YAML that a user wrote: one line that says what is wrong, and bounds on what it expands to."""

from __future__ import annotations

import re
from typing import Any

import yaml

from knowundo.errors import BadInput


class Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text; here it is a number."""


# Here and not where recipes are read: whoever parses YAML gets the same numbers.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, place: str) -> Any:
    """Parse YAML safely; `place` stands in the error."""
    loader = None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > _NODES:
            raise BadInput(f"{place}: its aliases stand for more than {_NODES} values; write less")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{place}{line}: malformed YAML; correct that place") from None
    except (ValueError, OverflowError, RecursionError):  # a 13th month; nested a thousand times
        raise BadInput(f"{place}: YAML beyond any bound; correct the value") from None
    finally:
        if loader is not None:
            loader.dispose()


# Values in a recipe, with every alias counted as what it stands for.
_NODES = 100_000


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for; infinitely many if it holds itself."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = 10 * _NODES  # while it is being counted
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in parts)
    return sizes[id(node)]
