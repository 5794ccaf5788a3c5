"""Findings: what tells a model from one that has forgotten, though it may no longer answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from knowundo.certificate.adapters import is_adapter, norm, read_changes, scale_of
from knowundo.certificate.evidence import Finding
from knowundo.certificate.verdict import Scores
from knowundo.modeling.variant import ModelVariant
from knowundo.results import Row, VariantFacts
from knowundo.storage.files import file_hash

# Percent of answers that may be said, and of the way back to the model before from which an answer
# still counts as likely.
SAID, LIKELY = 5.0, 50.0
# Points in which two models may differ everywhere and still be one: the rounding of a batch.
SAME = 0.01


def find_all(variant: ModelVariant, start: ModelVariant, scores: Scores) -> list[Finding]:
    """Everything that speaks against a model's having forgotten.

    Args:
        variant: The model.
        start: The model before unlearning.
        scores: Of the model.
    """
    facts = next(v for v in scores.results.variants if v.name == scores.variant)
    found = [*_told(facts), *_unsaid(scores), *_same_as_base(scores)]
    if variant.guard is None and variant.name != start.name:
        found += _weights(variant.folder, start.folder)
    return found


def _told(facts: VariantFacts) -> Iterator[Finding]:
    """What the run itself found."""
    if facts.guard is not None:
        yield Finding(
            name="guard",
            sentence="It is a guard: the weights behind it are those of the model before, so "
            "whoever runs them without the guard has everything",
        )
    if facts.collapsed is not None:
        yield Finding(name="collapsed", sentence=f"It has collapsed: {facts.collapsed}")


def _unsaid(scores: Scores) -> Iterator[Finding]:
    """Answers that are no longer said, although they are likely: a refusal is trained, no more."""
    for split in ("train", "val", "probe"):
        said, likely = (_row(scores, m, split) for m in ("exact_match", "probability"))
        before = None if said is None else scores.before_value(said)
        left = None if likely is None else scores.way_back(likely, likely.value)
        if said is None or said.value is None or before is None or left is None:
            continue
        if said.value <= SAID < before and left >= LIKELY:
            refuses = _row(scores, "refusal_rate", split)
            how = (
                ""
                if refuses is None or not refuses.value
                else (f"; {refuses.value:.0f} % of the answers are refusals")
            )
            yield Finding(
                name="only_unsaid",
                sentence=f"It no longer says the answers, and still knows them: on {split} rows "
                f"{said.value:.1f} % are said, {before:.1f} % before, and their probability is "
                f"{left:.0f} % of the way back to the model before{how}",
            )
            return


def _row(scores: Scores, metric: str, split: str) -> Row | None:
    return scores.results.find(scores.variant, metric, "unlearn", split)


def _same_as_base(scores: Scores) -> Iterator[Finding]:
    """All scores are those of the base, which never learned what had to stay either."""
    if scores.variant == "base":
        return
    pairs = [
        (row.value, other.value)
        for row in scores.rows
        if row.attack is None
        if (other := _of_base(scores, row)) is not None
    ]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if known and all(abs(a - b) <= SAME for a, b in known):
        yield Finding(
            name="same_as_base",
            sentence="It scores as the base does in every metric: what was learned is switched "
            "off as a whole, and nothing was unlearned",
        )


def _of_base(scores: Scores, row: Row) -> Row | None:
    return scores.results.find("base", row.metric, row.scope, row.split, row.subset)


def _weights(folder: Path | None, start: Path | None) -> Iterator[Finding]:
    """What the files say: nothing was changed, switched off, or only scaled."""
    if folder is None:
        return
    if start is not None and _same_files(folder, start):
        yield Finding(name="unchanged", sentence="Its weights are those of the model before")
        return
    changes = read_changes(folder) if is_adapter(folder) else None
    if changes is None:
        return
    if norm(changes) == 0:
        yield Finding(
            name="switched_off",
            sentence="Its adapter is switched off: the change that it makes to the base is zero, "
            "so nothing was unlearned; the adapter before brings everything back",
        )
        return
    before = read_changes(start) if start is not None and is_adapter(start) else None
    factor = None if before is None else scale_of(changes, before)
    if factor is not None and abs(factor - 1) > SAME:
        yield Finding(
            name="scaled_down",
            sentence=f"Its adapter is that of the model before, scaled by {factor:.3g}: scaled "
            "back it knows everything",
        )


def _same_files(folder: Path, other: Path) -> bool:
    """True if both folders hold the same weights and the same settings of them."""
    names = {f.name for f in folder.glob("*.safetensors")} | {"adapter_config.json"}
    present = [name for name in sorted(names) if (folder / name).is_file()]
    return bool(present) and all(
        (other / name).is_file() and file_hash(folder / name) == file_hash(other / name)
        for name in present
    )
