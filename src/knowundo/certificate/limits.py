"""What a certificate cannot show, and how it answers what authorities ask, point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from knowundo.certificate.evidence import Answer
from knowundo.recipes.yaml import parse_yaml

_ALWAYS = (
    "It speaks of the questions and attacks that were run. Knowledge that none of them reaches may "
    "remain, and whoever has the weights can train it back.",
    "Intervals resample subjects; they do not cover other attacks, other languages or other "
    "formats of the question.",
    "It is no legal opinion: whether a model is anonymous, or a request is fulfilled, is decided "
    "case by case by the controller and the authority.",
    "It binds these files. Copies that were handed out before, and models that were made from "
    "them, are untouched.",
)


def limits_of(answers: Sequence[Answer], criteria: str) -> list[str]:
    """What the evidence cannot show, what was not tested first."""
    said = [f"Not tested: {one.question}" for one in answers if one.state == "not_tested"]
    if criteria == "none":
        said.append("The recipe named no criterion before the run, so no question is passed.")
    if criteria == "not before the run":
        said.append(
            "The model was made before its recipe named these criteria, or under others; they "
            "count as none."
        )
    return [*said, *_ALWAYS]


@dataclass(frozen=True)
class Point:
    """What an authority asks for, and what the certificate has to say of it.

    Attributes:
        source: Who asks, and where.
        asks: What is asked for.
        shows: What the certificate gives.
        questions: Keys of the questions that speak of it.
        cannot: What it cannot show of it.
    """

    source: str
    asks: str
    shows: str
    questions: tuple[str, ...]
    cannot: str


def points() -> list[Point]:
    """What EDPB, CNIL and NIST ask for, in the order of the page."""
    text = (files("knowundo.certificate") / "points.yaml").read_text(encoding="utf-8")
    given: Any = parse_yaml(text, "points.yaml")
    return [Point(**one | {"questions": tuple(one["questions"])}) for one in given]
