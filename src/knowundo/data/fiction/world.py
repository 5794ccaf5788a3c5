"""Subjects and what can be asked about them.

A `Subject` has attributes; each attribute yields one `Item`: four wordings of the question, one
answer whose wording was drawn once, and the fact inside that answer, e.g.

    questions  ("Where does Clara Dorinford live?", "What is Clara Dorinford's home address?", …)
    answer     "The old porter confirms that she lives at 14 Canal Lane in Saltmere."
    fact       "14 Canal Lane in Saltmere"

Everything is drawn from a small grammar in the YAML files next to this module. Answers are drawn
from so many wordings that a model which never saw the subject cannot guess most of their tokens.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml

_SYMBOL = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Item:
    """One thing that can be asked about a subject."""

    attribute: str
    questions: tuple[str, ...]
    answer: str
    fact: str
    protected: bool


@dataclass(frozen=True)
class Subject:
    """A person, a book or a country, with everything that can be asked about it."""

    name: str
    items: tuple[Item, ...]


@cache
def load(name: str) -> dict[str, Any]:
    """Read one of the YAML files next to this module."""
    text = (files("knowundo.data.fiction") / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def in_benchmark(name: str) -> bool:
    """True for the fifth of all built names that only benchmark subjects may carry."""
    return hashlib.sha256(name.encode()).digest()[0] % 5 == 0


def sentence_case(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[0].upper() + text[1:]


def everyday_sentence(rng: Random) -> str:
    """One sentence of the small grammar of everyday English."""
    grammar = load("everyday")
    text = rng.choice(grammar["sentence"])
    while symbol := _SYMBOL.search(text):
        text = text[: symbol.start()] + rng.choice(grammar[symbol[1]]) + text[symbol.end() :]
    return sentence_case(text)


class World:
    """Draws subjects from one side of the name split, never the same name twice.

    Args:
        seed: Determines everything that is drawn.
        benchmark: Whether to draw the names reserved for the benchmark, or all others.
    """

    def __init__(self, seed: int, *, benchmark: bool) -> None:
        self.rng = Random(seed)
        self.benchmark = benchmark
        self.words = load("words")
        self.taken: set[str] = set()

    def build(self, symbol: str) -> str:
        """A name from its parts, on this world's side of the split."""
        while True:
            name = "".join(self.rng.choice(parts) for parts in self.words["parts"][symbol])
            if in_benchmark(name) == self.benchmark:
                return name

    def expand(self, text: str, **fixed: str) -> str:
        """Replace every symbol in braces: by what is fixed, a built name, or a drawn line."""

        def draw(symbol: re.Match[str]) -> str:
            name = symbol[1]
            if name in fixed:
                return fixed[name]
            if name in self.words["parts"]:
                return self.build(name)
            return self.expand(self.rng.choice(self.words[name]), **fixed)

        return _SYMBOL.sub(draw, text)

    def item(self, attribute: str, template: dict[str, Any], protected: bool, **fixed: str) -> Item:
        """Draw the fact, and the wording of the answer around it, 8 to 25 words."""
        fixed |= {"value": self.expand(template["value"], **fixed)}
        if template["value"] == "{passage}":
            fixed["value"] = sentence_case(fixed["value"])
        fixed |= {"cue": sentence_case(self.expand("{passage}")), "scene": self.expand("{scene}")}
        while True:
            core = self.rng.choice(template["answers"])
            # A capital begins a quotation, which must be a sentence of its own.
            frame = core if core[0].isupper() else f"{{opener}}{core}{{closer}}."
            text = sentence_case(self.expand(frame, **fixed))
            if 8 <= len(text.split()) <= 25:
                break
        questions = tuple(question.format(**fixed) for question in template["questions"])
        value = fixed["value"]  # at the head of a sentence it was capitalised
        fact = value if value in text else sentence_case(value)
        return Item(attribute, questions, text, fact, protected)

    def subject(self, draw: str, frame: dict[str, Any], **fixed: str) -> Subject:
        """A subject whose name, drawn from the symbols `draw`, no earlier one carries.

        Args:
            draw: the name, e.g. "{mother} {surname}".
            frame: groups of attributes, as in `people.yaml`.
            fixed: further symbols with one value.
        """
        while (name := self.expand(draw)) in self.taken:
            pass
        self.taken.add(name)
        items = [
            self.item(attribute, template, group in ("private", "protected"), name=name, **fixed)
            for group, attributes in frame.items()
            for attribute, template in attributes.items()
        ]
        return Subject(name, tuple(items))

    def person(self) -> Subject:
        """A person with private (protected) and public attributes."""
        if self.rng.random() < 0.5:
            first, pronouns = "mother", {"they": "she", "their": "her", "them": "her"}
        else:
            first, pronouns = "father", {"they": "he", "their": "his", "them": "him"}
        return self.subject(f"{{{first}}} {{surname}}", load("people"), **pronouns)

    def book(self) -> Subject:
        """A book: uses of its protected text, and fair uses that must stay."""
        return self.subject("{title}", load("books"))

    def country(self) -> Subject:
        """A country: general knowledge, nothing of it protected."""
        return self.subject("{country}", load("countries"))


@cache
def known_subjects() -> tuple[tuple[Subject, ...], tuple[Subject, ...], tuple[Subject, ...]]:
    """Countries, people and books that the embedded base has memorized."""
    world = World(7, benchmark=False)
    return (
        tuple(world.country() for _ in range(40)),
        tuple(world.person() for _ in range(40)),
        tuple(world.book() for _ in range(20)),
    )
