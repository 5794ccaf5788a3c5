"""What the numbers say, in sentences that follow from them by stated rules."""

from __future__ import annotations

from knowundo.results import Comparison, Results


def _value(results: Results, variant: str, metric: str, scope: str | None, split: str) -> float:
    row = results.find(variant, metric, scope, split)
    return float("nan") if row is None or row.value is None else row.value


def _success(results: Results, variant: str) -> str:
    unlearn = _value(results, variant, "unlearn_success", "unlearn", "val")
    retention = _value(results, variant, "retention_success", "retention", "val")
    return f"Unlearn Success {unlearn:.1f}, Retention Success {retention:.1f}"


def _controls(results: Results, located: str, pairs: list[Comparison]) -> str:
    """One sentence on a located region against its controls.

    A difference counts when its 95 % interval excludes zero.
    """
    regions = {variant.name: variant.region or "" for variant in results.variants}
    random = [pair for pair in pairs if regions[pair.against].startswith("random")]
    better = sum(pair.low is not None and pair.low > 0 for pair in random)
    worse = sum(pair.high is not None and pair.high < 0 for pair in random)
    if better == len(random):
        verdict = "the located region did better than every random region of as many parameters"
    elif better == 0:
        verdict = (
            "there is no evidence that the located region matters: random regions of as many "
            "parameters did as well"
        )
    else:
        verdict = (
            f"the located region did better than {better} of {len(random)} random regions of as "
            "many parameters, which is no clear advantage"
        )
    if worse:
        verdict += f"; {worse} of {len(random)} did better than it"
    shown = ", ".join(
        f"{pair.against} {pair.value:+.1f} ({pair.low:+.1f} … {pair.high:+.1f})"
        for pair in pairs
        if pair.low is not None and pair.high is not None
    )
    return f"{located}: {verdict}. Average success minus that of its controls: {shown}."


def findings(results: Results) -> list[str]:
    """Sentences for the top of the report."""
    roles = {variant.name: variant.role for variant in results.variants}
    said = [f"After memorizing: {_success(results, 'memorized')}."]
    if "retain" in roles:
        said.append(
            f"Target, by the retain model that never saw the unlearn scope: "
            f"{_success(results, 'retain')}. Unlearn Success beyond it is overshoot."
        )
    unlearned = [name for name, role in roles.items() if role == "unlearned"]
    if unlearned:
        best = max(unlearned, key=lambda n: _value(results, n, "average_success", None, "val"))
        said.append(f"Highest average: {best} ({_success(results, best)}).")
    by_located: dict[str, list[Comparison]] = {}
    for pair in results.comparisons:
        by_located.setdefault(pair.variant, []).append(pair)
    said += [_controls(results, name, pairs) for name, pairs in by_located.items()]
    return said
