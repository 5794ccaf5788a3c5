"""Chat templates: rendering a record, and finding its answer in what was rendered."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, time
from functools import cache
from string import ascii_letters
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from knowundo.data.encoded import RowText
from knowundo.data.records import Record
from knowundo.errors import BadInput

# Placeholder for the answer, to see what a template writes around it. It uses characters of
# Unicode's private use area, so it is in no record, and no template strips it.
_STAND_IN = "\ue000answer\ue000"

# Every possible directive of strftime: a letter after one of the flags of glibc, after "E" or "O"
# (the calendar and digits of the locale), or alone. Longer ones come first, because they are
# replaced one after another.
_DIRECTIVES = tuple(f"%{flag}{c}" for flag in (*"-_0^#EO:", "") for c in ascii_letters)


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if one of the tokenizer's chat templates asks for the current date."""
    given = tokenizer.chat_template or ""
    return any(
        "strftime_now" in t for t in (given.values() if isinstance(given, dict) else [given])
    )


def usable_template(tokenizer: PreTrainedTokenizerBase, today: date) -> str:
    """The chat template, with `today` in place of the current date.

    Raises:
        BadInput: There is no template, or several without a default.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise BadInput(f"{name}: its tokenizer has no chat template; set data.encoding=plain")
    try:
        template = str(tokenizer.get_chat_template())
    except ValueError:
        names = ", ".join(tokenizer.chat_template)
        raise BadInput(
            f"{name}: its tokenizer has several chat templates ({names}) and none of them is the "
            "default; set data.encoding=plain"
        ) from None
    if "strftime_now" not in template:
        return template
    # A macro shadows the function of that name, which transformers does not let us replace. It ends
    # with a newline, which `trim_blocks` removes: the template still begins on its own line, so
    # `lstrip_blocks` and `{%-` treat its first characters as they would without the macro.
    return f"{_clock(today)}\n{template}"


@cache
def _clock(today: date) -> str:
    """The macro `strftime_now(format)`, which writes that day as this machine's strftime does.

    A directive that this machine's strftime does not know stays as it is.
    """
    moment, told = datetime.combine(today, time()), dict[str, str]()
    for directive in _DIRECTIVES:
        with suppress(ValueError):  # not known on this machine
            told[directive] = moment.strftime(directive)
    pairs = [(name, text) for name, text in told.items() if text != name]
    return (
        "{% macro strftime_now(format) %}"
        "{% set told = namespace(text=format|replace('%%', '\ue001')) %}"
        f"{{% for name, text in {pairs!r} %}}"
        "{% set told.text = told.text|replace(name, text) %}{% endfor %}"
        "{{ told.text|replace('\ue001', '%') }}{% endmacro %}"
    )


def rendered(
    record: Record,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    prefix: str,
    system: str | None = None,
) -> RowText:
    """Render a record and locate its answer by what the template writes around a placeholder.

    Searching for the answer itself could find it in a question that repeats it, or in the markup.

    Args:
        record: A question with an answer.
        tokenizer: Whose template it is.
        template: From `usable_template`.
        prefix: Put before the question.
        system: System prompt of a record that has none of its own. If `None`, what the template
            writes by itself.

    Raises:
        BadInput: The template fails on the record, or rewrites its answer.
    """
    name = tokenizer.name_or_path
    asked = (*record.turns, ("user", prefix + record.question))
    if system is not None and asked[0][0] != "system":
        asked = (("system", system), *asked)
    parts = False

    def render(answer: str) -> str:
        said = (*asked, ("assistant", answer))
        turns: list[Any] = [{"role": r, "content": _content(text, parts)} for r, text in said]
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))

    try:
        if _STAND_IN not in render(_STAND_IN):
            # Templates of multimodal models may read only lists of parts.
            parts = True
            parts = _STAND_IN in (shown := render(_STAND_IN)) and "'type': 'text'" not in shown
        text, (before, _, after) = render(record.answer), render(_STAND_IN).rpartition(_STAND_IN)
    except Exception as error:  # a template is a program from elsewhere and may raise anything
        what = "the turns" if record.turns else "question and answer"
        raise BadInput(
            f"{name}: its chat template refuses {what} of {record.id} ({_reason(error)}); set "
            "data.encoding=plain"
        ) from None
    answer = text[len(before) : len(text) - len(after)]
    whole = text == before + answer + after and answer in record.answer
    if not whole or answer.strip() != record.answer.strip():
        raise BadInput(
            f"{record.id}: the chat template of {name} rewrites its answer; "
            "change the answer or set data.encoding=plain"
        )
    start = len(before)
    # Most templates strip the answer, so its facts shift to the left.
    shift = start - record.answer.index(answer)
    return RowText(text, start, start + len(answer), shift, templated=True)


def _content(text: str, parts: bool) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if parts else text


def _reason(error: Exception) -> str:
    """Message of a template's exception; those that are not jinja's need their type's name too."""
    text = str(error).split("\n")[0]
    return text if isinstance(error, TemplateError) else f"{type(error).__name__}: {text}"
