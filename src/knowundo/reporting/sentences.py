"""What the numbers say, in sentences that follow from them by stated rules."""

from __future__ import annotations

from knowundo.evaluation.result_rows import EARLIER
from knowundo.results import Comparison, Results

# Points of Unlearn Success on train rows: twice what the search for a rate is content with.
MATCHED = 12
# Percent of an earlier request's rows that may be answered exactly.
RELAPSE = 5.0


def _value(results: Results, variant: str, metric: str, scope: str | None, split: str) -> float:
    row = results.find(variant, metric, scope, split)
    return float("nan") if row is None or row.value is None else row.value


def _success(results: Results, variant: str) -> str:
    unlearn = _value(results, variant, "unlearn_success", "unlearn", "val")
    retention = _value(results, variant, "retention_success", "retention", "val")
    return f"Unlearn Success {unlearn:.1f}, Retention Success {retention:.1f}"


def _counted(pairs: list[Comparison]) -> tuple[int, int]:
    """How many controls a variant is better and worse than; the 95 % interval must exclude 0."""
    better = worse = 0
    for pair in pairs:
        sign = -1 if pair.metric == "gap_to_target" else 1
        ends = sorted(sign * end for end in (pair.low, pair.high) if end is not None)
        better += bool(ends) and ends[0] > 0
        worse += bool(ends) and ends[-1] < 0
    return better, worse


def matched(results: Results, pair: Comparison) -> bool:
    """True if both forgot the train rows about equally; only then can what is left be compared."""
    forgot = [
        _value(results, name, "unlearn_success", "unlearn", "train")
        for name in (pair.variant, pair.against)
    ]
    return abs(forgot[0] - forgot[1]) <= MATCHED


def _controls(results: Results, located: str, pairs: list[Comparison]) -> str:
    """One sentence on a located region against its controls."""
    regions = {variant.name: variant.region or "" for variant in results.variants}
    fair = [pair for pair in pairs if matched(results, pair)]
    random = [pair for pair in fair if regions[pair.against] != "everything"]
    (better, worse), many = _counted(random), len(random)
    if random and better == many:
        verdict = "the located region did better than every random region of as many parameters"
    elif random:
        verdict = (
            f"no evidence that the located region matters: it did better than {better} and worse "
            f"than {worse} of {many} random regions of as many parameters"
        )
    else:
        verdict = "no verdict on the located region"
    if whole := [pair for pair in fair if regions[pair.against] == "everything"]:
        better, worse = _counted(whole)
        verdict += ", and " + (
            "better than" if better else "worse than" if worse else "no different from"
        )
        verdict += " the same loss everywhere"
    if unfair := [pair.against for pair in pairs if pair not in fair]:
        verdict += (
            f"; not compared, because it forgot the train rows to another degree (by over "
            f"{MATCHED} points): {', '.join(unfair)}"
        )
    name = {"gap_to_target": "Gap to the target", "average_success": "Average success"}
    shown = ", ".join(
        f"{pair.against} {pair.value:+.1f} ({pair.low:+.1f} … {pair.high:+.1f})"
        for pair in fair
        if pair.low is not None and pair.high is not None
    )
    numbers = f" {name[pairs[0].metric]} minus that of each control: {shown}." if shown else ""
    return f"{located}: {verdict}.{numbers}"


def _requests(results: Results) -> list[str]:
    """What is left of earlier erasure requests, in the models that were unlearned further."""
    said = []
    unlearned = {variant.name for variant in results.variants if variant.role == "unlearned"}
    for row in results.rows:
        asked = row.metric == "exact_match" and str(row.subset).startswith(EARLIER)
        if not asked or row.variant not in unlearned or row.value is None:
            continue
        start = results.find("memorized", row.metric, row.scope, row.split, row.subset)
        before = start.value if start is not None and start.value is not None else 0.0
        state = "RELAPSED" if row.value > RELAPSE else "still gone"
        said.append(
            f"{row.variant}, {row.subset} ({row.records} rows): {state}, {row.value:.1f} % "
            f"answered exactly, {before:.1f} before."
        )
    return said


def findings(results: Results) -> list[str]:
    """Sentences for the top of the report."""
    roles = {variant.name: variant.role for variant in results.variants}
    said = []
    if "memorized" in roles:
        said.append(f"Before unlearning: {_success(results, 'memorized')}.")
    if "retain" in roles:
        said.append(
            f"Target, by the retain model that never saw the unlearn scope: "
            f"{_success(results, 'retain')}. Unlearn Success beyond it is overshoot."
        )
    unlearned = [name for name, role in roles.items() if role in ("unlearned", "given")]
    aims = "retain" in roles
    if unlearned and aims:
        near = min(unlearned, key=lambda n: _value(results, n, "gap_to_target", None, "val"))
        said.append(f"Nearest to the target: {near} ({_success(results, near)}).")
    if unlearned:
        best = max(unlearned, key=lambda n: _value(results, n, "average_success", None, "val"))
        said.append(f"Highest average, overshoot included: {best} ({_success(results, best)}).")
    said += [
        f"{v.name} DIVERGED: {v.diverged}; what was kept is its state after step {v.kept_step}."
        for v in results.variants
        if v.diverged
    ]
    said += [f"{v.name} has COLLAPSED: {v.collapsed}." for v in results.variants if v.collapsed]
    said += _requests(results)
    metric = "gap_to_target" if aims else "average_success"
    by_located: dict[str, list[Comparison]] = {}
    for pair in results.comparisons:
        if pair.metric == metric:
            by_located.setdefault(pair.variant, []).append(pair)
    said += [_controls(results, name, pairs) for name, pairs in by_located.items()]
    return said
