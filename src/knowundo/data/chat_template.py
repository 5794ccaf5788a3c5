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

# Stands where the answer will, to see what a template writes around it: of Unicode's private use,
# so in no record, and no template strips it.
_STAND_IN = "\ue000answer\ue000"

# Whatever may be a directive of strftime: a letter after one of glibc's flags, or after "E" or "O"
# (the locale's own calendar and digits), or alone. The longer ones are first, as they are replaced
# one after another.
_DIRECTIVES = tuple(f"%{flag}{c}" for flag in (*"-_0^#EO:", "") for c in ascii_letters)


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if one of the tokenizer's chat templates asks which day it is."""
    given = tokenizer.chat_template or ""
    return any(
        "strftime_now" in t for t in (given.values() if isinstance(given, dict) else [given])
    )


def usable_template(tokenizer: PreTrainedTokenizerBase, today: date) -> str:
    """The chat template, with a clock that stands still."""
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
    # A macro shadows the function of that name, which transformers lets nobody replace. It ends
    # with a newline, which transformers' `trim_blocks` removes: so the template begins on a line of
    # its own, where `lstrip_blocks` and `{%-` do with its first characters what they would alone.
    return f"{_clock(today)}\n{template}"


@cache
def _clock(today: date) -> str:
    """The macro `strftime_now(format)`, which writes that day as this machine's strftime does.

    A directive that strftime does not know it leaves as it is, or refuses; so it is left here.
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
    record: Record, tokenizer: PreTrainedTokenizerBase, template: str, prefix: str
) -> RowText:
    """Render, and find the answer between what the template writes around a stand-in for it.

    Searching the answer itself would find it in the question that it repeats, or in the markup.
    """
    name = tokenizer.name_or_path
    asked = (*record.turns, ("user", prefix + record.question))
    parts = False

    def render(answer: str) -> str:
        said = (*asked, ("assistant", answer))
        turns: list[Any] = [{"role": r, "content": _content(text, parts)} for r, text in said]
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))

    try:
        if _STAND_IN not in render(_STAND_IN):
            # Templates of models that also see images may read nothing but lists of parts.
            parts = True
            parts = _STAND_IN in (shown := render(_STAND_IN)) and "'type': 'text'" not in shown
        text, (before, _, after) = render(record.answer), render(_STAND_IN).rpartition(_STAND_IN)
    except Exception as error:  # a template is a program of somebody else's: it may raise anything
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
    # Most templates strip the answer, so its facts move to the left.
    shift = start - record.answer.index(answer)
    return RowText(text, start, start + len(answer), shift, templated=True)


def _content(text: str, parts: bool) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if parts else text


def _reason(error: Exception) -> str:
    """What a template's exception says; other than those of jinja, it needs its name too."""
    text = str(error).split("\n")[0]
    return text if isinstance(error, TemplateError) else f"{type(error).__name__}: {text}"
