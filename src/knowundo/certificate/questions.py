"""The questions of a certificate: which rows of results.json belong to each.

Rows are found by the names of attacks and metrics, so that an attack or a metric which was not run
leaves its question untested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knowundo.results import Row

# Steps of relearning, and bits of quantization, that the certificate asks about.
RELEARNING_STEPS = 50
FOUR_BITS = re.compile(r"\b(int4|nf4|fp4)\b", re.IGNORECASE)
_STEPS = re.compile(r"(\d+) steps?\b")
# Splits of rows that the memorized model knows; nobody knows holdout rows.
_KNOWN = ("train", "val", "probe")
# Attacks that ask the same thing in other words.
_WORDINGS = ("rewording", "prefixes", "direct prompt", "assistant prompt")
_OWN = ("sampling", "relearning", "quantization", "scaling")


@dataclass(frozen=True)
class Question:
    """One question of the certificate.

    Attributes:
        key: Its key in the recipe's section `acceptance`.
        text: The question.
        belongs: Whether a row of the model speaks of it.
        lacking: What was not tested although such rows are there, in words; empty if nothing.
        sample: Whether the rows stand for others; the list itself is all there is to ask.
    """

    key: str
    text: str
    belongs: Callable[[Row], bool]
    lacking: Callable[[Sequence[Row]], str] = lambda rows: ""
    sample: bool = True


def attack_name(row: Row) -> str | None:
    """Name of the attack on a row, without its setting; `None` if there was none."""
    return None if row.attack is None else row.attack.split(":")[0].strip()


def _plain(scope: str, *splits: str) -> Callable[[Row], bool]:
    """Rows of a scope as they are."""

    def belongs(row: Row) -> bool:
        whole = row.subset is None and row.attack is None
        return whole and row.scope == scope and row.split in splits

    return belongs


def _attacked(*names: str) -> Callable[[Row], bool]:
    """Rows of the unlearn scope under an attack."""

    def belongs(row: Row) -> bool:
        hit = attack_name(row) in names and relearning_steps(row) != 0
        return hit and row.scope == "unlearn" and row.subset is None and row.split in _KNOWN

    return belongs


def _reworded(row: Row) -> bool:
    return _plain("unlearn", "val", "probe")(row) or _attacked(*_WORDINGS)(row)


def _elsewhere(row: Row) -> bool:
    name = attack_name(row)
    known = row.scope == "unlearn" and row.subset is None and row.split in _KNOWN
    return known and name is not None and name not in (*_WORDINGS, *_OWN)


def _membership(row: Row) -> bool:
    # Such metrics compare two splits, so that only their name says what they are.
    return row.attack is None and row.subset is None and row.scope in ("unlearn", None)


def relearning_steps(row: Row) -> int | None:
    """Optimizer steps of the attack `relearning`; `None` for another row."""
    found = _STEPS.search(row.attack or "") if attack_name(row) == "relearning" else None
    return None if found is None else int(found[1])


def _too_few_steps(rows: Sequence[Row]) -> str:
    most = max((relearning_steps(row) or 0 for row in rows), default=0)
    return f"only up to {most} steps" if most < RELEARNING_STEPS else ""


def _no_four_bits(rows: Sequence[Row]) -> str:
    tried = {row.attack or "" for row in rows}
    four = any(FOUR_BITS.search(name) for name in tried)
    return "" if four else f"not with 4 bits, only {', '.join(sorted(tried))}"


QUESTIONS = (
    Question(
        "asked",
        "Is it forgotten in the asked wording?",
        _plain("unlearn", "train"),
        sample=False,
    ),
    Question("reworded", "Is it forgotten in rewordings?", _reworded),
    Question(
        "latent",
        "Is it gone, and not only left unsaid?",
        _plain("unlearn", *_KNOWN),
    ),
    Question("sampling", "Is it forgotten under sampling?", _attacked("sampling")),
    Question(
        "relearning",
        f"Does it stay forgotten over {RELEARNING_STEPS} steps of relearning?",
        _attacked("relearning"),
        _too_few_steps,
    ),
    Question(
        "quantization",
        "Does it stay forgotten after quantization to 4 bits?",
        _attacked("quantization"),
        _no_four_bits,
    ),
    Question(
        "scaling",
        "Does it stay forgotten when the change of the weights is scaled?",
        _attacked("scaling"),
    ),
    Question("other_attacks", "Does it stay forgotten under every other attack?", _elsewhere),
    Question(
        "membership",
        "Do membership attacks see no difference from holdout rows?",
        _membership,
    ),
    Question("retention", "Is the retention scope intact?", _plain("retention", *_KNOWN)),
    Question("general", "Is general knowledge intact?", _plain("general", *_KNOWN)),
)
