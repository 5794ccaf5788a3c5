"""Templates: the text around a question and its answer, by name, as a text, or in a file.

    "Question: {question} Answer: {answer}"

`{system}` stands for a system prompt. A text after `{answer}` is learned as the end of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from os.path import isfile
from pathlib import Path

import yaml

from knowundo.errors import BadInput, unknown
from knowundo.storage.files import read_text

QUESTION, ANSWER, SYSTEM = "{question}", "{answer}", "{system}"
_PLACEHOLDER = re.compile(r"\{(?:question|system)\}")
# What is written like a placeholder, and may be a misspelt one.
_NAMED = re.compile(r"\{[A-Za-z_]+\}")


@dataclass(frozen=True)
class Template:
    """Text around a question and its answer.

    Attributes:
        before: Text before the answer, with `{question}` and, for a system prompt, `{system}`.
        after: Text after the answer.
        system: System prompt where none is given. If `None`, there is no default.
        summary: One line about a preset, with its source.
    """

    before: str
    after: str = ""
    system: str | None = None
    summary: str = ""

    @property
    def text(self) -> str:
        """The template as it is written, with its placeholders."""
        return self.before + ANSWER + self.after

    @property
    def takes_system(self) -> bool:
        """Whether there is a place for a system prompt."""
        return SYSTEM in self.before

    def prompt(self, question: str, system: str | None = None) -> str:
        """Return all text before the answer.

        Args:
            question: May contain braces, which are no placeholders.
            system: System prompt. If `None`, the template's own.
        """
        told = (self.system if system is None else system) or ""
        values = {QUESTION: question, SYSTEM: told}
        return _PLACEHOLDER.sub(lambda found: values[found[0]], self.before)


def parse_template(text: str, *, system: str | None = None, summary: str = "") -> Template:
    """Read a template.

    Args:
        text: Contains `{question}` and, once and after it, `{answer}`.
        system: As in `Template`.
        summary: As in `Template`.

    Raises:
        BadInput: A placeholder is missing, repeated, misplaced or unknown.
    """
    for name in _NAMED.findall(text):
        if name not in (QUESTION, ANSWER, SYSTEM):
            raise BadInput(
                f"template: unknown placeholder {name}; write {QUESTION}, {ANSWER} and, for a "
                f"system prompt, {SYSTEM}"
            )
    if QUESTION not in text or text.count(ANSWER) != 1:
        raise BadInput(
            f"template '{text}': needs {QUESTION} and, once, {ANSWER}; write both, such as "
            f"'Q: {QUESTION} A: {ANSWER}'"
        )
    before, _, after = text.partition(ANSWER)
    if QUESTION not in before or _PLACEHOLDER.search(after):
        raise BadInput(
            f"template '{text}': {ANSWER} must come after all other placeholders; move it"
        )
    return Template(before, after, system, summary)


@cache
def template_presets() -> dict[str, Template]:
    """Every preset by name, in the order in which formats are tried."""
    text = (files("knowundo") / "presets" / "templates.yaml").read_text(encoding="utf-8")
    return {
        name: parse_template(
            entry["template"], system=entry.get("system"), summary=entry["summary"]
        )
        for name, entry in yaml.safe_load(text).items()
    }


def find_template(given: str) -> Template:
    """The template that a recipe names.

    Args:
        given: Name of a preset, or a text with `{question}` and `{answer}`.

    Raises:
        BadInput: It is neither, or the text is malformed.
    """
    presets = template_presets()
    if given in presets:
        return presets[given]
    if "{" not in given:
        raise unknown("template", given, presets)
    return parse_template(given)


def settle_template(given: str) -> str:
    """The name of a preset, or the text of a template, which may be in a file.

    A run keeps the text, so that it does not change with the file. Line ends at the end of a file
    do not count.

    Args:
        given: Name of a preset, a text with `{question}` and `{answer}`, or a file with one.

    Raises:
        BadInput: It is none of these, or the text is malformed.
    """
    # A text with line ends or braces is no sensible name of a file, and may be too long for one.
    if given not in template_presets() and "{" not in given and isfile(given):
        text = read_text(Path(given)).removeprefix("\ufeff")
        return parse_template(text.rstrip("\r\n")).text
    find_template(given)
    return given
