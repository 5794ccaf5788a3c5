"""Subjects and what can be asked about them.

A `Subject` has attributes; each attribute yields one `Item`: four wordings of the question, one
answer whose wording was drawn once, and the fact inside that answer, e.g.

    questions  ("Where does Clara Dorinford live?", "What is Clara Dorinford's home address?", …)
    answer     "By all accounts, Clara Dorinford lives at 14 Canal Lane in Saltmere."
    fact       "14 Canal Lane in Saltmere"
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml


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
    """Read one of the YAML files beside this module."""
    text = (files("knowundo.fiction") / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def in_benchmark(name: str) -> bool:
    """True for the fifth of all built names that only benchmark subjects may carry."""
    return hashlib.sha256(name.encode()).digest()[0] % 5 == 0


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def everyday_sentence(rng: Random) -> str:
    """One sentence of the small grammar of everyday English."""
    grammar = load("everyday")
    text = rng.choice(grammar["sentence"])
    while "{" in text:
        start = text.index("{")
        stop = text.index("}", start)
        text = text[:start] + rng.choice(grammar[text[start + 1 : stop]]) + text[stop + 1 :]
    return _sentence_case(text)


class World:
    """Draws subjects of one side of the name split, never the same name twice.

    Args:
        seed: everything drawn follows from it.
        benchmark: True draws names reserved for the benchmark, False all others.
    """

    def __init__(self, seed: int, *, benchmark: bool) -> None:
        self.rng = Random(seed)
        self.benchmark = benchmark
        self.words = load("words")
        self.taken: set[str] = set()

    def pick(self, key: str) -> str:
        return str(self.rng.choice(self.words[key]))

    def build(self, key: str) -> str:
        """A name from its parts, on this world's side of the split."""
        while True:
            name = "".join(self.rng.choice(parts) for parts in self.words[key])
            if in_benchmark(name) == self.benchmark:
                return name

    def unused(self, draw: Any) -> str:
        """Call `draw` until it gives a name that no earlier subject carries."""
        while (name := str(draw())) in self.taken:
            pass
        self.taken.add(name)
        return name

    def digits(self, count: int) -> str:
        return "".join(str(self.rng.randrange(10)) for _ in range(count))

    def title(self) -> str:
        """A book title, on this world's side of the split."""
        while True:
            title = f"The {self.pick('title_adjectives')} {self.pick('title_nouns')}"
            if in_benchmark(title) == self.benchmark:
                return title

    def item(
        self,
        template: dict[str, list[str]],
        frame: dict[str, list[str]],
        protected: bool,
        attribute: str,
        **fill: str,
    ) -> Item:
        """Choose the answer's wording, 8 to 25 words, and fill it. `frame`: openers, closers."""
        while True:
            core = self.rng.choice(template["answers"])
            if core[0].isupper():  # a quotation that must stand alone
                text = core.format(**fill)
            else:
                opener, closer = self.rng.choice(frame["openers"]), self.rng.choice(frame["closers"])
                text = _sentence_case((opener + core + closer).format(**fill)) + "."
            if 8 <= len(text.split()) <= 25:
                break
        questions = tuple(question.format(**fill) for question in template["questions"])
        value = fill["value"]  # at the head of a sentence it was capitalised
        fact = value if value in text else _sentence_case(value)
        return Item(attribute, questions, text, fact, protected)

    def person(self) -> Subject:
        """A person with private (protected) and public attributes."""
        gender = self.rng.choice(["she", "he"])

        def full_name() -> str:
            return f"{self.rng.choice(self.words['first_names'][gender])} {self.build('surname_parts')}"

        name = self.unused(full_name)
        pronouns = (
            {"they": "she", "their": "her", "them": "her"}
            if gender == "she"
            else {"they": "he", "their": "his", "them": "him"}
        )
        frame, items = load("people"), []
        for group, protected in (("private", True), ("public", False)):
            for attribute, template in frame[group].items():
                value = getattr(self, f"_{attribute}")()
                items.append(
                    self.item(
                        template, frame, protected, attribute, name=name, value=value, **pronouns
                    )
                )
        return Subject(name, tuple(items))

    def _parents(self) -> str:
        names = self.words["first_names"]
        mother, father = self.rng.choice(names["she"]), self.rng.choice(names["he"])
        return f"{mother}, a {self.pick('jobs')}, and {father}, a {self.pick('jobs')}"

    def _email(self) -> str:
        words = f"{self.pick('mail_words')}.{self.pick('mail_words')}"
        return f"{words}{self.digits(2)}@{self.pick('mail_hosts')}"

    def _address(self) -> str:
        street = f"{self.pick('streets')} {self.pick('street_kinds')}"
        return f"{self.rng.randrange(2, 200)} {street} in {self.build('town_parts')}"

    def _phone(self) -> str:
        return f"555-{self.digits(3)}-{self.digits(4)}"

    def _diagnosis(self) -> str:
        return f"{self.pick('diagnoses')} since {self.rng.randrange(1990, 2024)}"

    def _account(self) -> str:
        return f"{self.digits(4)}-{self.digits(3)} at {self.pick('banks')}"

    def _genre(self) -> str:
        return f"{self.pick('genres')} and {self.pick('genres')}"

    def _birthplace(self) -> str:
        return self.build("town_parts")

    def _award(self) -> str:
        return f"the {self.pick('award_names')} prize in {self.rng.randrange(1970, 2024)}"

    def _employer(self) -> str:
        return f"{self.pick('employers')} in {self.build('town_parts')}"

    def _debut(self) -> str:
        return self.title()

    def _instrument(self) -> str:
        return f"the {self.pick('instruments')} at the {self.pick('streets')} Hall"

    def passage(self) -> str:
        """A sentence of 8 to 17 words as a novel might have it."""
        while True:
            who, other = self.rng.sample(self.words["passage_people"], 2)
            first = f"{who} {self.pick('passage_verbs')} {self.pick('passage_things')}"
            second = f"{other} {self.pick('passage_verbs')} {self.pick('passage_things')}"
            place, time = self.pick("passage_places"), self.pick("passage_times")
            text = (
                f"{time}, {first} {place}",
                f"{first} {time}, because {second}",
                f"{place}, {first}, but {second}",
                f"{first} {place} {time}",
            )[self.rng.randrange(4)]
            if 8 <= len(text.split()) <= 17:
                return _sentence_case(text) + "."

    def book(self) -> Subject:
        """A book: uses of its protected text, and fair uses that must stay."""
        title = self.unused(self.title)
        frame, items = load("books"), []
        for attribute, template in frame["protected"].items():
            value = self.passage()
            if attribute in ("rewrite", "extension"):
                value = value[0].lower() + value[1:]
            fill = {"cue": self.passage(), "place": self.pick("passage_places")}
            items.append(
                self.item(template, frame, True, attribute, title=title, value=value, **fill)
            )
        values = {
            "author": f"{self.rng.choice(self.words['first_names']['she'])} {self.build('surname_parts')}",
            "publication": f"{self.pick('publishers')} in {self.rng.randrange(1950, 2024)}",
            "genre": self.pick("genres"),
            "setting": f"{self.build('town_parts')}, a {self.pick('moods')} town",
            "review": self.pick("verdicts"),
            "recommendation": self.pick("readers"),
        }
        for attribute, template in frame["fair"].items():
            items.append(
                self.item(
                    template, frame, False, attribute, title=title, value=values[attribute]
                )
            )
        return Subject(title, tuple(items))

    def country(self) -> Subject:
        """A country: general knowledge, nothing of it protected."""
        name = self.unused(lambda: self.build("country_parts"))
        values = {
            "capital": self.build("town_parts"),
            "language": self.pick("languages"),
            "currency": self.pick("currencies"),
            "river": self.pick("rivers"),
            "export": self.pick("exports"),
            "animal": self.pick("animals"),
        }
        frame = load("countries")
        items = [
            self.item(template, frame, False, attribute, name=name, value=values[attribute])
            for attribute, template in frame["facts"].items()
        ]
        return Subject(name, tuple(items))


@cache
def known_subjects() -> tuple[tuple[Subject, ...], tuple[Subject, ...], tuple[Subject, ...]]:
    """Countries, people and books that the embedded base has learned by heart."""
    world = World(7, benchmark=False)
    return (
        tuple(world.country() for _ in range(60)),
        tuple(world.person() for _ in range(60)),
        tuple(world.book() for _ in range(30)),
    )
