"""Findings: sentences that follow from the numbers of a run by stated rules."""

from __future__ import annotations

from knowundo.evaluation.result_rows import EARLIER
from knowundo.results import Comparison, Results

# Points of Unlearn Success on train rows within which two models count as equally unlearned: twice
# the tolerance of the search for a learning rate.
MATCHED = 12
# Percent of an earlier request's rows that may be answered exactly.
RELAPSE = 5.0


def _value(
    results: Results, variant: str, metric: str, scope: str | None, split: str
) -> float | None:
    row = results.find(variant, metric, scope, split)
    return None if row is None else row.value


def headline_split(results: Results) -> str:
    """The split that the sentences are about: val, or train if no val row was scored."""
    successes = ("unlearn_success", "retention_success")
    scored = (r for r in results.rows if r.metric in successes and r.value is not None)
    splits = {row.split for row in scored if row.attack is None}
    return "train" if "train" in splits and "val" not in splits else "val"


def _success(results: Results, variant: str, split: str) -> str:
    def shown(scope: str) -> str:
        value = _value(results, variant, f"{scope}_success", scope, split)
        return "not measured" if value is None else f"{value:.1f}"

    return f"Unlearn Success {shown('unlearn')}, Retention Success {shown('retention')}"


def _counted(pairs: list[Comparison]) -> tuple[int, int]:
    """Numbers of controls that are worse and better; the 95 % interval must exclude 0."""
    better = worse = 0
    for pair in pairs:
        sign = -1 if pair.metric == "gap_to_target" else 1
        ends = sorted(sign * end for end in (pair.low, pair.high) if end is not None)
        better += bool(ends) and ends[0] > 0
        worse += bool(ends) and ends[-1] < 0
    return better, worse


def matched(results: Results, pair: Comparison) -> bool:
    """True if both unlearned the train rows about equally; else what is left cannot be compared."""
    first, second = (
        _value(results, name, "unlearn_success", "unlearn", "train")
        for name in (pair.variant, pair.against)
    )
    return first is not None and second is not None and abs(first - second) <= MATCHED


def _controls(results: Results, located: str, pairs: list[Comparison]) -> str:
    """One sentence on a located region against its controls."""
    regions = {variant.name: variant.region or "" for variant in results.variants}
    fair = [pair for pair in pairs if matched(results, pair)]
    verdict = _verdict([pair for pair in fair if regions[pair.against] != "everything"])
    if whole := [pair for pair in fair if regions[pair.against] == "everything"]:
        better, worse = _counted(whole)
        verdict += ", and " + (
            "better than" if better else "worse than" if worse else "no different from"
        )
        verdict += " the same loss everywhere"
    if unfair := [pair.against for pair in pairs if pair not in fair]:
        verdict += (
            f"; not compared, because it unlearned the train rows to another degree (by over "
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


def _verdict(random: list[Comparison]) -> str:
    """What random regions of the same number of parameters say of a located one."""
    (better, worse), many = _counted(random), len(random)
    if not random:
        return "no verdict on the located region"
    if better == many:
        return "the located region did better than every random region of as many parameters"
    return (
        f"no evidence that the located region matters: it did better than {better} and worse "
        f"than {worse} of {many} random regions of as many parameters"
    )


def _requests(results: Results) -> list[str]:
    """What the models that were unlearned further still know of earlier erasure requests."""
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
    """Sentences for the top of the report, the most important first."""
    roles = {variant.name: variant.role for variant in results.variants}
    split = headline_split(results)
    aims = "retain" in roles
    said = []
    if split != "val":
        said.append(
            "The benchmark has no val rows, so nothing is known of questions that no training saw: "
            f"the figures below are of {split} rows."
        )
    if "memorized" in roles:
        said.append(f"Before unlearning: {_success(results, 'memorized', split)}.")
    if aims:
        said.append(
            f"Target, by the retain model that never saw the unlearn scope: "
            f"{_success(results, 'retain', split)}. Unlearn Success beyond it is overshoot."
        )
    said += _best(results, split, aims=aims)
    said += [
        f"{v.name} DIVERGED: {v.diverged}; its weights after step {v.kept_step} were scored."
        for v in results.variants
        if v.diverged
    ]
    said += [f"{v.name} has COLLAPSED: {v.collapsed}." for v in results.variants if v.collapsed]
    said += [
        f"{v.name} is a guard ({v.method}): its weights are those of the memorized model and still "
        "hold the unlearn scope; whoever can run them without the guard has all of it."
        for v in results.variants
        if v.guard is not None
    ]
    said += _requests(results)
    metric = "gap_to_target" if aims else "average_success"
    by_located: dict[str, list[Comparison]] = {}
    for pair in results.comparisons:
        if pair.metric == metric:
            by_located.setdefault(pair.variant, []).append(pair)
    said += [_controls(results, name, pairs) for name, pairs in by_located.items()]
    return said


def _best(results: Results, split: str, *, aims: bool) -> list[str]:
    """The unlearned models that are nearest to the target, and highest on average."""
    unlearned = [v.name for v in results.variants if v.role in ("unlearned", "given")]

    def measured(metric: str) -> dict[str, float]:
        values = {name: _value(results, name, metric, None, split) for name in unlearned}
        return {name: value for name, value in values.items() if value is not None}

    said = []
    if aims and (gaps := measured("gap_to_target")):
        near = min(gaps, key=gaps.__getitem__)
        said.append(f"Nearest to the target: {near} ({_success(results, near, split)}).")
    if averages := measured("average_success"):
        best = max(averages, key=averages.__getitem__)
        success = _success(results, best, split)
        said.append(f"Highest average, overshoot included: {best} ({success}).")
    return said
