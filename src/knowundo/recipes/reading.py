"""Recipes: what a run does, as YAML checked by pydantic. A preset is a recipe, or a part of one.

data:     {benchmark: embedded, domain: privacy}
model:    {base: embedded}
memorize: {epochs: 10, lr: 1e-4}
localize: {localizers: {memflex: {mu: 0.96, sigma: 4e-4}}}
unlearn:
  lr: 5e-5
  variants:
    - {preset: memflex}
    - {method: gradient_ascent, lr: 1e-5, region: memflex, name: located-ascent}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from knowundo.errors import BadInput, unknown
from knowundo.recipes.presets import read_preset
from knowundo.recipes.schema import Recipe
from knowundo.recipes.values import NAME, ROLES
from knowundo.recipes.yaml import parse_yaml
from knowundo.storage.artifacts import KEPT_NAME
from knowundo.storage.files import read_text

# Keys whose values `--set` takes as they are written, but for "\\n", which is a line end.
_TEXTS = ("data.template", "data.system")


def _read_given(config: str | None) -> dict[str, Any]:
    if config is None:
        return {}
    path = Path(config)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or "/" in config:
            raise BadInput(f"{config}: no such file; check the path")
        return _extended(read_preset("recipes", config))
    given = parse_yaml(read_text(path), config)
    if not isinstance(given, dict):
        raise BadInput(f"{config}: a recipe is a mapping with keys such as data and unlearn")
    return _extended(given)


def _extended(given: dict[str, Any]) -> dict[str, Any]:
    """A recipe over the preset that it extends, which may extend another."""
    if (parent := given.pop("extends", None)) is None:
        return given
    return _merge(_extended(read_preset("recipes", str(parent))), given)


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _assignment(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise BadInput(f"--set {text}: expected key=value, such as unlearn.lr=1e-4")
    tree: Any = _text(value) if path in _TEXTS else None
    if tree is None:
        tree = parse_yaml(value, f"--set {text}")
    for key in reversed(path.split(".")):
        tree = {key: tree}
    return dict(tree)


def _text(value: str) -> str | None:
    """A text given on the command line; `None` if YAML is to read it, as it is quoted or null.

    To YAML the braces of a template are a mapping, and "### Question" is a comment.
    """
    if value.strip() in ("", "null", "~") or value.lstrip()[:1] in ("'", '"'):
        return None
    return value.replace("\\n", "\n")


def load_recipe(
    config: str | None = None, sets: Sequence[str] = ()
) -> tuple[Recipe, dict[str, Any]]:
    """Read and check a recipe.

    Args:
        config: a YAML file (it may name a preset under `extends`), or the name of a preset.
        sets: assignments such as `unlearn.lr=1e-4`, applied in order.

    Returns:
        The recipe, and the keys as they were given.

    Raises:
        BadInput: names the key and how to fix it.
    """
    given = amend(_read_given(config), sets)
    return parse_recipe(given, config or "--set"), given


def amend(given: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Keys with assignments such as `unlearn.lr=1e-4` on top, applied in order."""
    for text in sets:
        given = _merge(given, _assignment(text))
    return given


def differing_keys(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key in which two recipes differ, with both values."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        if first != second:
            yield path, first, second
        return
    for key in dict.fromkeys([*first, *second]):
        where = f"{path}.{key}" if path else str(key)
        yield from differing_keys(first.get(key), second.get(key), where)


def parse_recipe(given: dict[str, Any], place: str) -> Recipe:
    """Check keys and values; `place` stands in the error."""
    try:
        recipe = Recipe.model_validate(given)
    except ValidationError as error:
        raise _explain(error, place) from None
    for key, value in _numbers(given):
        if not math.isfinite(value):
            raise BadInput(f"{place}: {key}: {value} is no finite number; correct this value")
    names = [variant.name for variant in recipe.unlearn.variants]
    for name in names:
        if not NAME.fullmatch(name):
            raise BadInput(f"{place}: unlearn: '{name}' cannot be a folder's name; rename it")
        if name in ROLES:
            raise BadInput(
                f"{place}: unlearn: '{name}' is the name of a model of every run; rename"
            )
        if KEPT_NAME.fullmatch(name):
            raise BadInput(
                f"{place}: unlearn: '{name}' is what a step that is kept is named; rename the "
                "variant"
            )
        if names.count(name) > 1:
            raise BadInput(f"{place}: unlearn: two variants are named '{name}'; name one otherwise")
    return recipe


def _numbers(tree: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every float in a tree of values, with its key."""
    if isinstance(tree, float):
        yield path.lstrip("."), tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _numbers(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from _numbers(value, f"{path}.{number}")


def _section(annotation: Any) -> Any:
    """The section that a key holds, which may be optional, or one of several in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _section(one))), None)


def _explain(error: ValidationError, place: str) -> BadInput:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in where[:-1]:
            if part in section.model_fields:  # else the place in a list, whose section is known
                section = _section(section.model_fields[part].annotation)
        known = [".".join([*where[:-1], name]) for name in section.model_fields]
        return BadInput(f"{place}: {unknown('key', '.'.join(where), known)}")
    message = first["msg"].removeprefix("Value error, ")
    return BadInput(f"{place}: {'.'.join(where)}: {message}; correct this value")
