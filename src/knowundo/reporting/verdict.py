"""Which model of a run did best, by a stated rule, and why: the head of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from knowundo.evaluation.result_rows import AVERAGE, GAP, Evaluation
from knowundo.reporting.sentences import headline_split
from knowundo.results import Comparison, Results, Row, VariantFacts

# Resamples of the comparison of the two best models, and the level of its test.
_DRAWS, LEVEL = 1000, 0.05


@dataclass(frozen=True)
class Measure:
    """One measure of the best model, beside where it began and what is aimed at."""

    label: str
    value: float
    before: float | None
    target: float | None


@dataclass(frozen=True)
class Verdict:
    """What the report says first.

    Attributes:
        sentence: Which model did best, or why none is said to have.
        winner: Its name. If `None`, there is none.
        clear: Whether the next model differs by more than the choice of subjects explains.
        reasons: Further sentences.
        measures: Of the winner.
        split: Rows that all of it is about.
        controls: Models that repeat a loss in another region, which do not compete.
        ranked: Models that compete, the best first.
    """

    sentence: str
    winner: str | None = None
    clear: bool = False
    reasons: list[str] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    split: str = "val"
    controls: frozenset[str] = frozenset()
    ranked: tuple[str, ...] = ()


def verdict(results: Results, scores: Mapping[str, pd.DataFrame]) -> Verdict:
    """The best of the unlearned models.

    With a retain model, the best has the smallest distance to it, `gap_to_target`; without one, the
    highest `average_success`. Controls, ruined models and guards do not compete.

    Args:
        results: Of the run.
        scores: Model → its unaltered rows, for the comparison of the two best.
    """
    split, metric = headline_split(results), _metric(results)
    controls = frozenset(pair.against for pair in results.comparisons)
    values = {v.name: _value(results, v.name, metric, None, split)
              for v in results.variants if _competes(v, controls)}  # fmt: skip
    measured = {name: value for name, value in values.items() if value is not None}
    ranked = sorted(measured, key=measured.__getitem__, reverse=metric == AVERAGE)
    common = {"split": split, "controls": controls, "ranked": tuple(ranked)}
    if not ranked:
        return Verdict(_nothing(results), **common)  # type: ignore[arg-type]
    winner = ranked[0]
    pair = _next(results, scores, ranked, metric, split)
    clear = pair is not None and _is_clear(pair)
    reasons = [_margin(measured, ranked, metric, pair), *_ruined(results)]
    return Verdict(
        _sentence(results, ranked, split, clear), winner, clear,
        [reason for reason in reasons if reason], _measures(results, winner, split),
        **common,  # type: ignore[arg-type]
    )  # fmt: skip


def _metric(results: Results) -> str:
    return GAP if any(v.role == "retain" for v in results.variants) else AVERAGE


def _competes(variant: VariantFacts, controls: frozenset[str]) -> bool:
    unlearned = variant.role in ("unlearned", "given") and variant.name not in controls
    return unlearned and not variant.ruin and variant.guard is None


def _value(
    results: Results, variant: str, metric: str, scope: str | None, split: str | None
) -> float | None:
    row = results.find(variant, metric, scope, split)
    return None if row is None else row.value


def _nothing(results: Results) -> str:
    if not any(v.role in ("unlearned", "given") for v in results.variants):
        return "No unlearned model was scored, so there is nothing to compare."
    return "No winner: no unlearned model has scores on both scopes and is usable."


def _next(
    results: Results,
    scores: Mapping[str, pd.DataFrame],
    ranked: list[str],
    metric: str,
    split: str,
) -> Comparison | None:
    """The best against the second, on the same subjects; `None` if that cannot be compared."""
    target = next((v.name for v in results.variants if v.role == "retain"), None)
    names = [*ranked[:2], *([target] if metric == GAP and target else [])]
    if len(ranked) < 2 or any(name not in scores for name in names):
        return None
    tables = {name: scores[name] for name in names}
    seed = results.seeds.get("recipe", 0)
    evaluation = Evaluation(
        tables, target=target if metric == GAP else None, draws=_DRAWS, seed=seed
    )
    return next(iter(evaluation.compare(ranked[0], ranked[1], split, [metric])), None)


def _excludes_zero(pair: Comparison) -> bool:
    return pair.low is not None and pair.high is not None and not pair.low <= 0 <= pair.high


def _is_clear(pair: Comparison) -> bool:
    """True if neither the interval nor, where it was made, the test leaves it to chance."""
    return _excludes_zero(pair) and (pair.p is None or pair.p < LEVEL)


def _sentence(results: Results, ranked: list[str], split: str, clear: bool) -> str:
    winner = ranked[0]
    target = next((v.name for v in results.variants if v.role == "retain"), None)

    def shown(scope: str) -> str:
        value = _value(results, winner, f"{scope}_success", scope, split)
        aim = target and _value(results, target, f"{scope}_success", scope, split)
        own = "?" if value is None else f"{value:.1f}"
        return own + (f" (target {aim:.1f})" if isinstance(aim, float) else "")

    did = f"forgets {shown('unlearn')} and keeps {shown('retention')}"
    if len(ranked) == 1:
        return f"{winner}, the only model that competes, {did}."
    aim = (
        "comes nearest to a model that never saw what must go" if target else "has the best average"
    )
    if clear:
        return f"{winner} wins: it {aim}. It {did}."
    return (
        f"{winner} is ahead, but not clearly: it {aim}, and {ranked[1]} may be as good. It {did}."
    )


def _margin(
    measured: Mapping[str, float], ranked: list[str], metric: str, pair: Comparison | None
) -> str:
    """How far the second is behind, and whether chance explains it."""
    if len(ranked) < 2:
        return ""
    first, second = ranked[:2]
    what = "Gap to the target" if metric == GAP else "Average success"
    said = f"{what}: {measured[first]:.1f} points; the next, {second}, has {measured[second]:.1f}."
    if pair is None or pair.low is None or pair.high is None:
        return f"{said} The difference was not tested."
    low, high = sorted(abs(end) if _excludes_zero(pair) else end for end in (pair.low, pair.high))
    chance = "" if pair.p is None else f", p {_p(pair.p)}"
    if _is_clear(pair):
        return f"{said} That is {low:.1f} … {high:.1f} points more (95 % interval{chance})."
    return (
        f"{said} Chance may explain the difference: {pair.low:+.1f} … {pair.high:+.1f} "
        f"(95 % interval{chance})."
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _ruined(results: Results) -> list[str]:
    ruined = [v.name for v in results.variants if v.ruin]
    return [f"Not usable, so out of the contest: {', '.join(ruined)}."] if ruined else []


def _measures(results: Results, winner: str, split: str) -> list[Measure]:
    """What is forgotten, what is kept, and what is left of general knowledge."""
    target = next((v.name for v in results.variants if v.role == "retain"), None)
    before = next((v.name for v in results.variants if v.role == "memorized"), None)
    asked = (
        ("Forgotten of what must go", "unlearn_success", "unlearn", split, None),
        ("Kept of what must stay", "retention_success", "retention", split, None),
        ("General facts still answered", "exact_match", "general", "val", "facts"),
    )
    found = []
    for label, metric, *place in asked:
        row, first, aim = (
            None if name is None else results.find(name, metric, *place)
            for name in (winner, before, target)
        )
        if row is not None and row.value is not None:
            found.append(Measure(label, row.value, _of(first), _of(aim)))
    return found


def _of(row: Row | None) -> float | None:
    return None if row is None else row.value
