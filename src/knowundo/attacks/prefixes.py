"""Prefixes: prompts that are meant to get an answer out of a model that refuses or hides it."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.errors import BadInput, first_line, unknown
from knowundo.registry import attack
from knowundo.storage.files import read_text

_QUESTION = "{question}"


@attack(changes="questions")
def prefixes(
    attacked: Attacked,
    *,
    file: str | None = None,
    names: Annotated[tuple[str, ...], Field(min_length=1)] | None = None,
) -> None:
    """Put a question into each of some prompts: roles, false authority, a begun answer.

    Lynch et al. 2024, arXiv:2402.16835, and Jin et al. 2024, arXiv:2406.10890 (RWKU), get
    forgotten answers with jailbreaks of these kinds. The prompts here are our own.

    Args:
        attacked: The model.
        file: YAML file with prompts by name, each with {question} in it. If null, those of the
            package (presets/prefixes.yaml).
        names: Of the prompts that are tried. If null, all.

    Raises:
        BadInput: The file is no such file, or has no prompt of a name.
    """
    prompts = read_prompts(file)
    for name in prompts if names is None else names:
        if name not in prompts:
            raise BadInput(f"attack prefixes: {unknown('prompt', name, prompts)}")
        asked = [
            replace(row.record, question=prompts[name].replace(_QUESTION, row.record.question))
            for row in attacked.rows
            if row.record.kind == "qa"
        ]
        attacked.score_records(name, asked)


def read_prompts(file: str | None) -> dict[str, str]:
    """Prompts by name.

    Args:
        file: A YAML file. If `None`, the package's own.

    Raises:
        BadInput: It is no mapping of names to texts with {question} in them.
    """
    own = files("knowundo") / "presets" / "prefixes.yaml"
    place = "prefixes.yaml" if file is None else file
    if file is not None and not Path(file).is_file():
        raise BadInput(f"attack prefixes: {file}: no such file; check the path")
    text = own.read_text(encoding="utf-8") if file is None else read_text(Path(file))
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{place}: malformed YAML ({first_line(error)}); correct it") from None
    if not isinstance(found, dict) or not found:
        raise BadInput(f"{place}: no mapping of names to prompts; write name: '… {_QUESTION}'")
    for name, prompt in found.items():
        if not isinstance(prompt, str) or _QUESTION not in prompt:
            raise BadInput(f"{place}: {name}: a text with {_QUESTION} in it; correct this prompt")
    return {str(name): prompt for name, prompt in found.items()}
