"""Types of the values in a recipe."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from knowundo.data.templates import find_template, settle_template
from knowundo.errors import BadInput

# A name that can be a folder's on every system.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Names of the models that every run has beside its variants.
ROLES = ("base", "memorized", "retain")

Split = Literal["train", "val", "probe", "holdout"]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"]
RetainedScope = Literal["retention", "general", "siblings"]


def _different(given: Any) -> Any:
    if isinstance(given, list | tuple) and len({str(scope) for scope in given}) < len(given):
        raise ValueError("a scope is named twice; each gives one row in turn, so name it once")
    return given


RetainedScopes = Annotated[
    RetainedScope | Annotated[tuple[RetainedScope, ...], Field(min_length=1)],
    BeforeValidator(_different),
]
Prefix = Literal["direct", "assistant"]
# Explained in unlearning/original/start.py.
Quirk = Literal[
    "mixed_batches", "fixed_length", "question_labels", "base_labels", "soft_kl",
    "naive_boundary", "end_masked", "reference_dropout", "bfloat16_updates", "whole_steps",
    "padding_labels",
]  # fmt: skip
QUIRKS: tuple[Quirk, ...] = get_args(Quirk)


def _day(given: Any) -> str:
    """A date as ISO text; YAML reads 2025-01-31 as a date and 20250131 as a number.

    Raises:
        ValueError: It is not a date; pydantic adds the key.
    """
    if isinstance(given, datetime):
        given = given.date()
    if isinstance(given, date):
        return given.isoformat()
    try:
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ValueError
        return date.fromisoformat(str(given)).isoformat()
    except ValueError:
        raise ValueError(f"'{given}' is not a date; write a date such as 2025-01-31") from None


Day = Annotated[str, BeforeValidator(_day)]


def _template(given: Any) -> str:
    """The name or the text of a template; the text if a file is named.

    Raises:
        ValueError: There is none; pydantic adds the key.
    """
    if not isinstance(given, str):
        raise ValueError(
            f"{given!r} is not a text; quote a template, since braces and colons mean something in "
            "YAML"
        )
    try:
        return settle_template(given)
    except BadInput as error:
        raise ValueError(str(error)) from None


Template = Annotated[str, BeforeValidator(_template)]


def check_format(encoding: str, template: str | None, system: str | None) -> None:
    """Refuse a template beside a chat template, and one that lacks its system prompt.

    Args:
        encoding: `plain` or `chat`.
        template: Name or text. If `None`, there is none.
        system: System prompt. If `None`, there is none.

    Raises:
        ValueError: Names the key; pydantic adds the section.
    """
    if encoding == "chat":
        if template is not None:
            raise ValueError(
                "template: encoding chat has the tokenizer's own; leave one of the two out"
            )
        return
    form = find_template(template or "plain")
    if form.takes_system and system is None and form.system is None:
        raise ValueError("template: contains {system}; set data.system to what stands there")
